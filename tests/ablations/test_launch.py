"""Which engine the options name, what it is asked before a plan, and what the folder says."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from ablations import launch, run
from ablations.cli import main, parser
from ablations.engines.engine import Task
from ablations.engines.local import InProcess, Workers
from ablations.engines.ray_engine import Ray
from ablations.engines.slurm import Slurm
from ablations.launch import ask_environment, choose_engine
from ablations.worker import run_task
from overconv.training.recipe import Recipe
from records.files import publish_once
from records.lease import Claimed, claim
from records.process import Process
from records.record import Record, digest
from records.store import Store

RECIPE = Recipe(epochs=1, lr=0.1, batch_size=6, ranks=3, threads=2)
TASK = Task(study="s", study_hash="h", preset="p", results="r", arm="a", block=0, expect="t/s")


def chosen(*more: str):
    return choose_engine(parser().parse_args(["run", "depth", *more]), RECIPE)


def test_options_name_an_engine_with_what_a_trial_needs():
    assert isinstance(chosen(), InProcess)
    assert isinstance(chosen("--workers", "1"), InProcess)
    assert chosen("--workers", "4") == Workers(4, threads=2)
    assert chosen("--engine", "ray", "--gpus", "0.5") == Ray(None, None, 6, 0.5, 2)
    slurm = ["--engine", "slurm", "--gpus", "2", "--workers", "9"]
    more = ["--slurm", "folder=/f", "--slurm", "timeout_min=7", "--slurm", "slurm_partition=p"]
    parameters = {"timeout_min": 7, "slurm_partition": "p"}
    assert chosen(*slurm, *more) == Slurm(Path("/f"), 6, 2, 2, 9, parameters)


@pytest.mark.parametrize(
    ("more", "elsewhere"),
    [
        ([], False),
        (["--workers", "3"], False),
        (["--engine", "ray"], False),
        (["--engine", "ray", "--address", "auto"], True),
        (["--engine", "slurm"], True),
        (["--engine", "slurm", "--slurm", "cluster=local"], False),
    ],
)
def test_machines_that_may_be_unlike_this_one(more, elsewhere):
    assert chosen(*more).elsewhere is elsewhere


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--engine", "ray", "--address", "auto", "--slurm", "a=1"], "--slurm has no effect"),
        (["--engine", "slurm", "--address", "auto"], "--address has no effect"),
        (["--engine", "slurm", "--gpus", "0.5"], "--gpus 0.5: allowed with --engine slurm: whole"),
    ],
)
def test_what_would_be_ignored_is_refused(more, message):
    with pytest.raises(ValueError, match=message):
        chosen(*more)


class MadeEngine:
    """Another machine, in this process: one whose stratum is ``environment``."""

    elsewhere = True

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def run(self, backlog, stop):
        while backlog.open and not stop():
            task = backlog.next()
            self.asked.append(task)
            if task.expect:
                run_task(task, lambda message, task=task: backlog.heard(task, message), stop)
            else:
                backlog.heard(task, self.answers.pop(0))


def never():
    return False


def test_the_engine_is_asked_and_asked_again():
    engine = MadeEngine({"lost": "gone"}, {"environment": {"torch": "9"}})
    assert ask_environment(engine, replace(TASK, ranks=2), 1, never) == {"torch": "9"}
    assert [task.expect for task in engine.asked] == ["", ""]
    assert engine.asked[0].ranks == 1, "one process can say it for all"
    assert ask_environment(engine, TASK, 1, lambda: True) == {}


@pytest.mark.parametrize(
    "answers", [[{"failed": "Trace\nValueError: no GPU"}], [{"lost": "x"}] * 2]
)
def test_an_engine_that_cannot_say_it_is_an_error(answers):
    with pytest.raises(ValueError, match=r"no machine could say .*: (ValueError: no GPU|lost 2)"):
        ask_environment(MadeEngine(*answers), TASK, 1, never)


def test_trials_are_planned_in_the_stratum_of_the_machines(study_file, tmp_path, monkeypatch):
    """Their answer is this machine's but for the device: trials then belong to that stratum."""
    results = tmp_path / "results"
    arguments = ["run", str(study_file), "--seeds", "1", "--results", str(results)]
    other = {"device": "another", "threads": 1}
    engine = MadeEngine({"environment": other})
    monkeypatch.setattr(run, "choose_engine", lambda options, recipe: engine)
    assert main(arguments) == 1, "this process does not find what is expected there"
    question, *trials = engine.asked
    assert question.expect == ""
    assert {task.stratum for task in trials} == {digest(other)}
    [failure] = Store(results).failures(trials[0].trial, trials[0].stratum)
    assert "the machine has changed" in failure.text


def test_a_folder_tells_recorded_held_and_free(tmp_path):
    store = Store(tmp_path)
    task = replace(TASK, results=str(tmp_path), lease=0.2)
    folder = launch._Folder(store)
    assert folder.look(task) == "free"
    mine = claim(store, "t", "s", lease=0.2)
    assert folder.look(task) == "held"
    mine.release()
    assert folder.look(task) == "free"
    assert folder.look(task) == "free", "a look leaves no claim behind"
    store.publish(
        Record(
            trial="t", stratum="s", configuration={"block": 0}, outcome="finished", metrics={},
            curves={}, costs={}, correct=None, environment={}, times={"finished": 0.0},
        )
    )  # fmt: skip
    assert folder.look(task) == "recorded"
    folder.note_failure(task, "ValueError: kept")
    [kept] = store.failures("t", "s")
    assert kept.text == "ValueError: kept"


def test_a_holder_on_another_machine_is_dead_when_its_heart_stands_still(tmp_path):
    """The folder is looked at again and again, and remembers what it saw."""
    store = Store(tmp_path)
    task = replace(TASK, results=str(tmp_path), lease=0.3)
    process = Process.current().model_copy(update={"host": "elsewhere", "boot": "another"})
    claimed = Claimed(process=process, started=0.0, lease=0.3)
    path = store.claims_path("t", "s") / "1.json"
    publish_once(path, claimed.to_bytes(), store.root)
    folder = launch._Folder(store)
    assert folder.look(task) == "held"
    time.sleep(0.35)
    assert launch._Folder(store).look(task) == "held", "who has seen nothing knows nothing"
    assert folder.look(task) == "free"
