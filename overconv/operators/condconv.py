"""CondConv: parallel kernels, each weighted by a sigmoid of its own."""

from typing import Any

from overconv.checks import IntPair
from overconv.operators.mixture import MixtureConv2d


class CondConv2d(MixtureConv2d):
    r"""Conditionally parameterised convolution: a sigmoid-weighted sum of parallel kernels.

    .. math:: W(x) = \sum_n r_n(x) W_n, \qquad r(x) = \sigma(R \, \mathrm{pool}(x) + c)

    The weights need not sum to one. A bias is mixed in the same way.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
        padding_mode, device, dtype: As in :class:`torch.nn.Conv2d`.
        num_kernels: Number of parallel kernels, the experts of the paper.
        on: ``"weights"``: mix the kernels, then convolve once. ``"features"``: convolve by all,
            then mix. May be set at any time; outputs and gradients are the same.

    Shape:
        (B, in_channels, H, W) -> (B, out_channels, H', W') as in :class:`torch.nn.Conv2d`

    Raises:
        ValueError: An argument is out of its range. In ``forward``: the input's shape is wrong.

    ``from_conv2d`` preserves the function in ``eval()`` and in ``train()``. Its kernels start
    different, and twice the convolution's scale over ``num_kernels``, since the sigmoids start at
    one half.

    Source:
        B. Yang et al., "CondConv: conditionally parameterized convolutions for efficient
        inference", NeurIPS 2019, section 3. Differs in that each layer has a router of its own (the
        authors share one within a block) and that the router starts at zero.

    Example:
        >>> import torch
        >>> CondConv2d(8, 16, 3, padding=1, num_kernels=4)(torch.zeros(2, 8, 5, 5)).shape
        torch.Size([2, 16, 5, 5])
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
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        num_kernels: int = 8,
        on: str = "weights",
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
            num_kernels=num_kernels,
            on=on,
            gate={"hidden": None, "squash": "sigmoid", "temperature": None},
        )
