"""What a training step costs, layer by layer: forward, backward and update, against a baseline.

``CondConv2d`` against timm's layer, which is given the same router; ``MDConv2d`` against the plain
convolution. Each as it is by default, and in the form that a plan by measured time gives it for
training. Distinct convolutions of MobileNetV2 and ResNet-18, one thread, interleaved.
"""

import math
import resource
import statistics
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.medians import CONFIDENCE, median_interval
from benchmark.shapes import Shape, shapes_of
from benchmark.tables import markdown, record
from overconv.forms import make_plan
from overconv.gates import PooledGate
from overconv.operators.condconv import CondConv2d
from overconv.operators.mdconv import MDConv2d
from overconv.timing import interleaved

BATCH = 32
# Each has layers and images of its own: where these happen to lie in memory makes the same step up
# to 10 % slower or faster. So a ratio is the median over instances, each the ratio of least times.
_INSTANCES = 6  # fewer give no interval of a median
# Against timm's layer, where it is asked which is faster, one that may be so near to one takes more
# of them, until its median is known to within so much.
_NEAR_ONE = (0.97, 1.05)
_WIDTH = 0.02
_MOST_INSTANCES = 60


class TimmCondConv(nn.Module):
    """timm's layer with a router of its own, as the library's has."""

    def __init__(self, shape: Shape, num_kernels: int) -> None:
        from timm.layers import CondConv2d as Timm  # an extra: only this table needs it

        super().__init__()
        self.gate = PooledGate(
            shape.in_channels, [num_kernels], hidden=None, squash="sigmoid", temperature=None
        )
        self.conv = Timm(
            shape.in_channels,
            shape.out_channels,
            shape.kernel_size,
            shape.stride,
            shape.padding,
            groups=shape.groups,
            bias=True,
            num_experts=num_kernels,
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x, self.gate(x)[0])


def _plain(shape: Shape) -> nn.Module:
    return nn.Conv2d(*shape.arguments)


PAIRS: dict[str, tuple[Callable[[Shape], nn.Module], Callable[[Shape], nn.Module]]] = {
    "CondConv2d, 4 kernels / timm's": (
        lambda shape: CondConv2d(*shape.arguments, num_kernels=4),
        lambda shape: TimmCondConv(shape, 4),
    ),
    "CondConv2d, 8 kernels / timm's": (
        lambda shape: CondConv2d(*shape.arguments, num_kernels=8),
        lambda shape: TimmCondConv(shape, 8),
    ),
    "MDConv2d, depth 2 / plain": (lambda shape: MDConv2d(*shape.arguments, depth=2), _plain),
    "MDConv2d, depth 3 / plain": (lambda shape: MDConv2d(*shape.arguments, depth=3), _plain),
}


def training_shapes() -> list[Shape]:
    """Distinct convolutions at 112 pixels, so that a step of a batch fits a shared machine."""
    found = [*shapes_of("mobilenet_v2", 112), *shapes_of("resnet18", 112)]
    return [shape for shape in found if shape.in_channels > 3]


