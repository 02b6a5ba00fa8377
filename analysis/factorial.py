"""Main effects and interactions of a study whose arms form a grid."""

from dataclasses import dataclass
from itertools import combinations, product

import numpy as np

from analysis.convergence import values_of
from analysis.frames import Frames
from analysis.intervals import Interval, simultaneous_intervals
from analysis.quantiles import Weights
from analysis.statistics import CONFIDENCE, FEWEST_FOR_INTERVAL
from analysis.summary import diverged_arms
from records.grid import Factors, grid


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What a level does, over all arms of the grid.

    Main effect of ``level`` of ``factor``: mean of the arms at it minus mean of those at the
    factor's first level. Interaction, if ``of`` and ``of_level`` are given: how much that effect
    is larger at ``of_level`` of the factor ``of`` than at its first level.
    """

    factor: str
    level: str
    of: str = ""
    of_level: str = ""
    interval: Interval


@dataclass(frozen=True, kw_only=True)
class Factorial:
    """Effects of a grid over ``n`` blocks that have all its arms; ``why`` there are none.

    Intervals of all main effects hold together with the confidence, and those of all interactions.
    """

    n: int
    main: tuple[Effect, ...]
    interactions: tuple[Effect, ...]
    why: str = ""


def factorial(frames: Frames, measure: str = "test_accuracy") -> Factorial | None:
    """Effects of the factors that the plan declares; None if it declares none."""
    factors = frames.plan.factors
    if not factors:
        return None
    cells = grid(factors)
    arms = list(cells.values())
    if diverged := diverged_arms(frames, arms):
        why = f"trials of {', '.join(diverged)} diverged"
        return Factorial(n=0, main=(), interactions=(), why=why)
    columns = [values_of(frames, arm, measure) for arm in arms]
    blocks = sorted(set.intersection(*(set(column.dropna().index) for column in columns)))
    if len(blocks) < FEWEST_FOR_INTERVAL:
        why = f"fewer than {FEWEST_FOR_INTERVAL} whole blocks"
        return Factorial(n=len(blocks), main=(), interactions=(), why=why)
    values = np.column_stack([column.loc[blocks] for column in columns])
    main, interactions = effect_weights(factors)
    return Factorial(
        n=len(blocks),
        main=_effects(values, main),
        interactions=_effects(values, interactions),
    )


Names = tuple[str, str, str, str]


def effect_weights(factors: Factors) -> tuple[dict[Names, list[float]], dict[Names, list[float]]]:
    """Weights of main effects and of two-way interactions, over the arms of the grid in its order.

    Keys are (factor, level, of, of_level); the last two are empty for main effects.
    """
    places = list(product(*factors.values()))
    index = {factor: position for position, factor in enumerate(factors)}

    def step(factor: str, level: str) -> np.ndarray:
        """1 at ``level``, -1 at the first level, 0 elsewhere."""
        first = next(iter(factors[factor]))
        at = [place[index[factor]] for place in places]
        return np.array([float(here == level) - float(here == first) for here in at])

    def others(factor: str) -> list[str]:
        return list(factors[factor])[1:]

    main: dict[Names, list[float]] = {}
    for factor in factors:
        for level in others(factor):
            weights = step(factor, level)
            main[factor, level, "", ""] = (2 * weights / np.abs(weights).sum()).tolist()
    interactions: dict[Names, list[float]] = {}
    for one, other in combinations(factors, 2):
        for level, other_level in product(others(one), others(other)):
            weights = step(one, level) * step(other, other_level)
            scaled = 4 * weights / np.abs(weights).sum()
            interactions[one, level, other, other_level] = scaled.tolist()
    return main, interactions


def _effects(values: np.ndarray, weights: dict[Names, list[float]]) -> tuple[Effect, ...]:
    if not weights:
        return ()
    rows: Weights = tuple(tuple(row) for row in weights.values())
    intervals = simultaneous_intervals(values, rows, CONFIDENCE)
    return tuple(
        Effect(factor=factor, level=level, of=of, of_level=of_level, interval=interval)
        for (factor, level, of, of_level), interval in zip(weights, intervals, strict=True)
    )
