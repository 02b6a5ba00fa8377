"""What dynamic and folding layers cost at inference, in a whole network against the plain one.

Torchvision's MobileNetV2 with some of its convolutions replaced, deployed by
:func:`overconv.surgery.to_inference` (the plain network too) and planned by measured time.
"""

import statistics
from copy import deepcopy
from functools import partial
from typing import Any

import torch
import torchvision
from torch import nn

from benchmark.medians import median_interval
from benchmark.tables import markdown, record
from benchmark.variants import layers, moved_statistics
from overconv.forms import plan_forms
from overconv.operators.base import FoldingConv2d, OverConv2d
from overconv.operators.condconv import CondConv2d
from overconv.operators.dcd import DCDConv2d
from overconv.operators.dyconv import DyConv2d
from overconv.operators.dynet import DyNetConv2d
from overconv.operators.maconv import MAConv2d
from overconv.operators.mdconv import MDConv2d
from overconv.operators.odconv import ODConv2d
from overconv.operators.se import SEConv2d
from overconv.operators.weightnet import WeightNetConv2d
from overconv.surgery import replace_convs, to_inference
from overconv.timing import interleaved

# Name, layer, and the convolutions that its authors replace, or all that it is made for.
DYNAMIC: dict[str, tuple[Any, str]] = {
    "MDConv2d, depth 2": (partial(MDConv2d, depth=2), "pointwise"),
    "MDConv2d, depth 3": (partial(MDConv2d, depth=3), "pointwise"),
    "DyConv2d, 4 kernels": (partial(DyConv2d, num_kernels=4), "pointwise"),
    "CondConv2d, 8 kernels": (partial(CondConv2d, num_kernels=8), "pointwise"),
    "DyNetConv2d, 6 kernels": (partial(DyNetConv2d, num_kernels=6), "pointwise"),
    "WeightNetConv2d": (WeightNetConv2d, "pointwise"),
    "DCDConv2d": (DCDConv2d, "pointwise"),
    "SEConv2d": (SEConv2d, "pointwise"),
    "ODConv2d, 4 kernels": (partial(ODConv2d, num_kernels=4), "all_but_stem"),
    "ODConv2d, 1 kernel": (partial(ODConv2d, num_kernels=1), "all_but_stem"),
}
# At once no more networks than this, so that one round is short beside what disturbs a machine.
_AT_ONCE = 3
# Where the weights of a network lie in memory changes its time by some percent, so that a ratio is
# the median over as many copies; fewer give it no interval.
_INSTANCES = 6


def folding_layers() -> dict[str, tuple[Any, str]]:
    """All layers of the library that become a plain convolution."""
    folding = [layer for layer in layers() if issubclass(layer, FoldingConv2d | MAConv2d)]
    return {layer.__name__: (layer, "all_but_stem") for layer in folding}


