"""All that changes as training goes on, and how it is kept and taken up again."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from overconv.training.ema import Average
from overconv.training.recipe import Recipe
from overconv.training.streams import KeyedDropout
from overconv.training.world import World

# Steps between two looks at the gradients' norm, which would cost 1 % of a small step each time.
GRAD_NORM_EVERY = 8


class Tally:
    """What the steps of an epoch leave behind on this rank, kept on the device and read once."""

    def __init__(self, steps: int, device: str | torch.device) -> None:
        self.losses = torch.empty(steps, device=device)
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

    def read(self, recipe: Recipe, world: World) -> tuple[dict[str, float], Tensor]:
        """The curves' values of the epoch, and the loss of each step, of all ranks together."""
        losses, hits = world.mean(self.losses), world.mean(self.hits)
        norms = torch.stack(self.norms).double()
        if recipe.amp == "float16":  # a step whose scaled gradients overflow is not taken
            norms = norms[norms.isfinite()]
        values = {
            "train_loss": losses.double().mean().item(),
            "train_accuracy": hits.double().mean().item() / (recipe.batch_size // world.size),
            "grad_norm": norms.mean().item(),
        }
        return values, losses

    def pack(self, world: World) -> dict[str, Tensor]:
        """As tensors, for :meth:`load`; (ranks, steps) where ranks differ."""
        noted = slice(self.num_steps)
        return {
            "losses": world.stack(self.losses[noted]),
            "hits": world.stack(self.hits[noted]),
            "norms": torch.stack(self.norms) if self.norms else torch.zeros(0),
        }

    def load(self, packed: dict[str, Tensor], world: World) -> None:
        """Go on where :meth:`pack` was called."""
        self.num_steps = packed["losses"].shape[1]
        self.losses[: self.num_steps] = packed["losses"][world.rank]
        self.hits[: self.num_steps] = packed["hits"][world.rank]
        self.norms = list(packed["norms"].to(self.losses.device))


def grad_norm(model: nn.Module) -> Tensor:
    """Euclidean norm of all gradients together; nothing is read back from the device."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return torch.nn.utils.get_total_norm(gradients, foreach=True)


class Stopwatch:
    """Seconds between its starts and stops, added up."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self._since: float | None = None

    def start(self) -> None:
        """Count from now on."""
        self._since = time.perf_counter()

    def stop(self) -> None:
        """Count no more."""
        if self._since is not None:
            self.seconds += time.perf_counter() - self._since
            self._since = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within: it stands still, as before it counts or does not."""
        was_running = self._since is not None
        self.stop()
        yield
        if was_running:
            self.start()


@dataclass
class TrainState:
    """A training after ``step`` steps, those of earlier epochs included.

    The running epoch has its own ``tally`` and ``watch``; ``curves`` and ``seconds`` have a value
    for each epoch that is over. ``resumed`` lists the steps at which the training was taken up.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: Average | None
    dropouts: list[KeyedDropout]
    tally: Tally
    epoch: int = 0
    step: int = 0
    watch: Stopwatch = field(default_factory=Stopwatch)
    curves: dict[str, list[float]] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    resumed: list[int] = field(default_factory=list)

    @classmethod
    def start(
        cls,
        model: nn.Module,
        recipe: Recipe,
        *,
        steps: int,
        device: str | torch.device = "cpu",
        dropouts: list[KeyedDropout] | None = None,
    ) -> "TrainState":
        """The state before the first of ``steps`` steps an epoch; ``model`` is as it will stay."""
        return cls(
            model=model,
            optimizer=recipe.build_optimizer(model),
            scaler=torch.amp.GradScaler(torch.device(device).type, enabled=recipe.amp == "float16"),
            average=Average(model, recipe.ema) if recipe.ema else None,
            dropouts=dropouts or [],
            tally=Tally(steps, device),
        )

    def end_epoch(self, seconds: dict[str, float], values: dict[str, float]) -> None:
        """Note what an epoch took and what came of it, and stand before the next."""
        for curves, found in ((self.curves, values), (self.seconds, seconds)):
            for name, value in found.items():
                curves.setdefault(name, []).append(value)
        self.epoch += 1
        self.tally = Tally(len(self.tally.losses), self.tally.losses.device)
        self.watch = Stopwatch()

    def pack(self, world: World) -> dict[str, Any]:
        """As tensors and plain values, for :meth:`load`; all ranks meet here.

        The tensors are the state's own: write or copy them before the next step.
        """
        return {
            "epoch": self.epoch,
            "step": self.step,
            "model": _values(self.model),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": None if self.average is None else self.average.values,
            "tally": self.tally.pack(world),
            "running": self.watch.seconds,
            "curves": self.curves,
            "seconds": self.seconds,
            "resumed": self.resumed,
        }

    @torch.no_grad()
    def load(self, packed: dict[str, Any], world: World) -> None:
        """Go on where :meth:`pack` was called, on a model built and prepared in the same way."""
        own = _values(self.model)
        if own.keys() != packed["model"].keys():
            names = ", ".join(sorted(own.keys() ^ packed["model"].keys()))
            raise ValueError(f"the checkpoint is of another network; not in both: {names}")
        self.model.load_state_dict(
            {name: packed["model"][name] for name in self.model.state_dict()}
        )
        for name, buffer in self.model.named_buffers():
            buffer.copy_(packed["model"][name])
        self.optimizer.load_state_dict(packed["optimizer"])
        self.scaler.load_state_dict(packed["scaler"])
        if self.average is not None:
            self.average.load(packed["average"])
        self.epoch, self.step = packed["epoch"], packed["step"]
        self.tally.load(packed["tally"], world)
        self.watch = Stopwatch(packed["running"])
        self.curves, self.seconds = packed["curves"], packed["seconds"]
        self.resumed = [*packed["resumed"], self.step]


def _values(model: nn.Module) -> dict[str, Any]:
    """Everything a network holds by name, with the buffers that its state_dict leaves out."""
    return {**dict(model.named_buffers()), **model.state_dict()}
