"""The seam: tasks and messages in plain text, and what a backlog does with what it hears."""

import ast
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ablations.engines.engine import Backlog, Task, child_variables, parse_message

ROOT = Path(__file__).parents[2]
TASK = Task(
    study="depth", study_hash="h", preset="smoke", dataset=None, model="resnet8", data_root="/d",
    device="cuda", results="/r", arm="plain", block=3, expect="t1/s1", ranks=2,
    checkpoint_every=7, lease=1.5,
)  # fmt: skip
A, B, C = (replace(TASK, arm=arm, expect=f"{arm}/s1") for arm in "abc")


@pytest.fixture
def said(make_said):
    return make_said()


@pytest.fixture
def backlog(said):
    return Backlog.of([A, B, C], said, said, look_every=0.0)


def test_a_task_survives_text():
    assert Task.from_json(TASK.to_json()) == TASK
    assert "\n" not in replace(TASK, study="a\nb").to_json()
    assert (TASK.trial, TASK.stratum, TASK.name) == ("t1", "s1", "plain block 3")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"study": "depth"}', "nonsense"])
def test_what_is_no_task_is_refused(text):
    with pytest.raises(ValueError):
        Task.from_json(text)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "noise",
        "3",
        "[]",
        '"finished"',
        "{}",
        '{"epoch": 1}',
        '{"finished": {}, "held": "x"}',
        '{"shutdown": 1}',
        "[" * 10000,
    ],
)
def test_what_a_layer_prints_is_no_message(line):
    assert parse_message(line) is None


def test_messages_are_read():
    assert parse_message('{"epoch": 1, "values": {}}\n') == {"epoch": 1, "values": {}}
    assert parse_message('{"held": "who"}') == {"held": "who"}


def test_tasks_are_given_out_in_order_and_end(backlog, said):
    assert [backlog.next(), backlog.next(), backlog.next(), backlog.next()] == [A, B, C, None]
    assert backlog.open
    for task in (B, A, C):
        backlog.heard(task, {"epoch": 0, "values": {}})
        backlog.heard(task, {"finished": {}})
    assert not backlog.open
    assert backlog.outcome().num_done == 3
    assert said.heard_of[:2] == [("b", "epoch", "values"), ("b", "finished")]


def test_a_lost_process_costs_an_attempt_and_the_second_the_trial(backlog, said):
    assert backlog.next() == A
    backlog.heard(A, {"lost": "signal 9"})
    assert said.heard_of == [("a", "retried")]
    assert backlog.next() == A, "it was the first, and is so again"
    backlog.heard(A, {"lost": "signal 11"})
    assert backlog.next() == B
    assert said.heard_of == [("a", "retried"), ("a", "failed")]
    assert "signal 11" in said.failures[A]
    assert backlog.outcome().failed == {A: said.failures[A]}


@pytest.mark.parametrize("retries", [0, 3])
def test_attempts_are_as_many_as_told(said, retries):
    backlog = Backlog.of([A], said, said, retries=retries)
    for _ in range(retries + 1):
        assert backlog.next() == A
        backlog.heard(A, {"lost": "gone"})
    assert not backlog.open
    assert list(backlog.failed) == [A]


def test_a_failure_is_not_tried_again(backlog, said):
    assert backlog.next() == A
    backlog.heard(A, {"failed": "Traceback"})
    assert [backlog.next(), backlog.next(), backlog.next()] == [B, C, None]
    assert backlog.outcome().failed == {A: "Traceback"}
    assert said.failures == {}, "who ran it has noted it"


def test_what_another_one_holds_is_asked_for_until_it_is_recorded(backlog, said):
    for task in (A, B, C):
        assert backlog.next() == task
    backlog.heard(A, {"held": "other"})
    backlog.heard(B, {"finished": {}})
    backlog.heard(C, {"finished": {}})
    assert backlog.open
    assert backlog.next() is None
    assert backlog.open
    said.states[A] = "recorded"
    assert backlog.next() is None
    assert not backlog.open
    assert backlog.num_done == 3
    assert said.heard_of[-1] == ("a", "recorded")


def test_what_a_dead_one_held_is_given_out(backlog, said):
    for task in (A, B, C):
        assert backlog.next() == task
    backlog.heard(B, {"held": "other"})
    said.states[B] = "free"
    assert backlog.next() == B
    assert backlog.next() is None
    assert backlog.losses == {}, "that one's death is no attempt of ours"


def test_held_trials_are_looked_at_now_and_then(said):
    looks = []
    backlog = Backlog.of([A], said, said, look_every=1000.0)
    said.look = lambda task: looks.append(task) or "held"
    backlog.next()
    backlog.heard(A, {"held": "other"})
    assert [backlog.next() for _ in range(3)] == [None] * 3
    assert looks == []


def test_what_is_stopped_is_left(backlog):
    backlog.next()
    backlog.next()
    backlog.heard(B, {"held": "other"})
    backlog.heard(A, {"stopped": 7})
    assert set(backlog.outcome().left) == {A, B, C}


def test_a_child_finds_the_package_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/before")
    found = child_variables(3)
    assert found["PYTHONPATH"].split(os.pathsep)[1:] == ["/before"]
    assert found["OMP_NUM_THREADS"] == found["MKL_NUM_THREADS"] == "3"
    code = "import ablations.engines.engine as e; print(e.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, **found},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert Path(done.stdout.strip()).is_relative_to(Path(__file__).parents[2])


@pytest.mark.parametrize("path", ["engines", "trial.py", "worker.py", "ranks.py", "serving.py"])
def test_what_runs_trials_knows_no_layer(path):
    """Whatever is compared, it is run alike: the layers come with the study."""
    ours = ROOT / "ablations" / path
    imported = {
        name
        for file in ([ours] if ours.suffix else ours.glob("*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else []
        )
    }
    assert imported, "it imports nothing"
    known = ("overconv.operators", "overconv.gates", "overconv.functional", "overconv.models")
    assert not [name for name in imported if name == "overconv" or name.startswith(known)]