def measure(*, seconds: float = 30.0, image: int = 224, batch: int = 1) -> dict[str, Any]:
    """Time each network against the plain one, one thread, ``seconds`` for each few of them.

    A ratio is the median over copies of all networks of that of their least times.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = moved_statistics(torchvision.models.mobilenet_v2().eval())
    x = torch.randn(batch, 3, image, image)
    plain = to_inference(model)
    rows, chosen = [], DYNAMIC | folding_layers()
    names = list(chosen)
    for start in range(0, len(names), _AT_ONCE):
        networks = {}
        for name in names[start : start + _AT_ONCE]:
            layer, where = chosen[name]
            networks[name] = _deployed(model, layer, where, x)
        with torch.inference_mode():
            expected = plain(x)
            for name, (planned, _) in networks.items():  # nothing is timed before it is right
                difference = float((planned(x) - expected).abs().max() / expected.abs().max())
                assert difference < 1e-3, f"{name} computes something else, by {difference:.1e}"
            alternatives = {name: planned for name, (planned, _) in networks.items()}
            times = _least_times({"plain": plain, **alternatives}, x, seconds)
        for name, (planned, left) in networks.items():
            ratios = [own / other for own, other in zip(times[name], times["plain"], strict=True)]
            rows.append(
                {
                    "layer": name,
                    "where": chosen[name][1],
                    "ratio": statistics.median(ratios),
                    "interval": median_interval(ratios),
                    "instances": len(ratios),
                    "milliseconds": 1e3 * min(times[name]),
                    "milliseconds_plain": 1e3 * min(times["plain"]),
                    "parameters": sum(p.numel() for p in planned.parameters()),
                    "norms_left": left,
                    "graph_is_plain": _same_graph(planned, plain),
                    "forms": _forms(planned),
                }
            )
            print(f"{name}, {chosen[name][1]}: {rows[-1]['ratio']:.3f}")
    return record(
        "python -m benchmark inference",
        rows,
        network="mobilenet_v2",
        image=image,
        batch=batch,
        parameters_plain=sum(p.numel() for p in plain.parameters()),
        gigabytes_a_second=_read_speed(),
    )


def _read_speed(megabytes: int = 100) -> float:
    """Gigabytes a second that one thread reads of a tensor too large for a core's own cache."""
    values = torch.ones(megabytes * 10**6 // 4)
    return megabytes / 1e3 / min(interleaved({"sum": values.sum}, rounds=30)["sum"])


def _least_times(
    networks: dict[str, nn.Module], x: torch.Tensor, seconds: float
) -> dict[str, list[float]]:
    """Least seconds of a call of each network, for each of some copies of all of them."""
    best: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(_INSTANCES):
        calls = {name: partial(deepcopy(network), x) for name, network in networks.items()}
        timed = interleaved(calls, rounds=1000, seconds=seconds / _INSTANCES)
        for name, samples in timed.items():
            best[name].append(min(samples))
    return best


def _deployed(model: nn.Module, layer: Any, where: str, x: torch.Tensor) -> tuple[nn.Module, int]:
    """The network with the layer, folded and planned; and how many batch norms are left."""
    replaced = replace_convs(model, layer, where, preserve=True)
    planned = plan_forms(to_inference(replaced), x, "latency")
    left = sum(
        isinstance(module, nn.BatchNorm2d) and not _inside_a_layer(planned, name)
        for name, module in planned.named_modules()
    )
    return planned, left


def _inside_a_layer(model: nn.Module, name: str) -> bool:
    parts = name.split(".")
    above = (model.get_submodule(".".join(parts[:end])) for end in range(1, len(parts)))
    return any(isinstance(module, OverConv2d) for module in above)


def _same_graph(one: nn.Module, other: nn.Module) -> bool:
    """Whether two networks are equal module for module, with parameters of equal shapes."""
    descriptions = [
        [
            (name, repr(module) if not list(module.children()) else type(module).__name__)
            for name, module in model.named_modules()
        ]
        for model in (one, other)
    ]
    shapes = [
        [(name, tuple(value.shape)) for name, value in model.state_dict().items()]
        for model in (deepcopy(one), deepcopy(other))
    ]
    return descriptions[0] == descriptions[1] and shapes[0] == shapes[1]


def _forms(model: nn.Module) -> dict[str, int]:
    """How many layers have which form."""
    counts: dict[str, int] = {}
    for module in model.modules():
        option = getattr(module, "form_option", None)
        if isinstance(option, str):
            form = getattr(module, option)
            counts[form] = counts.get(form, 0) + 1
    return counts


def text(found: dict[str, Any]) -> str:
    """The table: parameters, and for each processor the ratio of time to the plain network and the
    forms that were chosen there."""
    records = sorted([found, *found["others"]], key=_processor)
    rows = [{row["layer"]: row for row in record["rows"]} for record in records]
    lines = []
    for row in found["rows"]:
        there = [of.get(row["layer"]) for of in rows]
        lines.append(
            [
                row["layer"],
                row["where"],
                f"{row['parameters'] / 1e6:.2f}",
                *("-" if r is None else _ratio(r) for r in there),
                *("-" if r is None else _deployed_as(r) for r in there),
            ]
        )
    plain = f"{found['parameters_plain'] / 1e6:.2f}"
    columns = ["layer", "replaced", f"M parameters ({plain} plain)"]
    for what in ("time / plain", "deployed as"):
        columns += [f"{what}, {_processor(record)}" for record in records]
    speeds = [
        f"{record['gigabytes_a_second']:.0f} GB/s on the {_processor(record)}"
        for record in records
        if "gigabytes_a_second" in record
    ]
    note = (
        "At one image, layers that mix several kernels read all of them from memory; one thread "
        f"reads {' and '.join(speeds)}."
    )
    return markdown(columns, lines) + (f"\n{note}\n" if speeds else "")


def _processor(record: dict[str, Any]) -> str:
    return record["environment"]["processor"]


def _ratio(row: dict[str, Any]) -> str:
    """With its interval, which a record of one copy lacks."""
    if "interval" not in row:
        return f"{row['ratio']:.2f}"
    low, high = row["interval"]
    return f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})"


def _deployed_as(row: dict[str, Any]) -> str:
    return "the plain network" if row["graph_is_plain"] else _listed(row["forms"])


def _listed(forms: dict[str, int]) -> str:
    if not forms:
        return "the layer"
    return ", ".join(f"{form}: {number}" for form, number in sorted(forms.items()))
