"""The best arm of a study: chosen by looking, so it must hold over all pairs."""

from itertools import combinations

import numpy as np
import pytest

from analysis.best import best_arm
from analysis.intervals import pairwise, simultaneous_intervals

LABELS = ["plain", "gated-1", "gated-2", "linear-2", "linear-3"]


@pytest.mark.parametrize("by", ["between", "beyond"])
def test_the_family_is_that_of_all_pairs(frames_of, by):
    """Between the half-width of one pair by itself and that of all: no arm may be marked."""
    noise = np.random.default_rng(0).normal(scale=0.005, size=(10, len(LABELS)))
    table = 0.8 + noise - noise.mean(axis=0)  # equal means
    weights = pairwise(list(combinations(LABELS, 2)), LABELS)
    alone, joint = (
        max(i.half_width for i in simultaneous_intervals(table, weights, 0.95, family))
        for family in (weights[:1], weights)
    )
    assert alone < 0.8 * joint
    table[:, 2] += (alone + joint) / 2 if by == "between" else 1.2 * joint
    found, why = best_arm(frames_of(dict(zip(LABELS, table.T.tolist(), strict=True)), claims=[]))
    assert found == {"between": None, "beyond": "gated-2"}[by], why
