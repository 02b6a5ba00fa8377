"""How fast arms train, beside the baseline of the same block: areas, times, losses, gradients."""

from typing import Any

import pandas as pd

from analysis.convergence import sooner, times_to_target, values_of
from analysis.frames import Frames
from analysis.numbers import NOTHING, decimals, scale_of, signed, unit_of
from analysis.power import win_share
from analysis.statistics import Estimate, estimate, paired_differences
from analysis.summary import diverged_arms, heading
from analysis.table import Column, Table

FEWEST_EPOCHS = 5  # of which a time to a target tells something
TARGET = 0.95  # of the accuracy that the baseline ends with in the same block
MEASURES = {
    "mean_validation_accuracy": "mean validation accuracy",
    "epochs_to_target": "to the target",
    "seconds_to_target": "to the target",
    "train_loss": "last training loss",
    "last_grad_norm": "last gradient norm",
}


def training_table(frames: Frames) -> Table | None:
    """A row an arm: paired differences to the baseline in how it trained; None without any."""
    plan = frames.plan
    labels = [label for label in plan.arms if label != plan.baseline]
    found = {label: _differences(frames, label) for label in labels}
    timed = _epochs(frames) >= FEWEST_EPOCHS
    shown = [
        m
        for m in MEASURES
        if any(m in numbers for numbers in found.values()) and (timed or not _to_target(m))
    ]
    if not shown:
        return None
    times = {label: times_to_target(frames, label, TARGET) for label in plan.arms}
    digits = {
        m: decimals([n[m].half_width or n[m].spread for n in found.values() if m in n], scale_of(m))
        for m in shown
    }
    columns = [Column("arm", "arm", is_text=True), Column("n", "n", unit="blocks")]
    columns += [
        Column(m, MEASURES[m], unit=unit_of(m).strip() if m != "seconds_to_target" else "s")
        for m in shown
    ]
    if timed:
        columns += [Column("sooner", "sooner in"), Column("never", "never reached")]
    return Table(
        title=f"{heading(plan)}: how the arms train, less {plan.baseline}",
        columns=tuple(columns),
        rows=tuple(_row(frames, label, found[label], times, digits) for label in labels),
        data=tuple(_data(frames, label, found[label], times) for label in labels),
        footnotes=(
            f"Each arm less {plan.baseline} of the same block: mean, and Student's 95 % interval, "
            "one at a time, of three blocks or more; no verdicts. Mean validation accuracy: over "
            "all epochs, the area under the curve.",
            _target_words(plan.baseline)
            if timed
            else f"Times to a target are left out: they tell little of fewer than {FEWEST_EPOCHS} "
            "epochs.",
        ),
    )


def _target_words(baseline: str) -> str:
    return (
        f"Target: {100 * TARGET:g} % of the validation accuracy that {baseline} ends with in the "
        "block; epochs and seconds of training until then. A trial that never reaches it counts "
        "all its epochs, so that the difference is too small, if anything; sooner in: blocks in "
        "which the arm is first, of those in which either arrives, right whatever would have come "
        "after. Seconds are of the machines that they were taken on."
    )


def _to_target(measure: str) -> bool:
    return measure.endswith("to_target")


def _epochs(frames: Frames) -> int:
    """Of the longest trial."""
    return int(frames.curves["epoch"].max()) if len(frames.curves) else 0


def _differences(frames: Frames, label: str) -> dict[str, Estimate]:
    """Paired differences to the baseline, by measure; of none that was not recorded."""
    baseline = frames.plan.baseline
    if diverged_arms(frames, (label, baseline)):
        return {}
    found = {}
    for measure in MEASURES:
        target = TARGET if _to_target(measure) else None
        one, other = (values_of(frames, x, measure, target) for x in (label, baseline))
        if difference := estimate(paired_differences(one, other)):
            found[measure] = difference
    return found


def _row(
    frames: Frames,
    label: str,
    found: dict[str, Estimate],
    times: dict[str, pd.DataFrame],
    digits: dict[str, int],
) -> dict[str, str]:
    row = {"arm": label, "n": str(max((e.n for e in found.values()), default=0))}
    for measure, places in digits.items():
        row[measure] = _cell(found.get(measure), scale_of(measure), places)
    baseline = times[frames.plan.baseline]
    if diverged := frames.num_diverged(label):
        return row | {"sooner": NOTHING, "never": f"{diverged} diverged"}
    wins = win_share(sooner(times[label], baseline))
    known = times[label].dropna(subset="epochs")
    return row | {
        "sooner": f"{wins.wins} of {wins.n + wins.ties}" if wins.n + wins.ties else NOTHING,
        "never": f"{int(known['censored'].sum())} of {len(known)}" if len(known) else NOTHING,
    }


def _cell(found: Estimate | None, scale: float, digits: int) -> str:
    if found is None:
        return NOTHING
    mean = signed(scale * found.mean, digits)
    if found.low is None or found.high is None:
        return mean
    return f"{mean} ({signed(scale * found.low, digits)} to {signed(scale * found.high, digits)})"


def _data(
    frames: Frames, label: str, found: dict[str, Estimate], times: dict[str, pd.DataFrame]
) -> dict[str, Any]:
    row: dict[str, Any] = {"arm": label, "against": frames.plan.baseline, "target": TARGET}
    for measure in MEASURES:
        numbers, scale = found.get(measure), scale_of(measure)
        ends = (numbers.mean, numbers.low, numbers.high) if numbers else (None, None, None)
        row[f"{measure}_blocks"] = numbers.n if numbers else 0
        for name, value in zip(("difference", "low", "high"), ends, strict=True):
            row[f"{measure}_{name}"] = None if value is None else scale * value
    wins = win_share(sooner(times[label], times[frames.plan.baseline]))
    return row | {
        "sooner": wins.wins,
        "later": wins.n - wins.wins,
        "tied": wins.ties,
        "sooner_low": wins.low,
        "sooner_high": wins.high,
        "never_reached": int(times[label].dropna(subset="epochs")["censored"].sum()),
        "diverged": frames.num_diverged(label),
    }
