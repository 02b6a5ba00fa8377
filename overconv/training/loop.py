"""The training loop. It knows a network as an ``nn.Module``, and draws from keyed streams alone."""

import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from overconv.training.data import Augmentation, Dataset, Feed, Normalization, Split
from overconv.training.recipe import Recipe
from overconv.training.streams import KeyedDropout, key_dropout, stream

EVALUATION_BATCH = 500
# Steps between two looks at the gradients' norm, which would cost 1 % of a small step each time.
GRAD_NORM_EVERY = 8

OnEpoch = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of a training.

    Attributes:
        outcome: ``"diverged"`` if the training loss became infinite or no number.
        metrics: Figures of the last epoch, never of the best one; accuracies are fractions. All
            None if diverged.
        curves: One value an epoch: ``train_loss`` and ``train_accuracy`` (means over the steps, as
            trained: augmented, before each step), ``validation_loss``, ``validation_accuracy``,
            ``lr`` of the last step, ``grad_norm`` (norm of all gradients together, mean over
            every eighth step of the epoch, from its first).
        correct: For each test example whether it was classified rightly; None if diverged.
        seconds: One value an epoch of ``train`` and ``evaluate``.
        diverged_at: ``epoch`` and ``step`` of the first loss that was not finite.
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
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"train": [], "evaluate": []})


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
    dropout are those of ``block`` and do not depend on the model.

    Args:
        model: Maps (B, C, H, W) to logits (B, num_classes); already on ``device``.
        dataset: Kept on ``device`` as uint8.
        recipe: How to train.
        block: Names the random streams.
        device: ``"cpu"`` or a CUDA device.
        on_epoch: Called after each epoch with its number and the new values of the curves.

    Raises:
        ValueError: Fewer training examples than a batch has; the model holds a dropout of an
            unknown kind.
        RuntimeError: Something drew from a global generator, so the training could not be
            repeated.
    """
    splits = dataset.split(block, recipe.num_validation)
    inputs = Inputs(dataset, splits.train, recipe, block, device)
    if inputs.steps == 0:
        raise ValueError(
            f"batch_size={recipe.batch_size} is more than the {len(splits.train)} training "
            f"examples of {dataset.name}"
        )
    validation, test = splits.validation.to(device), splits.test.to(device)
    state = TrainState(model, recipe.build_optimizer(model), key_dropout(model, block))
    global_state = _global_state(device)
    while state.epoch < recipe.epochs:
        start = time.perf_counter()
        losses = train_epoch(state, inputs)
        _refuse_draws(device, global_state)
        trained = time.perf_counter()
        bad = (~losses.isfinite()).nonzero()
        if len(bad):
            at = {"epoch": state.epoch, "step": int(bad[0])}
            return _diverged(state, at)
        for schedule in recipe.schedules:
            schedule.apply(model, (state.epoch + 1) / recipe.epochs)
        loss, correct = evaluate(model, validation, inputs.normalization)
        _note(state, validation_loss=loss, validation_accuracy=_share(correct))
        state.seconds["train"].append(trained - start)
        state.seconds["evaluate"].append(time.perf_counter() - trained)
        state.epoch += 1
        if on_epoch is not None:
            newest = {name: values[-1] for name, values in state.curves.items()}
            on_epoch(state.epoch - 1, newest)
    test_loss, correct = evaluate(model, test, inputs.normalization)
    _refuse_draws(device, global_state)
    if not math.isfinite(test_loss):  # the last step itself, or what only evaluation computes
        return _diverged(state, {"epoch": recipe.epochs - 1, "step": inputs.steps - 1})
    final: dict[str, float | None] = {
        "test_accuracy": _share(correct),
        "test_loss": test_loss,
        **{name: state.curves[name][-1] for name in _FINAL},
    }
    return Result(
        outcome="finished", metrics=final, curves=state.curves, correct=correct.numpy(),
        seconds=state.seconds, diverged_at=None,
    )  # fmt: skip


def _global_state(device: str) -> list[object]:
    """State of the generators of torch, numpy and Python, which nothing in a training may move."""
    states: list[object] = [torch.get_rng_state().tolist(), random.getstate()]
    states.append(str(np.random.get_state(legacy=False)))  # noqa: NPY002
    if device.startswith("cuda"):
        states.append(torch.cuda.get_rng_state(device).tolist())
    return states


def _refuse_draws(device: str, before: list[object]) -> None:
    if _global_state(device) != before:
        raise RuntimeError(
            "the model drew from a global generator of torch, numpy or Python: its draws could be "
            "neither repeated nor shared by the arms of a block; use modules (nn.Dropout) that "
            "the loop can key"
        )


_FINAL = ("validation_accuracy", "validation_loss", "train_loss")


class Tally:
    """What the steps of an epoch leave behind, kept on the device and read once."""

    def __init__(self, inputs: Inputs):
        self.losses = torch.empty(inputs.steps, device=inputs.device)
        self.hits = torch.empty_like(self.losses)
        self.norms: list[Tensor] = []

    def note(
        self, index: int, loss: Tensor, logits: Tensor, labels: Tensor, model: nn.Module
    ) -> None:
        """Add step ``index`` of the epoch."""
        self.losses[index] = loss.detach()
        self.hits[index] = (logits.detach().argmax(1) == labels).sum()
        if index % GRAD_NORM_EVERY == 0:
            self.norms.append(grad_norm(model))

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
    for index, (images, labels) in enumerate(inputs.epoch(state.epoch)):
        loss, logits = train_step(state, inputs, images, labels)
        tally.note(index, loss, logits, labels, state.model)
    rate = inputs.recipe.rate(state.step - 1, inputs.steps)
    _note(state, lr=rate, **tally.read(inputs.recipe.batch_size))
    return tally.losses


def train_step(
    state: TrainState, inputs: Inputs, images: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """One step of the optimiser; returns the loss and the logits before it."""
    _prepare_step(state, inputs.recipe, inputs.steps)
    logits = state.model(images)
    loss = F.cross_entropy(logits, labels, label_smoothing=inputs.recipe.label_smoothing)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    state.optimizer.step()
    state.step += 1
    return loss, logits


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


@torch.no_grad()
def evaluate(model: nn.Module, split: Split, normalization: Normalization) -> tuple[float, Tensor]:
    """Mean cross-entropy, and for each example whether it was classified rightly, on the CPU.

    An empty split has a loss of NaN.
    """
    model.eval()
    total = torch.zeros((), dtype=torch.float64, device=split.labels.device)
    correct = []
    for start in range(0, len(split), EVALUATION_BATCH):
        labels = split.labels[start : start + EVALUATION_BATCH]
        logits = model(normalization.apply(split.images[start : start + EVALUATION_BATCH]))
        total += F.cross_entropy(logits, labels, reduction="sum").double()
        correct.append(logits.argmax(1) == labels)
    if not correct:
        return float("nan"), torch.zeros(0, dtype=torch.bool)
    return total.item() / len(split), torch.cat(correct).cpu()


def _share(correct: Tensor) -> float:
    return correct.double().mean().item() if len(correct) else float("nan")


def _note(state: TrainState, **values: float) -> None:
    for name, value in values.items():
        state.curves.setdefault(name, []).append(value)


def _diverged(state: TrainState, at: dict[str, int]) -> Result:
    if len(state.curves.get("validation_loss", [])) < len(state.curves["train_loss"]):
        _note(state, validation_loss=float("nan"), validation_accuracy=float("nan"))
    names = ("test_accuracy", "test_loss", *_FINAL)
    return Result(
        outcome="diverged", metrics=dict.fromkeys(names), curves=state.curves, correct=None,
        seconds=state.seconds, diverged_at=at,
    )  # fmt: skip
