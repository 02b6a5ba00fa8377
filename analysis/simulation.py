"""How often the verdicts err: simulated studies, of which the truth is known.

`python -m analysis.simulation [STUDIES]` prints the table of `analysis/simulated.md`; the tests run
a small version. All arms against one baseline, unit noise unless a case says otherwise.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np

from analysis.intervals import blocks_until, pairwise, simultaneous_intervals
from analysis.looks import ERROR, share
from analysis.maxt import max_t
from analysis.quantiles import Weights
from analysis.verdicts import side, within

COMMITTED = Path(__file__).with_name("simulated.md")
SIZES, ARMS = (6, 10), (3, 4, 8)  # with two contrasts, one to either side, equivalence errs most
EFFECT, MARGIN = 2.0, 2.0  # of power; of equivalence where nothing differs

HEAD = """\
# How often the verdicts err

Simulated studies of which the truth is known, {studies:,} a row, made by
`python -m analysis.simulation {studies}`. All arms against one baseline, one look.

- *coverage*: all joint 95 % intervals hold the truth.
- *false*: some arm gets a verdict of a difference, though none differs. 5 % is allowed.
- *power*: an arm 2 SD better is called so.
- *equivalent*: an arm that does not differ is called equivalent, by a margin of 2 SD.
- *false equivalent*: some arm is called equivalent though all differ by the margin: all to one
  side, or in turn to either; the worse of the two ways round. Of any margin: the widest errs most,
  and is taken. 5 % is allowed.

