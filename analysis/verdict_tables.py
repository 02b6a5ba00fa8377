"""The tables of claims: of one study, a contrast a row, and of all, a claim a row."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from analysis.agenda import CostVerdict, all_verdicts
from analysis.frames import Frames
from analysis.intervals import Interval
from analysis.looks import ERROR
from analysis.numbers import NOTHING, decimals, scale_of, signed
from analysis.sentences import unit_of
from analysis.table import Column, Table
from analysis.verdict import Part, Verdict
from analysis.verdicts import verdicts

COLUMNS = (
    Column("claim", "claim", is_text=True),
    Column("contrast", "contrast", is_text=True),
    Column("verdict", "verdict", is_text=True),
    Column("n", "n"),
    Column("difference", "difference"),
    Column("interval", "joint interval"),
    Column("p", "exact p"),
    Column("found", "80 % found"),
    Column("more", "more blocks"),
)
AGENDA_COLUMNS = (
    Column("claim", "claim", is_text=True),
    Column("wording", "wording", is_text=True),
    Column("verdict", "verdict", is_text=True),
    Column("judged_by", "judged by", is_text=True),
)
FIVE_PERCENT = f"{100 * ERROR:g} % a claim: of each claim, not of the list."


def verdict_table(frames: Frames) -> Table:
    """The claims of a study, a contrast a row; of a claim with several, its verdict comes first."""
    found = verdicts(frames)
    rows, data = [], []
    for verdict in found:
        whole = {"claim": verdict.claim.name, "contrast": NOTHING, "verdict": verdict.word}
        several = len(verdict.parts) != 1
        if several:
            blank = {c.key: "" for c in COLUMNS}
            rows.append(blank | whole | {"n": "" if verdict.look is None else str(verdict.look)})
            data.append(_data(verdict, None))
        digits = decimals([p.joint.half_width for p in verdict.parts if p.joint], _scale(verdict))
        for part in verdict.parts:
            rows.append(_row(verdict, part, digits) | ({"claim": ""} if several else {}))
            data.append(_data(verdict, part))
    return Table(
        title=f"{frames.plan.name} ({frames.plan.preset}): claims",
        columns=COLUMNS,
        rows=tuple(rows),
        data=tuple(data),
        footnotes=(*(v.sentence for v in found), *_evidence(found), _reading(frames)),
    )


def agenda_table(
    studies: Sequence[Frames], costs: Mapping[str, CostVerdict] | None = None
) -> Table:
    """All claims of the suite, those without data too; a row a claim and a study that judges it."""
    rows, notes = [], []
    for entry, said in all_verdicts(studies, costs):
        whole = {"claim": entry.name, "wording": entry.wording}
        if not said:
            rows.append(whole | {"verdict": "no data: not run", "judged_by": entry.judged_by})
        for verdict in said:
            by = entry.judged_by
            if isinstance(verdict, Verdict):
                by = f"{verdict.study} ({verdict.preset})"
            rows.append(whole | {"verdict": verdict.word, "judged_by": by})
            notes.append(verdict.sentence)
    return Table(
        title="Claims",
        columns=AGENDA_COLUMNS,
        rows=tuple(rows),
        data=tuple(rows),
        footnotes=(FIVE_PERCENT, *notes, *twins(studies)),
    )


def twins(studies: Iterable[Frames]) -> list[str]:
    """Says of plans of one study and setting, of which one was edited, what they differ in."""
    same = defaultdict(list)
    for frames in studies:
        data = frames.plan.arms[frames.plan.baseline].get("data")
        same[frames.plan.name, frames.plan.preset, str(data)].append(frames.plan)
    lines = []
    for (name, preset, _), plans in same.items():
        fields = [
            field
            for field in type(plans[0]).model_fields
            if any(getattr(plan, field) != getattr(plans[0], field) for plan in plans)
        ]
        if len(plans) > 1:
            lines.append(
                f"{name} ({preset}) has {len(plans)} plans, which differ in "
                f"{', '.join(fields) or 'nothing'}: what is edited is another plan, and both are "
                "judged on the records that they share."
            )
    return lines


def _row(verdict: Verdict, part: Part, digits: int) -> dict[str, str]:
    scale, interval = _scale(verdict), _decisive(verdict, part)
    row = {column.key: NOTHING for column in COLUMNS} | {
        "claim": verdict.claim.name,
        "contrast": f"{part.arm} - {part.against}",
        "verdict": part.word,
        "more": NOTHING if part.more_blocks is None else str(part.more_blocks),
    }
    if interval is not None:
        row |= {
            "n": str(interval.n),
            "difference": signed(scale * interval.mean, digits),
            "interval": f"{signed(scale * interval.low, digits)} to "
            f"{signed(scale * interval.high, digits)}",
            "p": f"{_p(verdict, part):.3f}",
        }
    if part.smallest_effect is not None:
        row["found"] = f"{scale * part.smallest_effect:.{digits}f}"
    return row


def _data(verdict: Verdict, part: Part | None) -> dict[str, Any]:
    claim, scale = verdict.claim, _scale(verdict)
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
        "df": joint.df if joint else math.nan,
        "quantile": joint.quantile if joint else math.nan,
        "smallest_effect": scale * part.smallest_effect
        if part and part.smallest_effect is not None
        else None,
        "more_blocks": part.more_blocks if part else None,
        "cost": part.costs[0] if part and part.costs else None,
        "cost_against": part.costs[1] if part and part.costs else None,
        "note": part.note if part else verdict.reason,
    }


def _scale(verdict: Verdict) -> float:
    return scale_of(verdict.claim.measure)


def _decisive(verdict: Verdict, part: Part) -> Interval | None:
    return part.alone if verdict.claim.combine == "peers" else part.joint


def _p(verdict: Verdict, part: Part) -> float:
    found = part.p_alone if verdict.claim.combine == "peers" else part.p
    return math.nan if found is None else found


def _evidence(found: Sequence[Verdict]) -> list[str]:
    return [
        f"{verdict.claim.name}: {evidence.what}: see {evidence.where}."
        for verdict in found
        for evidence in verdict.claim.evidence
    ]


def _reading(frames: Frames) -> str:
    looks = ", ".join(map(str, frames.plan.looks))
    peers = any(claim.combine == "peers" for claim in frames.plan.claims)
    alone = " Where every peer must be beaten, interval and p are of each by itself."
    return (
        f"{FIVE_PERCENT} Judged at {looks} blocks. The interval of a claim's contrasts holds for "
        "all of them together, p is that of sign flips of whole blocks, and a verdict needs both. "
        f"80 % found: what would have been told from zero with that chance.{alone if peers else ''}"
    )
