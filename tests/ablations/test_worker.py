"""The trial function: what it says and leaves behind, whatever befalls the trial."""

import itertools
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ablations import files, worker
from ablations.engines.engine import LAST, Task, child_variables
from ablations.setting import open_study
from ablations.worker import run_task
from records.lease import claim
from records.record import digest
from records.store import NondeterminismError, Store


@pytest.fixture(scope="module")
def small(study_text, tmp_path_factory):
    """One file for all tests, so that the study is resolved once."""
    path = tmp_path_factory.mktemp("study") / "study_of_the_worker.py"
    path.write_text(study_text)
    return path


@pytest.fixture
def task(small, tmp_path) -> Task:
    """A trial of the small study: its second arm, in block 1."""
    return make_task(small, tmp_path / "results")


def make_task(study_file, results, **changes) -> Task:
    values = {"study": str(study_file), "study_hash": files.file_hash(str(study_file))}
    task = Task(
        **values, preset="smoke", results=str(results), arm="gated", block=1, expect="",
        checkpoint_every=5,
    )  # fmt: skip
    task = replace(task, **changes)
    opened = open_study(
        **values, preset="smoke", dataset=None, model=None, data_root=None, device="cpu",
        ranks=task.ranks, needs_data=True,
    )  # fmt: skip
    trial = opened.cells([task.arm])[task.arm].trial(task.block)
    return replace(task, expect=f"{trial}/{digest(opened.environment)}")


def go(task, stop=lambda: False) -> list[dict]:
    said: list[dict] = []
    run_task(task, said.append, stop)
    assert [not LAST.isdisjoint(message) for message in said] == [False] * (len(said) - 1) + [True]
    return said


def record(task):
    return Store(task.results).get(task.trial, task.stratum)


def left_behind(task) -> set[str]:
    return {path.name for path in Store(task.results).folder(task.trial, task.stratum).iterdir()}


def asked_at(step: int):
    """Asks to stop when it is asked for the ``step``-th time."""
    counter = itertools.count(1)
    return lambda: next(counter) >= step


def test_a_trial_is_trained_published_and_tidied(task):
    [epoch, finished] = go(task)
    assert epoch["epoch"] == 0
    assert finished["finished"]["train_loss"] == record(task).metrics["train_loss"]
    assert left_behind(task) == {"record.json"}


def test_a_recorded_trial_is_not_trained_again(task, monkeypatch):
    [*_, finished] = go(task)
    monkeypatch.setattr(worker, "run_trial", None)
    assert go(task) == [{"recorded": finished["finished"]}]


def test_what_one_that_died_left_beside_its_record_is_cleared(task):
    [*_, finished] = go(task)
    store = Store(task.results)
    for path in (store.claims_path, store.checkpoints_path):
        folder = path(task.trial, task.stratum)
        folder.mkdir()
        (folder / "1.json").write_text("{}")
    assert go(task) == [{"recorded": finished["finished"]}]
    assert left_behind(task) == {"record.json"}


@pytest.mark.parametrize("step", [1, 8, 12, 18])
def test_a_stopped_trial_resumes_to_the_same_bytes(task, tmp_path, step):
    other = replace(task, results=str(tmp_path / "other"))
    [stopped] = go(task, asked_at(step))
    assert "record.json" not in left_behind(task)
    [resumed, *_, finished] = go(task)
    assert resumed == {"resumed": stopped["stopped"]}
    assert "finished" in finished
    assert record(task).times["resumed"] == [stopped["stopped"]]
    go(other)
    assert record(other).times["resumed"] == []
    assert record(task).compared() == record(other).compared()
    assert left_behind(task) == {"record.json"}


def test_a_damaged_checkpoint_is_said_and_the_one_before_it_serves(task):
    go(task, asked_at(13))  # checkpoints at 10 and 12 steps
    folder = Store(task.results).checkpoints_path(task.trial, task.stratum)
    newest = max(folder.iterdir(), key=lambda path: int(path.stem))
    newest.write_bytes(newest.read_bytes()[:-1])
    note, resumed, *_ = go(task)
    assert f"{newest.name} is passed over" in note["note"]
    assert resumed == {"resumed": 10}


