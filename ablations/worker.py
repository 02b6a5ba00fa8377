"""What runs one trial, the same in every engine: find, claim, train, publish, let go."""

import contextlib
import traceback
from pathlib import Path
from typing import Any

from ablations.acceptance import resolve_stratum
from ablations.engines.engine import Message, Say, Stop, Task
from ablations.ranks import run_ranks
from ablations.setting import Opened, open_study
from ablations.trial import Cell, run_trial
from overconv.training.checkpoint import CheckpointFolder
from overconv.training.inputs import DataSource
from overconv.training.loop import Stopped
from overconv.training.world import ALONE, World
from records.lease import Claim, Holder, claim, tidy
from records.record import Record
from records.store import Store


def run_task(task: Task, say: Say, stop: Stop, world: World = ALONE) -> None:
    """Run ``task`` to an end and say how it goes; what is said last is one of ``LAST``.

    A trial that fails raises nothing: why is kept in the results folder, and said. One of several
    ranks is run in as many processes, unless this is one of them.
    """
    try:
        if not task.expect:
            last: Message = {"environment": _open(task).environment}
        elif task.ranks > 1 and world.size == 1:
            last = run_ranks(task, say, stop)
        else:
            last = _train(task, say, stop, world)
    except Exception as error:  # one broken layer must not cost the other arms their trials
        text = traceback.format_exc()
        if world.size > 1 and _is_of_others(error):
            last = {"lost": f"{text}\none of its ranks is gone"}
        else:
            last = {"failed": text}
            if task.expect:
                Store(task.results).note_failure(task.trial, task.stratum, text)
    say(last)


def _is_of_others(error: Exception) -> bool:
    """Whether ``error`` only says that other ranks do not answer; why, they say if they can."""
    frames = traceback.extract_tb(error.__traceback__)
    return "/torch/distributed/" in Path(frames[-1].filename).as_posix()


def _train(task: Task, say: Say, stop: Stop, world: World) -> Message:
    """Train the trial of ``task`` as one of the ranks of ``world``; returns what is to be said.

    The first rank claims it and publishes it. Each stops when any rank is asked to, or when the
    claim is found to have passed to somebody else.
    """
    cell, data, environment = _find(task)
    store = Store(task.results)
    with contextlib.ExitStack() as held:
        taken = _take(store, task) if world.rank == 0 else None
        mine = held.enter_context(taken) if isinstance(taken, Claim) else None
        if world.any(isinstance(taken, dict)):
            return taken if isinstance(taken, dict) else {"held": "as the first rank says"}

        def on_epoch(epoch: int, values: dict[str, float]) -> None:
            if mine is not None:
                mine.note(epoch=epoch + 1, epochs=cell.recipe.epochs)
                say({"epoch": epoch, "values": values})

        try:
            record = run_trial(
                cell,
                data,
                task.block,
                environment=environment,
                device=task.device,
                world=world,
                checkpoints=_Checkpoints(task, store, say),
                stop=lambda: stop() or (mine is not None and mine.lost()),
                on_epoch=on_epoch,
            )
        except Stopped as stopped:
            if mine is not None and mine.lost():
                return {"held": "another launcher, which took this one for dead"}
            return {"stopped": stopped.step}
        if mine is not None:
            store.publish(record)  # with the claim, checkpoints go, too
    return {"finished": summarise(record)}


def summarise(record: Record) -> dict[str, Any]:
    """What is told of a finished trial, in plain values."""
    return {
        "outcome": record.outcome,
        "validation_accuracy": record.metrics.get("validation_accuracy"),
        "train_loss": record.metrics.get("train_loss"),
        "seconds": record.times["seconds"],
    }


def _open(task: Task) -> Opened:
    return open_study(
        task.study,
        task.study_hash,
        preset=task.preset,
        dataset=task.dataset,
        model=task.model,
        data_root=task.data_root,
        device=task.device,
        ranks=task.ranks,
        needs_data=True,
    )


def _find(task: Task) -> tuple[Cell, DataSource, dict[str, Any]]:
    """Cell, data and description of the stratum of ``task``.

    Raises:
        ValueError: This process does not find what was planned.
    """
    opened = _open(task)
    cell = opened.cells([task.arm])[task.arm]
    stratum, environment = resolve_stratum(Store(task.results), opened.environment)
    found = f"{cell.trial(task.block)}/{stratum}"
    if found != task.expect:
        raise ValueError(
            f"{task.name} was planned as {task.expect} and is {found} here: the source, the data "
            "or the machine has changed since; run again"
        )
    return cell, opened.setting.dataset, environment


def _take(store: Store, task: Task) -> Claim | Message:
    """The claim to run ``task``, or why there is none."""
    taken = claim(store, task.trial, task.stratum, task.lease)
    if isinstance(taken, Holder):
        return {"held": taken.describe()}
    if taken is None:
        tidy(store, task.trial, task.stratum)  # of one that died between publishing and clearing
        record = store.get(task.trial, task.stratum)
        return {"recorded": None if record is None else summarise(record)}
    return taken


class _Checkpoints(CheckpointFolder):
    """The checkpoints of a task, which say so when training is taken up from one."""

    def __init__(self, task: Task, store: Store, say: Say) -> None:
        folder = store.checkpoints_path(task.trial, task.stratum)
        super().__init__(
            folder, task.expect, every=task.checkpoint_every, warn=lambda line: say({"note": line})
        )
        self.say = say

    def newest(self) -> dict[str, Any] | None:
        state = super().newest()
        if state is not None:
            self.say({"resumed": state["step"]})
        return state
