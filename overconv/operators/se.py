"""Squeeze-and-excitation (SE): a convolution whose output channels are scaled by their own pool."""

import math
from copy import deepcopy
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from overconv.checks import IntPair, at_least, one_of
from overconv.functional import gate_features, scale_output
from overconv.gates import SQUASHES, PooledGate, trained
from overconv.inference_gate import InferenceGate
from overconv.operators.base import OverConv2d
from overconv.operators.macs import Macs


class SEConv2d(OverConv2d):
    r"""Convolution with squeeze-and-excitation on its output.

    .. math:: u = W * x + b, \qquad y = g(u) \, u, \qquad
              g(u) = \sigma(V \, \mathrm{relu}(U \, \mathrm{pool}(u) + c) + d)

    One gate an output channel, so the kernel that a sample sees is ``diag(g) W`` and its bias
    ``g b``. Since the gate reads what the convolution gives, the convolution comes first: there is
    one way of evaluation.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
        padding_mode, device, dtype: As in :class:`torch.nn.Conv2d`.
        reduction: The gate's hidden layer has ``max(4, out_channels // reduction)`` units. The
            paper has no minimum and, with 64 channels or more, no need of one.
        squash: What turns the logits into gates, see :class:`overconv.gates.Squash`.

    Shape:
        (B, in_channels, H, W) -> (B, out_channels, H', W') as in :class:`torch.nn.Conv2d`

    Cost:
        With ``h`` hidden units, ``2 h O + h + O`` parameters more than the convolution and, an
        image, ``2 h O`` multiply-accumulates in the gate and two passes over the output.

    Raises:
        ValueError: An argument is out of its range. In ``forward``: the input's shape is wrong.

    ``from_conv2d`` preserves the function in ``eval()`` and in ``train()``. The gate starts at one
    half whatever it reads, so the kernel and the bias start at twice the convolution's.

    Source:
        J. Hu, L. Shen and G. Sun, "Squeeze-and-excitation networks", CVPR 2018, section 3. There it
        stands behind the batch norm of a block's last convolution, here behind any convolution.
        Differs in that the gate starts at zero, and the kernel doubled to make up for that.

    Example:
        >>> import torch
        >>> SEConv2d(8, 16, 3, padding=1)(torch.zeros(2, 8, 5, 5)).shape
        torch.Size([2, 16, 5, 5])
    """

    bias: Tensor | None
    scale: Tensor | None
    shift: Tensor | None

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
        reduction: int = 16,
        squash: str = "sigmoid",
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode
        )
        factory = {"device": device, "dtype": dtype}
        shape = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        self.weight = nn.Parameter(torch.empty(shape, **factory))
        self.bias = nn.Parameter(torch.empty(self.out_channels, **factory)) if bias else None
        # what a batch norm behind leaves at inference
        self.register_parameter("scale", None)
        self.register_parameter("shift", None)
        self.squash = one_of("squash", squash, SQUASHES)
        self.reduction = at_least("reduction", reduction, 1)
        self.gate: PooledGate | InferenceGate = PooledGate(
            self.out_channels,
            [self.out_channels],
            hidden=max(4, self.out_channels // self.reduction),
            squash=self.squash,
            temperature=None,
            **factory,
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start with the outputs of a :class:`torch.nn.Conv2d` and a neutral gate."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = self.weight[0].numel() ** -0.5
            nn.init.uniform_(self.bias, -bound, bound)
        self._make_up_for_the_neutral_gate()

    def start_from(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight.copy_(weight)
        if self.bias is not None and bias is not None:
            self.bias.copy_(bias)
        self._make_up_for_the_neutral_gate()

    @torch.no_grad()
    def _make_up_for_the_neutral_gate(self) -> None:
        gate = trained(self.gate)
        gate.reset_parameters()
        self.weight.div_(gate.neutral[0])
        if self.bias is not None:
            self.bias.div_(gate.neutral[0])

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        u = self._convolve(x)
        gate = self._scales(u)
        if self.shift is None:
            return gate_features(u, gate)
        # the shift in the same pass over the image
        shift, gate = self.shift.to(u.dtype), gate.to(u.dtype)
        return torch.addcmul(shift[:, None, None], u, gate[:, :, None, None])

    def _convolve(self, x: Tensor) -> Tensor:
        return F.conv2d(self.pad(x), self.weight, self.bias, *self.geometry)

    def _scales(self, u: Tensor) -> Tensor:
        """The gates, times the constant scale where there is one."""
        (gate,) = self.gate(u)
        return gate if self.scale is None else gate * self.scale

    def kernels(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        scales = self._scales(self._convolve(x))
        bias = None if self.bias is None else scales * self.bias
        if self.shift is not None:
            bias = self.shift if bias is None else bias + self.shift
        return scale_output(self.weight, scales), bias

    def to_inference(self) -> Self:
        """A copy in ``eval()``, its gate in fewer calls."""
        copy = deepcopy(self).eval()
        copy.gate = copy.gate.to_inference()
        return copy

    def absorb_affine(self, scale: Tensor, shift: Tensor) -> bool:
        # Not into the kernel: the gate reads what that gives, and must go on reading the same.
        if self.scale is not None and self.shift is not None:  # both or neither
            scale, shift = scale * self.scale, shift + scale * self.shift
        self.scale = nn.Parameter(scale.to(self.weight.dtype))
        self.shift = nn.Parameter(shift.to(self.weight.dtype))
        return True

    def kernel_dimension(self) -> int:
        """Each gate scales one output channel's kernel."""
        return self.out_channels

    def macs(self, image: tuple[int, int]) -> Macs:
        size = self.output_size(image)
        linear, pooling = self.gate.macs(size)
        scaling = self.out_channels * math.prod(size)
        if self.scale is not None:
            scaling += self.out_channels
        convolution = self.weight.numel() * math.prod(size)
        return Macs(gate=linear, convolution=convolution, other=pooling + scaling)

    def macs_on_input(self, image: tuple[int, int]) -> Macs:
        """The convolution alone: the gate reads what that gives."""
        return Macs(convolution=self.macs(image).convolution)
