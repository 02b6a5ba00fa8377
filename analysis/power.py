"""What a number of blocks can find, how blocks go together, and how often an arm wins."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special, stats

from analysis.quantiles import effect_found, student
from analysis.statistics import CONFIDENCE


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
    spread: float, n: int, power: float = 0.8, confidence: float = CONFIDENCE
) -> float:
    """The difference that n blocks find with chance ``power``, by a paired t test alone.

    Args:
        spread: Standard deviation of the paired differences.

    Raises:
        ValueError: Fewer than two blocks.
    """
    if n < 2:
        raise ValueError(f"{n} blocks; allowed: two or more")
    return effect_found(student(confidence, n - 1), n - 1, power) * spread / n**0.5


def blocks_needed(
    effect: float, spread: float, power: float = 0.8, confidence: float = CONFIDENCE
) -> int:
    """The fewest blocks that find ``effect`` with chance ``power``, by a paired t test alone.

    Raises:
        ValueError: ``effect`` or ``spread`` is not above zero.
    """
    if effect <= 0 or spread <= 0:
        raise ValueError(f"effect {effect}, spread {spread}; allowed: numbers above 0")
    n = 2
    while smallest_effect(spread, n, power, confidence) > effect:
        n += 1
    return n


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
