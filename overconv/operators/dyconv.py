"""Dynamic convolution (DyConv): parallel kernels under softmax attention."""

from typing import Any

from overconv.checks import IntPair, at_least
from overconv.operators.mixture import MixtureConv2d


class DyConv2d(MixtureConv2d):
    r"""Dynamic convolution: an attention-weighted mean of parallel kernels.

    .. math:: W(x) = \sum_n a_n(x) W_n, \qquad
              a(x) = \mathrm{softmax}((U \, \mathrm{relu}(V \, \mathrm{pool}(x) + v) + u) / \tau)

    A bias is mixed in the same way.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
        padding_mode, device, dtype: As in :class:`torch.nn.Conv2d`.
        num_kernels: Number of parallel kernels, at least 2.
        on: ``"weights"``: mix the kernels, then convolve once. ``"features"``: convolve by all,
            then mix. May be set at any time; outputs and gradients are the same.
        reduction: The attention's hidden layer has ``max(4, in_channels // reduction)`` units.
        temperature: :math:`\tau`, a buffer of the gate. The authors lower it from 30 to 1 in
            the first epochs; see :class:`overconv.gates.TemperatureSchedule`.

    Shape:
        (B, in_channels, H, W) -> (B, out_channels, H', W') as in :class:`torch.nn.Conv2d`

    Raises:
        ValueError: An argument is out of its range. In ``forward``: the input's shape is wrong.

    ``from_conv2d`` preserves the function in ``eval()`` and in ``train()``, at any temperature. Its
    kernels start different, with the convolution's as their mean.

    Source:
        Y. Chen et al., "Dynamic convolution: attention over convolution kernels", CVPR 2020,
        section 3. There is no code of the authors. Differs in that the attention starts at zero.

    Example:
        >>> import torch
        >>> DyConv2d(8, 16, 3, padding=1)(torch.zeros(2, 8, 5, 5)).shape
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
        num_kernels: int = 4,
        on: str = "weights",
        reduction: int = 4,
        temperature: float = 1.0,
    ) -> None:
        reduction = at_least("reduction", reduction, 1)
        hidden = max(4, at_least("in_channels", in_channels, 1) // reduction)
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
            num_kernels=at_least("num_kernels", num_kernels, 2),  # over one, softmax is constant
            on=on,
            gate={"hidden": hidden, "squash": "softmax", "temperature": temperature},
        )
        self.reduction = reduction
