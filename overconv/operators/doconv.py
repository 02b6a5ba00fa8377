"""DO-Conv: a convolution whose kernel a depthwise layer of its own re-mixes tap by tap.

Axes: B batch, I input and O output channels, K x L kernel, S depth multiplier, H x W image,
G groups.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from overconv.checks import IntPair, at_least
from overconv.operators.base import FoldingConv2d
from overconv.operators.macs import Macs


class DOConv2d(FoldingConv2d):
    r"""Convolution with a kernel of ``S`` values a channel that a matrix a channel turns into taps.

    .. math:: W'_{oit} = \sum_s (D_{its} + E_{ts}) \, W_{ois}, \qquad y = W' * x + b

    with one :math:`K L \times S` matrix :math:`D_i` for each input channel and the fixed
    :math:`E_{ts} = 1` where ``s mod K L = t``, as often as that fits ``S``, else 0. For
    ``S = K L`` that is the identity. The kernel is composed once a batch, and one convolution is
    run, in training too.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
        padding_mode, device, dtype: As in :class:`torch.nn.Conv2d`.
        depth_multiplier: ``S``, at least ``K L``. None: ``K L``, and no :math:`D` for a 1 x 1
            kernel, on which it could do no more than scale an input channel: the layer is then a
            plain convolution, so that a whole network can be converted.

    Attributes:
        weight: (O, I/G, S), the kernel before it is re-mixed.
        mix: (I, K L, S), the matrices :math:`D`; None where there are none.

    Shape:
        (B, in_channels, H, W) -> (B, out_channels, H', W') as in :class:`torch.nn.Conv2d`

    Cost:
        ``O I/G S + I K L S`` parameters. Multiply-accumulates: those of a convolution, and once a
        batch ``S`` times as many as its kernel has values. Folds to the plain convolution.

    Raises:
        ValueError: ``depth_multiplier`` is less than ``K L``, so that kernels would lose rank, or
            an argument is out of its range. In ``forward``: the input's shape is wrong.

    A fresh layer is a fresh :class:`torch.nn.Conv2d`, equal draw by draw where ``S = K L``:
    :math:`D` starts at zero. ``from_conv2d`` preserves the function in ``eval()`` and in
    ``train()``. Where ``E`` repeats the identity, the parts of ``W`` that it adds start different.

    Source:
        J. Cao et al., "DO-Conv: depthwise over-parameterized convolutional layer", IEEE
        Transactions on Image Processing 31, 2022. The fixed identity is no parameter here.

    Example:
        >>> layer = DOConv2d(64, 64, 3, bias=False)
        >>> sum(parameter.numel() for parameter in layer.parameters())
        42048
    """

    bias: Tensor | None
    mix: Tensor | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntPair,
        stride: IntPair = 1,
        padding: IntPair | str = 0,
        dilation: IntPair = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        depth_multiplier: int | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode
        )
        factory = {"device": device, "dtype": dtype}
        taps = math.prod(self.kernel_size)
        self.depth_multiplier = taps
        if depth_multiplier is not None:
            self.depth_multiplier = at_least("depth_multiplier", depth_multiplier, 1)
            if self.depth_multiplier < taps:
                raise ValueError(
                    f"depth_multiplier must be at least the {taps} taps of a kernel of size"
                    f" {self.kernel_size}, whose rank it would limit; got {depth_multiplier!r}"
                )
        per_group, depth = self.in_channels // self.groups, self.depth_multiplier
        self.weight = nn.Parameter(torch.empty(self.out_channels, per_group, depth, **factory))
        self.mix = None
        if taps > 1 or depth_multiplier is not None:
            self.mix = nn.Parameter(torch.empty(self.in_channels, taps, depth, **factory))
        self.bias = nn.Parameter(torch.empty(self.out_channels, **factory)) if bias else None
        self.reset_parameters()

    @property
    def _copies(self) -> int:
        """How often the fixed part holds the identity."""
        return self.depth_multiplier // math.prod(self.kernel_size)

    def reset_parameters(self) -> None:
        """Start with a kernel of the variance that a :class:`torch.nn.Conv2d` has."""
        fan_in = self.in_channels // self.groups * math.prod(self.kernel_size)
        nn.init.uniform_(
            self.weight, -((fan_in * self._copies) ** -0.5), (fan_in * self._copies) ** -0.5
        )
        if self.mix is not None:
            nn.init.zeros_(self.mix)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -(fan_in**-0.5), fan_in**-0.5)

    def start_from(self, weight: Tensor, bias: Tensor | None) -> None:
        """The parts that the fixed identities add are ``W`` in sum, and differ at random."""
        parts = self._parts()
        parts.add_(weight.flatten(2).unsqueeze(2) / self._copies - parts.mean(2, keepdim=True))
        if self.mix is not None:
            self.mix.zero_()
        if self.bias is not None and bias is not None:
            self.bias.copy_(bias)

    def _parts(self) -> Tensor:
        """What each identity of the fixed part reads, (O, I/G, S) -> (O, I/G, S // KL, KL)."""
        taps = math.prod(self.kernel_size)
        return self.weight[..., : self._copies * taps].unflatten(2, (self._copies, taps))

    def kernel(self) -> Tensor:
        """The one kernel that the layer convolves with, (O, I/G, K, L)."""
        kernel = self._parts().sum(2)
        if self.mix is not None:  # a product for each input channel
            weight = self.weight.unflatten(0, (self.groups, -1))
            mix = self.mix.unflatten(0, (self.groups, -1))
            kernel = kernel + torch.einsum("gits,gois->goit", mix, weight).flatten(0, 1)
        return kernel.unflatten(2, self.kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        kernel, geometry = self.kernel(), (self.conv_padding, self.dilation, self.groups)
        if x.is_contiguous(memory_format=torch.channels_last):  # circular padding would lose it
            kernel = kernel.contiguous(memory_format=torch.channels_last)
        return F.conv2d(self.pad(x), kernel, self.bias, self.stride, *geometry)

    def fold(self) -> tuple[Tensor, Tensor | None]:
        return self.kernel(), self.bias

    def macs(self, image: tuple[int, int]) -> Macs:
        values = self.weight.shape[0] * self.weight.shape[1] * math.prod(self.kernel_size)
        convolution = values * math.prod(self.output_size(image))
        if self.mix is None:
            return Macs(convolution=convolution)
        # the fixed part adds, the matrices multiply
        shared = values * self.depth_multiplier
        return Macs(convolution=convolution, other=values * self._copies, shared=shared)
