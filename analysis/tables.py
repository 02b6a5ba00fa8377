"""The table of a study: its arms, what they cost, and how they differ from the baseline."""

import math
from typing import Any

from analysis.best import best_arm
from analysis.frames import Frames
from analysis.numbers import NOTHING, count, decimals, signed
from analysis.statistics import FEWEST_FOR_INTERVAL, Estimate
from analysis.summary import MEASURE, ArmSummary, Comparison, heading, summarise
from analysis.table import Column, Table
from records.claim import COSTS

ARM_COLUMNS = (
    Column("arm", "arm", is_text=True),
    Column("parameters_training", "parameters"),
    Column("parameters_deployed", "parameters deployed"),
    Column("macs_training", "MACs"),
    Column("macs_deployed", "MACs deployed"),
    Column("n", "n"),
    Column("value", "accuracy", unit="%"),
    Column("difference", "difference", unit="points"),
    Column("interval", "95 % interval", unit="points"),
)


def study_table(frames: Frames) -> Table:
    """The arms of a study: cost, mean test accuracy, paired difference to the baseline."""
    plan, summaries = frames.plan, summarise(frames)
    values = [s.value for s in summaries]
    differences = [s.difference.estimate for s in summaries if s.difference]
    value_digits = decimals([_standard_error(v) for v in values])
    digits = decimals([d.half_width for d in differences if d])
    best, why = best_arm(frames)
    return Table(
        title=f"{heading(plan)}: {plan.question}",
        columns=ARM_COLUMNS,
        rows=tuple(_arm_row(s, value_digits, digits) for s in summaries),
        data=tuple(_arm_data(s) for s in summaries),
        footnotes=(*_footnotes(frames, summaries), why),
        best=frozenset((row, "value") for row, s in enumerate(summaries) if s.label == best),
    )


def _arm_row(s: ArmSummary, value_digits: int, digits: int) -> dict[str, str]:
    return {
        "arm": s.label,
        "parameters_training": count(s.costs.get("parameters_training")),
        "parameters_deployed": count(s.costs.get("parameters_deployed")),
        "macs_training": count(s.costs.get("macs_training")),
        "macs_deployed": count(s.costs.get("macs_deployed")),
        "n": str(s.num_trials),
        "value": _value_cell(s, value_digits),
        **_difference_cells(s.difference, digits),
    }


def _value_cell(s: ArmSummary, digits: int) -> str:
    if s.num_diverged:
        return f"{s.num_diverged} diverged"
    return NOTHING if s.value is None else f"{100 * s.value.mean:.{digits}f}"


def _difference_cells(comparison: Comparison | None, digits: int) -> dict[str, str]:
    if comparison is None:
        return {"difference": "baseline", "interval": ""}
    found = comparison.estimate
    if found is None:
        return {"difference": NOTHING, "interval": NOTHING}
    mean, low, high = (
        None if x is None else signed(100 * x, digits) for x in (found.mean, found.low, found.high)
    )
    return {"difference": str(mean), "interval": f"{low} to {high}" if low else NOTHING}


def _arm_data(s: ArmSummary) -> dict[str, Any]:
    found = s.difference and s.difference.estimate
    ends = (found.mean, found.low, found.high) if found else (None, None, None)
    scaled = [None if x is None else 100 * x for x in ends]
    return {
        "arm": s.label,
        "layer": s.layer,
        **{name: s.costs.get(name) for name in COSTS},
        "trials": s.num_trials,
        "diverged": s.num_diverged,
        "accuracy_percent": s.value and 100 * s.value.mean,
        "accuracy_sd_points": s.value and s.value.spread and 100 * s.value.spread,
        "against": s.difference.against if s.difference else "",
        "pairs": found.n if found else 0,
        "unit": "points",
        **dict(zip(("difference", "low", "high"), scaled, strict=True)),
        "note": s.note,
    }


def _standard_error(value: Estimate | None) -> float | None:
    return value.spread / math.sqrt(value.n) if value and value.spread else None


def _footnotes(frames: Frames, summaries: list[ArmSummary]) -> tuple[str, ...]:
    plan = frames.plan
    notes = [
        "Parameters, and MACs of an image: of the network as it trains, then deployed: what folds "
        "is folded, what stays dynamic is in its compact form, which makes a kernel an image and "
        "so may take more MACs than the form that it trained in. n: blocks (seeds). Accuracy: on "
        f"the test set, mean over the blocks. Difference: in points, to {plan.baseline} in the "
        "same block, mean over the blocks; its interval is Student's, for this one comparison.",
        "These are estimates and not verdicts: several such intervals side by side are not jointly "
        "95 %. Verdicts are those of the claims.",
    ]
    held = {frozenset(frames.by_block(s.label, MEASURE).index) for s in summaries if s.num_trials}
    if len(held) > 1:
        notes.append(
            "The arms have different blocks: each mean is over those of its own arm, so that means "
            "may differ by something else than the difference, which is over shared blocks."
        )
    if len(frames.blocks) < FEWEST_FOR_INTERVAL:
        notes.append(
            f"Fewer than {FEWEST_FOR_INTERVAL} blocks: no interval, and nothing can be concluded."
        )
    for s in summaries:
        found = s.difference and s.difference.estimate
        if found and found.n < s.num_trials:
            notes.append(
                f"{s.label}: compared over the {found.n} blocks it shares with {plan.baseline}."
            )
        if found and found.n >= FEWEST_FOR_INTERVAL and found.low is None:
            notes.append(
                f"{s.label}: all {found.n} differences are equal, so no interval can be had."
            )
        if s.num_diverged:
            which = "no arm is compared with it" if s.label == plan.baseline else "not compared"
            notes.append(f"{s.label}: {s.num_diverged} of {s.num_trials} trials diverged: {which}.")
    if frames.strays:
        notes.append(
            f"{len(frames.strays)} records are left out: their blocks belong to another stratum."
        )
    if frames.disputed:
        notes.append(
            f"CAUTION: a second run gave other bytes for {len(frames.disputed)} of these trials."
        )
    return tuple(notes)
