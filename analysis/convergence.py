"""How trials got where they ended: curves, areas, and the time to a target, paired by block."""

import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd

from analysis.frames import Frames
from analysis.quantiles import student
from analysis.statistics import CONFIDENCE, FEWEST_FOR_INTERVAL
from records.claim import METRICS, Claim
from records.record import Record

ACCURACY = "validation_accuracy"

_COLUMNS = ("label", "epoch", "n", "mean", "low", "high")

Bands = pd.DataFrame  # as bands() makes it; reports name it so, and know no pandas


def values_of(frames: Frames, label: str, measure: str, target: float | None = None) -> pd.Series:
    """``measure`` (:data:`records.claim.MEASURES`) of the arm ``label``, by block; NaN: has none.

    A time to a target that is not reached counts as all the epochs, or seconds, that there were:
    what is averaged is ``min(T, horizon)``, the restricted mean. As all trials of a study have the
    same epochs, it needs no model of what would have come after. A trial that diverged has none:
    its few epochs would count as a quick one's.
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
    Of a censored trial both are what it trained in all. NaN: it diverged, has no curve, or there is
    no target in this block.
    """
    wanted, rows = targets(frames, share), {}
    for record in frames.records_of(label):
        block, curve = record.configuration["block"], _curve(record, ACCURACY)
        goal = wanted.get(block, math.nan)
        if record.outcome != "finished" or not len(curve) or math.isnan(goal):
            rows[block] = (math.nan, math.nan, False)
            continue
        reached = np.flatnonzero(curve >= goal)
        num_epochs = int(reached[0]) + 1 if len(reached) else len(curve)
        rows[block] = (float(num_epochs), _seconds(record, num_epochs), not len(reached))
    frame = pd.DataFrame.from_dict(rows, "index", columns=["epochs", "seconds", "censored"])
    return frame.rename_axis("block").sort_index()


def sooner(one: pd.DataFrame, other: pd.DataFrame) -> pd.Series:
    """By how many epochs ``one`` reached the target before ``other``, by block of both.

    Args:
        one, other: Of :func:`times_to_target`. Who never reached it is later than who did, whatever
            would have come after: infinitely. Where neither did, nothing is known: NaN.
    """
    here, there = (frame["epochs"].where(~frame["censored"], math.inf) for frame in (one, other))
    return (there - here).dropna()


def bands(frames: Frames, measure: str, confidence: float = CONFIDENCE) -> Bands:
    """Mean of a curve over the blocks and its interval, a row an arm and epoch.

    ``label, epoch, n, mean, low, high``. Pointwise: each epoch by itself, Student's over blocks.
    Ends where the first block of the arm ends: a mean of those left would be one of other trials.
    """
    return _bands({x: _curves(frames, x, measure) for x in frames.plan.arms}, confidence)


def difference_bands(frames: Frames, measure: str, confidence: float = CONFIDENCE) -> Bands:
    """As :func:`bands`, of each arm less the baseline of the same block: what they share is out."""
    baseline = frames.plan.baseline
    theirs, found = _curves(frames, baseline, measure), {}
    for label in frames.plan.arms:
        ours = {} if label == baseline else _curves(frames, label, measure)
        pairs = {block: (curve, theirs[block]) for block, curve in ours.items() if block in theirs}
        found[label] = {
            block: one[: len(other)] - other[: len(one)] for block, (one, other) in pairs.items()
        }
    return _bands(found, confidence)


def _bands(curves: Mapping[str, Mapping[int, np.ndarray]], confidence: float) -> Bands:
    found: dict[str, list[np.ndarray]] = {name: [] for name in _COLUMNS}
    for label, blocks in curves.items():
        num_epochs = min((len(curve) for curve in blocks.values()), default=0)
        table = np.array([curve[:num_epochs] for curve in blocks.values()])
        known = np.isfinite(table).all(axis=0) if num_epochs else np.zeros(0, bool)
        num_epochs = int(known.cumprod().sum())  # until a block lost its numbers
        if not num_epochs:
            continue
        n, mean = len(table), table[:, :num_epochs].mean(axis=0)
        half = np.full(num_epochs, math.nan)
        if n >= FEWEST_FOR_INTERVAL:
            spread = table[:, :num_epochs].std(axis=0, ddof=1)
            half = student(confidence, n - 1) * spread / math.sqrt(n)
            half[half == 0] = math.nan  # equal values have no spread to judge by
        epochs = np.arange(num_epochs) + 1
        row = (np.full(num_epochs, label), epochs, np.full(num_epochs, n), mean)
        for name, values in zip(_COLUMNS, (*row, mean - half, mean + half), strict=True):
            found[name].append(values)
    return pd.DataFrame(
        {name: np.concatenate(parts) if parts else [] for name, parts in found.items()}
    )


def _curves(frames: Frames, label: str, measure: str) -> dict[int, np.ndarray]:
    """The curve of each block that has one."""
    found = {r.configuration["block"]: _curve(r, measure) for r in frames.records_of(label)}
    return {block: curve for block, curve in found.items() if len(curve)}


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
        for record in frames.records_of(label)
    }
    return pd.Series(found, dtype=float).rename_axis("block")


def _seconds(record: Record, num_epochs: int) -> float:
    epochs = record.times.get("epochs")
    found = epochs.get("train", []) if isinstance(epochs, dict) else []
    return math.fsum(found[:num_epochs]) if len(found) >= num_epochs else math.nan
