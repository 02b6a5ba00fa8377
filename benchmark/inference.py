"""What dynamic and folding layers cost at inference, in a whole network against the plain one.

Torchvision's MobileNetV2 with some of its convolutions replaced, deployed by
:func:`overconv.surgery.to_inference` (the plain network too) and planned by measured time.
"""

from copy import deepcopy
from functools import partial
from typing import Any

import torch
import torchvision
from torch import nn

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


def folding_layers() -> dict[str, tuple[Any, str]]:
    """All layers of the library that become a plain convolution."""
    folding = [layer for layer in layers() if issubclass(layer, FoldingConv2d | MAConv2d)]
    return {layer.__name__: (layer, "all_but_stem") for layer in folding}


def measure(*, seconds: float = 30.0, image: int = 224, batch: int = 1) -> dict[str, Any]:
    """Time each network against the plain one, one thread, ``seconds`` for each few of them."""
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
            calls = {name: partial(planned, x) for name, (planned, _) in networks.items()}
            for name, call in calls.items():  # nothing is timed before it is right
                difference = float((call() - expected).abs().max() / expected.abs().max())
                assert difference < 1e-3, f"{name} computes something else, by {difference:.1e}"
            calls["plain"] = partial(plain, x)
            samples = interleaved(calls, rounds=1000, seconds=seconds)
        best = {name: min(times) for name, times in samples.items()}
        for name, (planned, left) in networks.items():
            rows.append(
                {
                    "layer": name,
                    "where": chosen[name][1],
                    "ratio": best[name] / best["plain"],
                    "milliseconds": 1e3 * best[name],
                    "milliseconds_plain": 1e3 * best["plain"],
                    "samples": len(samples[name]),
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
    )


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
    """The table: ratio of time to the plain network, parameters, and the forms that were chosen."""
    lines = [
        [
            row["layer"],
            row["where"],
            f"{row['ratio']:.2f}",
            f"{row['parameters'] / 1e6:.2f}",
            "the plain network" if row["graph_is_plain"] else _listed(row["forms"]),
        ]
        for row in found["rows"]
    ]
    plain = f"{found['parameters_plain'] / 1e6:.2f}"
    columns = ["layer", "replaced", "time / plain", f"M parameters ({plain} plain)", "deployed as"]
    return markdown(columns, lines)


def _listed(forms: dict[str, int]) -> str:
    if not forms:
        return "the layer"
    return ", ".join(f"{form}: {number}" for form, number in sorted(forms.items()))
