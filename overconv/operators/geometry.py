"""The geometry of a convolution: its arguments checked, its padding, the size of its output."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from overconv.checks import IntPair, at_least, int_pair, one_of

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class ConvGeometry(nn.Module):
    """A :class:`torch.nn.Conv2d` without its weights.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode:
            As in :class:`torch.nn.Conv2d`.

    Attributes:
        pad_amounts: Left, right, top and bottom padding.

    Raises:
        ValueError: An argument is not what :class:`torch.nn.Conv2d` allows.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntPair,
        stride: IntPair = 1,
        padding: IntPair | str = 0,
        dilation: IntPair = 1,
        groups: int = 1,
        padding_mode: str = "zeros",
    ) -> None:
        super().__init__()
        self.groups = at_least("groups", groups, 1)
        self.in_channels = self._divisible("in_channels", in_channels)
        self.out_channels = self._divisible("out_channels", out_channels)
        self.kernel_size = int_pair("kernel_size", kernel_size, 1)
        self.stride = int_pair("stride", stride, 1)
        self.dilation = int_pair("dilation", dilation, 1)
        self.padding_mode = one_of("padding_mode", padding_mode, PADDING_MODES)
        self.padding: tuple[int, int] | str
        if isinstance(padding, str):
            self.padding = one_of("padding", padding, ("same", "valid"))
            if padding == "same" and self.stride != (1, 1):
                raise ValueError(f"padding='same' needs stride 1, got stride={self.stride}")
        else:
            self.padding = int_pair("padding", padding, 0)
        left, right, top, bottom = self.pad_amounts = self._pad_amounts()
        self._native = padding_mode == "zeros" and left == right and top == bottom

    def _divisible(self, name: str, channels: int) -> int:
        channels = at_least(name, channels, 1)
        if channels % self.groups:
            raise ValueError(f"{name}={channels} does not split into groups={self.groups}")
        return channels

    def _pad_amounts(self) -> tuple[int, int, int, int]:
        """Left, right, top and bottom padding; an odd remainder of "same" goes right and down."""
        if self.padding == "valid":
            return (0, 0, 0, 0)
        if isinstance(self.padding, tuple):
            high, wide = self.padding
            return (wide, wide, high, high)
        high, wide = (d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True))
        return (wide // 2, wide - wide // 2, high // 2, high - high // 2)

    # Padding. Torch's convolution pads by zeros and evenly; all else is padded here, so that
    # every form of a layer sees the same borders.

    @property
    def conv_padding(self) -> tuple[int, int]:
        """The padding left to torch's convolution once :meth:`pad` has done its part."""
        return (self.pad_amounts[2], self.pad_amounts[0]) if self._native else (0, 0)

    @property
    def geometry(self) -> tuple[Any, ...]:
        """What torch's convolution is given, in its order, once :meth:`pad` has done its part.

        Nothing where that is its default: to read it takes a small convolution a tenth longer.
        """
        geometry = self.stride, self.conv_padding, self.dilation, self.groups
        return () if geometry == ((1, 1), (0, 0), (1, 1), 1) else geometry

    def pad(self, x: Tensor) -> Tensor:
        """``x`` padded by what torch's convolution cannot do; ``x`` itself where it can do all."""
        return x if self._native else self.pad_fully(x)

    def pad_fully(self, x: Tensor) -> Tensor:
        """``x`` with all of the layer's padding, for a convolution that then pads nothing."""
        if not any(self.pad_amounts):
            return x
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        return F.pad(x, self.pad_amounts, mode=mode)

    def output_size(self, image: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the output for an input of height and width ``image``."""
        left, right, top, bottom = self.pad_amounts
        padded = (image[0] + top + bottom, image[1] + left + right)
        high, wide = (
            max(0, (size - d * (k - 1) - 1) // s + 1)
            for size, k, s, d in zip(
                padded, self.kernel_size, self.stride, self.dilation, strict=True
            )
        )
        return high, wide

    def check_input(self, x: Tensor) -> None:
        """Raise a ValueError unless ``x`` has the shape (B, in_channels, H, W)."""
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"input must be (batch, {self.in_channels}, height, width), got {tuple(x.shape)}"
            )
