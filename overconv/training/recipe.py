"""How a network is trained, as one frozen value."""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

# Part of every trial's identity: raise it when the same values come to mean another training.
RECIPE_VERSION = 2

OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("cosine", "constant")
DECAYS = ("weights", "all")
PRECISIONS = ("none", "bfloat16", "float16")


class Schedule(Protocol):
    """Something that changes the model as training goes on, such as a temperature."""

    def apply(self, model: nn.Module, progress: float) -> None:
        """Set what it governs for the fraction ``progress`` of training, in [0, 1].

        A function of the two alone: a resumed training applies it from the middle on.
        """


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Optimiser, schedule, budget and augmentation of a training.

    Args:
        epochs: Passes over the training examples.
        batch_size: Examples a step, over all ranks; a last smaller batch is left out, another one
            each epoch.
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
        num_train: Training examples to train on, drawn by the block from those that are not set
            aside; all others go unused. 0: all.
        schedules: Values with ``apply(model, progress)``, before each step.
        ema: Decay, a step, of an exponential moving average of the parameters, which validation
            and test then score; in [0, 1). 0: none.
        amp: Type of the forward pass in training: ``"none"``, or under autocast ``"bfloat16"`` or
            ``"float16"``, the latter with a scaled loss. Validation and test are in float32.
        mixup: ``alpha`` of the Beta(alpha, alpha) from which each step's share of the images of
            the batch rolled by one is drawn. 0: none.
        channels_last: Whether model and images lie in memory with the channels last.
        resized_crop: Least share of the area in a random crop that is resized, in [0, 1]; not
            together with ``crop_padding``. 0: no such crop.
        image_size: Edge of a training image in pixels, for data sets whose images vary in size.
        ranks: Processes that share a batch, which divides by them.
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
    num_train: int = 0
    schedules: tuple[Schedule, ...] = ()
    ema: float = 0.0
    amp: str = "none"
    mixup: float = 0.0
    channels_last: bool = False
    resized_crop: float = 0.0
    image_size: int | None = None
    ranks: int = 1
    threads: int = 1

    def __post_init__(self) -> None:
        for name, allowed in (
            ("optimizer", OPTIMIZERS),
            ("schedule", SCHEDULES),
            ("decay", DECAYS),
            ("amp", PRECISIONS),
        ):
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(f"{name}={value!r}; allowed: {', '.join(map(repr, allowed))}")
        for name, least in (
            ("epochs", 1),
            ("batch_size", 1),
            ("crop_padding", 0),
            ("num_validation", 0),
            ("num_train", 0),
            ("image_size", 1),
            ("ranks", 1),
            ("threads", 1),
        ):
            value = getattr(self, name)
            if value is None and name == "image_size":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name}={value!r}; allowed: whole numbers from {least}")
        for name in ("nesterov", "flip", "channels_last"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}={getattr(self, name)!r}; allowed: True, False")
        for name, low, high in (
            ("lr", 0.0, math.inf),
            ("momentum", 0.0, 1.0),
            ("weight_decay", 0.0, math.inf),
            ("warmup_epochs", 0.0, float(self.epochs)),
            ("label_smoothing", 0.0, 1.0),
            ("ema", 0.0, 1.0),
            ("mixup", 0.0, math.inf),
            ("resized_crop", 0.0, 1.0),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{name}={value!r}; allowed: numbers")
            closed = name in ("warmup_epochs", "resized_crop")
            if not (low <= value < high or (closed and value == high)):
                raise ValueError(f"{name}={value!r}; allowed: from {low} to {high}")
            object.__setattr__(self, name, float(value))  # 1 and 1.0 are one recipe
        if not isinstance(self.schedules, tuple | list):
            raise ValueError(f"schedules={self.schedules!r}; allowed: a tuple of schedules")
        object.__setattr__(self, "schedules", tuple(self.schedules))
        for schedule in self.schedules:
            if not callable(getattr(schedule, "apply", None)):
                raise ValueError(f"schedules holds {schedule!r}, which has no apply()")
        if self.batch_size % self.ranks:
            raise ValueError(f"batch_size={self.batch_size} does not divide by ranks={self.ranks}")
        if self.resized_crop and self.crop_padding:
            raise ValueError(
                f"crop_padding={self.crop_padding} and resized_crop={self.resized_crop} are two "
                "ways to crop; allowed: one of them"
            )

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
