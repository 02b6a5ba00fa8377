"""The claims that the suite has to judge, whether anything is recorded of them or not."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from analysis.frames import Frames
from analysis.verdict import Verdict, Word
from analysis.verdicts import verdicts


@dataclass(frozen=True)
class Entry:
    """A claim: its number, its words, and the study or the command that judges it."""

    name: str
    wording: str
    judged_by: str


@dataclass(frozen=True, kw_only=True)
class CostClaim(Entry):
    """A claim about what a layer costs, which no study judges but a measurement.

    Args:
        layer, against: Class names.
        equal: Costs that must be the same, by exact count.
        margin: Of the ratio of times, to each side of one. None: the ratio is told, not judged.
        evidence: Tests that prove the rest of it.
    """

    layer: str
    against: str
    equal: tuple[str, ...] = ()
    margin: float | None = None
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Time of a layer over that of the plain convolution, in one case.

    ``low, high``: 90 %, of this case. ``joint_low, joint_high``: 95 %, of all cases together.
    """

    case: str
    value: float
    low: float
    high: float
    joint_low: float
    joint_high: float


@dataclass(frozen=True, kw_only=True)
class CostVerdict:
    """What counts and times say of a claim."""

    claim: CostClaim
    word: Word | Literal["a number"]
    ratios: tuple[Ratio, ...]
    unequal: tuple[str, ...]
    sentence: str


AGENDA: tuple[Entry, ...] = (
    Entry(
        "C1",
        "depth beats width: vertical scattering is more accurate than horizontal with fewer "
        "parameters",
        "scattering",
    ),
    Entry("C2", "the expanding form eases training", "attention_placement"),
    CostClaim(
        name="C3",
        wording="the compact form keeps inference efficient",
        judged_by="benchmark",
        layer="MDConv2d",
        against="Conv2d",
    ),
    CostClaim(
        name="C4",
        wording="MAConv costs nothing extra at inference",
        judged_by="benchmark",
        layer="MAConv2d",
        against="Conv2d",
        equal=("parameters_deployed", "macs_deployed"),
        margin=0.05,
        evidence=(
            "tests/operators/test_maconv.py::test_fold_after_training_steps",
            "tests/operators/test_maconv.py::test_costs_nothing_more_at_inference",
        ),
    ),
    Entry("C5", "MAConv is more accurate than the plain convolution", "operators"),
    Entry("C6", "MDConv is more accurate than its dynamic peers at fewer parameters", "operators"),
    Entry("D1", "accuracy and cost move with the number of layers", "depth"),
    Entry("D2", "where in the chain the attention should sit", "attention_placement"),
)


def all_verdicts(
    studies: Iterable[Frames], costs: Mapping[str, CostVerdict] | None = None
) -> list[tuple[Entry, list[Verdict | CostVerdict]]]:
    """Every claim of the agenda with what is said of it, nothing where nothing is known.

    Claims of other names, of studies of one's own, follow in their order.
    """
    found: dict[str, list[Verdict | CostVerdict]] = {entry.name: [] for entry in AGENDA}
    known = {entry.name: entry for entry in AGENDA}
    for frames in studies:
        for verdict in verdicts(frames):
            name = verdict.claim.name
            if name not in known:
                known[name] = Entry(name, verdict.claim.wording, verdict.study)
            found.setdefault(name, []).append(verdict)
    for name, judged in (costs or {}).items():
        found[name].append(judged)
    return [(known[name], said) for name, said in found.items()]


def judge_cost(
    claim: CostClaim,
    counts: Mapping[str, tuple[float, float]],
    ratios: Iterable[Ratio],
) -> CostVerdict:
    """Counts must be equal, and every ratio of times equivalent to one.

    Without a margin the ratios are told as numbers. With one: *supported* if the 90 % interval of
    every case is within it (all must be, so none needs an allowance for the others); *contradicted*
    if a count differs, or a case is beyond it by the interval of all cases together.

    Args:
        counts: Of the layer and of the plain convolution, by name; all of ``claim.equal``.
        ratios: A case each.

    Raises:
        ValueError: A count that the claim needs is missing.
    """
    cases = tuple(ratios)
    if missing := [name for name in claim.equal if name not in counts]:
        raise ValueError(f"{claim.name}: no count of {', '.join(missing)}")
    unequal = tuple(name for name in claim.equal if counts[name][0] != counts[name][1])
    word: Word | Literal["a number"]
    if unequal:
        word = "contradicted"
    elif not cases:
        word = "no data"
    elif claim.margin is None:
        word = "a number"
    else:
        low, high = 1 - claim.margin, 1 + claim.margin
        if all(low < case.low and case.high < high for case in cases):
            word = "supported"
        elif any(case.joint_low > high or case.joint_high < low for case in cases):
            word = "contradicted"
        else:
            word = "inconclusive"
    return CostVerdict(
        claim=claim,
        word=word,
        ratios=cases,
        unequal=unequal,
        sentence=_sentence(claim, word, cases, unequal, counts),
    )


def _sentence(
    claim: CostClaim,
    word: str,
    cases: tuple[Ratio, ...],
    unequal: tuple[str, ...],
    counts: Mapping[str, tuple[float, float]],
) -> str:
    parts = [
        f"{name.replace('_', ' ')} {counts[name][0]:,.0f} against {counts[name][1]:,.0f}"
        for name in (unequal or claim.equal)
    ]
    parts += [f"{c.case}: {c.value:.2f} times ({c.low:.2f} to {c.high:.2f})" for c in cases]
    head = {"a number": f"{claim.name}, a number", "no data": f"{claim.name}: no data: not run"}
    return f"{head.get(word, f'{claim.name} is {word}')}{': ' if parts else ''}{'; '.join(parts)}."
