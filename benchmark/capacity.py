"""Capacity as a number: the dimension of the span of a layer's kernel, over all its gates.

By formula (:meth:`overconv.operators.base.OverConv2d.kernel_dimension`) and as the numerical rank
of kernels that random gates give, in float64.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.tables import markdown, record
from overconv.operators.base import OverConv2d
from overconv.operators.condconv import CondConv2d
from overconv.operators.dcd import DCDConv2d
from overconv.operators.dyconv import DyConv2d
from overconv.operators.dynet import DyNetConv2d
from overconv.operators.mdconv import MDConv2d
from overconv.operators.odconv import ODConv2d
from overconv.operators.se import SEConv2d
from overconv.operators.weightnet import WeightNetConv2d

LAYERS: dict[str, Any] = {
    "Conv2d": nn.Conv2d,
    "MDConv2d, depth 2": partial(MDConv2d, depth=2),
    "MDConv2d, depth 2, gates at the output": partial(MDConv2d, placement=("output",)),
    "MDConv2d, depth 2, gates everywhere": partial(
        MDConv2d, placement=("input", "middle", "output")
    ),
    "MDConv2d, depth 2, middle of half the width": partial(MDConv2d, depth=2, middle_channels=0.5),
    "MDConv2d, depth 3": partial(MDConv2d, depth=3),
    "MDConv2d, depth 3, middle of half the width": partial(MDConv2d, depth=3, middle_channels=0.5),
    "MDConv2d, depth 4": partial(MDConv2d, depth=4),
    "SEConv2d": SEConv2d,
    "CondConv2d, 8 kernels": CondConv2d,
    "DyConv2d, 4 kernels": DyConv2d,
    "DyNetConv2d, 6 kernels": DyNetConv2d,
    "WeightNetConv2d": WeightNetConv2d,
    "DCDConv2d": DCDConv2d,
    "ODConv2d, 1 kernel": partial(ODConv2d, num_kernels=1),
    "ODConv2d, 4 kernels": ODConv2d,
}
SMALL = {"3 x 3": (8, 6, 3), "1 x 1": (12, 10, 1)}
LARGE = {"3 x 3": (64, 64, 3), "1 x 1": (64, 64, 1)}


class RandomGates(nn.Module):
    """Gates of the shapes of a given module, random for each sample."""

    def __init__(self, gate: nn.Module, seed: int = 0) -> None:
        super().__init__()
        self.gate, self.generator = gate, torch.Generator().manual_seed(seed)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(
            torch.rand(made.shape, generator=self.generator, dtype=torch.float64)
            for made in self.gate(x)
        )


def numerical_dimension(layer: OverConv2d, seed: int = 0) -> int:
    """Rank of more kernels than there are weights, each by gates of its own.

    The layer's weights are drawn anew, and so are its gates.
    """
    generator = torch.Generator().manual_seed(seed)
    layer = layer.double().eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        size = layer.out_channels * layer.in_channels // layer.groups
        size *= layer.kernel_size[0] * layer.kernel_size[1]
        x = torch.randn(
            size + 20, layer.in_channels, *layer.kernel_size, generator=generator
        ).double()
        if isinstance(getattr(layer, "gate", None), nn.Module):
            layer.gate = RandomGates(layer.gate, seed)
        kernels, _ = layer.kernels(x)
    return int(torch.linalg.matrix_rank(kernels.flatten(1), rtol=1e-9))


def build(layer: Any, shape: tuple[int, int, int]) -> OverConv2d | nn.Conv2d:
    """The layer without a bias; half a middle is half of the default."""
    if isinstance(layer, partial) and layer.keywords.get("middle_channels") == 0.5:
        options = {k: v for k, v in layer.keywords.items() if k != "middle_channels"}
        default = layer.func(*shape, bias=False, **options).middle_channels
        return layer.func(*shape, bias=False, middle_channels=default // 2, **options)
    return layer(*shape, bias=False)


def measure() -> dict[str, Any]:
    """Dimensions of all layers: by formula at a usual size, by formula and by rank at a small."""
    rows = []
    for name, layer in LAYERS.items():
        for kind in SMALL:
            small, large = build(layer, SMALL[kind]), build(layer, LARGE[kind])
            static = isinstance(small, nn.Conv2d)
            rows.append(
                {
                    "layer": name,
                    "kernel": kind,
                    "parameters": sum(p.numel() for p in large.parameters()),
                    "dimension": 1 if static else large.kernel_dimension(),
                    "of": LARGE[kind][0] * LARGE[kind][1] * LARGE[kind][2] ** 2,
                    "small_formula": 1 if static else small.kernel_dimension(),
                    "small_rank": 1 if static else numerical_dimension(small),
                    "small_of": SMALL[kind][0] * SMALL[kind][1] * SMALL[kind][2] ** 2,
                }
            )
    return record("python -m benchmark capacity", rows, small=SMALL, large=LARGE)


def text(found: dict[str, Any]) -> str:
    """The table, one line a layer and kernel size."""
    lines = [
        [
            row["layer"],
            row["kernel"],
            f"{row['parameters']:,}",
            f"{row['dimension']:,} of {row['of']:,}",
            f"{1000 * row['dimension'] / row['parameters']:.1f}",
            f"{row['small_formula']}, {row['small_rank']} of {row['small_of']}",
        ]
        for row in found["rows"]
    ]
    columns = [
        "layer",
        "kernel",
        "parameters, 64-64",
        "kernel dimension, 64-64",
        "a thousand parameters",
        "small layer: formula, rank",
    ]
    return markdown(columns, lines)
