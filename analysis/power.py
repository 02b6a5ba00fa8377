"""What a number of blocks can find, how blocks go together, and how often an arm wins."""

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special, stats

from analysis.intervals import MOST_BLOCKS
from analysis.quantiles import Weights, effect_found, simultaneous
from analysis.statistics import CONFIDENCE

PAIR: Weights = ((-1.0, 1.0),)  # one arm against another, by itself


@dataclass(frozen=True)
class WinShare:
    """In how many of ``n`` blocks an arm was better; ties count for neither, and are told."""

    wins: int
    n: int
    ties: int
    share: float | None
    low: float | None
    high: float | None


def smallest_effect(
    spread: float,
    n: int,
    family: Weights = PAIR,
    power: float = 0.8,
    confidence: float = CONFIDENCE,
) -> float:
    """The difference that a design of n blocks finds with chance ``power``.

    By the interval that holds for all of ``family`` together, of arms that are equally noisy, with
    ``(a - 1)(n - 1)`` degrees of freedom of its a arms. Of a pair: by a paired t test.

    Args:
        spread: Standard deviation of the paired differences.
        family: The contrasts that are to hold together.

    Raises:
        ValueError: Fewer than two blocks.
    """
    if n < 2:
        raise ValueError(f"{n} blocks; allowed: two or more")
    df = (len(family[0]) - 1) * (n - 1)
    return effect_found(simultaneous(family, confidence, df), df, power) * spread / n**0.5


def blocks_needed(
    effect: float, spread: float, family: Weights = PAIR, confidence: float = CONFIDENCE
) -> int | None:
    """The fewest blocks of which :func:`smallest_effect` is no more; None: above ``MOST_BLOCKS``.

    Raises:
        ValueError: ``effect`` or ``spread`` is not above zero.
    """
    if effect <= 0 or spread <= 0:
        raise ValueError(f"effect {effect}, spread {spread}; allowed: numbers above 0")
    sizes = range(2, MOST_BLOCKS + 1)
    at = bisect_left(
        sizes, -effect, key=lambda n: -smallest_effect(spread, n, family, confidence=confidence)
    )
    return sizes[at] if at < len(sizes) else None


def win_share(differences: pd.Series, confidence: float = CONFIDENCE) -> WinShare:
    """Share of the blocks in which the difference is positive, with its exact interval.

    Clopper and Pearson's, over the blocks that are no ties; no share where all are.
    """
    values = differences.dropna().to_numpy(float)
    wins, ties = int((values > 0).sum()), int((values == 0).sum())
    n = len(values) - ties
    if n == 0:
        return WinShare(wins, n, ties, None, None, None)
    interval = stats.binomtest(wins, n).proportion_ci(confidence, method="exact")
    return WinShare(wins, n, ties, wins / n, float(interval.low), float(interval.high))


def block_correlation(values: np.ndarray) -> float | None:
    """Correlation of two arms within blocks: what pairing gains.

    ``rho = (B - R) / (B + (a - 1) R)`` of the mean squares of blocks and residual in the two-way
    table of n blocks and a arms; negative where blocks move arms apart. A difference of two arms
    varies with ``2 (1 - rho)`` of an arm's variance, against 2 without pairing.

    Args:
        values: (n, a), none missing.

    Raises:
        ValueError: Fewer than two blocks or arms.
    """
    n, num_arms = values.shape
    if n < 2 or num_arms < 2:
        raise ValueError(f"{n} blocks of {num_arms} arms; allowed: two or more of each")
    centred = values - values.mean(axis=0)
    blocks = centred.mean(axis=1, keepdims=True)
    between = num_arms * float((blocks**2).sum()) / (n - 1)
    residual = float(((centred - blocks) ** 2).sum()) / ((n - 1) * (num_arms - 1))
    total = between + (num_arms - 1) * residual
    return (between - residual) / total if total > 0 else None


def hedges_d(differences: pd.Series) -> float | None:
    """Mean over spread of paired differences, corrected for few blocks; None without a spread.

    ``J mean / sd``, ``J = Gamma(m / 2) / (sqrt(m / 2) Gamma((m - 1) / 2))``, ``m = n - 1``.
    """
    values = differences.dropna().to_numpy(float)
    if len(values) < 3 or np.ptp(values) == 0:
        return None
    half = (len(values) - 1) / 2
    correction = np.exp(special.gammaln(half) - special.gammaln(half - 0.5)) / half**0.5
    return float(correction * values.mean() / values.std(ddof=1))
