"""How often the verdicts err: simulated studies, of which the truth is known.

`python -m analysis.simulation [STUDIES]` prints the table of `analysis/simulated.md`; the tests run
a small version. All arms against one baseline, unit noise unless a case says otherwise.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from analysis.intervals import Interval, blocks_until, pairwise, simultaneous_intervals, widest
from analysis.looks import ERROR, share
from analysis.maxt import max_t
from analysis.quantiles import Weights
from analysis.verdicts import side, within

EFFECT, MARGIN = 2.0, 4.0  # of power; of equivalence: wide enough that it can be had


HEAD = """\
# How often the verdicts err

Simulated studies of which the truth is known, {studies:,} a row, made by
`python -m analysis.simulation {studies}`. All arms against one baseline, one look. False: some arm
got a verdict though none differs. Power: an arm 2 SD better is called so. False equivalent: some
arm is called equivalent though all differ by the margin, 4 SD. A rate of 5 % is known within 1 %.
"""


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


CASES = (
    Case("equal"),
    Case("correlated 0.5", correlation=0.5),
    Case("skewed", skewed=True),
    Case("baseline x2", baseline=2),
    Case("baseline x3", baseline=3),
    Case("one arm x2", first=2),
    Case("one arm x3", first=3),
    Case("baseline x2, correlated 0.5", baseline=2, correlation=0.5),
    Case("an arm diverged", lost=True),
)


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Shares of the studies.

    ``coverage``      all joint intervals hold the truth
    ``interval_only`` a joint interval excludes zero, though no arm differs
    ``false``         a verdict of a difference, though no arm differs
    ``power``         supported, of an arm that is ``EFFECT`` better (not the noisy one)
    ``equivalent``    some arm called equivalent, though all differ by just the margin
    """

    coverage: float
    interval_only: float
    false: float
    power: float
    equivalent: float


def noise(draw: np.random.Generator, case: Case, n: int, num_arms: int) -> np.ndarray:
    """(n, arms) of noise; the baseline first."""

    def unit(*shape: int) -> np.ndarray:
        return draw.exponential(size=shape) - 1 if case.skewed else draw.standard_normal(shape)

    mixed = np.sqrt(1 - case.correlation) * unit(n, num_arms)
    mixed += np.sqrt(case.correlation) * unit(n, 1)
    spread = np.array([case.baseline, case.first, *[1.0] * (num_arms - 2)])
    return mixed * spread


def rates(case: Case, n: int, num_arms: int, studies: int, seed: int = 0) -> Rates:
    """What becomes of ``studies`` studies of ``n`` blocks."""
    draw = np.random.Generator(np.random.PCG64(seed))
    counts = np.zeros(5)
    arms = list(range(num_arms))
    family = pairwise([(str(arm), "0") for arm in arms[1:]], [str(arm) for arm in arms])
    kept = num_arms - case.lost
    weights = tuple(row[:kept] for row in family[: kept - 1])
    tried = kept - 2  # the effect's contrast: of the last arm that is left
    for _ in range(studies):
        values = noise(draw, case, n, num_arms)[:, :kept]
        differences = values @ np.array(weights).T
        joint = simultaneous_intervals(values, weights, 1 - ERROR, family)
        narrow = simultaneous_intervals(values, weights, 1 - 2 * ERROR, family)
        tested = max_t(differences).p
        outside = [i.low > 0 or i.high < 0 for i in joint]
        told = [side(i, p, ERROR)[0] for i, p in zip(joint, tested, strict=True)]
        better = differences.copy()
        better[:, tried] += EFFECT
        found = side(_moved(joint[tried], EFFECT), max_t(better).p[tried], ERROR)[0]
        at_margin = [within(_moved(interval, MARGIN), MARGIN) for interval in narrow]
        counts += [not any(outside), any(outside), any(told), found == 1, any(at_margin)]
    coverage, interval_only, false, power, equivalent = (counts / studies).tolist()
    return Rates(
        coverage=coverage,
        interval_only=interval_only,
        false=false,
        power=power,
        equivalent=equivalent,
    )


def false_after_looks(
    looks: Sequence[int], num_arms: int, studies: int, declared: bool = True, seed: int = 0
) -> float:
    """Share of studies without an effect that get a verdict at one of ``looks`` or another.

    ``declared``: the looks share the 5 %; otherwise each spends all of it.
    """
    draw = np.random.Generator(np.random.PCG64(seed))
    error = share(tuple(looks)) if declared else ERROR
    labels = [str(arm) for arm in range(num_arms)]
    weights = pairwise([(label, "0") for label in labels[1:]], labels)
    false = 0
    for _ in range(studies):
        values = noise(draw, CASES[0], max(looks), num_arms)
        false += any(_any_told(values[:look], weights, error) for look in looks)
    return false / studies


def promise(n: int, num_arms: int, margin: float, studies: int, seed: int = 0) -> list[float]:
    """Half-widths at the number of blocks that was promised, over half the margin, sorted."""
    draw = np.random.Generator(np.random.PCG64(seed))
    labels = [str(arm) for arm in range(num_arms)]
    weights = pairwise([(label, "0") for label in labels[1:]], labels)
    found = []
    for _ in range(studies):
        begun = noise(draw, CASES[0], n, num_arms)
        first = simultaneous_intervals(begun, weights, 1 - ERROR)[0]
        needed = blocks_until(first, margin / 2)
        if needed is None or needed <= n:
            continue
        whole = np.vstack([begun, noise(draw, CASES[0], needed - n, num_arms)])
        then = simultaneous_intervals(whole, weights, 1 - ERROR)[0]
        found.append(widest(then.models, weights, 1 - ERROR, needed)[0] / (margin / 2))
    return sorted(found)


def table(studies: int) -> Iterator[str]:
    """Lines of Markdown."""
    yield HEAD.format(studies=studies)
    yield "| blocks, arms | case | coverage | interval alone | false | power | false equivalent |"
    yield "| :-- | :-- | --: | --: | --: | --: | --: |"
    for n in (6, 10):
        for num_arms in (4, 8):
            for case in CASES:
                r = rates(case, n, num_arms, studies)
                cells = (r.coverage, r.interval_only, r.false, r.power, r.equivalent)
                shown = " | ".join(f"{cell:.3f}" for cell in cells)
                yield f"| {n}, {num_arms} | {case.name} | {shown} |"
    yield ""
    looks = (6, 10, 15)
    for declared in (True, False):
        rate = false_after_looks(looks, 8, studies, declared)
        word = "declared, sharing 5 %" if declared else "undeclared, each at 5 %"
        yield f"Looks at 6, 10 and 15 blocks, 8 arms, {word}: {rate:.3f} of null studies err."
    found = promise(6, 4, 1.5, max(100, studies // 10))
    low, middle, high = np.quantile(found, [0.1, 0.5, 0.9])
    yield (
        f"At the promised number of blocks, the half-width over half the margin is {middle:.2f} "
        f"(one in ten below {low:.2f}, one in ten above {high:.2f})."
    )


def _moved(interval: Interval, by: float) -> Interval:
    """The interval of the same noise around another truth."""
    return replace(interval, mean=interval.mean + by)


def _any_told(values: np.ndarray, weights: Weights, error: float) -> bool:
    joint = simultaneous_intervals(values, weights, 1 - error)
    tested = max_t(values @ np.array(weights).T).p
    return any(side(i, p, error)[0] for i, p in zip(joint, tested, strict=True))


if __name__ == "__main__":
    for line in table(int(sys.argv[1]) if len(sys.argv) > 1 else 2000):
        print(line, flush=True)
