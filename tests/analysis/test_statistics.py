"""Paired differences and their interval, against scipy's own."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analysis.statistics import Estimate, estimate, paired_differences

FINITE = st.floats(-1, 1, allow_nan=False)


def series(values, blocks=None):
    return pd.Series(values, index=range(len(values)) if blocks is None else blocks, dtype=float)


@pytest.mark.parametrize("n", [3, 5, 10, 30])
@pytest.mark.parametrize("confidence", [0.90, 0.95, 0.99])
def test_the_interval_is_scipys_paired_t_interval(n, confidence):
    draw = np.random.default_rng(n)
    one, other = draw.normal(0.9, 0.01, n), draw.normal(0.89, 0.02, n)
    found = estimate(paired_differences(series(one), series(other)), confidence)
    oracle = stats.ttest_rel(one, other).confidence_interval(confidence)
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high), rel=1e-12)
    assert found.n == n
    assert found.mean == pytest.approx(np.mean(one - other), rel=1e-12)
    assert found.spread == pytest.approx(np.std(one - other, ddof=1), rel=1e-12)
    assert found.half_width == pytest.approx((oracle.high - oracle.low) / 2, rel=1e-12)


def test_the_interval_covers_as_often_as_it_says():
    draw = np.random.default_rng(0)
    found = [estimate(series(draw.normal(1, 2, 4))) for _ in range(2000)]
    assert np.mean([e.low <= 1 <= e.high for e in found]) == pytest.approx(0.95, abs=0.015)


def test_one_value_has_a_mean_and_no_interval():
    assert estimate(series([0.25])) == Estimate(1, 0.25)
    assert estimate(series([0.25])).half_width is None


def test_two_values_have_a_spread_and_no_interval():
    found = estimate(series([0.25, 0.75]))
    assert (found.n, found.mean, found.low, found.high) == (2, 0.5, None, None)
    assert found.spread == pytest.approx(0.5 / math.sqrt(2))


def test_no_value_is_no_estimate():
    assert estimate(series([])) is None
    assert estimate(series([math.nan, math.nan])) is None


def test_equal_values_have_no_interval():
    accuracies, other = series([0.9, 0.8, 0.3]), series([0.8, 0.7, 0.2])
    differences = paired_differences(accuracies, other)
    assert differences.nunique() > 1, "equal but for rounding"
    found = estimate(differences)
    assert (found.n, found.spread, found.low, found.high) == (3, 0.0, None, None)


@given(st.lists(FINITE, min_size=1, max_size=8), st.randoms())
def test_pairing_is_by_block_whatever_the_order(values, shuffle):
    blocks = list(range(len(values)))
    shuffle.shuffle(blocks)
    one = series([values[block] for block in blocks], blocks)
    assert paired_differences(one, series(values)).tolist() == [0.0] * len(values)


def test_a_block_that_either_lacks_is_left_out():
    one = series([0.1, 0.2, math.nan, 0.4], [0, 1, 2, 3])
    other = series([0.3, 0.1, 0.1], [3, 2, 1])
    found = paired_differences(one, other)
    assert found.index.tolist() == [1, 3]
    assert found.tolist() == pytest.approx([0.1, 0.1])


def test_a_block_that_appears_twice_is_refused():
    with pytest.raises(ValueError, match=r"blocks \[1\] appear twice"):
        paired_differences(series([1, 2, 3], [0, 1, 1]), series([1, 2]))