def test_what_another_launcher_runs_is_left_to_it(task):
    mine = claim(Store(task.results), task.trial, task.stratum)
    code = (
        "import sys; from ablations.engines.engine import Task; "
        "from ablations.worker import run_task; "
        "run_task(Task.from_json(sys.argv[1]), lambda m: print(m, flush=True), lambda: False)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, task.to_json()],
        env={**os.environ, **child_variables(1)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    mine.release()
    assert done.stdout.startswith("{'held': ")
    assert f"process {os.getpid()}" in done.stdout
    assert record(task) is None


def test_a_holder_that_was_taken_for_dead_leaves(task, monkeypatch):
    lost = iter([False] * 3 + [True] * 100)
    monkeypatch.setattr(worker.Claim, "lost", lambda self: next(lost))
    [held] = go(task)
    assert "took this one for dead" in held["held"]
    assert record(task) is None


def test_a_failure_is_kept_and_said(task, monkeypatch):
    def broken(*args, **options):
        raise RuntimeError("broken layer")

    monkeypatch.setattr(worker, "run_trial", broken)
    [said] = go(task)
    assert "broken layer" in said["failed"]
    [kept] = Store(task.results).failures(task.trial, task.stratum)
    assert kept.reason == "RuntimeError: broken layer"
    assert claim(Store(task.results), task.trial, task.stratum).lost() is False, "it was released"


def test_a_second_run_that_differs_is_a_failure_that_says_where(task, monkeypatch):
    go(task)
    trained = record(task)
    path = Store(task.results).folder(task.trial, task.stratum) / "record.json"
    path.rename(path.with_name("aside"))
    original = worker.run_trial

    def meanwhile(*args, **options):
        """Somebody else publishes while this one trains, and something else."""
        other = trained.model_copy(update={"metrics": {**trained.metrics, "test_loss": 1.0}})
        Store(task.results).publish(other)
        return original(*args, **options)

    monkeypatch.setattr(worker, "run_trial", meanwhile)
    [*_, said] = go(task)
    assert NondeterminismError.__name__ in said["failed"]
    assert "metrics.test_loss: 1.0, now" in said["failed"]


def test_another_stratum_or_study_than_planned_is_refused(task):
    [said] = go(replace(task, expect=f"{task.trial}/elsewhere"))
    assert "was planned as" in said["failed"]
    assert "run again" in said["failed"]
    [said] = go(replace(task, study_hash="0" * 64))
    assert "has changed since it was planned" in said["failed"]
    [said] = go(replace(task, arm="none"))
    assert "no arm 'none'; allowed: plain, gated" in said["failed"]


def test_the_question_where_it_trains_is_answered(task, monkeypatch):
    opened = open_study(
        task.study, task.study_hash, preset="smoke", dataset=None, model=None, data_root=None,
        device="cpu", ranks=1, needs_data=True,
    )  # fmt: skip
    assert go(replace(task, expect="")) == [{"environment": opened.environment}]
    [said] = go(replace(task, expect="", device="cuda:77"))
    assert "cuda:77" in said["failed"]
    assert not Path(task.results).exists()


def start(command: str, *more: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "ablations", command, *more],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **child_variables(1)},
    )  # fmt: skip


def test_a_worker_runs_what_it_is_given_and_leaves(study_file, tmp_path):
    """Its standard output holds messages alone, whatever a study prints."""
    study_file.write_text('print("noise")\n' + study_file.read_text())
    task = make_task(study_file, tmp_path / "results")
    process = start("worker")
    process.stdin.write(task.to_json() + "\n")
    process.stdin.flush()
    lines = [process.stdout.readline() for _ in range(2)]
    out, err = process.communicate()
    assert [list(json.loads(line)) for line in lines] == [["epoch", "values"], ["finished"]]
    assert (process.returncode, out) == (0, "")
    assert "noise" in err
    assert record(task) is not None


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_worker_that_is_told_to_leave_or_killed_loses_nothing(task, tmp_path, number, study_file):
    study_file.write_text(study_file.read_text().replace('"epochs": 1', '"epochs": 30'))
    task = make_task(study_file, tmp_path / "long")
    process = start("worker")
    process.stdin.write(task.to_json() + "\n")
    process.stdin.flush()
    for _ in range(3):
        assert "epoch" in json.loads(process.stdout.readline())
    process.send_signal(number)
    out, _ = process.communicate()
    if number == signal.SIGTERM:
        assert "stopped" in json.loads(out.splitlines()[-1])
        assert process.returncode == 143
    [resumed, *_, finished] = go(task)
    assert resumed["resumed"] >= 3 * 18
    assert "finished" in finished
    other = replace(task, results=str(tmp_path / "other"))
    go(other)
    assert record(task).compared() == record(other).compared()


@pytest.mark.slow
def test_ranks_are_started_stopped_and_resumed(study_file, tmp_path):
    study_file.write_text(study_file.read_text().replace('"epochs": 1', '"epochs": 12'))
    task = make_task(study_file, tmp_path / "ranks", ranks=2)
    said: list[dict] = []
    run_task(task, said.append, lambda: len(said) >= 3)
    assert "stopped" in said[-1], said
    [resumed, *_, finished] = go(task)
    assert resumed == {"resumed": said[-1]["stopped"]}
    assert "finished" in finished
    other = replace(task, results=str(tmp_path / "other"))
    go(other)
    assert record(task).compared() == record(other).compared()
    assert record(task).configuration["recipe"]["ranks"] == 2
    assert left_behind(task) == {"record.json"}