def measure(*, seconds: float = 0.2, pairs: Any = PAIRS) -> dict[str, Any]:
    """Time each pair on each shape, and count the bytes that a step holds for its backward pass.

    ``seconds`` for each instance of a row.
    """
    torch.set_num_threads(1)
    rows = []
    for name, (ours, theirs) in pairs.items():
        for shape in training_shapes():
            rows.append(_row(name, ours, theirs, shape, seconds))
            print(f"{name}, {shape}: {rows[-1]['ratio']:.3f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return record("python -m benchmark training", rows, batch=BATCH, peak_mib_of_the_run=peak)


def _ratios(best: dict[str, list[float]], side: str) -> list[float]:
    return [ours / theirs for ours, theirs in zip(best[side], best["theirs"], strict=True)]


def _is_told(best: dict[str, list[float]]) -> bool:
    """Whether both ratios are surely far from one, or known well enough."""
    for side in ("ours", "planned"):
        low, high = median_interval(_ratios(best, side))
        if low < _NEAR_ONE[1] and high > _NEAR_ONE[0] and high - low > _WIDTH:
            return False
    return True


def _row(name: str, ours: Any, theirs: Any, shape: Shape, seconds: float) -> dict[str, Any]:
    torch.manual_seed(0)
    best: dict[str, list[float]] = {"ours": [], "planned": [], "theirs": []}
    for instance in range(_MOST_INSTANCES):
        if instance >= _INSTANCES and (not name.endswith("timm's") or _is_told(best)):
            break
        x = torch.randn(BATCH, shape.in_channels, shape.image, shape.image)
        # Which is built first decides which finds the better place.
        first = theirs(shape) if instance % 2 else None
        layer = ours(shape)
        plan = make_plan(nn.Sequential(layer), x, "latency")  # measured once, then remembered
        planned = plan.apply(nn.Sequential(layer))
        layers = {"ours": layer, "planned": planned, "theirs": first or theirs(shape)}
        steps = {side: partial(_step(layer), x) for side, layer in layers.items()}
        for side, times in interleaved(steps, rounds=100, warmup=1, seconds=seconds).items():
            best[side].append(min(times))
    return {
        "pair": name,
        "network": shape.network,
        "shape": str(shape),
        "kind": shape.kind,
        "ratio": statistics.median(_ratios(best, "ours")),
        "ratio_planned": statistics.median(_ratios(best, "planned")),
        "interval": median_interval(_ratios(best, "ours")),
        "interval_planned": median_interval(_ratios(best, "planned")),
        "instances": len(best["theirs"]),
        "form": plan.choices[0].form,
        "milliseconds": {side: 1e3 * min(values) for side, values in best.items()},
        "saved_bytes": {side: saved_bytes(layer, x) for side, layer in layers.items()},
    }


def _step(layer: nn.Module) -> Callable[[Tensor], None]:
    """One step of training: forward, backward to the input too, plain SGD."""
    optimiser = torch.optim.SGD(layer.parameters(), lr=1e-6)

    def step(x: Tensor) -> None:
        image = x.detach().requires_grad_()
        layer(image).sum().backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


def saved_bytes(layer: nn.Module, x: Tensor) -> int:
    """Bytes that a forward pass keeps for the backward one, input and parameters apart."""
    kept: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in layer.parameters()}
    own.add(x.untyped_storage().data_ptr())

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = layer(x.detach().requires_grad_())
        total = sum(kept.values())
    del y
    return total


def text(found: dict[str, Any]) -> str:
    """Geometric means, extremes and bytes by pair and kind of convolution."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in found["rows"]:
        for kind in (row["kind"], "all"):
            groups.setdefault((row["pair"], kind), []).append(row)
    lines = []
    for pair in dict.fromkeys(row["pair"] for row in found["rows"]):
        for kind in ("pointwise", "spatial", "depthwise", "all"):
            rows = groups.get((pair, kind), [])
            if not rows:
                continue
            held = [
                sum(row["saved_bytes"][side] for row in rows) / 2**20
                for side in ("ours", "planned", "theirs")
            ]
            lines.append(
                [
                    pair,
                    kind,
                    len(rows),
                    _summary([row["ratio"] for row in rows]),
                    _summary([row["ratio_planned"] for row in rows]),
                    ", ".join(
                        f"{form} {n}" for form, n in Counter(r["form"] for r in rows).items()
                    ),
                    f"{held[0]:.0f}, {held[1]:.0f} / {held[2]:.0f}",
                ]
            )
    columns = [
        "layer / baseline",
        "convolutions",
        "shapes",
        "time by default",
        "time planned",
        "planned forms",
        "MiB held, default, planned / baseline",
    ]
    return markdown(columns, lines) + f"\n{_note(found['rows'])}{found.get('remark', '')}\n"


def _note(rows: list[dict[str, Any]]) -> str:
    """How the ratios are to be read, and of each pair the one that is least in our favour."""
    note = (
        "Time: geometric mean (least to most) over the shapes. Each ratio is a median over "
        f"{min(row['instances'] for row in rows)} to {max(row['instances'] for row in rows)} "
        "instances, since where a layer lies in memory changes its time by up to a tenth. Against "
        f"timm's layer a ratio near to one has as many as its {CONFIDENCE:.0%} interval needs to "
        f"be {_WIDTH} wide, {_MOST_INSTANCES} at most; the slowest:"
    )
    slowest = []
    for pair in dict.fromkeys(row["pair"] for row in rows if row["pair"].endswith("timm's")):
        for side, words in (("", "by default"), ("_planned", "planned")):
            row = max((r for r in rows if r["pair"] == pair), key=lambda r: r[f"ratio{side}"])
            low, high = row[f"interval{side}"]
            name = pair.split(" /")[0]
            slowest.append(
                f"{name}, {words}: {row[f'ratio{side}']:.3f} ({low:.3f} to {high:.3f}), "
                f"{row['shape']}"
            )
    return f"{note} {'; '.join(slowest)}."


def _summary(ratios: list[float]) -> str:
    """Geometric mean and range."""
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    return f"{mean:.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
