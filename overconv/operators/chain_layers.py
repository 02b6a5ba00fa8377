"""What a chain of linear layers is: its layers, where it is gated, and how it starts.

Axes: I input, M middle and O output channels, K x L kernel, G groups.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from overconv.checks import IntPair, at_least, one_of
from overconv.functional import identity_kernel
from overconv.gates import SQUASHES, WHENS, PooledGate, Squash, trained
from overconv.inference_gate import InferenceGate
from overconv.operators.base import OverConv2d, own_options
from overconv.operators.chain_dimension import chain_dimension
from overconv.operators.factor import factor_kernel
from overconv.operators.order import factors

PLACES = ("input", "middle", "output")


class ChainLayers(OverConv2d):
    r"""The parameters of a chain of one spatial and ``depth - 1`` pointwise layers, and its gates.

    .. math:: W(x) = D_L A_L \, D_{L-1} A_{L-1} \cdots D_1 A_1 D_0, \qquad D_l = diag(g_l(x))

    The arguments are those of :class:`overconv.operators.mdconv.MDConv2d`, all of them required.

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
