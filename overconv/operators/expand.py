"""ExpandNets: a convolution as a stack of wider linear layers, which folds to one kernel.

Axes: B batch, I input and O output channels, K x L kernel, r expansion, H x W image, G groups.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from overconv.checks import IntPair, at_least, one_of
from overconv.functional import compose
from overconv.operators.base import FoldingConv2d
from overconv.operators.macs import Macs
from overconv.operators.mixture import PLACES
from overconv.operators.stack import stack_of

VARIANTS = ("CL", "CK")


class ExpandConv2d(FoldingConv2d):
    r"""Convolution as a stack of linear layers, :math:`y = A_N * \cdots * A_1 * x + b`.

    - ``"CL"`` expands the channels: 1 x 1 from ``I`` to ``r I``, K x L to ``r O``, 1 x 1 to ``O``.
    - ``"CK"`` also splits the kernel: layers of 3 x 3 from ``I`` to ``r I``, to ``r O``, and so on,
      the last one to ``O``; (K - 1) / 2 of them for K x K. Of an oblong kernel the later layers
      are 3 x 1 or 1 x 3.

    Nothing lies between the layers, neither activation nor norm. Each has ``groups`` groups, so
    that a depthwise layer has ``r`` channels a group. Dilation is that of all spatial layers, the
    stride that of the last one, and all padding is ahead of the first one: then the stack is one
    convolution at the border too. A bias inside would add no more than a constant, which the last
    one holds already: the layer has a single one, added at the end.

    With ``on="features"`` the layers are run one after the other, as the authors do; with
    ``on="weights"`` their kernel is composed once a batch, and one convolution is run. Both are
    the same function with the same gradients, and ``on`` may be set at any time.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
        padding_mode, device, dtype: As in :class:`torch.nn.Conv2d`.
        expansion: ``r``, how many times wider the inner layers are.
        variant: ``"CL"`` or ``"CK"``.
        on: ``"features"`` or ``"weights"``.

    Attributes:
        weights: The kernels of the layers, first to last.

    Shape:
        (B, in_channels, H, W) -> (B, out_channels, H', W') as in :class:`torch.nn.Conv2d`

    Cost:
        With ``P`` parameters of a convolution, CL has ``(r I I + r O O) / G + r r P``, and runs as
        many multiply-accumulates a pixel. On the weights: those of a convolution, and once a batch
        ``r P (r min(I, O) + max(I, O)) / G`` of composing. Folds to the plain convolution.

    Raises:
        ValueError: ``variant="CK"`` and a side of the kernel is even, which layers of 3 x 3 cannot
            make, or none is at least 5, so that there is nothing to split; or an argument is out of
            its range. In ``forward``: the input's shape is wrong.

    A fresh layer starts with the variance of a :class:`torch.nn.Conv2d`: its last spatial layer is
    drawn as there, and the others preserve the variance. ``from_conv2d`` preserves the function in
    ``eval()`` and in ``train()``: one layer holds the kernel, the others hand channels on (see
    :func:`overconv.operators.stack.stack_of`). ``"CK"`` needs an ``expansion`` of at least
    4 for that, and more beyond 7 x 7; a ValueError says that it is too small.

    Source:
        S. Guo, J. M. Alvarez and M. Salzmann, "ExpandNets: linear over-parameterization to train
        compact convolutional networks", NeurIPS 2020. Differs in the initialisation.

    Example:
        >>> layer = ExpandConv2d(8, 16, 3, padding=1)
        >>> [tuple(weight.shape) for weight in layer.weights]
        [(32, 8, 1, 1), (64, 32, 3, 3), (16, 64, 1, 1)]
        >>> layer.to_inference()
        Conv2d(8, 16, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
    """

    form_option = "on"
    bias: Tensor | None

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
        expansion: int = 4,
        variant: str = "CL",
        on: str = "features",
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode
        )
        factory = {"device": device, "dtype": dtype}
        self.expansion = at_least("expansion", expansion, 1)
        self.variant = one_of("variant", variant, VARIANTS)
        self.on = on
        sizes = self._sizes()
        # the spatial layers are the first to the last of these
        self._first, self._last = (1, 1) if variant == "CL" else (0, len(sizes) - 1)
        widths = [self.in_channels, self.expansion * self.in_channels]
        widths += [self.expansion * self.out_channels] * (len(sizes) - 2) + [self.out_channels]
        self.weights = nn.ParameterList(
            torch.empty(wide_out, wide_in // self.groups, *size, **factory)
            for wide_in, wide_out, size in zip(widths[:-1], widths[1:], sizes, strict=True)
        )
        self.bias = nn.Parameter(torch.empty(self.out_channels, **factory)) if bias else None
        self.reset_parameters()

    def _sizes(self) -> list[tuple[int, int]]:
        """Kernel size of each layer."""
        if self.variant == "CL":
            return [(1, 1), self.kernel_size, (1, 1)]
        high, wide = self.kernel_size
        if high % 2 == 0 or wide % 2 == 0 or max(high, wide) < 5:
            raise ValueError(
                "variant='CK' makes a kernel of layers of 3 x 3, so its sides must be odd and one"
                f" at least 5, got kernel_size={self.kernel_size}"
            )
        return [
            (3 if 2 * number + 1 < high else 1, 3 if 2 * number + 1 < wide else 1)
            for number in range((max(high, wide) - 1) // 2)
        ]

    @property
    def on(self) -> str:
        """Where the layers meet: on the ``"features"`` or as ``"weights"``."""
        return self._on

    @on.setter
    def on(self, on: str) -> None:
        self._on = one_of("on", on, PLACES)

    def reset_parameters(self) -> None:
        """Start with the variance of a :class:`torch.nn.Conv2d`."""
        for index, weight in enumerate(self.weights):
            if index == self._last:
                nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
            else:
                nn.init.kaiming_normal_(weight, nonlinearity="linear")
        if self.bias is not None:
            fan_in = self.in_channels // self.groups * math.prod(self.kernel_size)
            nn.init.uniform_(self.bias, -(fan_in**-0.5), fan_in**-0.5)

    def start_from(self, weight: Tensor, bias: Tensor | None) -> None:
        """One layer holds the kernel; spare channels are random where made, and read by zeros."""
        try:
            stack = stack_of(weight, list(self.weights), self.groups)
        except ValueError as error:
            raise ValueError(f"expansion={self.expansion} is too small: {error}") from None
        for own, layer in zip(self.weights, stack, strict=True):
            own.copy_(layer)
        if self.bias is not None and bias is not None:
            self.bias.copy_(bias)

    def kernel(self) -> Tensor:
        """The layers as one kernel, (O, I/G, K, L), composed from the narrower end."""
        layers = list(self.weights)
        while len(layers) > 1:
            at = 0 if self.in_channels <= self.out_channels else len(layers) - 2
            layers[at : at + 2] = [compose(layers[at], layers[at + 1], self.groups)]
        return layers[0]

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        if self.on == "weights":
            return self._convolve_once(x)
        end = len(self.weights) - 1
        for index, weight in enumerate(self.weights):
            # no bias lies before the first spatial layer, so that what runs ahead needs no border
            padding = (0, 0)
            if index == self._first:
                x, padding = self.pad(x), self.conv_padding
            stride = self.stride if index == self._last else 1
            bias = self.bias if index == end else None
            x = F.conv2d(x, weight, bias, stride, padding, self.dilation, self.groups)
        return x

    def _convolve_once(self, x: Tensor) -> Tensor:
        kernel, geometry = self.kernel(), (self.conv_padding, self.dilation, self.groups)
        if x.is_contiguous(memory_format=torch.channels_last):  # circular padding would lose it
            kernel = kernel.contiguous(memory_format=torch.channels_last)
        return F.conv2d(self.pad(x), kernel, self.bias, self.stride, *geometry)

    def fold(self) -> tuple[Tensor, Tensor | None]:
        return self.kernel(), self.bias

    def forms(self, image: tuple[int, int], batch: int = 1) -> dict[str, Macs]:
        return {on: self._macs(image, on) for on in PLACES}

    def macs(self, image: tuple[int, int]) -> Macs:
        return self._macs(image, self.on)

    def _macs(self, image: tuple[int, int], on: str) -> Macs:
        if on == "weights":
            values = self.out_channels * self.in_channels // self.groups
            values *= math.prod(self.kernel_size)
            pixels = math.prod(self.output_size(image))
            return Macs(convolution=values * pixels, shared=self._composing())
        return Macs(convolution=sum(self._on_features(image)))

    def macs_on_input(self, image: tuple[int, int]) -> Macs:
        """On the features, the first layer alone."""
        if self.on == "weights":
            return super().macs_on_input(image)
        return Macs(convolution=self._on_features(image)[0])

    def _on_features(self, image: tuple[int, int]) -> list[int]:
        """Products of each layer, run one after the other."""
        left, right, top, bottom = self.pad_amounts
        high, wide = image
        products = []
        for index, weight in enumerate(self.weights):
            if index == self._first:
                high, wide = high + top + bottom, wide + left + right
            high -= self.dilation[0] * (weight.shape[2] - 1)
            wide -= self.dilation[1] * (weight.shape[3] - 1)
            if index == self._last:
                high, wide = self.output_size(image)
            products.append(weight.numel() * high * wide)
        return products

    def _composing(self) -> int:
        """Products of :meth:`kernel`."""
        layers, total = [tuple(weight.shape) for weight in self.weights], 0
        while len(layers) > 1:
            at = 0 if self.in_channels <= self.out_channels else len(layers) - 2
            (_, wide, *first), (out, middle, *second) = layers[at : at + 2]
            whole = [a + b - 1 for a, b in zip(first, second, strict=True)]
            # a convolution of the first kernel by the second, unless one of them is a matrix
            convolved = math.prod(first) > 1 and math.prod(second) > 1
            products = math.prod(second) if convolved else 1
            total += out * middle * wide * math.prod(whole) * products
            layers[at : at + 2] = [(out, wide, *whole)]
        return total
