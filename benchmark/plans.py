"""How good plans are: the planned form of a layer against the best of all its forms.

For each shape the layer is planned by measured time, and then all its forms are timed again, in
one interleaved run that knows nothing of the plan.
"""

import math
from collections import Counter
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmark.shapes import Shape, layer_shapes
from benchmark.tables import markdown, record
from overconv.forms import make_plan
from overconv.operators.base import OverConv2d
from overconv.operators.dyconv import DyConv2d
from overconv.operators.mdconv import MDConv2d
from overconv.timing import interleaved

LAYERS: dict[str, Any] = {
    "MDConv2d, depth 2": partial(MDConv2d, depth=2),
    "MDConv2d, depth 3": partial(MDConv2d, depth=3),
    "DyConv2d, 4 kernels": partial(DyConv2d, num_kernels=4),
}
BATCHES = (1, 8)


def measure(*, layers: dict[str, Any] = LAYERS, seconds: float = 0.4) -> dict[str, Any]:
    """Plan and time every layer on every shape and batch, one thread; ``seconds`` a timing."""
    torch.set_num_threads(1)
    rows = []
    for shape in layer_shapes():
        for name, layer in layers.items():
            for batch in BATCHES:
                rows.append(_row(name, layer, shape, batch, seconds))
                print(f"{name}, batch {batch}, {shape}: {rows[-1]['ratio_latency']:.3f}")
    return record("python -m benchmark plans", rows)


def _row(name: str, layer: Any, shape: Shape, batch: int, seconds: float) -> dict[str, Any]:
    torch.manual_seed(0)
    deployed: OverConv2d = layer(*shape.arguments).eval().to_inference()
    model = nn.Sequential(deployed)
    x = torch.randn(batch, shape.in_channels, shape.image, shape.image)
    with torch.inference_mode():
        chosen = {
            objective: make_plan(model, x, objective).choices[0]
            for objective in ("macs", "latency")
        }
        option, forms = chosen["latency"].option, list(chosen["macs"].macs)
        calls = {form: partial(_set(deployed, option, form), x) for form in forms}
        slowest = _worth_timing(calls)
        samples = interleaved(slowest, rounds=200, seconds=seconds)
    best = {form: min(times) for form, times in samples.items()}
    fastest = min(best, key=lambda form: best[form])
    row = {
        "layer": name,
        "network": shape.network,
        "shape": str(shape),
        "batch": batch,
        "fastest": fastest,
        "milliseconds": {form: 1e3 * value for form, value in best.items()},
        "macs": {form: chosen["macs"].macs[form] for form in forms},
    }
    for objective, choice in chosen.items():
        # a form so slow that it was not timed again counts with its first time
        spent = best.get(choice.form) or min(interleaved({"it": calls[choice.form]})["it"])
        row[f"form_{objective}"] = choice.form
        row[f"ratio_{objective}"] = spent / best[fastest]
    return row


def _set(layer: OverConv2d, option: str, form: str) -> OverConv2d:
    from copy import deepcopy

    copy = deepcopy(layer)
    setattr(copy, option, form)
    return copy


def _worth_timing(calls: dict[str, Any]) -> dict[str, Any]:
    """The forms within three times the fastest of a short run."""
    short = {form: min(times) for form, times in interleaved(calls, rounds=3, warmup=1).items()}
    limit = 3 * min(short.values())
    return {form: call for form, call in calls.items() if short[form] <= limit}


def text(found: dict[str, Any]) -> str:
    """The summary by layer and batch, and all shapes on which a plan lost more than 3 %."""
    rows, parts = found["rows"], []
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["layer"], row["batch"]), []).append(row)
    lines = []
    for (layer, batch), members in groups.items():
        wins = Counter(_family(member["fastest"]) for member in members).most_common()
        lines.append(
            [
                layer,
                batch,
                len(members),
                *(
                    f"{kind([m[f'ratio_{objective}'] for m in members]):.3f}"
                    for objective in ("latency", "macs")
                    for kind in (_geometric_mean, max)
                ),
                ", ".join(f"{form} {number}" for form, number in wins),
            ]
        )
    parts.append(
        markdown(
            [
                "layer",
                "batch",
                "shapes",
                "latency plan / best form, mean",
                "worst",
                "MAC plan / best form, mean",
                "worst",
                "fastest form, how often",
            ],
            lines,
        )
    )
    lost = [
        [
            row["layer"],
            row["batch"],
            row["shape"],
            f"{row['form_latency']}: {row['ratio_latency']:.3f}",
            f"{row['form_macs']}: {row['ratio_macs']:.3f}",
            row["fastest"],
        ]
        for row in rows
        if row["ratio_latency"] > 1.03
    ]
    if lost:
        parts.append("Where the latency plan lost more than 3 %:\n")
        parts.append(
            markdown(["layer", "batch", "shape", "latency plan", "MAC plan", "fastest"], lost)
        )
    return "\n".join(parts)


def _family(form: str) -> str:
    """A form by name, or how many kernels its order convolves by."""
    if form in ("expanding", "compact", "weights", "features"):
        return form
    return "another order"


def _geometric_mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))
