"""The claims that the suite has to judge, whether anything is recorded of them or not."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from analysis.numbers import cost_words
from analysis.verdict import Verdict, Word


@dataclass(frozen=True)
class Entry:
    """A claim: its number, its words, and the study or the command that judges it.

    ``silent``: what no verdict on it shows, in our setting.
    """

    name: str
    wording: str
    judged_by: str
    silent: str = ""


@dataclass(frozen=True, kw_only=True)
class CostClaim(Entry):
    """A claim about what a layer costs, which no study judges but a measurement.

    Args:
        layer, against: Class names.
        equal: Costs that must be the same, by exact count.
        other_form: Of the same layer, which its times are told beside too.
        margin: Of the ratio of times, to each side of one. None: the ratio is told, not judged.
        evidence: Tests that prove the rest of it.
    """

    layer: str
    against: str
    equal: tuple[str, ...] = ()
    other_form: str = ""
    margin: float | None = None
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Count:
    """A cost of a layer and of the plain convolution; ``where``: in which shape, or empty: in all.

    Exact integers: two counts that are not equal differ.
    """

    layer: float
    plain: float
    where: str = ""


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Time of a layer over that of the plain convolution, in one case.

    ``low, high``: 90 %, of this case. ``joint_low, joint_high``: 95 %, of all cases together.
    ``other``: time over that of the claim's other form, and its interval, 95 % of all cases
    together; None if that was not measured.
    """

    case: str
    value: float
    low: float
    high: float
    joint_low: float
    joint_high: float
    other: tuple[float, float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class CostVerdict:
    """What counts and times say of a claim: ``short``, and as a ``sentence``."""

    claim: CostClaim
    word: Word | Literal["a number"]
    ratios: tuple[Ratio, ...]
    short: str
    sentence: str


FEW = 3  # cases that a sentence tells one by one

AGENDA: tuple[Entry, ...] = (
    Entry(
        "C1",
        "depth beats width: vertical scattering is more accurate than horizontal with fewer "
        "parameters",
        "scattering",
        "All arms start from the plain function, which slows parallel kernels the more of them "
        "there are: C1.own asks without that.",
    ),
    Entry(
        "C1.own",
        "as C1, each layer by its own initialisation",
        "starts",
        "Initialisations are part of the layers here, so that arms differ in more than how they "
        "scatter; trainings are short.",
    ),
    Entry(
        "C2",
        "the expanding form eases training",
        "attention_placement",
        "Both forms have equal gradients, so that only rounding can move their curves; time and "
        "memory of a step are in the table of training steps.",
    ),
    CostClaim(
        name="C3",
        wording="the compact form keeps inference efficient",
        judged_by="benchmark",
        silent="Times of one thread of one CPU: other machines and batches have other ratios.",
        layer="MDConv2d",
        against="Conv2d",
        other_form="expanding",
    ),
    CostClaim(
        name="C4",
        wording="MAConv costs nothing extra at inference",
        judged_by="benchmark",
        silent="Times of one thread of one CPU; that outputs are equal is for tests to say.",
        layer="MAConv2d",
        against="Conv2d",
        equal=("parameters_deployed", "macs_deployed"),
        margin=0.05,
        evidence=(
            "tests/operators/test_maconv.py::test_fold_after_training_steps",
            "tests/operators/test_maconv.py::test_costs_nothing_more_at_inference",
        ),
    ),
    Entry(
        "C5",
        "MAConv is more accurate than the plain convolution",
        "operators",
        "A short training of a small network, at a rate that suits the plain one.",
    ),
    Entry(
        "C6",
        "MDConv is more accurate than its dynamic peers at fewer parameters",
        "operators",
        "A short training of a small network, at one rate and from the plain function; the peers' "
        "authors train far longer.",
    ),
    Entry(
        "D1",
        "accuracy and cost move with the number of layers",
        "depth",
        "All depths have one rate and one length of training; deeper chains may want others.",
    ),
    Entry(
        "D2",
        "where in the chain the attention should sit",
        "attention_placement",
        "Chains of two layers, and one kind of gate.",
    ),
    Entry(
        "D3",
        "depth buys more than the parameters that it brings",
        "depth",
        "The wider network has equal parameters, not equal time.",
    ),
    Entry(
        "D4",
        "the start of a layer matters",
        "starts",
        "Two starts a layer, at one rate.",
    ),
)


def all_verdicts(
    judged: Iterable[Verdict], costs: Mapping[str, CostVerdict]
) -> list[tuple[Entry, list[Verdict | CostVerdict]]]:
    """Every claim of the agenda with what is said of it, nothing where nothing is known.

    Claims of other names, of studies of one's own, follow in their order.
    """
    found: dict[str, list[Verdict | CostVerdict]] = {entry.name: [] for entry in AGENDA}
    known = {entry.name: entry for entry in AGENDA}
    for verdict in judged:
        name = verdict.claim.name
        if name not in known:
            known[name] = Entry(name, verdict.claim.wording, verdict.study)
        found.setdefault(name, []).append(verdict)
    for name, cost in costs.items():
        found[name].append(cost)
    return [(known[name], said) for name, said in found.items()]


def judge_cost(
    claim: CostClaim,
    counts: Mapping[str, Count],
    ratios: Iterable[Ratio],
) -> CostVerdict:
    """Counts must be equal, and every ratio of times equivalent to one.

    Without a margin the ratios are told as numbers. With one: *supported* if the 90 % interval of
    every case is within it (all must be, so none needs an allowance for the others); *contradicted*
    if a count differs, or a case is beyond it by the interval of all cases together.

    Args:
        counts: By name; all of ``claim.equal``.
        ratios: A case each.

    Raises:
        ValueError: A count that the claim needs is missing.
    """
    cases = tuple(ratios)
    if missing := [name for name in claim.equal if name not in counts]:
        raise ValueError(f"{claim.name}: no count of {', '.join(missing)}")
    unequal = [name for name in claim.equal if counts[name].layer != counts[name].plain]
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
    said = [_counted(name, counts[name]) for name in unequal or claim.equal]
    said += [_timed(claim, cases)] if cases else []
    beside = _beside(claim, cases)
    said += [beside] if beside else []
    head = {"a number": f"{claim.name}, a number", "no data": f"{claim.name}: no data: not run"}
    return CostVerdict(
        claim=claim,
        word=word,
        ratios=cases,
        short="; ".join(
            [_counted(name, counts[name]) for name in unequal]
            + [f"{cost_words(name)} equal" for name in claim.equal if name not in unequal]
            + ([_span(claim, cases)] if cases else [])
            + ([beside] if beside else [])
        ),
        sentence=": ".join(
            filter(None, [head.get(word, f"{claim.name} is {word}"), "; ".join(said)])
        )
        + ".",
    )


def _counted(name: str, count: Count) -> str:
    where = f" ({count.where})" if count.where else ""
    return f"{cost_words(name)} {count.layer:,.0f} against {count.plain:,.0f}{where}"


def _timed(claim: CostClaim, cases: tuple[Ratio, ...]) -> str:
    """The time of each case, or of the quickest and of the slowest where there are many."""
    if len(cases) <= FEW:
        return "; ".join(
            f"{c.case}: {c.value:.2f} times ({c.low:.2f} to {c.high:.2f})" for c in cases
        )
    return _span(claim, cases)


def _beside(claim: CostClaim, cases: tuple[Ratio, ...]) -> str:
    """In how many cases it is slower or faster than its other form, all of them told together."""
    known = [case.other for case in cases if case.other]
    if not known:
        return ""
    words = {
        "slower": sum(low > 1 for _, low, _ in known),
        "faster": sum(high < 1 for _, _, high in known),
    }
    words["not told apart"] = len(known) - sum(words.values())
    counts = ", ".join(f"{word} in {number}" for word, number in words.items() if number)
    ends = dict.fromkeys(f"{end(ratio for ratio, _, _ in known):.2f}" for end in (min, max))
    return (
        f"{' to '.join(ends)} times that of its {claim.other_form} form: {counts} of {len(known)}"
    )


def _span(claim: CostClaim, cases: tuple[Ratio, ...]) -> str:
    ends = dict.fromkeys(f"{end(c.value for c in cases):.2f}" for end in (min, max))
    several = f", in {len(cases)} cases" if len(cases) > 1 else ""
    return f"{' to '.join(ends)} times the time of {claim.against}{several}"
