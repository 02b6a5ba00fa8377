"""The tables of claims: of one, of a study, a contrast a row, and of all, a claim a row."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from analysis.agenda import CostVerdict, Entry
from analysis.looks import ERROR
from analysis.numbers import NOTHING, cost_words, count, decimals, scale_of, signed, unit_of
from analysis.sentences import in_short
from analysis.summary import heading
from analysis.table import Column, Table
from analysis.verdict import Part, Verdict
from records.plan import Plan

CONTRAST = (
    Column("contrast", "contrast", is_text=True),
    Column("verdict", "verdict", is_text=True),
)
RATIOS = {  # costs of one arm over those of the other
    "parameters_training": "parameters",
    "parameters_deployed": "deployed",
    "macs_deployed": "MACs",
}
AGENDA_COLUMNS = (
    Column("claim", "claim", is_text=True),
    Column("wording", "wording", is_text=True),
    Column("verdict", "verdict", is_text=True),
    Column("judged_by", "judged by", is_text=True),
)
FIVE_PERCENT = f"{100 * ERROR:g} % a claim on each data set: of each verdict, not of the list."


def claim_table(verdict: Verdict, costs: Mapping[str, Mapping[str, float]]) -> Table:
    """The contrasts of one claim: verdict, difference, the interval that decides it, and the cost.

    Args:
        costs: As recorded, by the label of an arm.
    """
    claim = verdict.claim
    columns = [*CONTRAST, *_numbers(unit_of(claim.measure).strip(), verdict.error)]
    if claim.fewer:
        columns.append(Column("cost", cost_words(claim.fewer)))
        columns.append(Column("cost_against", "against"))
    columns += [Column(name, f"{heading}, ratio") for name, heading in RATIOS.items()]
    ratios = [_ratios(part, costs) for part in verdict.parts]
    notes = [f"{part.arm} - {part.against}: {part.note}." for part in verdict.parts if part.note]
    if not verdict.parts:
        notes.append(verdict.sentence)
    where = ", ".join((verdict.study, verdict.preset, verdict.dataset))
    return Table(
        title=f"{claim.name} ({where}): {claim.wording}",
        columns=tuple(columns),
        rows=tuple(
            _row(verdict, part)
            | {name: NOTHING if x is None else f"{x:.2f}" for name, x in ratio.items()}
            for part, ratio in zip(verdict.parts, ratios, strict=True)
        ),
        data=tuple(
            _data(verdict, part) | ratio for part, ratio in zip(verdict.parts, ratios, strict=True)
        ),
        footnotes=tuple(notes),
    )


def verdict_table(plan: Plan, judged: Sequence[Verdict]) -> Table:
    """The claims of a study, a contrast a row; of a claim with several, its verdict comes first."""
    columns = (
        Column("claim", "claim", is_text=True),
        *CONTRAST,
        Column("measure", "measure, unit", is_text=True),
        *_numbers("", judged[0].error if judged else ERROR),
    )
    rows, data = [], []
    for verdict in judged:
        measure = verdict.claim.measure.replace("_", " ")
        unit = unit_of(verdict.claim.measure).strip()
        whole = {
            "claim": verdict.claim.name,
            "measure": ", ".join(filter(None, [measure, unit])),
            "verdict": verdict.word,
        }
        several = len(verdict.parts) != 1
        if several:
            blank = {column.key: "" for column in columns} | {"contrast": NOTHING}
            look = "" if verdict.look is None else str(verdict.look)
            rows.append(blank | whole | {"n": look})
            data.append(_data(verdict, None))
        for part in verdict.parts:
            named = {"claim": "", "measure": ""} if several else whole
            rows.append({**named, **_row(verdict, part)})
            data.append(_data(verdict, part))
    return Table(
        title=f"{heading(plan)}: claims",
        columns=columns,
        rows=tuple(rows),
        data=tuple(data),
        footnotes=(*(v.sentence for v in judged), *_evidence(judged), _reading(plan)),
    )


def agenda_table(
    entries: Sequence[tuple[Entry, Sequence[Verdict | CostVerdict]]], plans: Iterable[Plan]
) -> Table:
    """All claims of the suite, those without data too; a row a claim and a study that judges it.

    Args:
        entries: Of :func:`analysis.agenda.all_verdicts`.
        plans: Of all studies.
    """
    rows, notes = [], []
    for entry, said in entries:
        whole = {"claim": entry.name, "wording": entry.wording}
        if not said:
            rows.append(whole | {"verdict": "no data: not run", "judged_by": entry.judged_by})
        for verdict in said:
            by = entry.judged_by
            if isinstance(verdict, Verdict):
                by = f"{verdict.study} ({verdict.preset}, {verdict.dataset})"
            rows.append(whole | {"verdict": verdict.word, "judged_by": by})
            notes.append(in_short(verdict) if isinstance(verdict, Verdict) else verdict.sentence)
    return Table(
        title="Claims",
        columns=AGENDA_COLUMNS,
        rows=tuple(rows),
        data=tuple(rows),
        footnotes=(FIVE_PERCENT, *notes, *twins(plans)),
    )


def twins(plans: Iterable[Plan]) -> list[str]:
    """Says of plans of one study and setting, of which one was edited, what they differ in."""
    same = defaultdict(list)
    for plan in plans:
        same[plan.name, plan.preset, str(plan.arms[plan.baseline].get("data"))].append(plan)
    lines = []
    for group in same.values():
        fields = [
            field
            for field in type(group[0]).model_fields
            if any(getattr(plan, field) != getattr(group[0], field) for plan in group)
        ]
        if len(group) > 1:
            lines.append(
                f"{heading(group[0])} has {len(group)} plans, which differ in "
                f"{', '.join(fields) or 'nothing'}: what is edited is another plan, and both are "
                "judged on the records that they share."
            )
    return lines


def _numbers(unit: str, error: float) -> tuple[Column, ...]:
    return (
        Column("n", "n", unit="blocks"),
        Column("difference", "difference", unit=unit),
        Column("interval", f"{100 * (1 - error):.3g} % interval", unit=unit),
        Column("p", "exact p"),
        Column("found", "found 4 in 5", unit=unit),
        Column("more", "more needed", unit="blocks"),
    )


def _row(verdict: Verdict, part: Part) -> dict[str, str]:
    claim, scale = verdict.claim, scale_of(verdict.claim.measure)
    deciding = [verdict.deciding(part) for part in verdict.parts]
    digits = decimals([interval.half_width for interval in deciding if interval], scale)
    found, p = verdict.deciding(part), verdict.p(part)
    row = dict.fromkeys(("n", "difference", "interval", "p", "found", "more"), NOTHING)
    row |= {"contrast": f"{part.arm} - {part.against}", "verdict": part.word}
    if found:
        low, mean, high = (signed(scale * x, digits) for x in (found.low, found.mean, found.high))
        ends = f"{low} to {high}" if found.half_width else NOTHING
        row |= {"n": str(found.n), "difference": mean, "interval": ends}
    if p is not None:
        row["p"] = f"{p:.3f}"
    if part.smallest_effect is not None:
        row["found"] = f"{scale * part.smallest_effect:.{digits}f}"
    if part.more_blocks is not None:
        row["more"] = str(part.more_blocks)
    if claim.fewer:
        cost = [count(x) for x in part.costs] if part.costs else [NOTHING, NOTHING]
        row |= dict(zip(("cost", "cost_against"), cost, strict=True))
    return row


def _ratios(part: Part, costs: Mapping[str, Mapping[str, float]]) -> dict[str, float | None]:
    """Costs of ``arm`` over those of ``against``."""
    here, there = costs.get(part.arm, {}), costs.get(part.against, {})
    return {
        name: here[name] / there[name] if here.get(name) and there.get(name) else None
        for name in RATIOS
    }


def _data(verdict: Verdict, part: Part | None) -> dict[str, Any]:
    claim, scale = verdict.claim, scale_of(verdict.claim.measure)
    unit = unit_of(claim.measure).strip() or "as measured"
    numbers: dict[str, Any] = dict.fromkeys(
        ("difference", "low", "high", "narrow_low", "narrow_high", "alone_low", "alone_high")
    )
    if part and part.joint and part.narrow and part.alone:
        intervals = {"": part.joint, "narrow_": part.narrow, "alone_": part.alone}
        numbers = {"difference": scale * part.joint.mean} | {
            f"{name}{end}": scale * getattr(interval, end)
            for name, interval in intervals.items()
            for end in ("low", "high")
        }
    joint = part.joint if part else None
    return {
        "claim": claim.name,
        "claim_verdict": verdict.word,
        "arm": part.arm if part else "",
        "against": part.against if part else "",
        "verdict": part.word if part else verdict.word,
        "measure": claim.measure,
        "direction": claim.direction,
        "combine": claim.combine,
        "margin": scale * claim.margin,
        "unit": unit,
        "blocks": verdict.look,
        "error": verdict.error,
        "cells": verdict.num_cells,
        "cells_wanted": verdict.num_wanted,
        **numbers,
        "p": part.p if part else None,
        "p_alone": part.p_alone if part else None,
        "basis": joint.basis if joint else "",
        "df": joint.df if joint else None,
        "quantile": joint.quantile if joint else None,
        "smallest_effect": scale * part.smallest_effect
        if part and part.smallest_effect is not None
        else None,
        "more_blocks": part.more_blocks if part else None,
        "cost": part.costs[0] if part and part.costs else None,
        "cost_against": part.costs[1] if part and part.costs else None,
        "note": part.note if part else verdict.reason,
    }


def _evidence(found: Sequence[Verdict]) -> list[str]:
    return [
        f"{verdict.claim.name}: {evidence.what}: see {evidence.where}."
        for verdict in found
        for evidence in verdict.claim.evidence
    ]


def _reading(plan: Plan) -> str:
    looks = ", ".join(map(str, plan.looks))
    peers = any(claim.combine == "peers" for claim in plan.claims)
    alone = " Where every peer must be beaten, interval and p are of each by itself."
    return (
        f"{FIVE_PERCENT} Judged at {looks} blocks. The interval of a claim's contrasts holds for "
        "all of them together, p is that of sign flips of whole blocks, and a verdict needs both. "
        "Found 4 in 5: the difference that would have been told from zero with a chance of 80 %."
        f"{alone if peers else ''}"
    )
