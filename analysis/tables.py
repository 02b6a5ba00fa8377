"""The tables of a study: its arms, and the contrasts that its claims declare."""

import math
from typing import Any

from analysis.frames import Frames
from analysis.numbers import NOTHING, count, decimals, scale_of, signed
from analysis.statistics import Estimate
from analysis.summary import MEASURE, ArmSummary, Comparison, compare, summarise
from analysis.table import Column, Table
from analysis.verdict_tables import agenda_table as agenda_table
from analysis.verdict_tables import verdict_table as verdict_table

ARM_COLUMNS = (
    Column("arm", "arm", is_text=True),
    Column("parameters_training", "parameters"),
    Column("parameters_deployed", "deployed"),
    Column("macs_deployed", "MACs"),
    Column("n", "n"),
    Column("value", "accuracy, %"),
    Column("difference", "difference"),
    Column("interval", "95 % interval"),
)
CONTRAST_COLUMNS = (
    Column("contrast", "contrast", is_text=True),
    Column("n", "n"),
    Column("difference", "difference"),
    Column("interval", "95 % interval"),
)


def study_table(frames: Frames) -> Table:
    """The arms of a study: cost, mean test accuracy, paired difference to the baseline."""
    plan, summaries = frames.plan, summarise(frames)
    values = [s.value for s in summaries]
    differences = [s.difference.estimate for s in summaries if s.difference]
    value_digits = decimals([_standard_error(v) for v in values])
    digits = decimals([d.half_width for d in differences if d])
    return Table(
        title=f"{plan.name} ({plan.preset}): {plan.question}",
        columns=ARM_COLUMNS,
        rows=tuple(_arm_row(s, plan.baseline, value_digits, digits) for s in summaries),
        data=tuple(_arm_data(s) for s in summaries),
        footnotes=_footnotes(frames, summaries),
    )


def contrast_table(frames: Frames, claim_name: str) -> Table:
    """The contrasts that a claim declares, with their estimates and without a verdict."""
    [claim] = [claim for claim in frames.plan.claims if claim.name == claim_name]
    compared = [compare(frames, c.arm, c.against, claim.measure) for c in claim.contrasts]
    scale = scale_of(claim.measure)
    digits = decimals([c.estimate.half_width for c in compared if c.estimate], scale)
    rows = tuple(
        {"contrast": f"{c.arm} - {c.against}", **_difference_cells(c, digits, scale)}
        for c in compared
    )
    data = tuple(
        {"contrast": f"{c.arm} - {c.against}", **_difference_data(c, scale)} for c in compared
    )
    title = f"{claim.name}: {claim.wording}"
    return Table(title=title, columns=CONTRAST_COLUMNS, rows=rows, data=data)


def _arm_row(s: ArmSummary, baseline: str, value_digits: int, digits: int) -> dict[str, str]:
    shown = NOTHING if s.value is None else f"{100 * s.value.mean:.{value_digits}f}"
    if s.difference is None:
        compared = {"difference": "baseline", "interval": ""}
    else:
        compared = _difference_cells(s.difference, digits, 100.0)
    return {
        "arm": s.label,
        "parameters_training": count(s.costs.get("parameters_training")),
        "parameters_deployed": count(s.costs.get("parameters_deployed")),
        "macs_deployed": count(s.costs.get("macs_deployed")),
        **compared,
        "n": str(s.num_trials),
        "value": f"{s.num_diverged} diverged" if s.num_diverged else shown,
    }


def _difference_cells(comparison: Comparison, digits: int, scale: float) -> dict[str, str]:
    found = comparison.estimate
    if found is None:
        return {"n": "0", "difference": NOTHING, "interval": NOTHING}
    if found.low is None or found.high is None:
        interval = NOTHING
    else:
        interval = f"{signed(scale * found.low, digits)} to {signed(scale * found.high, digits)}"
    return {
        "n": str(found.n),
        "difference": signed(scale * found.mean, digits),
        "interval": interval,
    }


def _arm_data(s: ArmSummary) -> dict[str, Any]:
    compared = s.difference or Comparison(arm="", against="", measure="", estimate=None)
    return {
        "arm": s.label,
        "layer": s.layer,
        **{
            name: s.costs.get(name)
            for name in (
                "parameters_training",
                "parameters_deployed",
                "over_parameters",
                "macs_training",
                "macs_deployed",
                "flops_training",
                "flops_deployed",
            )
        },
        "trials": s.num_trials,
        "diverged": s.num_diverged,
        "accuracy_percent": s.value and 100 * s.value.mean,
        "accuracy_sd_points": s.value and s.value.spread and 100 * s.value.spread,
        **_difference_data(compared, 100.0),
        "note": s.note,
    }


def _difference_data(comparison: Comparison, scale: float) -> dict[str, Any]:
    found = comparison.estimate or Estimate(0, math.nan)
    numbers = {"difference": found.mean, "low": found.low, "high": found.high}
    unit = "points" if scale == 100 else "as measured"
    return {"against": comparison.against, "pairs": found.n, "unit": unit} | {
        name: None if value is None else scale * value for name, value in numbers.items()
    }


def _standard_error(value: Estimate | None) -> float | None:
    return value and value.spread and value.spread / math.sqrt(value.n)


def _footnotes(frames: Frames, summaries: list[ArmSummary]) -> tuple[str, ...]:
    plan = frames.plan
    notes = [
        "Parameters: while training, and deployed. MACs: deployed, one image. n: blocks (seeds). "
        "Accuracy: on the test set, mean over the blocks. Difference: in points, to "
        f"{plan.baseline} in the same block, mean over the blocks; its interval is Student's, for "
        "this one comparison.",
        "No verdict yet: several such intervals side by side are not jointly 95 %.",
    ]
    held = {frozenset(frames.by_block(s.label, MEASURE).index) for s in summaries if s.num_trials}
    if len(held) > 1:
        notes.append(
            "The arms have different blocks: each mean is over those of its own arm, so that means "
            "may differ by something else than the difference, which is over shared blocks."
        )
    if len(frames.blocks) < 2:
        notes.append("One block or none: no interval, and nothing can be concluded.")
    for s in summaries:
        found = s.difference and s.difference.estimate
        if found and found.n < s.num_trials:
            notes.append(
                f"{s.label}: compared over the {found.n} blocks it shares with {plan.baseline}."
            )
        if found and found.n > 1 and found.low is None:
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
