"""What a training is given and leaves as it is."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from overconv.training.inputs import Inputs
from overconv.training.recipe import Recipe
from overconv.training.world import ALONE, World


class Checkpoints(Protocol):
    """Where a training keeps its state; see :mod:`overconv.training.checkpoint`."""

    def newest(self) -> dict[str, Any] | None:
        """The state to go on from; None: begin."""

    def save(self, state: dict[str, Any]) -> None:
        """Keep ``state``, whose tensors change with the next step; its ``"step"`` is the number
        of steps taken."""

    def due(self, step: int) -> bool:
        """Whether to save after ``step`` steps; on all ranks the same."""


@dataclass(frozen=True)
class Conditions:
    """What a training is given and leaves as it is."""

    recipe: Recipe
    inputs: Inputs
    device: str = "cpu"
    world: World = ALONE
    checkpoints: Checkpoints | None = None
    stop: Callable[[], bool] | None = None

    def autocast(self) -> AbstractContextManager[object]:
        """What a forward pass of training runs in."""
        if self.recipe.amp == "none":
            return nullcontext()
        return torch.autocast(torch.device(self.device).type, getattr(torch, self.recipe.amp))
