"""Convolution by parallel branches that fold into one kernel: the ground of ACB, RepVGG, DBB.

Axes: B batch, I input and O output channels, K x L kernel, k x l a branch's smaller one, H x W
image, G groups.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from overconv.checks import IntPair
from overconv.operators.base import FoldingConv2d


class BranchedConv2d(FoldingConv2d):
    """Base of the layers whose output is a sum of convolutions with kernels of several sizes.

    The smaller kernel of a branch lies on the taps of the large one: its first tap is number
    ``(K - k) // 2`` of a row, ``(L - l) // 2`` of a column, which is the centre where there is one.
    So a branch has the layer's stride, padding, dilation, groups and padding mode, whatever they
    are, and is exact at every border.

    Arguments are those of :class:`torch.nn.Conv2d`. ``bias`` is added to the sum of the branches.
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
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode
        )
        self._factory = {"device": device, "dtype": dtype}
        self.bias = None
        if bias:
            self.bias = nn.Parameter(torch.empty(self.out_channels, **self._factory))

    def reset_bias(self) -> None:
        """Draw the bias as a :class:`torch.nn.Conv2d` does."""
        if self.bias is not None:
            fan_in = self.in_channels // self.groups * math.prod(self.kernel_size)
            nn.init.uniform_(self.bias, -(fan_in**-0.5), fan_in**-0.5)

    def seen_by(self, size: tuple[int, int], x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """What of ``x`` a branch of that kernel size convolves, and the padding left to torch.

        The part of the padded image on which the branch's taps lie: cut where the image is larger,
        padded where it is smaller.
        """
        left, right, top, bottom = self.pad_amounts
        before, after = [], []
        for whole, part, step, low, high in zip(
            self.kernel_size, size, self.dilation, (top, left), (bottom, right), strict=True
        ):
            skipped = (whole - part) // 2
            before.append(low - step * skipped)
            after.append(high - step * (whole - part - skipped))
        if self.padding_mode != "zeros" and any(self.pad_amounts):
            x = self.pad_fully(x)
            before = [before[0] - top, before[1] - left]
            after = [after[0] - bottom, after[1] - right]
        native = before == after and min(before) >= 0
        if not native and (any(before) or any(after)):
            x = F.pad(x, (before[1], after[1], before[0], after[0]))  # a negative amount cuts
        return x, ((before[0], before[1]) if native else (0, 0))

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The branch of kernel ``weight`` (O, I/G, k, l), with the geometry of the layer."""
        x, padding = self.seen_by((weight.shape[2], weight.shape[3]), x)
        return F.conv2d(x, weight, bias, self.stride, padding, self.dilation, self.groups)

    def placed(self, weight: Tensor) -> Tensor:
        """The kernel of a branch among the taps of the layer, (..., k, l) -> (..., K, L)."""
        spare = [
            whole - part for whole, part in zip(self.kernel_size, weight.shape[-2:], strict=True)
        ]
        (high, wide) = spare
        return F.pad(weight, (wide // 2, wide - wide // 2, high // 2, high - high // 2))
