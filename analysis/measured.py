"""Claims about cost, judged by the log of measurements; and the table of that log."""

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from analysis.agenda import AGENDA, CostClaim, CostVerdict, Ratio, judge_cost
from analysis.latency import subject_words
from analysis.looks import ERROR
from analysis.numbers import NOTHING, count
from analysis.table import Column, Table
from records.benchmark import Measurement


def cost_verdicts(measurements: Sequence[Measurement]) -> dict[str, CostVerdict]:
    """The cost claims of the agenda of which anything was measured, by name.

    A claim is about inference: a layer that was ready for it, *folded* where it folds to the plain
    convolution, in the *compact* form where it stays dynamic. A machine and a shape are a case; of
    several measurements of one the last counts. Counts that must be equal are those of all shapes
    of which the plain one was measured too, added up.
    """
    found = {}
    for claim in AGENDA:
        if not isinstance(claim, CostClaim):
            continue
        cases = list(_latest(m for m in measurements if _answers(m, claim)))
        counts = _counts(claim, cases, measurements)
        if cases and all(name in counts for name in claim.equal):
            found[claim.name] = judge_cost(claim, counts, _ratios(cases))
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


def group_ratios(measurement: Measurement) -> np.ndarray:
    """Least time over the reference's least time, in each group of consecutive samples."""
    groups = int(measurement.ratio["groups"] or 1)
    size = max(1, len(measurement.samples) // groups)
    ours, theirs = (
        np.array([row[0] for row in rows][: groups * size]).reshape(groups, size).min(axis=1)
        for rows in (measurement.samples, measurement.reference)
    )
    return ours / theirs


def _answers(m: Measurement, claim: CostClaim) -> bool:
    layer = m.arm.get("layer") or {}
    is_layer = str(layer.get("class", "")).rpartition(".")[2] == claim.layer
    state, form = m.situation.get("state"), layer.get("options", {}).get("form")
    ready = state == "folded" if claim.equal else form == "compact"
    return m.outcome == "measured" and is_layer and ready and m.situation.get("mode") == "inference"


def _latest(measurements: Iterable[Measurement]) -> Iterable[Measurement]:
    last = {}
    for m in sorted(measurements, key=lambda m: m.taken):
        last[str([m.kind, m.arm, m.subject, m.situation, m.key])] = m
    return last.values()


def _ratios(cases: Sequence[Measurement]) -> list[Ratio]:
    joint = 1 - ERROR / max(1, len(cases))  # by Bonferroni
    found = []
    for m in cases:
        ratios = group_ratios(m)
        low, high = bounds(ratios, 0.90)
        joint_low, joint_high = bounds(ratios, joint)
        value = float(np.median(ratios))
        found.append(
            Ratio(
                case=_case(m),
                value=value,
                low=low,
                high=high,
                joint_low=joint_low,
                joint_high=joint_high,
            )
        )
    return found


def _interval(low: float, high: float) -> str:
    return f"{low:.2f} to {high:.2f}" if math.isfinite(high - low) else "too few samples"


def _milliseconds(seconds: float) -> str:
    """
    >>> _milliseconds(1.25), _milliseconds(0.00012345)
    ('1,250', '0.123')
    """
    value = 1e3 * seconds
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _case(m: Measurement) -> str:
    shape = subject_words(", ".join(f"{key} {value}" for key, value in m.subject.items()))
    where = f"{m.situation['device']}, batch {m.situation['batch']}"
    return f"{shape}, image {m.situation['image']}, {where}"


def _counts(
    claim: CostClaim, cases: Sequence[Measurement], measurements: Sequence[Measurement]
) -> dict[str, tuple[float, float]]:
    """Sums over the shapes of the layer and of the plain one; nothing if a shape lacks either."""
    plain = {
        _shape(m): m.costs
        for m in measurements
        if m.arm.get("layer") is None and m.outcome == "measured"
    }
    counts = {}
    for name in claim.equal:
        key = name.partition("_")[0]
        pairs = [(m.costs.get(key), plain.get(_shape(m), {}).get(key)) for m in cases]
        known = [(a, b) for a, b in pairs if a is not None and b is not None]
        if pairs and len(known) == len(pairs):
            counts[name] = (float(sum(a for a, _ in known)), float(sum(b for _, b in known)))
    return counts


def _shape(m: Measurement) -> str:
    return str((m.kind, sorted(m.subject.items()), m.situation.get("image")))


def ratio_table(verdict: CostVerdict) -> Table:
    """The cases of a cost claim, with the intervals that judge it."""
    claim = verdict.claim
    columns = (
        Column("case", "case", is_text=True),
        Column("ratio", f"time / {claim.against}"),
        Column("interval", "90 % interval"),
        Column("joint", "95 % of all together"),
    )
    rows = tuple(
        {
            "case": r.case,
            "ratio": f"{r.value:.2f}",
            "interval": _interval(r.low, r.high),
            "joint": _interval(r.joint_low, r.joint_high),
        }
        for r in verdict.ratios
    )
    notes = (
        []
        if claim.margin is None
        else [f"Equal in time: every 90 % interval within {100 * claim.margin:g} % of one."]
    )
    return Table(
        title=f"{claim.name}: {claim.wording}",
        columns=columns,
        rows=rows,
        data=tuple(dataclasses.asdict(r) for r in verdict.ratios),
        footnotes=tuple(notes),
    )


def speed_table(frame: pd.DataFrame) -> Table:
    """What was measured of speed, a row a thing and situation.

    Args:
        frame: Of :func:`analysis.latency.benchmark_frame`.
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
        "with it on the same machine; the ratio is what carries over, not the milliseconds."
    ]
    if shaky:
        notes.append(f"CAUTION: {shaky} of {len(frame)} were taken on a machine that was not calm.")
    return Table(
        title="Measured times",
        columns=columns,
        rows=rows,
        data=tuple({str(k): v for k, v in row.items()} for row in frame.to_dict("records")),
        footnotes=tuple(notes),
    )
