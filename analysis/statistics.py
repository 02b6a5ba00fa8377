"""Estimates from values that are paired by block. Pure: numbers in, numbers out."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.quantiles import student

CONFIDENCE = 0.95
FEWEST_FOR_INTERVAL = 3  # that of two blocks is 9 standard deviations wide to each side


@dataclass(frozen=True)
class Estimate:
    """A mean over ``n`` blocks and its interval, in the unit of the values.

    ``spread`` is the standard deviation of the values (n - 1 in the denominator). ``low`` and
    ``high`` are None where no interval is told: of fewer than three values, or of equal ones.
    """

    n: int
    mean: float
    spread: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def half_width(self) -> float | None:
        """Half the length of the interval."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


def paired_differences(values: pd.Series, against: pd.Series) -> pd.Series:
    """``values`` minus ``against``, block by block; a block that either lacks is left out.

    Args:
        values, against: Indexed by block, in any order; NaN counts as lacking.

    Raises:
        ValueError: A block appears twice.
    """
    for series in (values, against):
        if not series.index.is_unique:
            twice = series.index[series.index.duplicated()].tolist()
            raise ValueError(f"blocks {twice} appear twice; allowed: one value a block")
    return (values - against).dropna().sort_index()  # pandas aligns the two by block


def estimate(values: pd.Series, confidence: float = CONFIDENCE) -> Estimate | None:
    """Mean of ``values`` and its Student t interval; None if there is no value.

    ``mean +- t * spread / sqrt(n)`` with the quantile t of n - 1 degrees of freedom: exact for
    independent normal values, one interval at a time. Values that are all equal have no spread to
    judge by (accuracies on few test examples often are), so they get no interval; nor do two, whose
    interval is so wide that it would be read as anything.
    """
    found = values.dropna().to_numpy(float)
    n = len(found)
    if n == 0:
        return None
    mean = math.fsum(found) / n
    if n == 1:
        return Estimate(n, mean)
    spread = float(np.std(found, ddof=1))
    if np.ptp(found) <= 1e-12 * max(1.0, abs(mean)):  # equal but for rounding
        return Estimate(n, mean, 0.0)
    if n < FEWEST_FOR_INTERVAL:
        return Estimate(n, mean, spread)
    half_width = student(confidence, n - 1) * spread / math.sqrt(n)
    return Estimate(n, mean, spread, mean - half_width, mean + half_width)
