"""The training loop. It knows a network as an ``nn.Module``, and draws from keyed streams alone."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from overconv.training.augmentation import Augmentation, Feed, Normalization
from overconv.training.data import Dataset, Split
from overconv.training.environment import configure
from overconv.training.evaluation import accuracy, evaluate
from overconv.training.recipe import Recipe
from overconv.training.streams import KeyedDropout, key_dropout, no_global_draws, stream

# Steps between two looks at the gradients' norm, which would cost 1 % of a small step each time.
GRAD_NORM_EVERY = 8

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
            trained: augmented, before each step), ``validation_loss``, ``validation_accuracy``,
            ``lr`` of the last step, ``grad_norm`` (norm of all gradients together, mean over
            every eighth step of the epoch, from its first).
        correct: For each test example whether it was classified rightly; None if diverged.
        seconds: One value an epoch of ``train`` and ``evaluate``; not that of the test.
        diverged_at: ``epoch``, and in it the ``step``, of the first training loss that was not
            finite, counted from 0; after the last step if that was the test loss.
    """

    outcome: Literal["finished", "diverged"]
    metrics: dict[str, float | None]
    curves: dict[str, list[float]]
    correct: np.ndarray | None
    seconds: dict[str, list[float]]
    diverged_at: dict[str, int] | None


@dataclass
class TrainState:
    """All that changes as training goes on."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    dropouts: list[KeyedDropout]
    epoch: int = 0
    step: int = 0
    curves: dict[str, list[float]] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)


class Inputs:
    """What an epoch trains on: batches in the order and augmentation of a block, on a device."""

    def __init__(self, dataset: Dataset, split: Split, recipe: Recipe, block: int, device: str):
        self.recipe, self.block, self.device = recipe, block, device
        self.num_examples = len(dataset.labels_train)
        self.labels = split.labels.to(device)
        self.feed = Feed(split.to(device), recipe.crop_padding)
        self.normalization = Normalization.of(dataset).to(device)
        self.steps = len(split) // recipe.batch_size
        shape = (recipe.batch_size, *split.images.shape[1:])
        self.buffer = torch.empty(shape, device=device)  # one for all steps: pages once faulted in

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised images and labels of each step. The images are overwritten by the next."""
        order = stream(self.block, "order", epoch).permutation(len(self.labels))
        places = torch.from_numpy(order).to(self.device)
        draws = Augmentation.draw(
            self.block, epoch, self.num_examples,
            crop_padding=self.recipe.crop_padding, flip=self.recipe.flip,
        ).to(self.device)  # fmt: skip
        size = self.recipe.batch_size
        labels = self.labels[places].split(size)[: self.steps]
        for images, known in zip(self.feed.batches(places, draws, size), labels, strict=True):
            yield self.normalization.apply(images, out=self.buffer), known


def train(
    model: nn.Module,
    dataset: Dataset,
    recipe: Recipe,
    *,
    block: int,
    device: str = "cpu",
    on_epoch: OnEpoch | None = None,
) -> Result:
    """Train ``model``, in place, and test it once, at the end.

    The same arguments give the same bits, in the same stratum. Split, order, augmentation and
    dropout are those of ``block`` and do not depend on the model. Sets torch to the recipe's
    threads and to deterministic algorithms, for the process.

    Args:
        model: Maps (B, C, H, W) to logits (B, num_classes); already on ``device``. Its dropouts
            are replaced by keyed ones.
        dataset: Kept on ``device`` as uint8.
        recipe: How to train.
        block: Names the random streams.
        device: ``"cpu"`` or a CUDA device.
        on_epoch: Called after each epoch with its number and the new values of the curves.

    Raises:
        ValueError: Fewer training examples than a batch has; the model holds a dropout of an
            unknown kind.
        RuntimeError: Something drew from torch's global generator, so the training could not be
            repeated.
    """
    configure(recipe.threads)
    splits = dataset.split(block, recipe.num_validation)
    inputs = Inputs(dataset, splits.train, recipe, block, device)
    if inputs.steps == 0:
        raise ValueError(
            f"batch_size={recipe.batch_size} is more than the {len(splits.train)} training "
            f"examples of {dataset.name}"
        )
    validation, test = splits.validation.to(device), splits.test.to(device)
    state = TrainState(model, recipe.build_optimizer(model), key_dropout(model, block))
    while state.epoch < recipe.epochs:
        with no_global_draws(device):
            bad_step = _run_epoch(state, inputs, validation)
        if bad_step is not None:
            return _diverged(state, epoch=state.epoch, step=bad_step)
        state.epoch += 1
        if on_epoch is not None:
            on_epoch(state.epoch - 1, {name: curve[-1] for name, curve in state.curves.items()})
    with no_global_draws(device):
        test_loss, correct = evaluate(model, test, inputs.normalization)
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
    )


