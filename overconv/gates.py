"""Gates: what a layer reads from its input to mix, scale or select its own kernels.

Axes: B batch, I input channels, H x W image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from overconv.inference_gate import InferenceGate

SQUASHES = ("2sigmoid", "sigmoid", "softmax")
WHENS = ("sample", "batch", "training")


class Squash(nn.Module):
    r"""Turns logits into gates: :math:`2\sigma(z/\tau)`, :math:`\sigma(z/\tau)` or softmax.

    Args:
        kind: ``"2sigmoid"``, ``"sigmoid"`` or ``"softmax"`` (over the last axis).
        temperature: :math:`\tau`, a buffer ``temperature`` that a :class:`TemperatureSchedule`
            moves and ``state_dict`` keeps. None: no temperature, and no buffer.

    Raises:
        ValueError: ``kind`` is unknown, or ``temperature`` is not above zero.
    """

    temperature: Tensor | None

    def __init__(
        self, kind: str, temperature: float | None = 1.0, *, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        if kind not in SQUASHES:
            raise ValueError(
                f"squash must be one of {', '.join(map(repr, SQUASHES))}, got {kind!r}"
            )
        number = isinstance(temperature, int | float) and not isinstance(temperature, bool)
        if temperature is not None and not (number and 0 < temperature < float("inf")):
            raise ValueError(f"temperature must be positive and finite, got {temperature!r}")
        self.kind, self.start = kind, temperature
        buffer = None
        if temperature is not None:
            buffer = torch.empty((), device=device, dtype=dtype)
        self.register_buffer("temperature", buffer)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Go back to the temperature that was given."""
        if self.temperature is not None:
            assert self.start is not None, "a temperature was given"
            self.temperature.fill_(self.start)

    def neutral(self, width: int) -> float:
        """The gate that equal logits give at any temperature, for a head of ``width`` gates."""
        return {"2sigmoid": 1.0, "sigmoid": 0.5, "softmax": 1.0 / width}[self.kind]

    @property
    def elementwise(self) -> bool:
        """Whether each gate depends on its own logit alone."""
        return self.kind != "softmax"

    def forward(self, logits: Tensor) -> Tensor:
        if self.temperature is not None:
            logits = logits / self.temperature
        if self.kind == "softmax":
            return logits.softmax(-1)
        gates = logits.sigmoid()
        return 2 * gates if self.kind == "2sigmoid" else gates

    def extra_repr(self) -> str:
        return repr(self.kind)


