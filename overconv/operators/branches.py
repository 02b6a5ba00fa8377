"""Where the small kernels of parallel branches lie among the taps of a large one.

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
    ``(K - k) // 2`` of a column, ``(L - l) // 2`` of a row, which is the centre where there is one.
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

    def placed(self, weight: Tensor) -> Tensor:
        """The kernel of a branch among the taps of the layer, (..., k, l) -> (..., K, L)."""
        high, wide = (
            whole - part for whole, part in zip(self.kernel_size, weight.shape[-2:], strict=True)
        )
        return F.pad(weight, (wide // 2, wide - wide // 2, high // 2, high - high // 2))

    def convolve(self, x: Tensor, padded: Tensor, weight: Tensor) -> Tensor:
        """The branch of kernel ``weight`` (O, I/G, k, l), with the geometry of the layer.

        Args:
            x: The image.
            padded: The same after :meth:`pad`, which is done once for all branches.
        """
        if is_factor(weight):
            return scale_channels(self.passed(x, padded), weight)
        seen, padding = self.seen_by((weight.shape[2], weight.shape[3]), x, padded)
        return F.conv2d(seen, weight, None, self.stride, padding, self.dilation, self.groups)

    def passed(self, x: Tensor, padded: Tensor) -> Tensor:
        """The image as a 1 x 1 identity kernel would pass it on; ``x`` itself where that is all."""
        seen, (high, wide) = self.seen_by((1, 1), x, padded)
        seen, (down, right) = _moved(seen, (high, high), (wide, wide)), self.stride
        return seen if down == right == 1 else seen[:, :, ::down, ::right]

    def seen_by(
        self, size: tuple[int, int], x: Tensor, padded: Tensor
    ) -> tuple[Tensor, tuple[int, int]]:
        """What of the image a branch of that kernel size convolves, and the padding left to torch.

        The part of the padded image on which the branch's taps lie. That is ``x`` itself for a
        1 x 1 branch under the padding that keeps the image's size, and a view of ``x`` or of
        ``padded`` wherever torch's own padding or none will do.
        """
        left, right, top, bottom = self.pad_amounts
        rows = self._margins(0, size[0], top, bottom)
        columns = self._margins(1, size[1], left, right)
        if max(*rows, *columns) <= 0:
            return _moved(x, rows, columns), (0, 0)
        if not self._native:  # then all padding is there already
            rows = self._margins(0, size[0], 0, 0)
            columns = self._margins(1, size[1], 0, 0)
            return _moved(padded, rows, columns), (0, 0)
        high, wide = (max(0, m[0]) if m[0] == m[1] else 0 for m in (rows, columns))
        rows, columns = (rows[0] - high, rows[1] - high), (columns[0] - wide, columns[1] - wide)
        return _moved(x, rows, columns), (high, wide)

    def _margins(self, axis: int, part: int, before: int, after: int) -> tuple[int, int]:
        """How far beyond an image so padded, on either side, a branch of ``part`` taps looks."""
        step, spare = self.dilation[axis], self.kernel_size[axis] - part
        return before - step * (spare // 2), after - step * (spare - spare // 2)


def is_factor(weight: Tensor) -> bool:
    """Whether a kernel (M, 1, 1, 1) is no more than a factor a channel."""
    return weight.shape[1:] == (1, 1, 1)


def scale_channels(x: Tensor, weight: Tensor) -> Tensor:
    """Convolution by the factors ``weight``, each input channel by as many as come to it.

    Torch's convolution does that too, on a CPU in several times as long.

    Shape:
        x (B, I, H, W), weight (M, 1, 1, 1) -> (B, M, H, W), in the memory format of ``x``
    """
    if weight.shape[0] == x.shape[1]:
        return x * weight[:, 0]
    if x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        last = x.movedim(1, 3).unsqueeze(4) * weight.reshape(x.shape[1], -1)
        return last.flatten(3).movedim(3, 1)
    return (x.unsqueeze(2) * weight.reshape(x.shape[1], -1, 1, 1)).flatten(1, 2)


def _moved(x: Tensor, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    """``x`` with so many rows and columns of zeros more on each side; a view if all are fewer."""
    amounts = (*columns, *rows)
    if max(amounts) > 0:
        return F.pad(x, amounts)  # a negative amount cuts
    if not any(amounts):
        return x
    return x[:, :, -rows[0] : x.shape[2] + rows[1], -columns[0] : x.shape[3] + columns[1]]
