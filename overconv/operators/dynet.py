"""DyNet: a mixture of parallel kernels with coefficients of their own for each output channel.

Axes: B batch, I input and O output channels, N parallel kernels, K x L kernel, G groups.
"""

import math
from copy import deepcopy
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from overconv.checks import IntPair, at_least, one_of
from overconv.functional import conv2d_per_sample
from overconv.gates import PooledGate, trained
from overconv.inference_gate import InferenceGate
from overconv.operators.base import OverConv2d
from overconv.operators.macs import Macs
from overconv.operators.mixture import PLACES
from overconv.operators.parallel import mix_rows, parallel_rows, weighted_sum


class DyNetConv2d(OverConv2d):
    r"""Convolution whose output channels each mix ``num_kernels`` parallel kernels of their own.

    .. math:: W_o(x) = \sum_n \eta_{on}(x) W_{on}, \qquad
              \eta(x) = \sigma(R \, \mathrm{pool}(x) + c), \qquad y_o = W_o(x) * x + b_o

    With ``on="features"`` the input is convolved by all kernels and the results are mixed, as the
    authors train; with ``on="weights"`` the kernels are mixed and each sample is convolved by its
    own, as they infer. Both are the same function, and ``on`` may be set at any time.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
        padding_mode, device, dtype: As in :class:`torch.nn.Conv2d`. The bias is not mixed.
        num_kernels: Number of parallel kernels an output channel, :math:`g_t` in the paper.
        on: ``"features"`` or ``"weights"``.
        reduction: None: the coefficients come from a single linear layer. Otherwise from two, with
            ``max(4, in_channels // reduction)`` hidden units and a ReLU between; 4 in the paper's
            residual networks.

    Attributes:
        weight: (O N, I/G, K, L), the kernels of an output channel one after the other.

    Shape:
        (B, in_channels, H, W) -> (B, out_channels, H', W') as in :class:`torch.nn.Conv2d`

    Cost:
        ``N P + (I + 1) O N`` parameters, where a convolution has ``P``. Multiply-accumulates an
        image: as many times a convolution's as there are kernels, on the features; a
        convolution's and ``N P``, on the weights.

    Raises:
        ValueError: An argument is out of its range. In ``forward``: the input's shape is wrong.

    ``from_conv2d`` preserves the function in ``eval()`` and in ``train()``. Its kernels start
    different, and twice the convolution's scale over ``num_kernels``, since the coefficients start
    at one half.

    Source:
        Y. Zhang et al., "DyNet: dynamic convolution for accelerating convolutional neural
        networks", arXiv 2004.10694, equations 1 and 2. There is no code of the authors. Differs in
        that each layer has its own coefficients from its own input (the authors predict those of a
        block together) and that these start at zero.

    Example:
        >>> import torch
        >>> DyNetConv2d(8, 16, 3, padding=1)(torch.zeros(2, 8, 5, 5)).shape
        torch.Size([2, 16, 5, 5])
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
        num_kernels: int = 6,
        on: str = "features",
        reduction: int | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode
        )
        factory = {"device": device, "dtype": dtype}
        self.num_kernels = at_least("num_kernels", num_kernels, 1)
        self.on = on
        rows, per_group = self.out_channels * self.num_kernels, self.in_channels // self.groups
        self.weight = nn.Parameter(torch.empty(rows, per_group, *self.kernel_size, **factory))
        self.bias = nn.Parameter(torch.empty(self.out_channels, **factory)) if bias else None
        self.reduction, hidden = reduction, None
        if reduction is not None:
            self.reduction = at_least("reduction", reduction, 1)
            hidden = max(4, self.in_channels // self.reduction)
        self.gate: PooledGate | InferenceGate = PooledGate(
            self.in_channels, [rows], hidden=hidden, squash="sigmoid", temperature=None, **factory
        )
        self.reset_parameters()

    @property
    def on(self) -> str:
        """Where the mixture happens: on the ``"weights"`` or on the ``"features"``."""
        return self._on

    @on.setter
    def on(self, on: str) -> None:
        self._on = one_of("on", on, PLACES)

    def reset_parameters(self) -> None:
        """Start with the variance of a :class:`torch.nn.Conv2d` and neutral coefficients."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # its fan is that of one kernel
        with torch.no_grad():
            self.weight.div_(trained(self.gate).neutral[0] * math.sqrt(self.num_kernels))
        if self.bias is not None:
            bound = self.weight[0].numel() ** -0.5
            nn.init.uniform_(self.bias, -bound, bound)
        trained(self.gate).reset_parameters()

    def start_from(self, weight: Tensor, bias: Tensor | None) -> None:
        """Different kernels, scaled so that their neutral mixture is ``weight``."""
        gate = trained(self.gate)
        rows = parallel_rows(weight, self.num_kernels) / (gate.neutral[0] * self.num_kernels)
        self.weight.copy_(rows.view_as(self.weight))
        if self.bias is not None and bias is not None:
            self.bias.copy_(bias)
        gate.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        if self.on == "weights":
            kernels, bias = self.kernels(x)
            return conv2d_per_sample(self.pad(x), kernels, bias, *self.geometry)
        y = F.conv2d(self.pad(x), self.weight, None, *self.geometry)
        parallel = y.unflatten(1, (self.out_channels, self.num_kernels)).flatten(3)
        mixed = weighted_sum(self._shares(x).to(y.dtype), parallel).unflatten(2, y.shape[2:])
        return mixed if self.bias is None else mixed + self.bias.to(y.dtype)[:, None, None]

    def _shares(self, x: Tensor) -> Tensor:
        """The coefficients, (B, O, N)."""
        (shares,) = self.gate(x)
        return shares.unflatten(1, (self.out_channels, self.num_kernels))

    def kernels(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        weight, last = self.weight, self.weight.permute(0, 2, 3, 1)
        channels_last = last.is_contiguous() and not weight.is_contiguous()
        rows = last if channels_last else weight  # a view either way
        mixed = mix_rows(self._shares(x), rows.reshape(self.out_channels, self.num_kernels, -1))
        mixed = mixed.unflatten(2, rows.shape[1:])
        return mixed.permute(0, 1, 4, 2, 3) if channels_last else mixed, self.bias

    def to_inference(self) -> Self:
        """A copy in ``eval()`` that mixes the weights: one convolution, however many kernels."""
        copy = deepcopy(self).eval()
        if isinstance(copy.gate, PooledGate):  # not at inference already, and planned
            copy.gate, copy.on = copy.gate.to_inference(), "weights"
        return copy

    def absorb_affine(self, scale: Tensor, shift: Tensor) -> bool:
        self.weight.mul_(scale.repeat_interleave(self.num_kernels)[:, None, None, None])
        shift = shift if self.bias is None else shift + scale * self.bias
        self.bias = nn.Parameter(shift.to(self.weight.dtype))
        return True

    def kernel_dimension(self) -> int:
        """Each output channel moves by itself, in the span of its own kernels."""
        return self.out_channels * min(self.num_kernels, self.weight[0].numel())

    def forms(self, image: tuple[int, int], batch: int = 1) -> dict[str, Macs]:
        return {on: self._macs(image, on) for on in PLACES}

    def macs(self, image: tuple[int, int]) -> Macs:
        return self._macs(image, self.on)

    def _macs(self, image: tuple[int, int], on: str) -> Macs:
        linear, pooling = self.gate.macs(image)
        pixels, values = math.prod(self.output_size(image)), self.weight.numel()
        total = Macs(gate=linear, other=pooling)
        if on == "features":
            features = self.num_kernels * self.out_channels * pixels
            return total + Macs(convolution=values * pixels, other=features)
        # a single kernel is not mixed but scaled
        mixing = Macs(other=values) if self.num_kernels == 1 else Macs(compose=values)
        return total + mixing + Macs(convolution=values // self.num_kernels * pixels)
