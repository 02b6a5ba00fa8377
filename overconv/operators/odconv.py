"""ODConv: attention along all four axes of a kernel.

Axes: B batch, N kernels, I input and O output channels, K x L kernel, G groups.
"""

import math
from copy import deepcopy
from typing import Any, Self

import torch
from torch import Tensor, nn

from overconv.checks import IntPair, at_least, one_of
from overconv.functional import (
    conv2d_per_sample,
    gate_features,
    mix_kernels,
    scale_input,
    scale_output,
    scale_taps,
)
from overconv.inference_gate import InferenceGate
from overconv.operators.base import OverConv2d
from overconv.operators.macs import Macs
from overconv.operators.mixture import PLACES
from overconv.operators.odgate import ODGate
from overconv.operators.parallel import parallel_kernels


class ODConv2d(OverConv2d):
    r"""Omni-dimensional dynamic convolution: a mixture of kernels, its axes gated too.

    .. math:: W(x)_{oit} = a^f_o(x) \, a^c_i(x) \, a^s_t(x) \sum_n a^w_n(x) \, W_{noit}, \qquad
              y = W(x) * x + b

    with sigmoids over filters, input channels and taps, and a softmax over kernels, of one hidden
    layer (:class:`overconv.operators.odgate.ODGate`). A head that would repeat another, or have a
    single value, is left out: filters in a depthwise layer, taps of a 1 x 1 kernel, kernels where
    there is one. The bias, which the authors do not have, is added last and is not gated.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
        padding_mode, device, dtype: As in :class:`torch.nn.Conv2d`.
        num_kernels: Number of parallel kernels.
        on: Where channels and filters are gated. ``"features"``: on the input and on the output.
            ``"weights"``: on the kernel, which is cheaper where that is smaller than the images.
            May be set at any time; outputs and gradients are the same.
        reduction: The gate's hidden layer has ``max(in_channels // reduction, min_hidden)`` units.
        min_hidden: The least number of those.
        temperature: :math:`\tau` of all four gates, buffers. The authors lower it from 30 to 1 in
            the first ten epochs; see :class:`overconv.gates.TemperatureSchedule`.
        gate_norm: Batch norm in the gate's hidden layer. While training on a single image, where
            the authors' fails, it applies its running statistics and leaves them as they are.

    Shape:
        (B, in_channels, H, W) -> (B, out_channels, H', W') as in :class:`torch.nn.Conv2d`

    Raises:
        ValueError: An argument is out of its range. In ``forward``: the input's shape is wrong.

    ``from_conv2d`` preserves the function in ``eval()`` and in ``train()``, at any temperature: the
    heads start at zero, so that the gates do not depend on the input. The kernels start different,
    and as much larger than the convolution's as the sigmoids, which start at one half, are smaller.
    So a step of plain gradient descent moves what a sample sees less than it would move the
    convolution: 4 times less for each head of sigmoids, and ``num_kernels`` times less again.

    Source:
        C. Li, A. Zhou and A. Yao, "Omni-dimensional dynamic convolution", ICLR 2022, and the
        authors' code, which shares the gates of filters, channels and taps among the kernels.

    Example:
        >>> import torch
        >>> ODConv2d(8, 16, 3, padding=1)(torch.zeros(2, 8, 5, 5)).shape
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
        num_kernels: int = 4,
        on: str = "features",
        reduction: int = 16,
        min_hidden: int = 16,
        temperature: float = 1.0,
        gate_norm: bool = True,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode
        )
        self.num_kernels = at_least("num_kernels", num_kernels, 1)
        self.on = on
        self.reduction = at_least("reduction", reduction, 1)
        self.min_hidden = at_least("min_hidden", min_hidden, 1)
        self.gate_norm = bool(gate_norm)
        factory = {"device": device, "dtype": dtype}
        rows, per_group = self.num_kernels * self.out_channels, self.in_channels // self.groups
        self.weight = nn.Parameter(torch.empty(rows, per_group, *self.kernel_size, **factory))
        self.bias = nn.Parameter(torch.empty(self.out_channels, **factory)) if bias else None
        heads = {"inputs": self.in_channels}
        if not self.groups == self.in_channels == self.out_channels:
            heads["filters"] = self.out_channels
        if self.kernel_size != (1, 1):
            heads["taps"] = math.prod(self.kernel_size)
        self.heads = (*heads, "kernels") if self.num_kernels > 1 else tuple(heads)
        self._views = self._gate_views()
        self.gate: ODGate | InferenceGate = ODGate(
            self.in_channels,
            list(heads.values()),
            self.num_kernels,
            hidden=max(self.in_channels // self.reduction, self.min_hidden),
            temperature=temperature,
            norm=self.gate_norm,
            **factory,
        )
        self.reset_parameters()

    @property
    def on(self) -> str:
        """Where channels and filters are gated: on the ``"weights"`` or on the ``"features"``."""
        return self._on

    @on.setter
    def on(self, on: str) -> None:
        self._on = one_of("on", on, PLACES)

    def reset_parameters(self) -> None:
        """Draw each kernel and the gate as the authors do: normal, by the fan out, for a ReLU.

        Nothing makes up for the gates, which average one half each and ``1 / num_kernels``: the
        authors leave that to the batch norm behind. The bias starts as in
        :class:`torch.nn.Conv2d`.
        """
        taps, fan_in = math.prod(self.kernel_size), self.weight[0].numel()
        nn.init.normal_(self.weight, std=(2 / (self.out_channels * taps)) ** 0.5)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -(fan_in**-0.5), fan_in**-0.5)
        assert isinstance(self.gate, ODGate), "a layer at inference does not start anew"
        self.gate.reset_parameters()

    def start_from(self, weight: Tensor, bias: Tensor | None) -> None:
        """Different kernels that the neutral gates make ``weight``; the heads are zero."""
        assert isinstance(self.gate, ODGate), "a layer at inference does not start anew"
        gates = math.prod(self.gate.neutral) * self.num_kernels
        kernels = parallel_kernels(weight, self.num_kernels) / gates
        self.weight.copy_(kernels.flatten(0, 1))
        if self.bias is not None and bias is not None:
            self.bias.copy_(bias)
        self.gate.reset_parameters()
        self.gate.make_neutral()

    def _gate_views(self) -> dict[str, tuple[int, ...]]:
        """The shapes in which the gates of channels, filters and taps multiply the kernels.

        Empty where they cannot, since the channels are split into groups.
        """
        depthwise = self.groups == self.in_channels == self.out_channels
        if self.groups > 1 and not depthwise:
            return {}
        wide_in, wide_out = self.in_channels, self.out_channels
        shapes: dict[str, tuple[int, ...]] = {
            "inputs": (-1, wide_in, 1, 1, 1) if depthwise else (-1, 1, wide_in, 1, 1),
            "filters": (-1, wide_out, 1, 1, 1),
            "taps": (-1, 1, 1, *self.kernel_size),
        }
        return {head: shapes[head] for head in self.heads if head != "kernels"}

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        gates, filters = dict(zip(self.heads, self.own("gate")(x), strict=True)), None
        if self._views and self._on == "weights" and not torch.is_grad_enabled():
            kernels = self._composed_in_place(gates)
            return conv2d_per_sample(self.pad(x), kernels, self.own("bias"), *self.geometry)
        if self._on == "features":
            x, filters = gate_features(x, gates.pop("inputs")), gates.pop("filters", None)
        bias = self.own("bias")
        kernels, last = self._composed(gates), bias if filters is None else None
        y = conv2d_per_sample(self.pad(x), kernels, last, *self.geometry)
        if filters is None:
            return y
        if bias is None:
            return gate_features(y, filters)
        scale, shift = filters.to(y.dtype), bias.to(y.dtype)
        return torch.addcmul(shift.view(-1, 1, 1), y, scale.view(*scale.shape, 1, 1))

    def kernels(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return self._composed(dict(zip(self.heads, self.gate(x), strict=True))), self.bias

    def _composed(self, gates: dict[str, Tensor]) -> Tensor:
        """Kernels under those of the gates that are given, (B or 1, O, I/G, K, L)."""
        inputs, taps, filters = gates.get("inputs"), gates.get("taps"), gates.get("filters")
        if "kernels" in gates:
            kernels = mix_kernels(gates["kernels"], self.own("weight"))
        else:
            kernels = self.weight[None]
        if taps is not None:
            taps = taps.view(taps.shape[0], *self.kernel_size)
        if inputs is not None and taps is not None:  # the two small ones first
            per_group = self.in_channels // self.groups
            scale = inputs.view(inputs.shape[0], self.groups, 1, per_group, 1, 1)
            scale = scale * taps[:, None, None, None]
            kernels = (kernels.unflatten(1, (self.groups, -1)) * scale).flatten(1, 2)
        elif inputs is not None:
            kernels = scale_input(kernels, inputs, self.groups)
        elif taps is not None:
            kernels = scale_taps(kernels, taps)
        return kernels if filters is None else scale_output(kernels, filters)

    def _composed_in_place(self, gates: dict[str, Tensor]) -> Tensor:
        """As :meth:`_composed` by all gates, without gradients: a new kernel is scaled as it is."""
        weight = self.own("weight")
        if self.num_kernels > 1:
            kernels, fresh = mix_kernels(gates["kernels"], weight), True
        else:
            kernels, fresh = weight[None], False
        scales = [gates[head].view(view) for head, view in self._views.items()]
        if len(scales) == 3:  # those of channels and taps are small: first by each other
            channels, filters, taps = scales
            scales = [channels * taps, filters]
        for scale in scales:
            fresh = fresh and scale.shape[0] <= kernels.shape[0]  # a user's gates may be shared
            kernels, fresh = kernels.mul_(scale) if fresh else kernels * scale, True
        return kernels

    def to_inference(self) -> Self:
        """A copy in ``eval()``, the gate's norm and temperature folded into its linear layers.

        ``on`` stays: which is cheaper depends on the image, see :meth:`forms`.
        """
        copy = deepcopy(self).eval()
        copy.gate, copy.gate_norm = copy.gate.to_inference(), False
        return copy

    def absorb_affine(self, scale: Tensor, shift: Tensor) -> bool:
        self.weight.copy_(scale_output(self.weight, scale.repeat(self.num_kernels)))
        bias = shift if self.bias is None else self.bias * scale + shift
        self.bias = nn.Parameter(bias.to(self.weight.dtype))
        return True

    def kernel_dimension(self) -> int:
        """See the base: all kernels. No two entries have the same product of gates."""
        return self.weight.numel() // self.num_kernels

    def forms(self, image: tuple[int, int], batch: int = 1) -> dict[str, Macs]:
        return {on: self._macs(image, on) for on in PLACES}

    def macs(self, image: tuple[int, int]) -> Macs:
        return self._macs(image, self.on)

    def _macs(self, image: tuple[int, int], on: str) -> Macs:
        linear, pooling = self.gate.macs(image)
        pixels = math.prod(self.output_size(image))
        kernel, taps = self.weight.numel() // self.num_kernels, math.prod(self.kernel_size)
        total = Macs(
            gate=linear,
            compose=self.weight.numel() if "kernels" in self.heads else 0,
            convolution=kernel * pixels,
            other=pooling,
        )
        if on == "weights":
            gating = kernel + ("filters" in self.heads) * kernel
            return total + Macs(other=gating + ("taps" in self.heads) * self.in_channels * taps)
        gating = self.in_channels * math.prod(image) + ("taps" in self.heads) * kernel
        return total + Macs(other=gating + ("filters" in self.heads) * self.out_channels * pixels)

    def macs_on_input(self, image: tuple[int, int]) -> Macs:
        """On the features, the input is gated before it is convolved."""
        on_weights = super().macs_on_input(image)
        return on_weights if self.on == "weights" else Macs(gate=on_weights.gate)