class PooledGate(nn.Module):
    r"""Gates from globally pooled features: ``pool -> Linear -> ReLU -> Linear -> squash``.

    One head for each gated place, over a shared hidden layer. The last linear layer starts at
    zero, so every gate starts neutral (:meth:`neutral`) whatever the input. There is no
    normalisation inside, so a batch of one is like any other.

    With ``when="sample"`` each sample has gates of its own. With ``"batch"`` one set serves the
    batch, computed from the pooled features averaged over it. With ``"training"`` each sample has
    its own while training. The last two keep a running mean of the gates, which is all that
    ``eval()`` uses: there the gates no longer depend on the input.

    Args:
        in_channels: Channels of the features that are read.
        widths: Number of gates of each head.
        hidden: Width of the hidden layer; None for a single linear layer.
        squash, temperature: See :class:`Squash`.
        when: ``"sample"``, ``"batch"`` or ``"training"``.

    Shape:
        (B, in_channels, H, W) -> for each of ``widths`` one (B, width), or (1, width) where the
        gates are shared

    Raises:
        ValueError: ``when`` or ``squash`` is unknown, or a softmax has one value only, which
            would be constant.
    """

    momentum = 0.1  # of the running mean, as in torch's batch norm
    running: Tensor | None

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int],
        *,
        hidden: int | None,
        squash: str = "2sigmoid",
        temperature: float | None = 1.0,
        when: str = "sample",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if when not in WHENS:
            raise ValueError(f"when must be one of {', '.join(map(repr, WHENS))}, got {when!r}")
        if squash == "softmax" and 1 in widths:
            raise ValueError("squash='softmax' over a single value is constant: it gates nothing")
        self.widths, self.when = list(widths), when
        self.squash = Squash(squash, temperature, device=device, dtype=dtype)
        features = in_channels if hidden is None else hidden
        self.squeeze = None
        if hidden is not None:
            self.squeeze = nn.Linear(in_channels, hidden, device=device, dtype=dtype)
        self.excite = nn.Linear(features, sum(widths), device=device, dtype=dtype)
        running = None
        if when != "sample":
            running = torch.empty(sum(widths), device=device, dtype=dtype)
        self.register_buffer("running", running)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the hidden layer anew and make the gates neutral, the running mean included.

        The temperature goes back to where it started.
        """
        self.squash.reset_parameters()
        if self.squeeze is not None:
            self.squeeze.reset_parameters()
        nn.init.zeros_(self.excite.weight)
        nn.init.zeros_(self.excite.bias)
        if self.running is not None:
            with torch.no_grad():
                for head, value in zip(self.running.split(self.widths), self.neutral, strict=True):
                    head.fill_(value)

    def to_inference(self) -> "InferenceGate":
        """A module that gives the same gates in ``eval()``, in fewer calls; not if they are fixed.

        The temperature is folded into the last linear layer.
        """
        assert self.when == "sample", "a gate that is constant in eval() folds away"
        temperature = self.squash.temperature
        weight: Tensor = self.excite.weight
        bias: Tensor = self.excite.bias
        if temperature is not None:
            weight, bias = weight / temperature, bias / temperature
        layers = [] if self.squeeze is None else [(self.squeeze.weight, self.squeeze.bias)]
        return InferenceGate([*layers, (weight, bias)], [(self.squash.kind, self.widths)])

    @property
    def neutral(self) -> list[float]:
        """The gate of each head while its logits are equal."""
        return [self.squash.neutral(width) for width in self.widths]

    @property
    def constant(self) -> bool:
        """Whether the gates, in the present mode, do not depend on the input."""
        return self.when != "sample" and not self.training

    @property
    def per_sample(self) -> bool:
        """Whether the gates, in the present mode, differ between the samples of a batch."""
        return not self.constant and self.when != "batch"

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        if self.running is not None and not self.training:
            return self.running[None].split(self.widths, 1)
        pooled = x.mean((2, 3))
        if self.when == "batch":
            pooled = self.batch_mean(pooled)
        if self.squeeze is not None:
            pooled = self.squeeze(pooled).relu()
        logits = self.excite(pooled)
        gates: tuple[Tensor, ...]
        if len(self.widths) == 1:
            gates = (self.squash(logits),)
        elif self.squash.elementwise:
            gates = self.squash(logits).split(self.widths, 1)
        else:
            gates = tuple(map(self.squash, logits.split(self.widths, 1)))
        if self.running is not None and x.shape[0] > 0:  # no images, no news
            self._track(gates)
        return gates

    def batch_mean(self, values: Tensor) -> Tensor:
        """(B, n) -> (1, n); where several processes share a batch, over the rows of all."""
        return values.mean(0, keepdim=True)

    @torch.no_grad()
    def _track(self, gates: tuple[Tensor, ...]) -> None:
        assert self.running is not None
        mean = self.batch_mean(torch.cat(gates, 1))[0]
        self.running.lerp_(mean.to(self.running.dtype), self.momentum)

    def macs(self, image: tuple[int, int]) -> tuple[int, int]:
        """Multiply-accumulates of the linear layers and of the pooling, in the present mode."""
        if self.constant:
            return 0, 0
        linear = self.excite.weight.numel()
        if self.squeeze is not None:
            linear += self.squeeze.weight.numel()
            return linear, self.squeeze.in_features * image[0] * image[1]
        return linear, self.excite.in_features * image[0] * image[1]

    def macs_on_pooled(self) -> int:
        """Multiply-accumulates of the linear layer that reads the pooled features."""
        if self.constant:
            return 0
        return (self.excite if self.squeeze is None else self.squeeze).weight.numel()

    def extra_repr(self) -> str:
        return f"widths={self.widths}, when={self.when!r}"


def trained(gate: PooledGate | InferenceGate) -> PooledGate:
    """The gate of a layer that starts anew, which one at inference does not."""
    assert isinstance(gate, PooledGate), "a layer at inference does not start anew"
    return gate


@dataclass(frozen=True)
class TemperatureSchedule:
    """Moves the temperature of all gates linearly from ``start`` to ``end``, then keeps it.

    A high temperature makes gates nearly equal, so that all parallel kernels learn at first
    (Chen et al., "Dynamic convolution", CVPR 2020, lower it from 30 to 1 in ten epochs).

    Attributes:
        start: Temperature at progress 0.
        end: Temperature from progress ``until`` on.
        until: Fraction of training in which the temperature moves, in (0, 1].

    Raises:
        ValueError: A temperature is not above zero, or ``until`` is out of range.
    """

    start: float = 30.0
    end: float = 1.0
    until: float = 0.1

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)!r}")
        if not 0 < self.until <= 1:
            raise ValueError(f"until must lie in (0, 1], got {self.until!r}")

    def temperature(self, progress: float) -> float:
        """The temperature after the fraction ``progress`` of training.

        >>> TemperatureSchedule(start=30, end=1, until=0.1).temperature(0.05)
        15.5
        """
        if not 0 <= progress <= 1:
            raise ValueError(f"progress must lie in [0, 1], got {progress!r}")
        passed = min(progress / self.until, 1.0)
        return self.start + passed * (self.end - self.start)

    def apply(self, model: nn.Module, progress: float) -> None:
        """Set the temperature of every :class:`Squash` in ``model`` that has one.

        Raises:
            ValueError: ``progress`` is outside [0, 1], or no gate of ``model`` has a temperature.
        """
        value = self.temperature(progress)
        buffers = [m.temperature for m in model.modules() if isinstance(m, Squash)]
        moved = [buffer for buffer in buffers if buffer is not None]
        if not moved:
            raise ValueError(
                "the model has no gate with a temperature: the schedule would do nothing"
            )
        for buffer in moved:
            buffer.fill_(value)
