"""The training loop. It knows a network as an ``nn.Module``, and draws from keyed streams alone."""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from overconv.training.conditions import Checkpoints, Conditions
from overconv.training.distributed import reduce_gradients, synchronise
from overconv.training.environment import configure
from overconv.training.evaluation import accuracy, evaluate
from overconv.training.inputs import Batch, DataSource
from overconv.training.recipe import Recipe
from overconv.training.state import TrainState
from overconv.training.streams import key_dropout, no_global_draws
from overconv.training.world import ALONE, World

OnEpoch = Callable[[int, dict[str, float]], None]

_FINAL = ("validation_accuracy", "validation_loss", "train_loss")


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of a training.

    Attributes:
        outcome: ``"diverged"`` if the training loss, or at the end the test loss, became infinite
            or no number.
        metrics: Figures of the last epoch, never of the best one; accuracies are fractions. All
            None if diverged.
        curves: One value an epoch: ``train_loss`` and ``train_accuracy`` (means over the steps, as
            trained: augmented, before each step; under mixup, whether each image's own label was
            found), ``validation_loss``, ``validation_accuracy``, ``lr`` of the last step,
            ``grad_norm`` (norm of all gradients together, mean over every eighth step of the
            epoch, from its first; in float16 over those of them that were taken).
        correct: For each test example whether it was classified rightly; None if diverged.
        seconds: One value an epoch of ``train`` and ``evaluate``; not that of the test, nor of
            checkpoints.
        diverged_at: ``epoch``, and in it the ``step``, of the first training loss that was not
            finite, counted from 0; after the last step if that was the test loss.
        resumed: Steps at which the training was taken up from a checkpoint.
    """

    outcome: Literal["finished", "diverged"]
    metrics: dict[str, float | None]
    curves: dict[str, list[float]]
    correct: np.ndarray | None
    seconds: dict[str, list[float]]
    diverged_at: dict[str, int] | None
    resumed: list[int]


class Stopped(Exception):
    """A training was asked to stop, and did so after ``step`` steps."""

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped after {step} steps")
        self.step = step


def train(
    model: nn.Module,
    dataset: DataSource,
    recipe: Recipe,
    *,
    block: int,
    device: str = "cpu",
    world: World = ALONE,
    checkpoints: Checkpoints | None = None,
    stop: Callable[[], bool] | None = None,
    on_epoch: OnEpoch | None = None,
) -> Result:
    """Train ``model``, in place, and test it once, at the end.

    The same arguments give the same bits, in the same stratum, also if the training was stopped
    and taken up again. Split, order, augmentation and dropout are those of ``block`` and do not
    depend on the model. Sets torch to the recipe's threads and to deterministic algorithms, for
    the process.

    Args:
        model: Maps (B, C, H, W) to logits (B, num_classes); already on ``device``. Its dropouts
            are replaced by keyed ones. With ``recipe.ema`` it ends as the average that was tested.
        dataset: What makes the inputs.
        recipe: How to train.
        block: Names the random streams.
        device: ``"cpu"`` or a CUDA device.
        world: The processes that train together, all with equal arguments; as many as the recipe
            has ranks.
        checkpoints: Where to take the training up, and to keep it: at the end of each epoch and
            when due. Every rank asks its own, the first one saves.
        stop: Asked before each step and each evaluation, on all ranks; if one says so, the state
            is kept and all stop.
        on_epoch: Called after each epoch with its number and the new values of the curves.

    Raises:
        Stopped: ``stop`` said so.
        ValueError: The data set has no such inputs, for instance fewer training examples than a
            batch; the model holds a dropout of an unknown kind; ``world`` is not of the recipe's
            ranks; a checkpoint is of another model.
        RuntimeError: Something drew from torch's global generator, so the training could not be
            repeated; ranks found different checkpoints.
    """
    configure(recipe.threads)
    if world.size != recipe.ranks:
        raise ValueError(f"ranks={recipe.ranks}, but {world.size} processes train")
    inputs = dataset.inputs(recipe, block, device, world)
    conditions = Conditions(recipe, inputs, device, world, checkpoints, stop)
    if recipe.channels_last:
        model.to(memory_format=torch.channels_last)
    dropouts = key_dropout(model, block, world)
    synchronise(model, world)
    try:
        state = TrainState.start(
            model, recipe, steps=inputs.steps, device=device, dropouts=dropouts
        )
        _take_up(state, conditions)
        return _train(state, conditions, on_epoch)
    finally:
        synchronise(model, ALONE)


def _take_up(state: TrainState, conditions: Conditions) -> None:
    """Go on from the newest checkpoint, if there is one."""
    if conditions.checkpoints is None:
        return
    world, kept = conditions.world, conditions.checkpoints.newest()
    found = world.stack(torch.tensor(-1 if kept is None else kept["step"])).tolist()
    if len(set(found)) > 1:
        raise RuntimeError(f"the ranks found checkpoints of different steps: {found}")
    if kept is not None:
        state.load(kept, world)
        _apply_schedules(state, conditions)  # what a schedule sets outside of buffers


def _train(state: TrainState, conditions: Conditions, on_epoch: OnEpoch | None) -> Result:
    """From where ``state`` stands to the end."""
    recipe, inputs = conditions.recipe, conditions.inputs
    while state.epoch < recipe.epochs:
        with no_global_draws(conditions.device):
            bad_step = _run_epoch(state, conditions)
        if bad_step is not None:
            return _diverged(state, epoch=state.epoch - 1, step=bad_step)
        _save(state, conditions)
        if on_epoch is not None:
            on_epoch(state.epoch - 1, {name: curve[-1] for name, curve in state.curves.items()})
    _stop_if_asked(state, conditions)
    if state.average is not None:
        state.average.apply()
    with no_global_draws(conditions.device):
        test_loss, correct = evaluate(state.model, inputs.test(), conditions.world)
    if not math.isfinite(test_loss):  # no training loss follows on the last step, to show it
        return _diverged(state, epoch=recipe.epochs - 1, step=inputs.steps)
    return Result(
        outcome="finished",
        metrics={
            "test_accuracy": accuracy(correct),
            "test_loss": test_loss,
            **{name: state.curves[name][-1] for name in _FINAL},
        },
        curves=state.curves,
        correct=correct.numpy(),
        seconds=state.seconds,
        diverged_at=None,
        resumed=state.resumed,
    )


def _run_epoch(state: TrainState, conditions: Conditions) -> int | None:
    """Train the rest of an epoch, validate, note both; the first step of no finite loss, if any."""
    recipe, inputs = conditions.recipe, conditions.inputs
    train_epoch(state, conditions)
    values, losses = state.tally.read(recipe, conditions.world)
    bad_steps = (~losses.isfinite()).nonzero().flatten().tolist()
    state.watch.stop()
    start = time.perf_counter()
    loss, correct = math.nan, torch.zeros(0)
    if not bad_steps:
        _apply_schedules(state, conditions)
        with nullcontext() if state.average is None else state.average.applied():
            loss, correct = evaluate(state.model, inputs.validation(), conditions.world)
    values |= {
        "validation_loss": loss,
        "validation_accuracy": accuracy(correct),
        "lr": recipe.rate(state.step - 1, inputs.steps),
    }
    taken = {"train": state.watch.seconds, "evaluate": time.perf_counter() - start}
    state.end_epoch(taken, values)
    return bad_steps[0] if bad_steps else None


def train_epoch(state: TrainState, conditions: Conditions) -> None:
    """The steps of the epoch that are left. Nothing waits for the device, save in float16."""
    state.model.train()
    state.watch.start()
    checkpoints, inputs = conditions.checkpoints, conditions.inputs
    for batch in inputs.epoch(state.epoch, state.tally.num_steps):
        _stop_if_asked(state, conditions)
        train_step(state, conditions, batch)
        # After the last step, a checkpoint follows once the epoch is validated.
        within = state.tally.num_steps < inputs.steps
        if within and checkpoints is not None and checkpoints.due(state.step):
            _save(state, conditions)
    _stop_if_asked(state, conditions)


def train_step(state: TrainState, conditions: Conditions, batch: Batch) -> None:
    """One step of the optimiser; the tally takes note of what came before it."""
    recipe, model = conditions.recipe, state.model
    _prepare_step(state, conditions)
    with conditions.autocast():
        logits = model(batch.images)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    targets = batch.targets
    if targets.is_floating_point():
        targets = targets.to(logits.dtype)
    loss = F.cross_entropy(logits, targets, label_smoothing=recipe.label_smoothing)
    state.optimizer.zero_grad(set_to_none=True)
    state.scaler.scale(loss).backward()
    if conditions.world.size > 1:
        reduce_gradients(model, conditions.world)
    state.scaler.unscale_(state.optimizer)
    state.tally.note(loss, logits, batch.labels, model)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    if state.average is not None:
        state.average.update()
    state.step += 1


def _prepare_step(state: TrainState, conditions: Conditions) -> None:
    """Learning rate, temperatures and dropout of the coming step."""
    rate = conditions.recipe.rate(state.step, conditions.inputs.steps)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    _apply_schedules(state, conditions)
    for dropout in state.dropouts:
        dropout.step, dropout.calls = state.step, 0


def _apply_schedules(state: TrainState, conditions: Conditions) -> None:
    total = conditions.recipe.epochs * conditions.inputs.steps
    for schedule in conditions.recipe.schedules:
        schedule.apply(state.model, state.step / total)


def _stop_if_asked(state: TrainState, conditions: Conditions) -> None:
    if conditions.world.any(conditions.stop is not None and conditions.stop()):
        _save(state, conditions)
        raise Stopped(state.step)


def _save(state: TrainState, conditions: Conditions) -> None:
    """Keep the state, off the clock."""
    if conditions.checkpoints is None:
        return
    if torch.device(conditions.device).type == "cuda":
        torch.cuda.synchronize(conditions.device)  # what the steps have left to do is their time
    with state.watch.paused():
        packed = state.pack(conditions.world)
        if conditions.world.rank == 0:
            conditions.checkpoints.save(packed)
        conditions.world.meet()  # a rank that ends now would have torchrun end the one that writes


def _diverged(state: TrainState, *, epoch: int, step: int) -> Result:
    return Result(
        outcome="diverged",
        metrics=dict.fromkeys(("test_accuracy", "test_loss", *_FINAL)),
        curves=state.curves,
        correct=None,
        seconds=state.seconds,
        diverged_at={"epoch": epoch, "step": step},
        resumed=state.resumed,
    )
