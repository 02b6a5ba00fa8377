"""Workers and launchers that are killed, stopped or starved: real processes, so these are slow."""

import contextlib
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from records.store import Store

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
PATIENCE = 900  # seconds; a test machine may be busy


def records(results: Path) -> dict[str, bytes]:
    return {record.trial: record.compared() for record in Store(results).records()}


def wait_until(condition, what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.01)


def end(process) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def workers_of(launcher: subprocess.Popen) -> list[int]:
    """The children of a launcher that run trials."""
    return [pid for pid in family_of(launcher) if b"worker" in command_of(pid)]


def command_of(pid: int) -> list[bytes]:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return []


def family_of(launcher: subprocess.Popen) -> list[int]:
    """Its children, their children, and so on."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(folder.name)] = int(
                (folder / "stat").read_text().rpartition(")")[2].split()[1]
            )
    found = [launcher.pid]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]


def is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


@pytest.fixture
def launch(command, long_study, tmp_path):
    """Starts a run of the four long trials, here of two epochs each, with two workers."""
    study = long_study(2)

    def start(*more: str, results: str = "results", workers: int = 2, study: Path = study):
        return command(
            "run", study, "--model", "mobilenetv2", "--seeds", 1, "--results", tmp_path / results,
            "--workers", workers, "--checkpoint-every", 4, *more,
        )  # fmt: skip

    return start


def begun(results: Path, number: int = 1) -> bool:
    return len(list(results.glob("trials/*/*/checkpoints/*.checkpoint"))) >= number


def test_a_worker_that_is_killed_once(launch, tmp_path):
    """Its trial is taken up where it was; nobody has to start anything again."""
    results = tmp_path / "results"
    run = launch()
    wait_until(lambda: begun(results, 3), "checkpoints")
    os.kill(workers_of(run)[0], signal.SIGKILL)
    status, _, err = end(run)
    assert status == 0, err
    assert "SIGKILL (perhaps out of memory)" in err
    assert "taken up from its checkpoint at step" in err
    assert len(records(results)) == 4
    assert not list(results.glob("trials/*/*/[cf]*")), "no claim, checkpoint or failure is left"


def test_a_trial_that_kills_its_worker_each_time(command, short_study, tmp_path):
    """As the kernel does when memory runs out: the trial fails, the others do not."""
    body = "def happen():\n    import os, signal\n    os.kill(os.getpid(), signal.SIGKILL)"
    results = tmp_path / "results"
    study = short_study(body)
    status, _, err = end(command("run", study, "--seeds", 1, "--results", results, "--workers", 2))
    assert status == 1
    assert "failed: faulty block 0: " in err
    assert "SIGKILL (perhaps out of memory)" in err
    assert len(records(results)) == 2
    status, out, _ = end(command("status", "--results", results))
    assert status == 0
    assert "failed  faulty block 0: " in out


def test_a_launcher_that_is_killed(launch, tmp_path):
    """Its workers keep a checkpoint and leave; the next launcher takes up what they were at."""
    results = tmp_path / "results"
    run = launch()
    wait_until(lambda: begun(results, 2), "checkpoints")
    workers = workers_of(run)
    assert len(workers) == 2
    os.kill(run.pid, signal.SIGKILL)
    wait_until(lambda: not any(map(is_alive, workers)), "orphans that leave")
    assert begun(results)
    assert not list(results.glob("trials/*/*/failures")), "nothing failed"
    again = launch()
    status, _, err = end(again)
    assert status == 0, err
    assert "taken up from its checkpoint at step" in err
    assert len(records(results)) == 4


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_launcher_that_is_asked_to_stop(launch, tmp_path, number, expected):
    """Its workers keep a checkpoint, and it waits for them."""
    results = tmp_path / "results"
    run = launch()
    wait_until(lambda: begun(results, 2), "checkpoints")
    workers = workers_of(run)
    os.kill(run.pid, number)
    status, _, err = end(run)
    assert status == expected
    assert "stopping: " in err
    assert not any(map(is_alive, workers))
    assert begun(results)
    assert not list(results.glob("trials/*/*/failures")), "nothing failed"


def test_a_second_signal_is_obeyed_at_once(launch, tmp_path):
    results = tmp_path / "results"
    run = launch()
    wait_until(lambda: begun(results, 2), "checkpoints")
    workers = workers_of(run)
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)  # they cannot leave by themselves
    os.kill(run.pid, signal.SIGINT)
    time.sleep(1)
    assert run.poll() is None
    os.kill(run.pid, signal.SIGINT)
    assert end(run)[0] == 130
    wait_until(lambda: not any(map(is_alive, workers)), "workers that are ended")


def test_a_holder_that_sleeps_longer_than_its_lease(command, long_study, tmp_path):
    """Another launcher takes its trial; when it wakes it sees that, and nothing is doubled."""
    results, study = tmp_path / "results", long_study(2)

    def start():
        return command(
            "run", study, "--model", "mobilenetv2", "--seeds", 1, "--results", results,
            "--arms", "plain", "--checkpoint-every", 4, "--lease", 3,
        )  # fmt: skip

    first = start()
    wait_until(lambda: begun(results), "a checkpoint")
    os.kill(first.pid, signal.SIGSTOP)
    second = start()
    wait_until(lambda: len(records(results)) == 1, "the other to finish")
    os.kill(first.pid, signal.SIGCONT)
    for run in (first, second):
        status, out, err = end(run)
        assert status == 0, out + err
    assert len(records(results)) == 1
    assert not list(results.glob("trials/*/*/record.conflict-*"))
    assert not list(results.glob("trials/*/*/c*")), "claims and checkpoints are gone"


@pytest.mark.parametrize("victim", ["launcher", "a rank"])
def test_processes_that_share_a_batch(launch, tmp_path, victim):
    """Ranks whose launcher is killed leave with a checkpoint; a rank that is killed takes the
    others with it, and the trial is tried once more."""
    results = tmp_path / "results"
    run = launch("--ranks", "2", "--arms", "mixed", workers=1)
    wait_until(lambda: begun(results), "a checkpoint")
    ranks = [pid for pid in family_of(run) if b"trial" in command_of(pid)]
    launched = [pid for pid in ranks if b"torch.distributed.run" not in command_of(pid)]
    assert len(launched) == 2
    os.kill(run.pid if victim == "launcher" else launched[1], signal.SIGKILL)
    if victim == "launcher":
        wait_until(lambda: not any(map(is_alive, ranks)), "ranks that leave")
        run = launch("--ranks", "2", "--arms", "mixed", workers=1)
    status, _, err = end(run)
    assert status == 0, err
    assert "taken up from its checkpoint at step" in err
    assert victim == "launcher" or "one of its ranks is gone; tried once more" in err
    assert not list(results.glob("trials/*/*/failures")), "nothing failed"
    [found] = records(results).values()
    whole = launch("--ranks", "2", "--arms", "mixed", workers=1, results="undisturbed")
    assert end(whole)[0] == 0
    assert [found] == list(records(tmp_path / "undisturbed").values())


def script(name: str) -> SimpleNamespace:
    """The names of a script of this folder, whose neighbours it finds."""
    sys.path.insert(0, str(HERE))
    try:
        return SimpleNamespace(**runpy.run_path(str(HERE / name)))
    finally:
        sys.path.remove(str(HERE))


def test_random_kills(long_study, tmp_path):
    """As measured with 60 kills of longer trials: see docs/faults.md."""
    into = tmp_path / "kills.json"
    status = script("kill_trials.py").main(
        ["--study", str(long_study(2)), "--kills", "4", "--blocks", "1", "--into", str(into)]
    )
    report = json.loads(into.read_text())
    assert status == 0, report
    assert report["kills"] == 4
    assert (report["lost"], report["doubled"], report["different"]) == (0, 0, 0)


def test_four_launchers_two_killed(long_study, tmp_path):
    into = tmp_path / "shared.json"
    status = script("share_trials.py").main(
        ["--study", str(long_study(2)), "--blocks", "1", "--trials", "4", "--between", "3", "12",
         "--every", "4", "--into", str(into)]
    )  # fmt: skip
    report = json.loads(into.read_text())
    assert status == 0, report
    assert report["records"] == 4
