"""A convolution as a chain of linear layers, the ground on which MDConv and MAConv stand.

Axes: B batch, I input, M middle and O output channels, K x L kernel, H x W image, G groups.
"""

import math
from collections.abc import Sequence
from copy import deepcopy
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
from overconv.gates import SQUASHES, WHENS, PooledGate
from overconv.operators.base import OverConv2d
from overconv.operators.factor import factor_matrices

PLACES = ("input", "middle", "output")

Gates = Sequence[Tensor | None]


class ChannelShift(nn.Module):
    """Adds a constant to each channel: what is left of a batch norm whose scale was folded."""

    def __init__(self, shift: Tensor) -> None:
        super().__init__()
        self.bias = nn.Parameter(shift)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias[:, None, None]


class ChainConv2d(OverConv2d):
    r"""A chain of one spatial and ``depth - 1`` pointwise layers, with gates around them.

    .. math:: W(x) = D_L A_L \, D_{L-1} A_{L-1} \cdots D_1 A_1 D_0, \qquad D_l = diag(g_l(x))

    This class holds the parameters, runs the chain on features, composes its kernel and counts
    both; a derived layer chooses between the two forms. The arguments are those of
    :class:`overconv.operators.mdconv.MDConv2d`, all of them required.

    Positions count the places between layers: 0 is the input, ``depth`` the output.
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
        # ``middle[l]`` acts on the output of layer l, before it is gated
        self.middle = nn.ModuleList(
            nn.BatchNorm2d(self.middle_channels, **factory)
            for _ in range(self.depth - 1)
            if self.middle_norm
        )
        self.gate = self._build_gate(reduction, squash, temperature, when, factory)
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
        self, reduction: int, squash: str, temperature: float, when: str, factory: dict[str, Any]
    ) -> PooledGate | None:
        one_of("squash", squash, SQUASHES)
        one_of("when", when, WHENS)
        hidden = max(4, self.in_channels // at_least("reduction", reduction, 1))
        heads = [self.width(position) for position in self.gated]
        if not heads:
            return None
        return PooledGate(
            self.in_channels,
            heads,
            hidden=hidden,
            squash=squash,
            temperature=temperature,
            when=when,
            **factory,
        )

    def width(self, position: int) -> int:
        """Channels at a position."""
        ends = {0: self.in_channels, self.depth: self.out_channels}
        return ends.get(position, self.middle_channels)

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
    def norms(self) -> list[nn.BatchNorm2d]:
        """The middle norms; none without ``middle_norm``, or once they are folded."""
        return [module for module in self.middle if isinstance(module, nn.BatchNorm2d)]

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
            self.gate.reset_parameters()
        self._make_up_for_neutral_gates()

    @torch.no_grad()
    def _make_up_for_neutral_gates(self) -> None:
        if self.gate is None:
            return
        for position, neutral in zip(self.gated, self.gate.neutral, strict=True):
            self.weights[min(position, self.depth - 1)].div_(neutral)

    # Evaluation.

    def gates(self, x: Tensor) -> Gates:
        """For each position (B, width), (1, width) if shared, or None where nothing is gated."""
        gates: list[Tensor | None] = [None] * (self.depth + 1)
        if self.gate is not None:
            for position, gate in zip(self.gated, self.gate(x), strict=True):
                gates[position] = gate
        return gates

    def run_chain(self, x: Tensor, gates: Gates) -> Tensor:
        """The chain on features, layer by layer: the expanding form."""
        padding = self.conv_padding
        if self.pads_first:
            x, padding = self.pad_fully(x), (0, 0)
        # where nothing comes after the last layer, it can add the bias by itself
        bias_inside = gates[-1] is None and len(self.middle) < self.depth
        for index, weight in enumerate(self.weights):
            gate = gates[index]
            if gate is not None:
                x = gate_features(x, gate)
            bias = self.bias if bias_inside and index == self.depth - 1 else None
            if index == self.spatial_index:
                x = x if self.pads_first else self.pad(x)
                x = F.conv2d(x, weight, bias, self.stride, padding, self.dilation, self.groups)
            else:
                x = F.conv2d(x, weight, bias, groups=self.groups)
            if index < len(self.middle):
                x = self.middle[index](x)
        if gates[-1] is not None:
            x = gate_features(x, gates[-1])
        return x if bias_inside or self.bias is None else x + self.bias[:, None, None]

    @property
    def pads_first(self) -> bool:
        """Whether the input is padded ahead of the chain rather than ahead of its spatial layer.

        Then what a middle norm adds is padded by its own image of zero, as the composed kernel
        has it. Without a norm both are the same, and the later is cheaper.
        """
        return self.spatial_index > 0 and len(self.middle) > 0

    def run_composed(self, x: Tensor, gates: Gates) -> Tensor:
        """One convolution by a composed kernel, for each sample its own: the compact form."""
        kernel, bias = self.compose(gates)
        return conv2d_per_sample(
            self.pad(x), kernel, bias, self.stride, self.conv_padding, self.dilation, self.groups
        )

    def compose(self, gates: Gates) -> tuple[Tensor, Tensor | None]:
        """Kernel and bias of the whole chain.

        Raises:
            ValueError: A middle norm is training: it depends on the features of the whole batch.

        Shape:
            -> (B or 1, O, I/G, K, L), and (B or 1, O) or (O) or None
        """
        folded = self._fold_norms()
        kernel, shift = folded[0]
        for gate, (weight, next_shift) in zip(gates[1:-1], folded[1:], strict=True):
            if gate is not None:
                # a gate scales whichever neighbour is smaller
                if weight.shape.numel() <= kernel.shape[-4:].numel():
                    weight = scale_input(weight, gate, self.groups)
                else:
                    kernel = scale_output(kernel, gate)
                    shift = None if shift is None else shift * gate
            if shift is not None:
                through = constant_through(shift, weight, self.groups)
                next_shift = through if next_shift is None else through + next_shift
            kernel, shift = compose(kernel, weight, self.groups), next_shift
        if gates[0] is not None:
            kernel = scale_input(kernel, gates[0], self.groups)
        if gates[-1] is not None:
            kernel = scale_output(kernel, gates[-1])
            shift = None if shift is None else shift * gates[-1]
        bias = self.bias if shift is None else shift if self.bias is None else shift + self.bias
        return (kernel if kernel.dim() == 5 else kernel[None]), bias

    def _fold_norms(self) -> list[tuple[Tensor, Tensor | None]]:
        """Each layer's weight and the constant behind it, the norms folded in."""
        folded: list[tuple[Tensor, Tensor | None]] = [(weight, None) for weight in self.weights]
        for index, module in enumerate(self.middle):
            weight = self.weights[index]
            if isinstance(module, ChannelShift):
                folded[index] = weight, module.bias
                continue
            assert isinstance(module, nn.BatchNorm2d)
            if module.training:
                raise ValueError(
                    "a chain with middle_norm=True cannot be composed while training, since it"
                    " normalises by the batch: use form='expanding', or eval()"
                )
            folded[index] = fold_norm_after(weight, None, module)
        return folded

    # Conversion.

    def start_from(self, weight: Tensor, bias: Tensor | None) -> None:
        """See :meth:`from_conv2d`. Norms become the identity of evaluation mode."""
        if self.depth == 1:
            self.weights[0].copy_(weight)
        else:
            first, last = self._factor(weight)
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
            self.gate.reset_parameters()
        self._make_up_for_neutral_gates()

    def _factor(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """First and last layer whose product is ``weight``.

        Middle channels that the product does not need keep their random rows in the first layer
        and get zeros in the last: they cannot be seen, yet the last layer has a gradient there.
        """
        taps, groups = math.prod(self.kernel_size), self.groups
        wide_in, wide_out = weight.shape[1], weight.shape[0] // groups
        matrix = weight.view(groups, wide_out, wide_in * taps)
        if self.spatial == "last":
            matrix = weight.view(groups, wide_out, wide_in, taps).mT.flatten(1, 2)
        spare_rows = self.weights[0].view(groups, -1, matrix.shape[2])
        left, right = factor_matrices(matrix, spare_rows)
        if self.spatial == "last":
            left = left.unflatten(1, (wide_out, taps)).mT
        return right.reshape_as(self.weights[0]), left.reshape_as(self.weights[-1])

    def folded(self) -> nn.Conv2d | Self:
        """A copy in ``eval()`` with norms folded and, where no middle is gated, a single layer.

        A plain convolution if no gate depends on the input.
        """
        copy = deepcopy(self).eval()
        with torch.no_grad():
            if copy.gate is None or copy.gate.constant:
                kernel, bias = copy.compose(copy.gates(self.weights[0]))
                return copy.as_conv2d(kernel[0], None if bias is None else bias.flatten())
            layers = copy._fold_norms()
            if "middle" not in copy.placement and copy.depth > 1:
                layers = [copy._collapse()]
            copy.depth, copy.middle_norm = len(layers), False
            copy.weights = nn.ParameterList(weight.detach().clone() for weight, _ in layers)
            copy.middle = nn.ModuleList(
                ChannelShift(shift.detach().clone()) for _, shift in layers if shift is not None
            )
        return copy

    def _collapse(self) -> tuple[Tensor, Tensor | None]:
        """All layers as one, and the constant behind it."""
        bias, self.bias = self.bias, None
        kernel, shift = self.compose([None] * (self.depth + 1))
        self.bias = bias
        return kernel[0], shift

    def extra_repr(self) -> str:
        parts = [super().extra_repr(), f"depth={self.depth}"]
        if self.depth > 1:
            parts.append(f"middle_channels={self.middle_channels}")
        parts.append(f"placement={self.placement}")
        if self.spatial == "last":
            parts.append("spatial='last'")
        return ", ".join(parts)


def canonical_placement(placement: Sequence[str]) -> tuple[str, ...]:
    """``placement`` in the order of the chain; a ValueError if it is not a subset of the places."""
    if isinstance(placement, str):
        raise ValueError(f"placement must be a tuple of places, got the string {placement!r}")
    unknown = [place for place in placement if place not in PLACES]
    if unknown or len(set(placement)) < len(placement):
        raise ValueError(f"placement must be a subset of {PLACES}, got {tuple(placement)!r}")
    return tuple(place for place in PLACES if place in placement)
