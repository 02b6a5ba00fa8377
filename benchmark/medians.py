"""Medians of ratios, and how well they are known."""

import math
from collections.abc import Sequence

CONFIDENCE = 0.95


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Interval of the median that is exact whatever the distribution; infinite if too few.

    Of n independent values the k-th smallest lies above their median with the probability that
    fewer than k of n tossed coins fall; k is the largest for which it is half of the error or less.
    """
    ordered, n = sorted(values), len(values)
    k, chance = 0, 0.5**n
    while chance <= (1 - confidence) / 2:
        k += 1
        chance += math.comb(n, k) * 0.5**n
    return (ordered[k - 1], ordered[n - k]) if k else (-math.inf, math.inf)
