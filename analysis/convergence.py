"""How trials got where they ended: curves, areas, and the time to a target, paired by block."""

import math
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from analysis.frames import Frames
from analysis.statistics import CONFIDENCE, estimate
from records.claim import METRICS, Claim
from records.record import Record

ACCURACY = "validation_accuracy"


def values_of(frames: Frames, label: str, measure: str, target: float | None = None) -> pd.Series:
    """``measure`` (:data:`records.claim.MEASURES`) of the arm ``label``, by block; NaN: has none.

    A time to a target that is not reached counts as all the epochs, or seconds, that there were:
    what is averaged is ``min(T, horizon)``, the restricted mean. As all trials of a study have the
    same epochs, it needs no model of what would have come after. See :func:`num_censored`.
    """
    if measure in METRICS:
        return frames.by_block(label, measure)
    match measure:
        case "mean_validation_accuracy":
            return _of_curves(frames, label, ACCURACY, np.mean)
        case "last_grad_norm":
            return _of_curves(frames, label, "grad_norm", lambda curve: curve[-1])
        case "epochs_to_target" | "seconds_to_target":
            times = times_to_target(frames, label, 1.0 if target is None else target)
            return times["epochs" if measure == "epochs_to_target" else "seconds"]
    raise ValueError(f"no measure {measure!r} of a trial")


def claimed_values(frames: Frames, claim: Claim, labels: Iterable[str]) -> pd.DataFrame:
    """The claim's measure: a row a block, a column an arm."""
    return pd.DataFrame(
        {label: values_of(frames, label, claim.measure, claim.target) for label in labels}
    )


def targets(frames: Frames, share: float) -> pd.Series:
    """The accuracy to reach, by block: ``share`` of what the study's baseline ends with there.

    One number for all arms of a block, so that none sets its own; and the baseline reaches it.
    """
    return share * _of_curves(frames, frames.plan.baseline, ACCURACY, lambda curve: curve[-1])


def times_to_target(frames: Frames, label: str, share: float) -> pd.DataFrame:
    """By block: ``epochs`` and ``seconds`` of training until the target, and whether ``censored``.

    ``epochs`` counts whole epochs, the one that reaches the target too. ``seconds`` are those of
    training alone, without evaluation, on whatever machine it was; NaN if they were not recorded.
    Of a censored trial both are what it trained in all. NaN: no curve, or no target in this block.
    """
    wanted, rows = targets(frames, share), {}
    for record in _records(frames, label):
        block, curve = record.configuration["block"], _curve(record, ACCURACY)
        goal = wanted.get(block, math.nan)
        if not len(curve) or math.isnan(goal):
            rows[block] = (math.nan, math.nan, False)
            continue
        reached = np.flatnonzero(curve >= goal)
        num_epochs = int(reached[0]) + 1 if len(reached) else len(curve)
        rows[block] = (float(num_epochs), _seconds(record, num_epochs), not len(reached))
    frame = pd.DataFrame.from_dict(rows, "index", columns=["epochs", "seconds", "censored"])
    return frame.rename_axis("block").sort_index()


def num_censored(frames: Frames, label: str, share: float) -> int:
    """Trials of ``label`` that never reached the target."""
    return int(times_to_target(frames, label, share)["censored"].sum())


def sooner(frames: Frames, arm: str, against: str, share: float) -> dict[str, int]:
    """Blocks in which ``arm`` reached the target ``sooner``, ``later``, as soon (``tied``).

    Right whatever would have come after: who reaches it is sooner than who does not. Blocks in
    which neither did say nothing, and are ``neither``.
    """
    one = times_to_target(frames, arm, share).dropna(subset="epochs")
    other = times_to_target(frames, against, share).dropna(subset="epochs")
    counts = {"sooner": 0, "later": 0, "tied": 0, "neither": 0}
    for block in one.index.intersection(other.index):
        here, there = (
            math.inf if frame["censored"][block] else float(frame["epochs"][block])
            for frame in (one, other)
        )
        if math.isinf(here) and math.isinf(there):
            counts["neither"] += 1
        else:
            counts["sooner" if here < there else "later" if here > there else "tied"] += 1
    return counts


def bands(frames: Frames, measure: str, confidence: float = CONFIDENCE) -> pd.DataFrame:
    """Mean of a curve over the blocks and its interval, a row an arm and epoch.

    ``label, epoch, n, mean, low, high``. Pointwise: each epoch by itself, Student's over blocks.
    Ends where the first block of the arm ends: a mean of those left would be one of other trials.
    """
    rows = []
    for label in frames.plan.arms:
        curves = [_curve(record, measure) for record in _records(frames, label)]
        curves = [curve for curve in curves if len(curve)]
        for epoch in range(min(map(len, curves), default=0)):
            found = estimate(pd.Series([curve[epoch] for curve in curves]), confidence)
            if found is None or found.n < len(curves):  # a block lost its numbers here
                break
            rows.append((label, epoch + 1, found.n, found.mean, found.low, found.high))
    columns = ["label", "epoch", "n", "mean", "low", "high"]
    return pd.DataFrame(rows, columns=columns).astype({"low": float, "high": float})


def _records(frames: Frames, label: str) -> list[Record]:
    cell = frames.plan.cell_id(label)
    found = {r.configuration["block"]: r for r in frames.records if r.cell == cell}
    return [found[block] for block in sorted(found)]


def _curve(record: Record, measure: str) -> np.ndarray:
    return np.array(record.curves.get(measure, []), float)  # None becomes NaN


def _of_curves(
    frames: Frames, label: str, measure: str, figure: Callable[[np.ndarray], float]
) -> pd.Series:
    """``figure`` of each curve, by block; NaN of a trial without one, or that diverged."""
    found = {
        record.configuration["block"]: float(figure(curve))
        if len(curve := _curve(record, measure)) and record.outcome == "finished"
        else math.nan
        for record in _records(frames, label)
    }
    return pd.Series(found, dtype=float).rename_axis("block")


def _seconds(record: Record, num_epochs: int) -> float:
    epochs = record.times.get("epochs")
    found = epochs.get("train", []) if isinstance(epochs, dict) else []
    return math.fsum(found[:num_epochs]) if len(found) >= num_epochs else math.nan
