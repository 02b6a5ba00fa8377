"""Simultaneous intervals of contrasts between arms, from values that are paired by block.

Two kinds. ``tails=2``: all intervals of the family hold together. ``tails=1``: an interval is two
bounds, and any choice of one bound a contrast holds together: what equivalence asks for, where
each contrast is at the margin on one side, and nobody knows on which.

How wide: the widest of three, each the standard error of another model times a quantile of its own.

``pooled``     arms and blocks add up, all arms are equally noisy: residual of the two-way table
               of the a arms that the contrasts name, (a - 1)(n - 1) degrees of freedom; quantile
               of the largest t of the family.
``contrasts``  the contrasts are equally noisy, whatever the arms are: mean of their variances,
               with the degrees of freedom of Satterthwaite, ``(n - 1) tr(S)**2 / tr(S S)`` of
               their covariance S; the same quantile at these.
``own``        this contrast alone, n - 1 degrees of freedom; the larger of its quantile by itself
               at these, and of the quantile of ``pooled``. (A quantile for several separate spreads
               at n - 1 would cost a tenth of the power at ten blocks and eight arms.)

The first alone calls up to 22 % of studies without an effect when one arm is noisier than the
others; the widest of the three covers at least 95 % wherever it was simulated
(``tests/analysis/test_simulated.py``).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.quantiles import Weights, bounds, effect_found, simultaneous

MOST_BLOCKS = 1000


@dataclass(frozen=True)
class Model:
    """One estimate of a contrast's noise: its variance in one block, ``rate * (n - 1)`` degrees of
    freedom from n blocks."""

    name: str
    variance: float
    rate: float


@dataclass(frozen=True, kw_only=True)
class Interval:
    """``mean +- half_width``, one of a family that holds together with ``confidence``.

    ``tails``: 2, an interval; 1, two bounds. ``models``: the three estimates of noise; ``basis``,
    ``df``, ``quantile``: of the widest. All differences equal: there is no noise to judge by, and
    ``half_width`` is 0.
    """

    n: int
    mean: float
    half_width: float
    confidence: float
    tails: int
    basis: str
    df: float
    quantile: float
    models: tuple[Model, ...]
    family: Weights

    @property
    def low(self) -> float:
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        return self.mean + self.half_width

    @property
    def smallest_effect(self) -> float:
        """The difference that this interval would have told from zero with a chance of 80 %."""
        if self.half_width == 0:
            return 0.0
        return effect_found(self.quantile, self.df) * self.half_width / self.quantile


def pairwise(contrasts: Sequence[tuple[str, str]], arms: Sequence[str]) -> Weights:
    """Weights of ``arm - against`` for each pair; the columns are ``arms``.

    >>> pairwise([("b", "a"), ("c", "b")], ["a", "b", "c"])
    ((-1.0, 1.0, 0.0), (0.0, -1.0, 1.0))
    """
    return tuple(
        tuple(float(label == arm) - float(label == against) for label in arms)
        for arm, against in contrasts
    )


def simultaneous_intervals(
    values: np.ndarray,
    weights: Weights,
    confidence: float,
    family: Weights | None = None,
    tails: int = 2,
) -> list[Interval]:
    """An interval a row of ``weights``; all of ``family`` hold together with ``confidence``.

    Args:
        values: (n, a): a row a block, a column an arm; none is missing.
        weights: (m, a): the contrasts that there are values for; each row sums to zero.
        confidence: Joint probability.
        family: All contrasts that were declared, if some cannot be estimated: over columns of its
            own, since only the correlation counts. Default: ``weights``.
        tails: 2: intervals that hold together; 1: bounds of which any one a contrast do.

    Raises:
        ValueError: Fewer than two blocks, a value that is not finite, weights that do not fit.
    """
    n, num_arms = values.shape
    matrix = np.array(weights, float)
    if n < 2 or not np.isfinite(values).all():
        raise ValueError(f"{n} blocks of values; allowed: two or more, all finite")
    if matrix.shape[1:] != (num_arms,) or np.abs(matrix.sum(axis=1)).max() > 1e-9:
        raise ValueError(f"weights {weights}; allowed: {num_arms} a row, which sum to zero")
    declared = weights if family is None else family
    sizes = (matrix**2).sum(axis=1)
    differences = values @ matrix.T
    covariance = np.cov(differences / np.sqrt(sizes), rowvar=False).reshape(len(sizes), -1)
    residual = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
    floor = (1e-12 * np.abs(values).max()) ** 2  # below is rounding
    pooled = _above((residual**2).sum() / ((num_arms - 1) * (n - 1)), floor)
    shared = _above(np.trace(covariance) / len(sizes), floor)
    rate = np.trace(covariance) ** 2 / (covariance**2).sum() if shared else 1.0
    intervals = []
    for index, size in enumerate(sizes.tolist()):
        own = _above(covariance[index, index], floor)
        models = (
            Model("pooled", size * pooled, num_arms - 1.0),
            Model("contrasts", size * shared, float(rate)),
            Model("own", size * own, 1.0),
        )
        width, quantile, model = widest(models, declared, confidence, n, tails)
        intervals.append(
            Interval(
                n=n,
                mean=float(differences[:, index].mean()),
                half_width=width,
                confidence=confidence,
                tails=tails,
                basis=model.name,
                df=model.rate * (n - 1),
                quantile=quantile,
                models=models,
                family=declared,
            )
        )
    return intervals


def widest(
    models: Sequence[Model], family: Weights, confidence: float, n: int, tails: int = 2
) -> tuple[float, float, Model]:
    """The largest half-width of ``models`` at ``n`` blocks, its quantile, and its model."""
    of = bounds if tails == 1 else simultaneous
    found = []
    for model in models:
        df = model.rate * (n - 1)
        if model.name == "own":
            together = of(family, confidence, models[0].rate * (n - 1))
            quantile = max(of(family[:1], confidence, df), together)
        else:
            quantile = of(family, confidence, df)
        found.append((quantile * (model.variance / n) ** 0.5, quantile, model))
    return max(found, key=lambda item: item[0])


def blocks_until(interval: Interval, half_width: float) -> int | None:
    """Blocks until the interval is as narrow, were the noise to stay as it is; None: never.

    From the width and not from the observed effect, whose N is useless: 8 to 250 for one truth.
    Never means that more than ``MOST_BLOCKS`` are needed.
    """
    if half_width <= 0:
        return None

    def narrow(n: int) -> bool:
        found = widest(interval.models, interval.family, interval.confidence, n, interval.tails)
        return found[0] <= half_width

    low, high = 1, 2  # not narrow at low
    while not narrow(high):
        low, high = high, 2 * high
        if low >= MOST_BLOCKS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if narrow(middle) else (middle, high)
    return high if high <= MOST_BLOCKS else None


def _above(variance: float, floor: float) -> float:
    return float(variance) if variance > floor else 0.0
