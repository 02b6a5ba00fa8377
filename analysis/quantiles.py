"""How many standard errors an interval is wide, if several are to hold at once."""

import math
from functools import lru_cache

import numpy as np
from scipy import optimize, special
from scipy.stats import qmc

# Contrasts as rows, arms as columns: the estimate of row w is ``w @ means``.
Weights = tuple[tuple[float, ...], ...]

SPENT = 0.8  # the rest is for spreads that are estimated
_NUM_POINTS, _NUM_GROUPS = 2**15, 256


def student(confidence: float, df: float) -> float:
    """Two-sided quantile of Student's t: the interval of one contrast."""
    return float(special.stdtrit(df, (1 + confidence) / 2))


@lru_cache(maxsize=4096)
def simultaneous(family: Weights, confidence: float, df: float) -> float:
    """Quantile of the largest ``|t|`` of a family of contrasts that share one estimate of spread.

    The q with ``P(max_c |z_c| <= q s) = confidence``: z normal with the correlation of the
    contrasts, s**2 an independent chi-square over its ``df``. For many arms against one it is
    Dunnett's, for all pairs Tukey's. z is summed over fixed points of a low-discrepancy sequence, s
    is integrated exactly: no random numbers, within 0.2 % of the tables (the tests say against
    which). Of one contrast it is Student's, and that exactly.

    Args:
        family: All contrasts that are to hold together.
        confidence: Their joint probability.
        df: Degrees of freedom of s; need not be whole.
    """
    maxima = _maxima(family)
    if maxima is None:
        return student(confidence, df)

    def excess(q: float) -> float:
        return float(special.chdtrc(df, df * (maxima / q) ** 2).mean()) - confidence

    low = student(confidence, df)  # of one contrast; Bonferroni's is the other end
    high = student(1 - (1 - confidence) / len(family), df)
    return float(optimize.brentq(excess, 0.95 * low, 1.05 * high, xtol=1e-9))


def bounds(family: Weights, confidence: float, df: float) -> float:
    """Quantile of one-sided bounds of a family, of which any choice of one a contrast holds.

    Of one contrast it is exact. Of m contrasts each bound errs with an m-th of ``SPENT`` of the
    rest, so that whatever their correlation is and on whichever side each is chosen, they err with
    no more together: a noisy baseline moves two differences as one, and bounds on either side of
    them err with all that they spend. Never above :func:`simultaneous`, which holds on both sides.
    """
    each = (1 - confidence) * (SPENT / len(family) if len(family) > 1 else 1)
    return min(student(1 - 2 * each, df), simultaneous(family, confidence, df))


@lru_cache(maxsize=256)
def _maxima(family: Weights) -> np.ndarray | None:
    """Equally likely values of ``max_c |z_c|``; None if all contrasts are one."""
    weights = np.array(family)
    weights = weights / np.linalg.norm(weights, axis=1, keepdims=True)
    values, vectors = np.linalg.eigh(weights @ weights.T)
    kept = values > 1e-9
    if kept.sum() == 1:
        return None
    factor = vectors[:, kept] * np.sqrt(values[kept])
    # Unscrambled, shifted by half a step from the corner, where a normal quantile is infinite.
    points = qmc.Sobol(int(kept.sum()), scramble=False).random(_NUM_POINTS) + 0.5 / _NUM_POINTS
    largest = np.zeros(_NUM_POINTS)
    normal = special.ndtri(points)
    for row in factor:
        np.maximum(largest, np.abs(normal @ row), out=largest)
    # Means of neighbours: the integral over s below is smooth, and is taken hundreds of times.
    return np.sort(largest).reshape(_NUM_GROUPS, -1).mean(axis=1)


def effect_found(quantile: float, df: float, power: float = 0.8) -> float:
    """The effect, in standard errors, whose ``|t|`` exceeds ``quantile`` with chance ``power``."""

    def lacking(effect: float) -> float:
        return float(special.nctdtr(df, effect, quantile)) - (1 - power)

    high = quantile + 1.0
    while lacking(high) > 0:
        high *= 2
        if not math.isfinite(high):
            raise ValueError(f"quantile {quantile} is beyond what can be integrated")
    return float(optimize.brentq(lacking, 0.0, high))
