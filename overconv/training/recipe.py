"""How a network is trained, as one frozen value."""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

# Part of every trial's identity: raise it when the same values come to mean another training.
RECIPE_VERSION = 1

OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("cosine", "constant")
DECAYS = ("weights", "all")


class Schedule(Protocol):
    """Something that changes the model as training goes on, such as a temperature."""

    def apply(self, model: nn.Module, progress: float) -> None:
        """Set what it governs for the fraction ``progress`` of training, in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Optimiser, schedule, budget and augmentation of a training.

    Args:
        epochs: Passes over the training examples.
        batch_size: Examples a step; a last smaller batch is left out, another one each epoch.
        optimizer: ``"sgd"`` or ``"adamw"``.
        lr: Learning rate at its peak.
        momentum, nesterov: Of SGD.
        weight_decay: Coefficient; coupled for SGD, decoupled for AdamW.
        decay: What decays: ``"weights"`` (kernels and matrices, no norms and biases) or ``"all"``.
        schedule: ``"cosine"`` to zero at the end, or ``"constant"``; step by step.
        warmup_epochs: Epochs of a linear rise to ``lr`` before it.
        label_smoothing: In [0, 1); for the training loss alone.
        crop_padding: Pixels of zeros around the image from which a crop is taken. 0: no crop.
        flip: Whether half of the images are mirrored.
        num_validation: Training examples that are set aside.
        schedules: Values with ``apply(model, progress)``, before each step.
        threads: Of torch; they change trained bits, and belong to the stratum.

    Raises:
        ValueError: A value is out of range; the message names it.
    """

    epochs: int
    batch_size: int = 128
    optimizer: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    decay: str = "weights"
    schedule: str = "cosine"
    warmup_epochs: float = 0.0
    label_smoothing: float = 0.0
    crop_padding: int = 0
    flip: bool = False
    num_validation: int = 0
    schedules: tuple[Schedule, ...] = ()
    threads: int = 1

    def __post_init__(self) -> None:
        for name, allowed in (
            ("optimizer", OPTIMIZERS),
            ("schedule", SCHEDULES),
            ("decay", DECAYS),
        ):
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(f"{name}={value!r}; allowed: {', '.join(map(repr, allowed))}")
        for name, least in (
            ("epochs", 1),
            ("batch_size", 1),
            ("crop_padding", 0),
            ("num_validation", 0),
            ("threads", 1),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name}={value!r}; allowed: whole numbers from {least}")
        for name in ("nesterov", "flip"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}={getattr(self, name)!r}; allowed: True, False")
        for name, low, high in (
            ("lr", 0.0, math.inf),
            ("momentum", 0.0, 1.0),
            ("weight_decay", 0.0, math.inf),
            ("warmup_epochs", 0.0, float(self.epochs)),
            ("label_smoothing", 0.0, 1.0),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{name}={value!r}; allowed: numbers")
            if not (low <= value < high or (name == "warmup_epochs" and value == high)):
                raise ValueError(f"{name}={value!r}; allowed: from {low} to {high}")
            object.__setattr__(self, name, float(value))  # 1 and 1.0 are one recipe
        if not isinstance(self.schedules, tuple | list):
            raise ValueError(f"schedules={self.schedules!r}; allowed: a tuple of schedules")
        object.__setattr__(self, "schedules", tuple(self.schedules))
        for schedule in self.schedules:
            if not callable(getattr(schedule, "apply", None)):
                raise ValueError(f"schedules holds {schedule!r}, which has no apply()")

    def rate(self, step: int, steps_per_epoch: int) -> float:
        """The learning rate of step ``step``, counted from 0."""
        warmup, total = self.warmup_epochs * steps_per_epoch, self.epochs * steps_per_epoch
        if step < warmup:
            return self.lr * (step + 1) / (warmup + 1)
        if self.schedule == "constant":
            return self.lr
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))

    def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimiser of the parameters of ``model``, in their groups of decay."""
        decayed: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, parameter in model.named_parameters():
            is_weight = parameter.dim() > 1 and not name.endswith("bias")
            (decayed if is_weight or self.decay == "all" else others).append(parameter)
        groups: list[dict[str, Any]] = [
            {"params": decayed, "weight_decay": self.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        if self.optimizer == "sgd":
            # torch refuses nesterov without momentum, where it would change nothing
            nesterov = self.nesterov and self.momentum > 0
            return torch.optim.SGD(groups, self.lr, self.momentum, nesterov=nesterov)
        return torch.optim.AdamW(groups, self.lr)
