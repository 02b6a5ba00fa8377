"""The numbers behind the interactive charts of a study; the script of the page draws them."""

import math
from collections.abc import Mapping
from typing import Any

from analysis.convergence import Bands, bands, difference_bands
from analysis.frames import Frames
from analysis.latency import accuracies, ratios
from analysis.measurements import Times
from analysis.numbers import scale_of
from analysis.summary import MEASURE, summarise

CURVES = {
    "validation_accuracy": "validation accuracy",
    "train_accuracy": "training accuracy",
    "train_loss": "training loss",
    "validation_loss": "validation loss",
    "grad_norm": "norm of the gradients",
}
COSTS = {
    "parameters_training": "parameters, training",
    "parameters_deployed": "parameters, deployed",
    "macs_training": "MACs of an image, training",
    "macs_deployed": "MACs of an image, deployed",
}
LATENCY = "time / plain network"


def charts(
    frames: Frames, options: Mapping[str, str], times: Times | None = None
) -> dict[str, Any]:
    """Curves and points of all arms.

    Args:
        options: What an arm is, by label, to be shown beside its points.
        times: Measured networks, one part of :func:`analysis.measurements.comparable`.
    """
    return {
        "baseline": frames.plan.baseline,
        "arms": [[label, options.get(label, "")] for label in frames.plan.arms],
        "curves": _curves(frames),
        "points": _points(frames, times),
    }


def _curves(frames: Frames) -> list[dict[str, Any]]:
    found = []
    for measure, name in CURVES.items():
        rows = frames.curves[frames.curves["measure"] == measure]
        if rows.empty or not rows["value"].notna().any():
            continue
        scale = scale_of(measure)
        mean, less = bands(frames, measure), difference_bands(frames, measure)
        arms = {}
        for label in frames.plan.arms:
            own = rows[rows["label"] == label].sort_values("epoch")
            if own.empty:
                continue
            arms[label] = {
                "whole": _band(mean, label, scale),
                "less": _band(less, label, scale),
                "blocks": [
                    [block, [_short(scale * x, 4) for x in own.loc[own["block"] == block, "value"]]]
                    for block in sorted(own["block"].unique().tolist())
                ],
            }
        units = [", %", ", points"] if scale == 100 else ["", ""]
        found.append({"key": measure, "name": name, "units": units, "arms": arms})
    return found


def _band(found: Bands, label: str, scale: float) -> dict[str, list[float | None]]:
    """The mean, and how far its interval reaches to either side, which is equally far."""
    own = found[found["label"] == label]
    half = (own["high"] - own["low"]) / 2
    return {
        "mean": [_short(scale * x) for x in own["mean"]],
        "half": [_short(scale * x, 4) for x in half],
    }


def _points(frames: Frames, times: Times | None) -> dict[str, Any]:
    keys = {label: key for label, (key, _) in accuracies(frames).items()}
    latency = {} if times is None else ratios(times, keys.values())
    arms, used = {}, set()
    for s in summarise(frames):
        if s.value is None:
            continue
        at: dict[str, list[float | None]] = {
            name: [s.costs[key]] for key, name in COSTS.items() if key in s.costs
        }
        if (key := keys.get(s.label)) in latency:
            at[LATENCY] = [_short(x) for x in latency[key]]
        used |= set(at)
        by_block = frames.by_block(s.label, MEASURE)
        arms[s.label] = {
            "at": at,
            "value": [_percent(x) for x in (s.value.mean, s.value.low, s.value.high)],
            "n": s.value.n,
            "blocks": [
                [block, _percent(x)]
                for block, x in zip(by_block.index.tolist(), by_block.tolist(), strict=True)
            ],
        }
    return {"costs": [name for name in (*COSTS.values(), LATENCY) if name in used], "arms": arms}


def _percent(value: float | None) -> float | None:
    return None if value is None else _short(100 * value)


def _short(value: float, digits: int = 5) -> float | None:
    """Five digits, one more than the charts tell; nothing for what is no number.

    Curves of single blocks, which are most of the page's numbers, have the four that are told.
    """
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None
