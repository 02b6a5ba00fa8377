"""Killed at each call of the system: nothing lost, nothing doubled, nobody waited for."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def deaths(tmp_path):
    """What was found after each death of a process at an operation, and at last after none."""

    def deaths(operation):
        command = [sys.executable, str(Path(__file__).with_name("killed.py")), tmp_path, operation]
        environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
        run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
        assert run.returncode == 0, run.stderr
        found = [json.loads(line) for line in run.stdout.splitlines()]
        assert [death["died"] for death in found] == [True] * (len(found) - 1) + [False]
        return found

    return deaths


def is_temporary(name):
    return name.startswith(".record.json.") and name.endswith(".tmp")


# The least number of calls is what each operation is known to make: a file that is opened, written,
# synced, closed, linked and unlinked, and its folders. Fewer would mean that some go unseen.
@pytest.mark.parametrize(
    ("operation", "least"),
    [
        ("claim", 11),
        ("claim after the dead", 8),
        ("beat", 11 + 2 * 5),
        ("release", 11 + 5),
        ("publish", 11),
        ("finish", 9 + 10 + 8),
        ("fail", 9 + 10 + 5),
    ],
)
def test_whoever_comes_after_the_dead_goes_on(operation, least, deaths):
    found = deaths(operation)
    assert len(found) - 1 >= least
    for death in found:
        assert death["records"] == [True], f"lost, doubled or damaged: {death}"
        left = [name for name in death["left"] if not is_temporary(name)]
        assert left == ["failures"] * (operation == "fail" and "failures" in left) + [
            "record.json"
        ], f"left behind: {death}"
        # Who finds no record takes the trial at once, whatever the dead one held.
        assert death["took"] == (death["records_before"] == []), death
        if death["took"]:
            assert death["published"] == "new"


def test_a_record_is_out_from_one_call_on(deaths):
    """Before its link there is none, after it there is; only the clean-up is left to others."""
    found = deaths("finish")
    outs = [death["records_before"] for death in found]
    first = outs.index([True])
    assert first > 0 and outs == [[]] * first + [[True]] * (len(outs) - first)
    assert [death["swept"] for death in found[first:]][0] == 1
    assert found[-1]["swept"] == 0, "who is not killed cleans up himself"


def test_a_claim_is_held_from_one_call_on(deaths):
    found = deaths("claim after the dead")
    generations = [death["generation"] for death in found]
    assert generations == sorted(generations) and set(generations) == {2, 3}


def test_no_temporary_is_left_by_who_is_not_killed(deaths):
    assert deaths("finish")[-1]["left"] == ["record.json"]
