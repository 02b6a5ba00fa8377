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
from overconv.functional import conv2d_per_sample, mix_kernels, scale_output
from overconv.gates import PooledGate, trained
from overconv.inference_gate import InferenceGate
from overconv.operators.base import OverConv2d
from overconv.operators.macs import Macs
from overconv.operators.parallel import parallel_kernels

PLACES = ("weights", "features")


class MixtureConv2d(OverConv2d):
    r"""Convolution by a mixture of ``num_kernels`` parallel kernels.

    .. math:: W(x) = \sum_n a_n(x) W_n, \qquad b(x) = \sum_n a_n(x) b_n, \qquad y = W(x) * x + b(x)

    With ``on="weights"`` the kernels are mixed and each sample is convolved by its own; with
    ``on="features"`` the input is convolved by all kernels and the results are mixed. Both are the
    same function, and ``on`` may be set at any time. A derived layer brings the gate.

    Attributes:
        weight: (N O, I/G, K, L), the kernels one after the other: four axes, so that a network can
            be moved to ``channels_last``.
        bias: (N, O), or None.
        shift: (O), added after the mixture, or None; what a batch norm behind leaves at inference.
        gate: Gives the (B, N) mixture.
    """

    form_option = "on"
    bias: Tensor | None
    shift: Tensor | None
    gate: PooledGate | InferenceGate

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
        factory = {"device": device, "dtype": dtype}
        rows, per_group = self.num_kernels * self.out_channels, self.in_channels // self.groups
        self.weight = nn.Parameter(torch.empty(rows, per_group, *self.kernel_size, **factory))
        self.bias = None
        if bias:
            self.bias = nn.Parameter(torch.empty(self.num_kernels, self.out_channels, **factory))
        self.register_parameter("shift", None)
        self.gate = PooledGate(self.in_channels, [self.num_kernels], **factory, **gate)
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
        bound = self.weight[0].numel() ** -0.5
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # its fan is that of one kernel
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)
        trained(self.gate).reset_parameters()

    def start_from(self, weight: Tensor, bias: Tensor | None) -> None:
        """Different kernels whose neutral mixture is ``weight``."""
        gate = trained(self.gate)
        gate.reset_parameters()
        share = 1 / (gate.neutral[0] * self.num_kernels)
        self.weight.copy_((share * parallel_kernels(weight, self.num_kernels)).flatten(0, 1))
        if self.bias is not None and bias is not None:
            self.bias.copy_((share * bias).expand_as(self.bias))

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        if self._on == "features":
            return self._mix_features(x)
        kernels, bias = self.kernels(x)
        return conv2d_per_sample(self.pad(x), kernels, bias, *self.geometry)

    def kernels(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        (mixture,) = self.own("gate")(x)
        return mix_kernels(mixture, self.own("weight")), self._mixed_bias(mixture)

    def _mixed_bias(self, mixture: Tensor) -> Tensor | None:
        bias, shift = self.own("bias"), self.own("shift")
        if bias is None:
            return shift
        return mixture @ bias if shift is None else torch.addmm(shift, mixture, bias)

    def _mix_features(self, x: Tensor) -> Tensor:
        """Convolve by all kernels at once, their outputs side by side within each group."""
        (mixture,) = self.gate(x)
        weight = self.weight
        if self.groups > 1:
            weight = weight.unflatten(0, (self.num_kernels, self.groups, -1)).transpose(0, 1)
            weight = weight.flatten(0, 2)
        y = F.conv2d(self.pad(x), weight, None, *self.geometry)
        rows = self.out_channels // self.groups * y.shape[2] * y.shape[3]
        per_kernel = y.reshape(y.shape[0], self.groups, self.num_kernels, rows)
        mixed = (mixture[:, None, None, :].to(y.dtype) @ per_kernel).view(
            y.shape[0], self.out_channels, *y.shape[2:]
        )
        bias = self._mixed_bias(mixture)
        return mixed if bias is None else mixed + bias.to(mixed.dtype)[..., None, None]

    def to_inference(self) -> Self:
        """A copy in ``eval()`` that mixes the weights: one convolution, however many kernels."""
        copy = deepcopy(self).eval()
        if isinstance(copy.gate, PooledGate):  # not at inference already, and planned
            copy.gate, copy.on = copy.gate.to_inference(), "weights"
        return copy

    def absorb_affine(self, scale: Tensor, shift: Tensor) -> bool:
        self.weight.copy_(scale_output(self.weight, scale.repeat(self.num_kernels)))
        if self.bias is not None:
            self.bias.mul_(scale)
        if self.shift is not None:
            shift = shift + scale * self.shift
        self.shift = nn.Parameter(shift.to(self.weight.dtype))
        return True

    def kernel_dimension(self) -> int:
        return min(self.num_kernels, self.weight.numel() // self.num_kernels)

    def forms(self, image: tuple[int, int], batch: int = 1) -> dict[str, Macs]:
        return {on: self._macs(image, on) for on in PLACES}

    def macs(self, image: tuple[int, int]) -> Macs:
        return self._macs(image, self.on)

    def _macs(self, image: tuple[int, int], on: str) -> Macs:
        linear, pooling = self.gate.macs(image)
        pixels = math.prod(self.output_size(image))
        bias = 0 if self.bias is None else self.bias.numel()
        total = Macs(gate=linear, compose=bias, other=pooling)
        if on == "weights":
            convolution = self.weight.numel() // self.num_kernels * pixels
            return total + Macs(compose=self.weight.numel(), convolution=convolution)
        mixing = self.num_kernels * self.out_channels * pixels
        return total + Macs(convolution=self.weight.numel() * pixels, other=mixing)
