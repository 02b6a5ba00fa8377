"""The tables of a study: its arms, and the contrasts of each of its claims."""

import math
from typing import Any

from analysis.best import best_arm
from analysis.frames import Frames
from analysis.intervals import Interval
from analysis.numbers import NOTHING, count, decimals, scale_of, signed
from analysis.sentences import unit_of
from analysis.statistics import Estimate
from analysis.summary import MEASURE, ArmSummary, Comparison, summarise
from analysis.table import Column, Table
from analysis.verdict import Part, Verdict
from analysis.verdict_tables import agenda_table as agenda_table
from analysis.verdict_tables import verdict_table as verdict_table

ARM_COLUMNS = (
    Column("arm", "arm", is_text=True),
    Column("parameters_training", "parameters"),
    Column("parameters_deployed", "deployed"),
    Column("macs_deployed", "MACs"),
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
        title=f"{plan.name} ({plan.preset}): {plan.question}",
        columns=ARM_COLUMNS,
        rows=tuple(_arm_row(s, plan.baseline, value_digits, digits) for s in summaries),
        data=tuple(_arm_data(s) for s in summaries),
        footnotes=(*_footnotes(frames, summaries), why),
        best=frozenset((row, "value") for row, s in enumerate(summaries) if s.label == best),
    )


def claim_table(verdict: Verdict) -> Table:
    """The contrasts of one claim: verdict, difference, and the interval that decides it."""
    claim, scale = verdict.claim, scale_of(verdict.claim.measure)
    unit = unit_of(claim.measure).strip()
    deciding = [deciding_interval(verdict, part) for part in verdict.parts]
    digits = decimals([found.half_width for found in deciding if found], scale)
    width = f"{100 * (1 - verdict.error):.3g} % interval"
    columns = [
        Column("contrast", "contrast", is_text=True),
        Column("verdict", "verdict", is_text=True),
        Column("n", "n", unit="blocks"),
        Column("difference", "difference", unit=unit),
        Column("interval", width, unit=unit),
        Column("p", "exact p"),
        Column("found", "found 4 in 5", unit=unit),
        Column("more", "more needed", unit="blocks"),
    ]
    if claim.fewer:
        columns.append(Column("cost", claim.fewer.replace("_", " ")))
        columns.append(Column("cost_against", "against"))
    rows, data = [], []
    for part, found in zip(verdict.parts, deciding, strict=True):
        row = {column.key: NOTHING for column in columns}
        row |= {"contrast": f"{part.arm} - {part.against}", "verdict": part.word}
        p = part.p_alone if claim.combine == "peers" else part.p
        if found:
            low, mean, high = (
                signed(scale * x, digits) for x in (found.low, found.mean, found.high)
            )
            row |= {"n": str(found.n), "difference": mean, "interval": f"{low} to {high}"}
        if p is not None:
            row["p"] = f"{p:.3f}"
        if part.smallest_effect is not None:
            row["found"] = f"{scale * part.smallest_effect:.{digits}f}"
        if part.more_blocks is not None:
            row["more"] = str(part.more_blocks)
        if part.costs:
            row |= {"cost": count(part.costs[0]), "cost_against": count(part.costs[1])}
        rows.append(row)
        data.append(
            {
                "arm": part.arm,
                "against": part.against,
                "verdict": part.word,
                "unit": unit or "as measured",
                "pairs": found.n if found else 0,
                "difference": scale * found.mean if found else math.nan,
                "low": scale * found.low if found else math.nan,
                "high": scale * found.high if found else math.nan,
                "p": p,
                "note": part.note,
            }
        )
    notes = [f"{part.arm} - {part.against}: {part.note}." for part in verdict.parts if part.note]
    if not verdict.parts:
        notes.append(verdict.sentence)
    return Table(
        title=f"{claim.name} ({verdict.study}, {verdict.preset}): {claim.wording}",
        columns=tuple(columns),
        rows=tuple(rows),
        data=tuple(data),
        footnotes=tuple(notes),
    )


def deciding_interval(verdict: Verdict, part: Part) -> Interval | None:
    """The interval that decides; where every peer must be beaten, that of each by itself."""
    return part.alone if verdict.claim.combine == "peers" else part.joint


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
        "These are estimates and not verdicts: several such intervals side by side are not jointly "
        "95 %. Verdicts are those of the claims.",
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
