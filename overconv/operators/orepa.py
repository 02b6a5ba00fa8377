"""OREPA: six branches that are added as kernels, so that training too runs one convolution.

Axes: B batch, I input, M inner and O output channels, K x L kernel, H x W image, G groups.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from overconv.checks import IntPair, at_least
from overconv.functional import fold_norm_after, pointwise_before
from overconv.operators.branches import BranchedConv2d
from overconv.operators.macs import Macs

# How much of each branch the sum starts with; a 1 x 1 kernel has the first two.
STARTS = {
    "origin": 0.25,
    "deep": 1.0,
    "average": 0.25,
    "frequency": 0.0,
    "point": 0.5,
    "separable": 0.5,
}


def frequency_prior(channels: int, kernel_size: tuple[int, int]) -> Tensor:
    r"""A cosine of its own for each channel, the filters of the discrete cosine transform in turn.

    .. math:: P_{ikl} = \cos \frac{\pi u (k + 1/2)}{K} \cos \frac{\pi v (l + 1/2)}{L}, \qquad
              u L + v = 1 + i \bmod (K L - 1), \quad v < L

    All pairs of frequencies but the constant one, which the average has. Double precision.

    Shape:
        -> (channels, 1, K, L)
    """
    (rows, columns), double = kernel_size, torch.float64
    number = 1 + torch.arange(channels) % (rows * columns - 1)
    high = torch.outer(number // columns, torch.arange(rows, dtype=double) + 0.5) / rows
    wide = torch.outer(number % columns, torch.arange(columns, dtype=double) + 0.5) / columns
    return ((math.pi * high).cos()[:, :, None] * (math.pi * wide).cos()[:, None, :])[:, None]


class OREPAConv2d(BranchedConv2d):
    r"""Convolution by a sum of six kernels, each with a learned factor an output channel.

    .. math:: y = \mathrm{norm}\Bigl( \bigl( \sum_b diag(s_b) W_b \bigr) * x \Bigr) + b

    ============  =====================================================================  =======
    branch        kernel :math:`W_b`, of an output o, an input i and a tap t             s starts
    ============  =====================================================================  =======
    origin        :math:`W_{oit}`                                                        0.25
    deep          I + 1 x 1, then K x L: :math:`\sum_m W_{omt} (E + V)_{mi}`             1
    average       1 x 1, then the average of the taps: :math:`V_{oi} / K L`              0.25
    frequency     fixed filter an input channel, then 1 x 1: :math:`V_{oi} P_{it}`       0
    point         1 x 1, on the tap ((K - 1) // 2, (L - 1) // 2): :math:`V_{oi}`         0.5
    separable     depthwise K x L, ``expansion`` channels an input channel, then 1 x 1   0.5
    ============  =====================================================================  =======

    with :math:`P` of :func:`frequency_prior`. The kernels are added once a batch, and a single
    convolution and a single batch norm are run. The deep branch has ``I`` inner channels, or with
    more than four groups ``2 I``, and then :math:`E` holds the identity twice. A 1 x 1 kernel has
    two branches, origin and deep: others would repeat origin, and it has no frequency but 0.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
        padding_mode, device, dtype: As in :class:`torch.nn.Conv2d`. The bias is added behind the
            norm, which has one of its own.
        expansion: Channels of the separable branch for each input channel; a 1 x 1 kernel has no
            such branch.
        norm: Whether the layer has its batch norm. Leave it out where one follows anyway; a fresh
            sum of the branches has about 3.6 times the variance of its input.

    Attributes:
        scales: The factors, (6 or 2, O), in the order of the table.
        prior: (I, 1, K, L), the fixed filters; a buffer, or None for a 1 x 1 kernel.

    Shape:
        (B, in_channels, H, W) -> (B, out_channels, H', W') as in :class:`torch.nn.Conv2d`

    Cost:
        Where a convolution has ``P`` parameters, and with ``p = O I/G``, up to four groups:
        ``2 P + 3 p + I I/G + expansion (I K L + p) + 8 O``. Multiply-accumulates: those of a
        convolution, and once a batch ``P`` times ``I/G + expansion``. Folds to the plain
        convolution.

    Raises:
        ValueError: An argument is out of its range. In ``forward``: the input's shape is wrong, or
            a norm is training on a single value a channel.

    ``from_conv2d`` preserves the function in ``eval()``, and without ``norm`` in ``train()`` too:
    the origin takes the kernel minus what the other branches give, divided by its factor.

    Source:
        M. Hu et al., "Online convolutional re-parameterization", CVPR 2022. Differs in the
        frequencies, which are a formula here for every kernel size; that the identity is held twice
        where the inner channels are doubled is our reading.

    Example:
        >>> layer = OREPAConv2d(64, 64, 3, padding=1, bias=False)
        >>> sum(parameter.numel() for parameter in layer.parameters())
        128000
    """

    prior: Tensor | None
    batch_norm: nn.BatchNorm2d | None

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
        expansion: int = 8,
        norm: bool = True,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )
        self.expansion = at_least("expansion", expansion, 1)
        self.norm, factory = bool(norm), self._factory
        per_group, size = self.in_channels // self.groups, self.kernel_size
        inner = 2 if self.groups > 4 else 1

        def weight(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape, **factory))

        self.origin = weight(self.out_channels, per_group, *size)
        self.deep_inner = weight(inner * self.in_channels, per_group, 1, 1)
        self.deep_outer = weight(self.out_channels, inner * per_group, *size)
        self.average = self.frequency = self.point = self.depthwise = self.pointwise = None
        prior = None
        if size != (1, 1):
            self.average = weight(self.out_channels, per_group, 1, 1)
            self.frequency = weight(self.out_channels, per_group, 1, 1)
            self.point = weight(self.out_channels, per_group, 1, 1)
            self.depthwise = weight(self.expansion * self.in_channels, 1, *size)
            self.pointwise = weight(self.out_channels, self.expansion * per_group, 1, 1)
            prior = torch.empty(self.in_channels, 1, *size, **factory)
        self.register_buffer("prior", prior)
        self.scales = weight(6 if size != (1, 1) else 2, self.out_channels)
        self.batch_norm = nn.BatchNorm2d(self.out_channels, **factory) if norm else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all kernels by He's uniform law, as the authors do; the inner one is zero."""
        for name, parameter in self.named_parameters(recurse=False):
            if parameter.dim() == 4 and name != "deep_inner":
                nn.init.kaiming_uniform_(parameter)
        with torch.no_grad():
            self.deep_inner.zero_()
            for scale, start in zip(self.scales, STARTS.values(), strict=False):
                scale.fill_(start)
            if self.prior is not None:
                self.prior.copy_(frequency_prior(self.in_channels, self.kernel_size))
        self.reset_bias()
        if self.batch_norm is not None:
            self.batch_norm.reset_parameters()

    def start_from(self, weight: Tensor, bias: Tensor | None) -> None:
        """The origin makes up for the other branches; the norm is the identity of ``eval()``."""
        self.origin.zero_()
        self.scales[0].fill_(STARTS["origin"])
        self.origin.copy_((weight - self.kernel()) / STARTS["origin"])
        if self.bias is not None and bias is not None:
            self.bias.copy_(bias)
        if self.batch_norm is not None:
            self.batch_norm.reset_parameters()
            self.batch_norm.get_buffer("running_var").fill_(1 - self.batch_norm.eps)

    def kernel(self) -> Tensor:
        """The sum of the branches, (O, I/G, K, L): what is convolved ahead of the norm."""
        scales = self.scales[:, :, None, None, None]
        total = scales[0] * self.origin + scales[1] * self._deep()
        if self.average is None or self.point is None:
            return total
        total = total + scales[2] / math.prod(self.kernel_size) * self.average
        total = total + self._frequencies(scales[3])
        total = total + self.placed(scales[4] * self.point)
        return total + self._separable(scales[5])

    def _deep(self) -> Tensor:
        """The identity is not multiplied: it passes the outer kernel on."""
        outer, per_group = self.deep_outer, self.in_channels // self.groups
        passed: Tensor = outer
        if outer.shape[1] > per_group:
            passed = outer[:, :per_group] + outer[:, per_group:]
        return passed + pointwise_before(self.deep_inner, outer, self.groups)

    def _frequencies(self, scale: Tensor) -> Tensor:
        assert self.frequency is not None and self.prior is not None
        pointwise = (scale * self.frequency).unflatten(0, (self.groups, -1))
        filters = self.prior.unflatten(0, (self.groups, -1)).transpose(1, 2)
        return (pointwise * filters).flatten(0, 1)

    def _separable(self, scale: Tensor) -> Tensor:
        assert self.depthwise is not None and self.pointwise is not None
        per_group = self.in_channels // self.groups
        pointwise = (scale * self.pointwise).reshape(self.groups, -1, per_group, self.expansion)
        depthwise = self.depthwise.reshape(self.groups, per_group, self.expansion, -1)
        kernel = torch.einsum("goie,giet->goit", pointwise, depthwise)
        return kernel.flatten(0, 1).unflatten(2, self.kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        bias = None if self.norm else self.bias
        y = F.conv2d(self.pad(x), self.kernel(), bias, *self.geometry)
        if self.batch_norm is None:
            return y
        y = self.batch_norm(y)
        return y if self.bias is None else y + self.bias.to(y.dtype)[:, None, None]

    def fold(self) -> tuple[Tensor, Tensor | None]:
        if self.batch_norm is None:
            return self.kernel(), self.bias
        kernel, shift = fold_norm_after(self.kernel(), None, self.batch_norm)
        return kernel, shift if self.bias is None else shift + self.bias

    def macs(self, image: tuple[int, int]) -> Macs:
        values = self.origin.numel()
        convolution = values * math.prod(self.output_size(image))
        passed, inner = self.deep_outer.numel(), self.deep_outer.shape[1]
        if self.average is None:
            return Macs(convolution=convolution, other=2 * values + passed, shared=values * inner)
        # all branches but the point have a value for each tap
        other = 5 * values + self.average.numel() + passed
        return Macs(convolution=convolution, other=other, shared=values * (inner + self.expansion))
