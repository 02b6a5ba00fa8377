"""The numbers behind the interactive charts of a study; the script of the page draws them."""

import math
from collections.abc import Mapping
from typing import Any

from analysis.convergence import bands
from analysis.frames import Frames
from analysis.latency import Times
from analysis.numbers import scale_of
from analysis.summary import MEASURE, summarise
from records.benchmark import arm_key

CURVES = {
    "validation_accuracy": "validation accuracy, %",
    "train_accuracy": "training accuracy, %",
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
        times: Measured networks, one part of :func:`analysis.latency.comparable`.
    """
    return {
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
        scale, mean = scale_of(measure), bands(frames, measure)
        arms = {}
        for label in frames.plan.arms:
            own, band = rows[rows["label"] == label], mean[mean["label"] == label]
            if own.empty:
                continue
            arms[label] = {
                **{key: [_short(scale * x) for x in band[key]] for key in ("mean", "low", "high")},
                "blocks": [
                    [int(block), [_short(scale * x) for x in curve["value"]]]
                    for block, curve in own.sort_values("epoch").groupby("block")
                ],
            }
        found.append({"key": measure, "name": name, "arms": arms})
    return found


def _points(frames: Frames, times: Times | None) -> dict[str, Any]:
    latency = {}
    if times is not None:
        for row in times[times["kind"] == "network"].itertuples():
            latency[row.arm] = [_short(x) for x in (row.ratio, row.low, row.high)]
    arms, used = {}, set()
    for s in summarise(frames):
        if s.value is None:
            continue
        at = {name: [s.costs[key]] for key, name in COSTS.items() if key in s.costs}
        key = arm_key(frames.plan.arms[s.label].get("arm") or {})
        if key in latency:
            at[LATENCY] = latency[key]
        used |= set(at)
        accuracies = frames.by_block(s.label, MEASURE)
        arms[s.label] = {
            "at": at,
            "value": [_percent(x) for x in (s.value.mean, s.value.low, s.value.high)],
            "n": s.value.n,
            "blocks": [[int(block), _percent(x)] for block, x in accuracies.items()],
        }
    return {"costs": [name for name in (*COSTS.values(), LATENCY) if name in used], "arms": arms}


def _percent(value: float | None) -> float | None:
    return None if value is None else _short(100 * value)


def _short(value: float) -> float | None:
    """Seven digits, which any version of numpy adds up to; nothing for what is no number."""
    return float(f"{value:.7g}") if math.isfinite(value) else None
