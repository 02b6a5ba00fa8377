"""A convolution as a chain of linear layers, the ground on which MDConv and MAConv stand.

Axes: B batch, I input, M middle and O output channels, K x L kernel, H x W image, G groups.
"""

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from overconv.checks import IntPair, at_least, one_of
from overconv.functional import (
    compose,
    constant_through,
    conv2d_per_sample,
    fold_norm_after,
    gate_features,
    identity_kernel,
    scale_input,
    scale_output,
)
from overconv.gates import SQUASHES, WHENS, PooledGate, Squash, trained
from overconv.inference_gate import InferenceGate
from overconv.operators.base import OverConv2d, own_options
from overconv.operators.chain_dimension import chain_dimension
from overconv.operators.factor import factor_kernel
from overconv.operators.order import IMAGE, Order, Step, expanding, factors, is_gate, steps

PLACES = ("input", "middle", "output")

Gates = Mapping[str, Tensor]


class ChannelShift(nn.Module):
    """Adds a constant to each channel: what is left of a batch norm whose scale was folded."""

    bias: Tensor

    def __init__(self, shift: Tensor) -> None:
        super().__init__()
        self.bias = nn.Parameter(shift)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias[:, None, None]


class ChainConv2d(OverConv2d):
    r"""A chain of one spatial and ``depth - 1`` pointwise layers, with gates around them.

    .. math:: W(x) = D_L A_L \, D_{L-1} A_{L-1} \cdots D_1 A_1 D_0, \qquad D_l = diag(g_l(x))

    This class holds the parameters, multiplies the chain in any order and folds it; a derived layer
    chooses the order. The arguments are those of
    :class:`overconv.operators.mdconv.MDConv2d`, all of them required.

    Positions count the places between layers: 0 is the input, ``depth`` the output.
    """

    bias: Tensor | None
    gate: PooledGate | InferenceGate | None

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
        depth: int,
        middle_channels: int | None,
        placement: Sequence[str],
        when: str,
        middle_norm: bool,
        spatial: str,
        squash: str,
        reduction: int,
        temperature: float,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode
        )
        factory = {"device": device, "dtype": dtype}
        self.depth = at_least("depth", depth, 1)
        self.spatial = one_of("spatial", spatial, ("first", "last"))
        self.placement = canonical_placement(placement)
        self.middle_norm = bool(middle_norm)
        self.middle_channels = self._middle_channels(middle_channels)
        self.weights = nn.ParameterList(
            torch.empty(wide_out, wide_in // self.groups, *size, **factory)
            for wide_in, wide_out, size in self._layer_shapes()
        )
        self.bias = nn.Parameter(torch.empty(self.out_channels, **factory)) if bias else None
        # ``behind[l]`` acts on the output of layer l, before it is gated
        self.behind = nn.ModuleList(
            nn.BatchNorm2d(self.middle_channels, **factory)
            for _ in range(self.depth - 1)
            if self.middle_norm
        )
        self.squash = one_of("squash", squash, SQUASHES)
        self.reduction = at_least("reduction", reduction, 1)
        self.gate = self._build_gate(temperature, when, factory)
        self.order = expanding(self.product)
        self.reset_parameters()

    def _middle_channels(self, channels: int | None) -> int:
        """By default the narrowest width, a group, that takes no rank from the kernel.

        At least 2, since a single gate could only scale the whole kernel.
        """
        if channels is not None:
            return self._divisible("middle_channels", channels)
        taps = math.prod(self.kernel_size)
        wide_in, wide_out = self.in_channels // self.groups, self.out_channels // self.groups
        first = self.spatial == "first"
        rank = min(wide_in * taps, wide_out) if first else min(wide_in, wide_out * taps)
        return self.groups * max(2, rank)

    def _layer_shapes(self) -> list[tuple[int, int, tuple[int, int]]]:
        """Input channels, output channels and kernel size of each layer."""
        widths = [self.width(position) for position in range(self.depth + 1)]
        sizes = [(1, 1)] * self.depth
        sizes[self.spatial_index] = self.kernel_size
        return list(zip(widths[:-1], widths[1:], sizes, strict=True))

    def _build_gate(
        self, temperature: float, when: str, factory: dict[str, Any]
    ) -> PooledGate | None:
        one_of("when", when, WHENS)
        Squash(self.squash, temperature)  # checked also where nothing is gated
        heads = [self.width(position) for position in self.gated]
        if not heads:
            return None
        return PooledGate(
            self.in_channels,
            heads,
            hidden=max(4, self.in_channels // self.reduction),
            squash=self.squash,
            temperature=temperature,
            when=when,
            **factory,
        )

    def refuse_without_gate(self, because: str, **given: Any) -> None:
        """Raise a ValueError if nothing is gated and an option of the gate is not the default."""
        if self.gate is not None:
            return
        single = "depth=1 and " if self.depth == 1 else ""
        defaults = own_options(type(self))
        for name, value in given.items():
            if value != defaults[name]:
                raise ValueError(
                    f"{name}={value!r} has no effect with {single}{because}: there is no gate"
                )

    def width(self, position: int) -> int:
        """Channels at a position."""
        ends = {0: self.in_channels, self.depth: self.out_channels}
        return ends.get(position, self.middle_channels)

    @property
    def product(self) -> tuple[str, ...]:
        """Layers, gates and image from left to right; see :mod:`overconv.operators.order`."""
        return factors(self.depth, self.gated)

    @property
    def spatial_index(self) -> int:
        """Index of the spatial layer."""
        return 0 if self.spatial == "first" else self.depth - 1

    @property
    def gated(self) -> tuple[int, ...]:
        """The positions that have a gate, in order; a chain of depth 1 has no middle."""
        places = {
            "input": [0],
            "middle": range(1, self.depth),
            "output": [self.depth],
        }
        return tuple(position for place in self.placement for position in places[place])

    @property
    def norms(self) -> list[_BatchNorm]:
        """The middle norms; none without ``middle_norm``, or once they are folded."""
        return [module for module in self.behind if isinstance(module, _BatchNorm)]

    def reset_parameters(self) -> None:
        """Start with the variance of a :class:`torch.nn.Conv2d` and neutral gates.

        The spatial layer is drawn as there, the pointwise ones preserve the variance, and where a
        neutral gate is not 1 the layers make up for it.
        """
        for index, weight in enumerate(self.weights):
            if index == self.spatial_index:
                nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
            else:
                nn.init.kaiming_normal_(weight, nonlinearity="linear")
        if self.bias is not None:
            fan_in = self.in_channels // self.groups * math.prod(self.kernel_size)
            nn.init.uniform_(self.bias, -(fan_in**-0.5), fan_in**-0.5)
        for norm in self.norms:
            norm.reset_parameters()
        if self.gate is not None:
            trained(self.gate).reset_parameters()
        self._make_up_for_neutral_gates()

    @torch.no_grad()
    def _make_up_for_neutral_gates(self) -> None:
        if self.gate is None:
            return
        for position, neutral in zip(self.gated, trained(self.gate).neutral, strict=True):
            self.weights[min(position, self.depth - 1)].div_(neutral)

    # Evaluation.

    def gates(self, x: Tensor) -> Gates:
        """The gates by name: (B, width), or (1, width) if shared."""
        gate = self.own("gate")
        return {} if gate is None else dict(zip(self._gated, gate(x), strict=True))

    @property
    def order(self) -> Order:
        """In which the chain is multiplied; see :mod:`overconv.operators.order`."""
        return self._order

    @order.setter
    def order(self, order: Order) -> None:
        # all that follows from it is worked out here, not in each forward pass
        self._order, self._padded = order, self.pads_first(order)
        self._gated = tuple(f"D{position}" for position in self.gated)
        self._num_middle = len(self.behind)
        self._steps = steps(order, f"A{self.spatial_index + 1}")

    def pads_first(self, order: Order) -> bool:
        """Whether the input is padded ahead of the chain rather than ahead of its spatial layer.

        Then what a middle norm adds is padded by its own image of zero, as a composed kernel has
        it. Without a norm, or where nothing runs before the spatial layer, both are the same, and
        the later is cheaper.
        """
        if self.spatial_index == 0 or len(self.behind) == 0:
            return False
        kernels = [step for step in steps(order, f"A{self.depth}") if step.gate is None]
        return not kernels[0].spatial

    def run(self, x: Tensor, gates: Gates) -> Tensor:
        """The chain on an image, multiplied in the order :attr:`order`."""
        # Written for few steps in Python, whose time is felt beside that of a small convolution.
        if self._padded:
            x = self.pad_fully(x)
        bias, last, own = self.own("bias"), self._steps[-1], self.own("weights")._parameters
        in_place, fresh = not torch.is_grad_enabled(), False
        for step in self._steps:
            if step.gate is not None:
                gate = gates[step.gate]
                if in_place and fresh:  # straight from a convolution: nobody else has them
                    gate = gate if gate.dtype == x.dtype else gate.to(x.dtype)
                    x.mul_(gate.view(*gate.shape, 1, 1))
                else:
                    x = gate_features(x, gate)
                continue
            weight, shift, norm = None, None, None
            if step.layer is None:
                weight, shift = self.compose(step.kernel, gates)
            else:
                weight = own.get(str(step.layer))
                if weight is None:  # parametrised, or a replica: what stands in its place
                    weight = getattr(self.weights, str(step.layer))
                if step.layer < self._num_middle:  # the norm of a single layer runs on features
                    module = self.behind[step.layer]
                    if isinstance(module, ChannelShift):
                        shift = module.bias
                    else:
                        norm = module
            if step is last and bias is not None:  # a convolution adds it by itself
                shift, bias = (bias if shift is None else bias + shift), None
            x, fresh = self._convolve(step, x, weight, shift), norm is None
            if norm is not None:
                x = norm(x)
        return x if bias is None else x + bias.to(x.dtype)[:, None, None]

    def _convolve(self, step: Step, x: Tensor, weight: Any, bias: Tensor | None) -> Tensor:
        """Convolve by the kernel of a step, which is one for all or has a batch in front."""
        convolve = F.conv2d if weight.dim() == 4 else conv2d_per_sample
        if not step.spatial:
            return convolve(x, weight, bias, 1, 0, 1, self.groups)
        if self._padded:
            return convolve(x, weight, bias, self.stride, 0, self.dilation, self.groups)
        x, padding = self.pad(x), self.conv_padding
        return convolve(x, weight, bias, self.stride, padding, self.dilation, self.groups)

    def compose(self, order: Order, gates: Gates) -> tuple[Tensor, Tensor | None]:
        """Kernel of a run of layers and gates, multiplied in the given order, and its constant.

        Raises:
            ValueError: A middle norm is training: it depends on the features of the whole batch.

        Shape:
            -> (O, I/G, K, L) or, with gates inside, (B or 1, O, I/G, K, L); (O) or (B or 1, O), or
            None where nothing is added
        """
        if isinstance(order, str):
            return self._folded_layer(int(order[1:]) - 1)
        left, right = order
        if is_gate(right):
            kernel, shift = self.compose(left, gates)
            return scale_input(kernel, _gate(right, gates), self.groups), shift
        kernel, shift = self.compose(right, gates)
        if is_gate(left):
            gate = _gate(left, gates)
            return scale_output(kernel, gate), None if shift is None else shift * gate
        after, constant = self.compose(left, gates)
        if shift is not None:
            through = constant_through(shift, after, self.groups)
            constant = through if constant is None else through + constant
        return compose(kernel, after, self.groups), constant

    def kernels(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        order = expanding(self.product)  # with the image's place taken by the first layer
        kernel, shift = self.compose(_without_image(order), self.gates(x))
        bias = self.bias if shift is None else shift if self.bias is None else shift + self.bias
        return (kernel if kernel.dim() == 5 else kernel[None]), bias

    def _folded_layer(self, index: int) -> tuple[Tensor, Tensor | None]:
        """A layer's weight and the constant behind it, its norm folded in."""
        weight = self.weights[index]
        if index >= len(self.behind):
            return weight, None
        module = self.behind[index]
        if isinstance(module, ChannelShift):
            return weight, module.bias
        assert isinstance(module, _BatchNorm)
        if module.training:
            raise ValueError(
                "a chain with middle_norm=True cannot be composed while training, since it"
                " normalises by the batch: use form='expanding', or eval()"
            )
        return fold_norm_after(weight, None, module)

    # Conversion.

    def start_from(self, weight: Tensor, bias: Tensor | None) -> None:
        """See :meth:`from_conv2d`. Norms become the identity of evaluation mode."""
        if self.depth == 1:
            self.weights[0].copy_(weight)
        else:
            ends = self.weights[0], self.weights[-1]
            first, last = factor_kernel(weight, *ends, self.groups, self.spatial)
            self.weights[0].copy_(first)
            self.weights[-1].copy_(last)
            for between in self.weights[1:-1]:
                between.copy_(identity_kernel(self.middle_channels, 1, self.groups))
        if self.bias is not None and bias is not None:
            self.bias.copy_(bias)
        for norm in self.norms:
            norm.reset_parameters()
            norm.get_buffer("running_var").fill_(1 - norm.eps)
        if self.gate is not None:
            trained(self.gate).reset_parameters()
        self._make_up_for_neutral_gates()

    def folded(self) -> nn.Conv2d | Self:
        """A copy in ``eval()`` with its norms folded; a convolution if no gate reads the input.

        Layers between which nothing is gated become a single one, unless they cost less apart.
        """
        copy = deepcopy(self).eval()
        if isinstance(copy.gate, InferenceGate):
            return copy
        with torch.no_grad():
            if copy.gate is None or copy.gate.constant:
                kernel, bias = copy.kernels(self.weights[0])
                return copy.as_conv2d(kernel[0], None if bias is None else bias.flatten())
            copy.gate = copy.gate.to_inference()
            layers = [copy._folded_layer(index) for index in range(self.depth)]
            for position, halved in zip(self.gated, copy.gate.halve(), strict=True):
                if halved:  # a layer takes over the factor
                    index = min(position, self.depth - 1)
                    weight, shift = layers[index]
                    layers[index] = 2 * weight, shift  # a gated output has no norm before it
            if "middle" not in copy.placement and copy.depth > 1:
                whole = _composed(layers, self.groups)
                if whole[0].numel() <= sum(weight.numel() for weight, _ in layers):
                    layers = [whole]
            copy.depth, copy.middle_norm = len(layers), False
            copy.weights = nn.ParameterList(weight.detach().clone() for weight, _ in layers)
            copy.behind = nn.ModuleList()
            if any(shift is not None for _, shift in layers):
                copy.behind.extend(
                    ChannelShift(
                        weight.new_zeros(weight.shape[0])
                        if shift is None
                        else shift.detach().clone()
                    )
                    for weight, shift in layers
                )
            copy.order = expanding(copy.product)
        return copy.eval()  # what is new in it too

    def absorb_affine(self, scale: Tensor, shift: Tensor) -> bool:
        last = self.weights[-1]
        last.mul_(scale[:, None, None, None])
        if len(self.behind) == self.depth:
            constant = self.behind[-1]
            assert isinstance(constant, ChannelShift), "no norm follows the last layer"
            constant.bias.mul_(scale)
        bias = shift if self.bias is None else self.bias * scale + shift
        self.bias = nn.Parameter(bias.to(last.dtype))
        return True

    def kernel_dimension(self) -> int:
        if self.gate is None or self.gate.when != "sample":
            return 1
        return self.groups * chain_dimension(
            self.in_channels // self.groups,
            self.middle_channels // self.groups,
            self.out_channels // self.groups,
            taps=math.prod(self.kernel_size),
            depth=self.depth,
            placement=self.placement,
            spatial=self.spatial,
        )

    def shown_options(self) -> dict[str, Any]:
        shown = super().shown_options()
        if self.depth == 1:  # there is no middle, or none any more
            del shown["middle_channels"]
        return shown


def canonical_placement(placement: Sequence[str]) -> tuple[str, ...]:
    """``placement`` in the order of the chain; a ValueError if it is not a subset of the places."""
    if isinstance(placement, str):
        raise ValueError(f"placement must be a tuple of places, got the string {placement!r}")
    unknown = [place for place in placement if place not in PLACES]
    if unknown or len(set(placement)) < len(placement):
        raise ValueError(f"placement must be a subset of {PLACES}, got {tuple(placement)!r}")
    return tuple(place for place in PLACES if place in placement)


def _gate(name: Order, gates: Gates) -> Tensor:
    return gates[str(name)]


def _composed(
    layers: Sequence[tuple[Tensor, Tensor | None]], groups: int
) -> tuple[Tensor, Tensor | None]:
    """Layers without gates as one: its kernel and the constant behind it."""
    kernel, constant = layers[0]
    for weight, shift in layers[1:]:
        if constant is not None:
            through = constant_through(constant, weight, groups)
            shift = through if shift is None else through + shift
        kernel, constant = compose(kernel, weight, groups), shift
    return kernel, constant


def _without_image(order: Order) -> Order:
    """An order of the layers alone, left as it was but for the image at its end."""
    assert isinstance(order, tuple), "it ends with the image"
    left, right = order
    return left if right == IMAGE else (left, _without_image(right))
