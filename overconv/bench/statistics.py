"""Ratios of two times, from samples that were taken in turn.

On a shared machine a sample is long because it was interrupted, never short. So a few neighbouring
samples give way to their minimum, and what is averaged are ratios of minima: a group of
consecutive pairs gives ``r = min(candidate) / min(reference)``, and the estimate is the median of
``r`` over the groups.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

GROUP = 4  # pairs in a group


@dataclass(frozen=True)
class Ratio:
    """How many times as long one thing takes as another.

    Attributes:
        estimate: Median of the groups' ratios.
        low, high: Bounds of the true ratio; infinite where the groups are too few for any.
        groups: Their number.
    """

    estimate: float
    low: float
    high: float
    groups: int


def group_ratios(
    candidate: Sequence[float], reference: Sequence[float], *, group: int = GROUP
) -> list[float]:
    """``min(candidate) / min(reference)`` of each ``group`` consecutive pairs; a rest is left out.

    Raises:
        ValueError: The lengths differ, or a time is not positive.
    """
    if len(candidate) != len(reference):
        raise ValueError(
            "samples must come in pairs, got"
            f" {len(candidate)} of the candidate and {len(reference)} of the reference"
        )
    if not all(0 < seconds < math.inf for seconds in (*candidate, *reference)):
        raise ValueError("samples must be positive seconds")
    starts = range(0, len(candidate) - group + 1, group)
    return [min(candidate[s : s + group]) / min(reference[s : s + group]) for s in starts]


def ratio(
    candidate: Sequence[float],
    reference: Sequence[float],
    *,
    group: int = GROUP,
    level: float = 0.98,
    resamples: int = 2000,
    seed: int = 0,
) -> Ratio:
    """Ratio of two times with an interval: percentile bootstrap of the median over groups.

    Args:
        candidate, reference: Seconds, taken in interleaved pairs.
        group: Consecutive pairs in a group.
        level: Two-sided; the share of repetitions whose interval holds the true ratio.
        resamples: Of the groups, with replacement.
        seed: Of the resampling; equal seeds give equal intervals.

    Raises:
        ValueError: The lengths differ, there are fewer than 2 groups, or an argument is out of
            its range.

    Example:
        >>> ratio([1.1, 1.1, 9.0, 1.1] * 8, [1.0, 7.0, 1.0, 1.0] * 8)
        Ratio(estimate=1.1, low=1.1, high=1.1, groups=8)
    """
    if group < 1 or resamples < 1 or not 0 < level < 1:
        raise ValueError(
            "group and resamples must be at least 1 and level between 0 and 1,"
            f" got {group}, {resamples} and {level}"
        )
    ratios = np.array(group_ratios(candidate, reference, group=group))
    if ratios.size < 2:
        raise ValueError(f"an interval needs at least 2 groups of {group} pairs, got {ratios.size}")
    drawn = np.random.default_rng(seed).integers(ratios.size, size=(resamples, ratios.size))
    medians = np.median(ratios[drawn], axis=1)
    low, high = np.quantile(medians, [(1 - level) / 2, (1 + level) / 2])
    return Ratio(float(np.median(ratios)), float(low), float(high), int(ratios.size))


def bounded(ratios: Sequence[float], level: float) -> Ratio:
    """The median of groups' ratios between two one-sided bounds, each exact at its ``level``.

    Of ``n`` independent ratios the k-th smallest lies above their true median with probability
    ``P(Bin(n, 1/2) < k)``, whatever their distribution. The lower bound takes the largest ``k``
    for which that is at most ``1 - level``; the upper bound is the k-th largest. Where even
    ``k = 1`` is too many, ``n < log2(1 / (1 - level))``, there is no bound: it is infinite.

    Example:
        >>> bounded([1.0, 1.2, 1.1, 1.3, 1.5, 1.4, 1.6], 0.99)
        Ratio(estimate=1.3, low=1.0, high=1.6, groups=7)
        >>> bounded([1.0, 1.2, 1.1], 0.99)
        Ratio(estimate=1.1, low=-inf, high=inf, groups=3)
    """
    if not 0.5 < level < 1:
        raise ValueError(f"level must be between 0.5 and 1, got {level}")
    ordered, n = sorted(ratios), len(ratios)
    if not n:
        raise ValueError("there are no groups")
    k, below = 0, 0.0
    while True:
        below += math.comb(n, k) / 2**n  # P(Bin(n, 1/2) <= k)
        if below > 1 - level:
            break
        k += 1
    estimate = float(np.median(ordered))
    if not k:
        return Ratio(estimate, -math.inf, math.inf, n)
    return Ratio(estimate, ordered[k - 1], ordered[n - k], n)
