"""The decision on one ratio: slower, not slower, or more samples; and when there is no telling.

Groups of pairs are taken until the ratio is known well enough, by wall time and by the thread's
processor time, which err in different ways: other work on the machine lengthens the first, a
shared cache the second. A verdict needs both.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from overconv.bench.statistics import GROUP, Ratio, bounded
from overconv.timing import Sample

LOOKS = (10, 20, 30, 40, 50, 60)  # groups after which a verdict is sought
ERROR = 0.01  # that a bound of a whole run is wrong, on each side
# Where a bound must lie, from the limit. The two zones overlap, so that an interval of 5 % settles
# every case; at the usual limit of 1.05 a true 1.10 can only fall into the first.
FAILS_ABOVE, PASSES_BELOW = -0.02, 0.03
PAIRS = 3  # of processes, at most
SAMPLE_SECONDS = 2e-3  # shorter than what a scheduler gives a process at once
RETAKES = 3  # of a sample that was interrupted
CASE_SECONDS = 12.0  # of samples, after which a case is left unclear

Take = Callable[[int], Sample]


@dataclass(frozen=True)
class Judgement:
    """What a pair of processes says about one case.

    Attributes:
        outcome: ``"pass"``, ``"fail"`` or ``"unclear"``.
        wall, cpu: Its ratios, with one-sided bounds.
        calls: In a sample.
        milliseconds: Of the shortest sample of the candidate.
    """

    outcome: str
    wall: Ratio
    cpu: Ratio
    calls: int
    milliseconds: float

    @property
    def groups(self) -> int:
        return self.wall.groups


def calls_in_a_sample(seconds: float) -> int:
    """How many calls of the slower side make a sample of about 2 ms, at least one.

    Example:
        >>> calls_in_a_sample(0.00025), calls_in_a_sample(0.04)
        (8, 1)
    """
    return max(1, round(SAMPLE_SECONDS / seconds))


def bound_level(cases: int) -> float:
    """One-sided level of a bound, so that all bounds of a run hold together with 1 - ERROR.

    A run looks at each case after each of ``LOOKS``.
    """
    return 1 - ERROR / (cases * len(LOOKS))


def decided(wall: Ratio, cpu: Ratio, limit: float) -> str:
    """``"fail"``, ``"pass"`` or ``"unclear"``, from the ratio by both clocks.

    Fail: both estimates above ``limit`` and both lower bounds above ``limit - 0.02``, and above 1
    however tight the limit is, since what may be no slower than before is no regression. Pass: both
    upper bounds below ``limit + 0.03``. Fail is tried first.

    Example:
        >>> still, slow = Ratio(1.0, 0.99, 1.01, 20), Ratio(1.1, 1.08, 1.12, 20)
        >>> decided(still, still, 1.05), decided(slow, slow, 1.05), decided(slow, still, 1.05)
        ('pass', 'fail', 'unclear')
    """
    both = wall, cpu
    if all(r.estimate > limit and r.low > max(1, limit + FAILS_ABOVE) for r in both):
        return "fail"
    if all(r.high < limit + PASSES_BELOW for r in both):
        return "pass"
    return "unclear"


def judge(
    candidate: Take,
    reference: Take,
    calls: tuple[int, int],
    *,
    limit: float,
    level: float,
    order: random.Random,
    expected: tuple[float, float] = (1.0, 1.0),
    looks: Sequence[int] = LOOKS,
) -> Judgement:
    """Take groups of pairs, each pair in random order, until there is a verdict or no end of it.

    Args:
        candidate, reference: Take one sample of so many calls.
        calls: Of the candidate and of the reference; what is compared is the time of all.
        limit: Ratio, over the expected one, beyond which the candidate is too slow.
        level: One-sided, of each bound.
        order: Draws the order within each pair.
        expected: Ratio of wall and of processor time that the two should have.
        looks: Numbers of groups after which a verdict is sought.
    """
    walls: list[float] = []
    cpus: list[float] = []
    best, spent = float("inf"), 0.0
    takes = candidate, reference
    for groups in looks:
        while len(walls) < groups:
            wall: tuple[list[float], list[float]] = ([], [])
            cpu: tuple[list[float], list[float]] = ([], [])
            for _ in range(GROUP):
                for side in order.sample((0, 1), 2):
                    sample, seconds = uninterrupted(takes[side], calls[side])
                    wall[side].append(sample.wall * calls[side])
                    cpu[side].append(sample.cpu * calls[side])
                    spent += seconds
            walls.append(min(wall[0]) / min(wall[1]) / expected[0])
            cpus.append(min(cpu[0]) / min(cpu[1]) / expected[1])
            best = min(best, *wall[0])
        ratios = bounded(walls, level), bounded(cpus, level)
        outcome = decided(*ratios, limit)
        if outcome != "unclear" or spent > CASE_SECONDS:
            break
    return Judgement(outcome, *ratios, calls[0], 1e3 * best)


def uninterrupted(take: Take, calls: int) -> tuple[Sample, float]:
    """A sample during which nothing else ran, if one of a few is; and the seconds it took.

    Whether a sample was interrupted does not depend on what it would have read, so that leaving it
    out favours neither side. The last is kept in any case.
    """
    seconds = 0.0
    for _ in range(1 + RETAKES):
        sample = take(calls)
        seconds += sample.wall * calls
        if not sample.switches:
            break
    return sample, seconds


def combined(outcomes: Sequence[str]) -> str | None:
    """The verdict of several pairs of processes, in the order they ran; None: another is needed.

    Where code and data lie in memory is drawn anew for each process and can make it a few per cent
    slower or faster for good. So a slow-down has to show twice, one that showed once has to be
    outvoted, and what two pairs leave unclear stays so.

    Example:
        >>> combined(["pass"]), combined(["fail", "fail"]), combined(["fail", "pass", "pass"])
        ('pass', 'fail', 'pass')
        >>> combined(["fail"]) is combined(["unclear"]) is combined(["fail", "pass"]) is None
        True
        >>> combined(["unclear", "unclear"]), combined(["unclear", "fail", "pass"])
        ('unclear', 'unclear')
    """
    passes, fails = outcomes.count("pass"), outcomes.count("fail")
    if fails == 2:
        return "fail"
    if passes > fails:
        return "pass"
    if len(outcomes) == PAIRS or outcomes.count("unclear") == 2:
        return "unclear"
    return None
