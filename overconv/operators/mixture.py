"""Kernels side by side, mixed by gates: the ground on which CondConv and DyConv stand.

Axes: B batch, N kernels, I input and O output channels, K x L kernel, G groups.
"""

import math
from copy import deepcopy
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from overconv.checks import IntPair, at_least, one_of
from overconv.functional import conv2d_per_sample
from overconv.gates import PooledGate
from overconv.operators.base import Macs, OverConv2d

PLACES = ("weights", "features")


class MixtureConv2d(OverConv2d):
    r"""Convolution by a mixture of ``num_kernels`` parallel kernels.

    .. math:: W(x) = \sum_n a_n(x) W_n, \qquad b(x) = \sum_n a_n(x) b_n, \qquad y = W(x) * x + b(x)

    With ``on="weights"`` the kernels are mixed and each sample is convolved by its own; with
    ``on="features"`` the input is convolved by all kernels and the results are mixed. Both are the
    same function, and ``on`` may be set at any time. A derived layer brings the gate.

    Attributes:
        weight: (N, O, I/G, K, L).
        bias: (N, O), or None.
        gate: Gives the (B, N) mixture.
    """

    bias: Tensor | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntPair,
        stride: IntPair,
        padding: IntPair | str,
        dilation: IntPair,
        groups: int,
        bias: bool,
        padding_mode: str,
        device: Any,
        dtype: Any,
        *,
        num_kernels: int,
        on: str,
        gate: dict[str, Any],
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode
        )
        self.num_kernels = at_least("num_kernels", num_kernels, 1)
        self.on = on
        shape = (self.num_kernels, self.out_channels, self.in_channels // self.groups)
        self.weight = nn.Parameter(
            torch.empty(*shape, *self.kernel_size, device=device, dtype=dtype)
        )
        self.bias = None
        if bias:
            self.bias = nn.Parameter(torch.empty(*shape[:2], device=device, dtype=dtype))
        self.gate = PooledGate(
            self.in_channels, [self.num_kernels], device=device, dtype=dtype, **gate
        )
        self.reset_parameters()

    @property
    def on(self) -> str:
        """Where the mixture happens: on the ``"weights"`` or on the ``"features"``."""
        return self._on

    @on.setter
    def on(self, on: str) -> None:
        self._on = one_of("on", on, PLACES)

    def reset_parameters(self) -> None:
        """Draw each kernel and bias as a :class:`torch.nn.Conv2d` does; the gate starts neutral."""
        bound = self.weight[0, 0].numel() ** -0.5
        for kernel in self.weight:
            nn.init.kaiming_uniform_(kernel, a=math.sqrt(5))
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)
        self.gate.reset_parameters()

    def start_from(self, weight: Tensor, bias: Tensor | None) -> None:
        """Kernels ``W + E_n``, scaled so that the neutral mixture is ``W``.

        The ``E_n`` are random, sum to zero and are as large as ``W``: equal kernels would get equal
        gradients for ever.
        """
        share = 1 / (self.gate.neutral[0] * self.num_kernels)
        size = weight.square().mean().sqrt()
        size = torch.where(size > 0, size, (3 * weight[0].numel()) ** -0.5)  # as a fresh layer's
        noise = torch.randn_like(self.weight) * size
        self.weight.copy_(share * (weight + noise - noise.mean(0)))
        if self.bias is not None and bias is not None:
            self.bias.copy_((share * bias).expand_as(self.bias))
        self.gate.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        (mixture,) = self.gate(x)
        bias = None if self.bias is None else mixture @ self.bias
        if self.on == "weights":
            weight = (mixture @ self.weight.flatten(1)).unflatten(1, self.weight.shape[1:])
            return conv2d_per_sample(self.pad(x), weight, bias, *self._geometry)
        return self._mix_features(x, mixture, bias)

    def _mix_features(self, x: Tensor, mixture: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve by all kernels at once, their outputs side by side within each group."""
        weight = self.weight.unflatten(1, (self.groups, -1)).transpose(0, 1).flatten(0, 2)
        y = F.conv2d(self.pad(x), weight, None, *self._geometry)
        per_kernel = y.reshape(y.shape[0], self.groups, self.num_kernels, -1)
        mixed = (mixture[:, None, None, :].to(y.dtype) @ per_kernel).view(
            y.shape[0], self.out_channels, *y.shape[2:]
        )
        return mixed if bias is None else mixed + bias[:, :, None, None]

    @property
    def _geometry(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], int]:
        return self.stride, self.conv_padding, self.dilation, self.groups

    def to_inference(self) -> Self:
        """A copy in ``eval()`` that mixes the weights: one convolution, however many kernels."""
        copy = deepcopy(self).eval()
        copy.on = "weights"
        return copy

    def macs(self, image: tuple[int, int]) -> Macs:
        linear, pooling = self.gate.macs(image)
        pixels = math.prod(self.output_size(image))
        bias = 0 if self.bias is None else self.bias.numel()
        total = Macs(gate=linear, compose=bias, other=pooling)
        if self.on == "weights":
            convolution = self.weight[0].numel() * pixels
            return total + Macs(compose=self.weight.numel(), convolution=convolution)
        mixing = self.num_kernels * self.out_channels * pixels
        return total + Macs(convolution=self.weight.numel() * pixels, other=mixing)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, num_kernels={self.num_kernels}, on={self.on!r}"
