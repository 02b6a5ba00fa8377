"""Claims about cost, judged by the log of measurements; and the table of that log."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from analysis.agenda import AGENDA, CostClaim, CostVerdict, Count, Ratio, judge_cost
from analysis.looks import ERROR
from analysis.measurements import SITUATION, Times, subject_words
from analysis.numbers import NOTHING, count
from analysis.table import Column, Table

# What a case is told by where cases differ in it; a machine's key only if nothing else tells it.
TELLING = ("name", "step", "dtype", "memory_format", "threads", "machine")


def cost_verdicts(frame: Times) -> dict[str, CostVerdict]:
    """The cost claims of the agenda of which anything was measured, by name.

    A claim is about inference: a layer that was ready for it, *folded* where it folds to the plain
    convolution, in the *compact* form where it stays dynamic. A case is a shape on a machine.
    Counts that must be equal are compared shape by shape, with those of the plain one; what is told
    of them is the first pair that differs, or the sum over the shapes.

    Args:
        frame: Of :func:`analysis.measurements.latest`.
    """
    if frame.empty:
        return {}
    found = {}
    for claim in AGENDA:
        if not isinstance(claim, CostClaim):
            continue
        cases = frame[_answers(frame, claim)]
        counts = _counts(claim, cases, frame)
        if len(cases) and all(name in counts for name in claim.equal):
            ratios = _ratios(cases, _beside(cases, frame, claim))
            found[claim.name] = judge_cost(claim, counts, ratios)
    return found


def bounds(ratios: np.ndarray, confidence: float) -> tuple[float, float]:
    """Interval of the median of ``ratios``, exact whatever their distribution; infinite if too few.

    Of n independent values the k-th smallest lies above their true median with the probability
    that Bin(n, 1/2) is below k; k is the largest for which that is ``(1 - confidence) / 2`` or
    less.
    """
    ordered, n = np.sort(ratios), len(ratios)
    chances = stats.binom.cdf(np.arange(n), n, 0.5)  # of k - 1 = 0, 1, ...
    k = int((chances <= (1 - confidence) / 2).sum())
    if k == 0:
        return -math.inf, math.inf
    return float(ordered[k - 1]), float(ordered[n - k])


def _answers(frame: Times, claim: CostClaim) -> pd.Series:
    ready = frame["state"] == "folded" if claim.equal else frame["form"] == "compact"
    return (frame["layer"] == claim.layer) & (frame["mode"] == "inference") & ready


def _beside(
    cases: Times, frame: Times, claim: CostClaim
) -> list[tuple[float, float, float] | None]:
    """Time of each case over that of the layer's other form there; all intervals hold together.

    Of two medians of ratios to the plain one, each with half of the case's share of the error.
    """
    found: list[tuple[float, float, float] | None] = []
    if not claim.other_form:
        return [None] * len(cases)
    others = frame[(frame["layer"] == claim.layer) & (frame["form"] == claim.other_form)]
    situation = ["kind", "subject", "key", "image", *SITUATION]
    there = {tuple(row[name] for name in situation): row for row in others.to_dict("records")}
    confidence = 1 - ERROR / (2 * max(1, len(cases)))
    for case in cases.to_dict("records"):
        other = there.get(tuple(case[name] for name in situation))
        if other is None:
            found.append(None)
            continue
        ours, theirs = np.array(case["groups"]), np.array(other["groups"])
        (low, high), (least, most) = bounds(ours, confidence), bounds(theirs, confidence)
        ratio = float(np.median(ours) / np.median(theirs))
        found.append((ratio, max(0.0, low) / most, high / least if least > 0 else math.inf))
    return found


def _ratios(cases: Times, beside: Sequence[tuple[float, float, float] | None]) -> list[Ratio]:
    joint = 1 - ERROR / max(1, len(cases))  # by Bonferroni
    found = []
    for case, groups, other in zip(_labels(cases), cases["groups"], beside, strict=True):
        ratios = np.array(groups)
        low, high = bounds(ratios, 0.90)
        joint_low, joint_high = bounds(ratios, joint)
        found.append(
            Ratio(
                case=case,
                value=float(np.median(ratios)),
                low=low,
                high=high,
                joint_low=joint_low,
                joint_high=joint_high,
                other=other,
            )
        )
    return found


def _labels(cases: Times) -> list[str]:
    """What each case is, with whatever tells it from another."""
    labels = [
        f"{subject_words(str(row['subject']))}, image {row['image']}, {row['device']}, "
        f"batch {row['batch']}"
        for row in cases.to_dict("records")
    ]
    for name in (*TELLING, "key"):
        if cases[name].nunique() > 1 and not (name == "key" and len(set(labels)) == len(labels)):
            words = {"threads": "{} threads", "key": "machine {}"}.get(name, "{}")
            labels = [
                f"{label}, {words.format(value)}"
                for label, value in zip(labels, cases[name], strict=True)
            ]
    return labels


def _counts(claim: CostClaim, cases: Times, frame: Times) -> dict[str, Count]:
    """By cost; nothing of one that a shape lacks, of the layer or of the plain one.

    The plain one's are those of the one timed beside the layer, or of a measurement of its own.
    """
    shape = ["kind", "subject", "image"]
    plain = frame[frame["layer"] == claim.against].drop_duplicates(shape, keep="last")
    both = cases.merge(plain, on=shape, how="left", suffixes=("", "_plain"))
    counts = {}
    for cost in claim.equal:
        key = cost.partition("_")[0]
        # Counts are facts of a shape: several machines say them again.
        of_plain = both[f"beside_{key}"].where(both[f"beside_{key}"].notna(), both[f"{key}_plain"])
        both[f"{key}_plain"] = of_plain
        pairs = both[[*shape, key, f"{key}_plain"]].drop_duplicates()
        if pairs.empty or pairs[[key, f"{key}_plain"]].isna().any(axis=None):
            continue
        unequal = pairs[pairs[key] != pairs[f"{key}_plain"]]
        told = unequal.iloc[:1] if len(unequal) else pairs
        where = "".join(
            f"{subject_words(str(row['subject']))}, image {row['image']}"
            for row in unequal[:1].to_dict("records")
        )
        sums = [float(told[name].sum()) for name in (key, f"{key}_plain")]
        counts[cost] = Count(layer=sums[0], plain=sums[1], where=where)
    return counts


def _interval(low: float, high: float) -> str:
    return f"{low:.2f} to {high:.2f}" if math.isfinite(high - low) else "too few samples"


def _milliseconds(seconds: float) -> str:
    """
    >>> _milliseconds(1.25), _milliseconds(0.00012345)
    ('1,250', '0.123')
    """
    value = 1e3 * seconds
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def ratio_table(verdict: CostVerdict) -> Table:
    """The cases of a cost claim, with the intervals that judge it."""
    claim = verdict.claim
    columns = [
        Column("case", "case", is_text=True),
        Column("ratio", f"time / {claim.against}"),
        Column("interval", "90 % interval"),
        Column("joint", "95 % of all together"),
    ]
    if any(r.other for r in verdict.ratios):
        columns += [
            Column("other", f"time / {claim.other_form}"),
            Column("other_interval", "95 % of all together"),
        ]
    rows = tuple(
        {
            "case": r.case,
            "ratio": f"{r.value:.2f}",
            "interval": _interval(r.low, r.high),
            "joint": _interval(r.joint_low, r.joint_high),
            "other": f"{r.other[0]:.2f}" if r.other else NOTHING,
            "other_interval": _interval(*r.other[1:]) if r.other else NOTHING,
        }
        for r in verdict.ratios
    )
    notes = [
        "Ratio: median over groups of samples, taken in turn, of the least time of the layer over "
        f"that of {claim.against}; intervals are exact, whatever the distribution."
    ]
    if claim.margin is not None:
        notes.append(f"Equal in time: every 90 % interval within {100 * claim.margin:g} % of one.")
    return Table(
        title=f"{claim.name}: {claim.wording}",
        columns=tuple(columns),
        rows=rows,
        data=tuple(_ratio_data(r) for r in verdict.ratios),
        footnotes=tuple(notes),
    )


def _ratio_data(ratio: Ratio) -> dict[str, str | float | None]:
    row = dataclasses.asdict(ratio)
    ends = row.pop("other") or (None, None, None)
    return row | dict(zip(("other", "other_low", "other_high"), ends, strict=True))


def speed_table(frame: Times) -> Table:
    """What was measured of speed, a row a thing and situation.

    Args:
        frame: Of :func:`analysis.measurements.latest`.
    """
    columns = (
        Column("name", "layer or network", is_text=True),
        Column("subject", "shape", is_text=True),
        Column("situation", "situation", is_text=True),
        Column("image", "image", unit="pixels"),
        Column("macs", "MACs"),
        Column("minimum", "least time", unit="ms"),
        Column("ratio", "time / plain"),
        Column("interval", "98 % interval"),
    )
    rows = tuple(
        {
            "name": str(row["name"]),
            "subject": subject_words(str(row["subject"])),
            "situation": f"{row['mode']}, {row['step']}, batch {row['batch']}, {row['device']}",
            "image": f"{row['image']:g}",
            "macs": NOTHING if pd.isna(row["macs"]) else count(row["macs"]),
            "minimum": _milliseconds(row["minimum"]),
            "ratio": f"{row['ratio']:.2f}",
            "interval": f"{row['low']:.2f} to {row['high']:.2f}",
        }
        for _, row in frame.iterrows()
    )
    shaky = int((frame["unstable"] != "").sum())
    notes = [
        "Least time of a call. Time / plain: over that of the plain reference, measured in turn "
        "with it on the same machine: median over groups of samples of the ratio of least times. "
        "It is what carries over, not the milliseconds."
    ]
    if shaky:
        notes.append(f"CAUTION: {shaky} of {len(frame)} were taken on a machine that was not calm.")
    return Table(
        title="Measured times",
        columns=columns,
        rows=rows,
        data=tuple(
            {str(k): v for k, v in row.items()}
            for row in frame.drop(columns="groups").to_dict("records")
        ),
        footnotes=tuple(notes),
    )
