"""The gate of ODConv, and the batch norm that gates and dynamic branches share.

Axes: B batch, I input channels, H x W image.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from overconv.functional import norm_as_affine
from overconv.gates import Squash
from overconv.inference_gate import InferenceGate


class GateNorm2d(nn.BatchNorm2d):
    """Batch norm that can train on a single value a channel, such as the pooled one image.

    The batch says nothing about the spread then, and torch's norm refuses. This one applies its
    running statistics, as ``eval()`` does, and leaves them as they are. In all else it is torch's.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.num_values(x) <= 1:
            statistics = self.running_mean, self.running_var
            return F.batch_norm(x, *statistics, self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(x)

    def num_values(self, x: Tensor) -> int:
        """Values a channel; where several processes share a batch, of all of it."""
        return x.shape[0] * x.shape[2] * x.shape[3]


class ODGate(nn.Module):
    r"""The four attentions of ODConv: one hidden layer, and one linear layer for all heads.

    .. math:: h = \mathrm{relu}(\mathrm{norm}(V \, \mathrm{pool}(x))), \qquad
              \sigma((U_j h + u_j) / \tau) \ \text{or, over kernels,}\
              \mathrm{softmax}((U_w h + u_w) / \tau)

    Args:
        in_channels: Channels of the features that are read.
        widths: Number of gates of each head under a sigmoid.
        kernels: Number of gates of the head under a softmax, the last one; 1: there is none.
        hidden: Width of the hidden layer.
        temperature: :math:`\tau` of all heads; see :class:`overconv.gates.Squash`.
        norm: Whether the hidden layer has a batch norm; without one it has a bias. A batch of one
            is normalised by the running statistics (:class:`GateNorm2d`).

    Shape:
        (B, in_channels, H, W) -> for each head one (B, width)
    """

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int],
        kernels: int,
        *,
        hidden: int,
        temperature: float,
        norm: bool,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        factory = {"device": device, "dtype": dtype}
        self.widths = [*widths, kernels] if kernels > 1 else list(widths)
        self.squeeze = nn.Linear(in_channels, hidden, bias=not norm, **factory)
        self.norm = GateNorm2d(hidden, **factory) if norm else None
        self.excite = nn.Linear(hidden, sum(self.widths), **factory)
        self.sigmoid = Squash("sigmoid", temperature, **factory)
        self.softmax = Squash("softmax", temperature, **factory) if kernels > 1 else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the layers as the authors do: normal, by the fan out of each head; no bias.

        The temperatures go back to where they started.
        """
        for squash in (self.sigmoid, self.softmax):
            if squash is not None:
                squash.reset_parameters()
        nn.init.kaiming_normal_(self.squeeze.weight, mode="fan_out", nonlinearity="relu")
        with torch.no_grad():
            for head in self.excite.weight.split(self.widths):
                head.normal_(std=(2 / head.shape[0]) ** 0.5)
        for layer in (self.squeeze, self.excite):
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        if self.norm is not None:
            self.norm.reset_parameters()

    def make_neutral(self) -> None:
        """From here on every gate is that of equal logits, until training moves it."""
        nn.init.zeros_(self.excite.weight)
        nn.init.zeros_(self.excite.bias)

    @property
    def neutral(self) -> list[float]:
        """The gate of each head while its logits are equal."""
        if self.softmax is None:
            return [self.sigmoid.neutral(width) for width in self.widths]
        *widths, kernels = self.widths
        return [*map(self.sigmoid.neutral, widths), self.softmax.neutral(kernels)]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        hidden = self.squeeze(x.mean((2, 3)))
        if self.norm is not None:
            hidden = self.norm(hidden[:, :, None, None]).flatten(1)
        logits = self.excite(hidden.relu())
        if self.softmax is None:
            return self.sigmoid(logits).split(self.widths, 1)
        *widths, kernels = self.widths
        scales, shares = logits.split([sum(widths), kernels], 1)
        return (*self.sigmoid(scales).split(widths, 1), self.softmax(shares))

    def to_inference(self) -> InferenceGate:
        """The same gates in ``eval()``, norm and temperature folded into the linear layers.

        Raises:
            ValueError: The norm is training.
        """
        weight: Tensor = self.squeeze.weight
        bias: Tensor = self.squeeze.bias
        if self.norm is not None:
            scale, shift = norm_as_affine(self.norm)
            weight, bias = weight * scale[:, None], shift
        kernels = self.widths[-1:] if self.softmax is not None else []
        scales = self.widths[: len(self.widths) - len(kernels)]
        last, blocks = [], [("sigmoid", scales)]
        rows = [sum(scales), sum(kernels)]
        parts = zip(self.excite.weight.split(rows), self.excite.bias.split(rows), strict=True)
        for pair, squash in zip(parts, (self.sigmoid, self.softmax), strict=True):
            temperature = None if squash is None else squash.temperature
            last.append(pair if temperature is None else [part / temperature for part in pair])
        if kernels:
            blocks.append(("softmax", kernels))
        weights, biases = (torch.cat(parts) for parts in zip(*last, strict=True))
        return InferenceGate([(weight, bias), (weights, biases)], blocks)

    def macs(self, image: tuple[int, int]) -> tuple[int, int]:
        """Multiply-accumulates of the linear layers and of the pooling."""
        linear = self.squeeze.weight.numel() + self.excite.weight.numel()
        return linear, self.squeeze.in_features * image[0] * image[1]

    def macs_on_pooled(self) -> int:
        """Multiply-accumulates of the linear layer that reads the pooled features."""
        return self.squeeze.weight.numel()

    def extra_repr(self) -> str:
        return f"widths={self.widths}"
