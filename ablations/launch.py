"""Having an engine run tasks: which one, in which stratum it trains, and what the folder says."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any, Literal

from ablations.engines.engine import Backlog, Engine, Message, Outcome, Stop, Task
from ablations.engines.local import InProcess, Workers
from ablations.engines.ray_engine import Ray
from ablations.engines.slurm import Slurm
from ablations.progress import Progress
from overconv.training.recipe import Recipe
from records.lease import Holder, Watcher, claim
from records.store import Store


def choose_engine(options: argparse.Namespace, recipe: Recipe) -> Engine:
    """The engine that the options name; its own libraries are loaded when it runs.

    Raises:
        ValueError: An option is of another engine.
    """
    _check_options(options)
    workers, cpus, threads = options.workers, recipe.ranks * recipe.threads, recipe.threads
    if options.engine == "ray":
        return Ray(options.address, workers, cpus, options.gpus, threads)
    if options.engine == "slurm":
        given = dict(options.slurm)
        folder = Path(given.pop("folder", Path.home() / ".overconv" / "slurm")).absolute()
        cluster = str(given.pop("cluster", "slurm"))
        return Slurm(folder, cpus, int(options.gpus), threads, workers, given, cluster)
    return InProcess() if workers in (None, 1) else Workers(workers, threads)


def _check_options(options: argparse.Namespace) -> None:
    of = {"address": ("ray",), "slurm": ("slurm",), "gpus": ("ray", "slurm")}
    for name, engines in of.items():
        if getattr(options, name) and options.engine not in engines:
            raise ValueError(f"--{name} has no effect with --engine {options.engine}")
    if options.engine == "slurm" and options.gpus % 1:
        raise ValueError(f"--gpus {options.gpus}: allowed with --engine slurm: whole numbers")


def ask_environment(engine: Engine, template: Task, retries: int, stop: Stop) -> dict[str, Any]:
    """Description of the stratum in which ``engine`` trains, as a machine of its says it.

    Empty if it was asked to stop.

    Raises:
        ValueError: None could say it.
    """
    question, answer = dataclasses.replace(template, ranks=1, expect=""), _Answer()
    engine.run(Backlog.of([question], answer, answer, retries=retries), stop)
    if answer.failure:
        reason = answer.failure.strip().splitlines()[-1]
        raise ValueError(f"no machine could say in which stratum it trains: {reason}")
    return answer.environment


class _Answer:
    """Listens for the answer, and has nothing to do with the results folder."""

    def __init__(self) -> None:
        self.environment: dict[str, Any] = {}
        self.failure = ""

    def heard(self, task: Task, message: Message) -> None:
        self.environment = message.get("environment", self.environment)
        self.failure = message.get("failed", self.failure)

    def look(self, task: Task) -> Literal["free"]:
        return "free"

    def note_failure(self, task: Task, text: str) -> None:
        pass


def run_tasks(
    tasks: dict[Task, int], engine: Engine, store: Store, stop: Stop, retries: int
) -> Outcome:
    """Have ``engine`` run ``tasks``, each with its number of epochs, and say how it gets on."""
    listener = Progress(tasks)
    backlog = Backlog.of(tasks, listener, _Folder(store), retries=retries)
    try:
        engine.run(backlog, stop)
    finally:
        listener.close()
    return backlog.outcome()


class _Folder:
    """The results folder, as a backlog asks it."""

    def __init__(self, store: Store) -> None:
        self.store, self.watcher = store, Watcher()

    def look(self, task: Task) -> Literal["free", "held", "recorded"]:
        """Whether ``task`` is recorded, or held by somebody alive; a dead one loses it."""
        try:
            taken = claim(self.store, task.trial, task.stratum, task.lease, watcher=self.watcher)
        except (OSError, ValueError):  # it cannot be read or written, or is no folder of claims
            return "free"  # whoever runs it will meet the error, and report it
        if taken is None:
            return "recorded"
        if isinstance(taken, Holder):
            return "held"
        taken.release()
        return "free"

    def note_failure(self, task: Task, text: str) -> None:
        self.store.note_failure(task.trial, task.stratum, text)