SD: of an arm between blocks, without what the blocks share. A rate of 5 % is known within
{error:.1f} % (two standard errors).
"""
COLUMNS = (
    "blocks, arms", "case", "coverage", "false", "power", "equivalent",
    "false equivalent, one side", "either side",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """How the noise is made: ``spread`` of baseline, of the first and of the other arms;
    ``correlation`` of the arms of a block; ``skewed``: exponential; ``lost``: the last arm has a
    diverged trial, and leaves."""

    name: str
    baseline: float = 1.0
    first: float = 1.0
    correlation: float = 0.0
    skewed: bool = False
    lost: bool = False


SPREADS = (
    Case("equal"),
    Case("skewed", skewed=True),
    Case("baseline x2", baseline=2),
    Case("baseline x3", baseline=3),
    Case("baseline x10", baseline=10),
    Case("one arm x2", first=2),
    Case("one arm x3", first=3),
    Case("an arm diverged", lost=True),
)
CASES = (
    *SPREADS,
    *(replace(c, name=f"{c.name}, correlated 0.5", correlation=0.5) for c in SPREADS),
)
NAMES = tuple(case.name for case in CASES)
# What no rule of this width holds against: differences that are themselves skewed.
LIMITS = (
    Case("baseline x3 and skewed", baseline=3, skewed=True),
    Case("one arm x3 and skewed", first=3, skewed=True),
)


@dataclass(frozen=True)
class Rates:
    """Shares of the studies, as ``HEAD`` tells them."""

    coverage: float
    false: float
    power: float
    equivalent: float
    one_side: float
    either_side: float


@dataclass(frozen=True)
class Simulated:
    """What the committed table says: studies a case, and a rate a row: (blocks, arms, case)."""

    studies: int
    rows: dict[tuple[int, int, str], Rates]


def committed(path: Path = COMMITTED) -> Simulated:
    """The table of :func:`table` that was committed, without what lies beyond its limits.

    Raises:
        ValueError: A case lacks a row.
    """
    text, rows = path.read_text(encoding="utf-8"), {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == len(COLUMNS) and cells[1] in NAMES:
            n, num_arms = map(int, cells[0].split(","))
            rows[n, num_arms, cells[1]] = Rates(*map(float, cells[2:]))
    if lacking := [key for key in product(SIZES, ARMS, NAMES) if key not in rows]:
        raise ValueError(f"{path} lacks {lacking[0]}: `python -m analysis.simulation` makes it")
    [studies] = re.findall(r"known, ([\d,]+) a row", text)
    return Simulated(int(studies.replace(",", "")), rows)


def noise(draw: np.random.Generator, case: Case, n: int, num_arms: int) -> np.ndarray:
    """(n, arms) of noise; the baseline first."""

    def unit(*shape: int) -> np.ndarray:
        return draw.exponential(size=shape) - 1 if case.skewed else draw.standard_normal(shape)

    mixed = np.sqrt(1 - case.correlation) * unit(n, num_arms)
    mixed += np.sqrt(case.correlation) * unit(n, 1)
    spread = np.array([case.baseline, case.first, *[1.0] * (num_arms - 2)])
    return mixed * spread


def against_baseline(num_arms: int) -> Weights:
    """Every arm but the first against the first."""
    labels = [str(arm) for arm in range(num_arms)]
    return pairwise([(label, "0") for label in labels[1:]], labels)


def rates(case: Case, n: int, num_arms: int, studies: int, seed: int = 0) -> Rates:
    """What becomes of ``studies`` studies of ``n`` blocks."""
    draw = np.random.Generator(np.random.PCG64(seed))
    family, kept = against_baseline(num_arms), num_arms - case.lost
    weights = tuple(row[:kept] for row in family[: kept - 1])
    matrix, turns = np.array(weights).T, (-1.0) ** np.arange(kept - 1)
    counts = np.zeros(8)
    for _ in range(studies):
        values = noise(draw, case, n, num_arms)[:, :kept]
        joint = simultaneous_intervals(values, weights, 1 - ERROR, family)
        narrow = simultaneous_intervals(values, weights, 1 - ERROR, family, tails=1)
        told = [side(*pair, ERROR)[0] for pair in zip(joint, max_t(values @ matrix), strict=True)]
        better = values.copy()
        better[:, kept - 1] += EFFECT
        found = max_t(better @ matrix)[-1]
        # Around zero: what a truth at a margin adds to both, and takes away again.
        means = np.array([interval.mean for interval in joint])
        bounds = np.array([interval.half_width for interval in narrow])
        outside = any(i.low > 0 or i.high < 0 for i in joint)  # the truth is zero
        moved = replace(joint[-1], mean=joint[-1].mean + EFFECT)
        counts += [
            float(happened)
            for happened in (
                not outside,
                any(told),
                side(moved, found, ERROR)[0] == 1,
                within(narrow[-1], MARGIN),
                *((way * means > bounds).any() for way in (1, -1, turns, -turns)),
            )
        ]
    coverage, false, power, equivalent, *beyond = (counts / studies).tolist()
    return Rates(coverage, false, power, equivalent, max(beyond[:2]), max(beyond[2:]))


def false_after_looks(
    looks: Sequence[int], num_arms: int, studies: int, declared: bool = True, seed: int = 0
) -> float:
    """Share of studies without an effect that get a verdict at one of ``looks`` or another.

    ``declared``: the looks share the 5 %; otherwise each spends all of it.
    """
    draw = np.random.Generator(np.random.PCG64(seed))
    error = share(tuple(looks)) if declared else ERROR
    weights, false = against_baseline(num_arms), 0
    for _ in range(studies):
        values = noise(draw, CASES[0], max(looks), num_arms)
        false += any(_any_told(values[:look], weights, error) for look in looks)
    return false / studies


def promise(n: int, num_arms: int, margin: float, studies: int, seed: int = 0) -> list[float]:
    """Half-widths at the number of blocks that was promised, over half the margin, sorted."""
    draw = np.random.Generator(np.random.PCG64(seed))
    weights, found = against_baseline(num_arms), []
    for _ in range(studies):
        begun = noise(draw, CASES[0], n, num_arms)
        needed = blocks_until(simultaneous_intervals(begun, weights, 1 - ERROR)[0], margin / 2)
        if needed is None or needed <= n:
            continue
        whole = np.vstack([begun, noise(draw, CASES[0], needed - n, num_arms)])
        then = simultaneous_intervals(whole, weights, 1 - ERROR)[0]
        found.append(then.half_width / (margin / 2))
    return sorted(found)


def table(studies: int) -> Iterator[str]:
    """Lines of Markdown."""
    yield HEAD.format(studies=studies, error=200 * (0.05 * 0.95 / studies) ** 0.5)
    yield from _rows(CASES, studies)
    yield ""
    looks = (6, 10, 15)
    for declared in (True, False):
        rate = false_after_looks(looks, 8, studies, declared)
        word = "declared, sharing 5 %" if declared else "undeclared, each at 5 %"
        yield f"Looks at 6, 10 and 15 blocks, 8 arms, {word}: {rate:.3f} of null studies err.\n"
    low, middle, high = np.quantile(promise(6, 4, 1.5, studies), [0.1, 0.5, 0.9])
    yield (
        f"At the number of blocks that six of them promise, the half-width over half the margin is "
        f"{middle:.2f} (one in ten below {low:.2f}, one in ten above {high:.2f}).\n"
    )
    yield "## Where it stops holding\n"
    yield (
        "An arm that is both noisier than the others and skewed (here exponentially) makes the\n"
        "differences themselves skewed. Then neither sign flips nor Student's t are right, and a\n"
        "few blocks cannot show it: the error is above 5 %, in the direction of the longer tail.\n"
    )
    yield from _rows(LIMITS, studies)


def _rows(cases: Sequence[Case], studies: int) -> Iterator[str]:
    yield f"| {' | '.join(COLUMNS)} |"
    yield f"| :-- | :-- |{' --: |' * (len(COLUMNS) - 2)}"
    for n, num_arms, case in product(SIZES, ARMS, cases):
        shown = " | ".join(f"{rate:.3f}" for rate in astuple(rates(case, n, num_arms, studies)))
        yield f"| {n}, {num_arms} | {case.name} | {shown} |"


def _any_told(values: np.ndarray, weights: Weights, error: float) -> bool:
    joint = simultaneous_intervals(values, weights, 1 - error)
    tested = max_t(values @ np.array(weights).T)
    return any(side(i, p, error)[0] for i, p in zip(joint, tested, strict=True))


if __name__ == "__main__":
    for line in table(int(sys.argv[1]) if len(sys.argv) > 1 else 2000):
        print(line, flush=True)