def _run_epoch(state: TrainState, inputs: Inputs, validation: Split) -> int | None:
    """Train an epoch, validate, note both; the first step whose loss was not finite, if any."""
    start = time.perf_counter()
    losses = train_epoch(state, inputs)
    bad_steps = (~losses.isfinite()).nonzero().flatten().tolist()
    trained = time.perf_counter()
    loss, correct = math.nan, torch.zeros(0)
    if not bad_steps:
        for schedule in inputs.recipe.schedules:
            schedule.apply(state.model, (state.epoch + 1) / inputs.recipe.epochs)
        loss, correct = evaluate(state.model, validation, inputs.normalization)
    _note(state.curves, validation_loss=loss, validation_accuracy=accuracy(correct))
    _note(state.seconds, train=trained - start, evaluate=time.perf_counter() - trained)
    return bad_steps[0] if bad_steps else None


class Tally:
    """What the steps of an epoch leave behind, kept on the device and read once."""

    def __init__(self, inputs: Inputs):
        self.losses = torch.empty(inputs.steps, device=inputs.device)
        self.hits = torch.empty_like(self.losses)
        self.norms: list[Tensor] = []
        self.num_steps = 0

    def note(self, loss: Tensor, logits: Tensor, labels: Tensor, model: nn.Module) -> None:
        """Add a step; before the optimiser's, some kinds of which change the gradients."""
        self.losses[self.num_steps] = loss.detach()
        self.hits[self.num_steps] = (logits.detach().argmax(1) == labels).sum()
        if self.num_steps % GRAD_NORM_EVERY == 0:
            self.norms.append(grad_norm(model))
        self.num_steps += 1

    def read(self, batch_size: int) -> dict[str, float]:
        """The curves' values of the epoch."""
        return {
            "train_loss": self.losses.double().mean().item(),
            "train_accuracy": self.hits.double().mean().item() / batch_size,
            "grad_norm": torch.stack(self.norms).double().mean().item(),
        }


def train_epoch(state: TrainState, inputs: Inputs) -> Tensor:
    """One pass over ``inputs``; returns the loss of each step. Nothing waits for the device."""
    state.model.train()
    tally = Tally(inputs)
    for images, labels in inputs.epoch(state.epoch):
        train_step(state, inputs, images, labels, tally)
    rate = inputs.recipe.rate(state.step - 1, inputs.steps)
    _note(state.curves, lr=rate, **tally.read(inputs.recipe.batch_size))
    return tally.losses


def train_step(
    state: TrainState, inputs: Inputs, images: Tensor, labels: Tensor, tally: Tally
) -> None:
    """One step of the optimiser; ``tally`` takes note of what came before it."""
    _prepare_step(state, inputs.recipe, inputs.steps)
    logits = state.model(images)
    loss = F.cross_entropy(logits, labels, label_smoothing=inputs.recipe.label_smoothing)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    tally.note(loss, logits, labels, state.model)
    state.optimizer.step()
    state.step += 1


def _prepare_step(state: TrainState, recipe: Recipe, steps_per_epoch: int) -> None:
    """Learning rate, temperatures and dropout of the coming step."""
    rate = recipe.rate(state.step, steps_per_epoch)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    for schedule in recipe.schedules:
        schedule.apply(state.model, state.step / (recipe.epochs * steps_per_epoch))
    for dropout in state.dropouts:
        dropout.step, dropout.calls = state.step, 0


def grad_norm(model: nn.Module) -> Tensor:
    """Euclidean norm of all gradients together; nothing is read back from the device."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return torch.nn.utils.get_total_norm(gradients, foreach=True)


def _note(curves: dict[str, list[float]], **values: float) -> None:
    for name, value in values.items():
        curves.setdefault(name, []).append(value)


def _diverged(state: TrainState, *, epoch: int, step: int) -> Result:
    return Result(
        outcome="diverged",
        metrics=dict.fromkeys(("test_accuracy", "test_loss", *_FINAL)),
        curves=state.curves,
        correct=None,
        seconds=state.seconds,
        diverged_at={"epoch": epoch, "step": step},
    )
