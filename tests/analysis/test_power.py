"""Power, wins and correlation, against statsmodels, scipy and simulation."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import proportion_confint

from analysis.intervals import pairwise
from analysis.power import block_correlation, blocks_needed, hedges_d, smallest_effect, win_share
from analysis.quantiles import simultaneous


@pytest.mark.parametrize("n", [5, 10, 30])
@pytest.mark.parametrize("power", [0.8, 0.95])
def test_the_smallest_effect_is_statsmodels(n, power):
    oracle = TTestPower().solve_power(nobs=n, alpha=0.05, power=power)
    assert smallest_effect(0.3, n, power=power) == pytest.approx(0.3 * oracle, rel=1e-3)


def test_of_a_family_it_is_the_effect_that_simulated_studies_find():
    """Four arms against one, ten blocks: four studies in five tell it from zero."""
    labels = list("abcde")
    family = pairwise([(label, "a") for label in labels[1:]], labels)
    effect = smallest_effect(2**0.5, 10, family)
    assert effect > smallest_effect(2**0.5, 10), "more is asked of several"
    draw, found = np.random.default_rng(0), 0
    for _ in range(1000):
        values = draw.standard_normal((10, 5)) + [0, effect, 0, 0, 0]
        inside = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
        error = ((inside**2).sum() / 36 * 2 / 10) ** 0.5
        t = abs((values[:, 1] - values[:, 0]).mean()) / error
        found += t > simultaneous(family, 0.95, 36)
    assert found / 1000 == pytest.approx(0.8, abs=0.04)


def test_blocks_needed_are_the_fewest():
    for effect in (0.5, 1.0, 2.0):
        n = blocks_needed(effect, 1.0)
        assert TTestPower().power(effect, n, 0.05) >= 0.8 > TTestPower().power(effect, n - 1, 0.05)
    assert blocks_needed(1e-4, 1.0) is None, "more than a thousand"


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="1 blocks; allowed: two or more"):
        smallest_effect(1, 1)
    with pytest.raises(ValueError, match="effect 0"):
        blocks_needed(0, 1)
    with pytest.raises(ValueError, match="1 blocks of 2 arms"):
        block_correlation(np.zeros((1, 2)))


def test_the_win_share_has_its_exact_interval_and_ties_are_told():
    found = win_share(pd.Series([1, 2, 3, -1, 0, np.nan, 4, 5, 0]))
    low, high = proportion_confint(5, 6, method="beta")
    assert (found.wins, found.n, found.ties, found.share) == (5, 6, 2, 5 / 6)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert win_share(pd.Series([0.0, 0.0])).share is None


@pytest.mark.parametrize("rho", [-0.2, 0.0, 0.6])
def test_the_correlation_is_what_was_put_in(rho):
    draw = np.random.default_rng(0)
    covariance = np.full((3, 3), rho) + (1 - rho) * np.eye(3)
    values = draw.multivariate_normal([0.8, 0.9, 0.7], covariance, 20_000)
    assert block_correlation(values) == pytest.approx(rho, abs=0.01)


def test_two_equally_noisy_arms_have_pearsons():
    draw = np.random.default_rng(1)
    values = draw.normal(size=(50, 2))
    values = (values - values.mean(axis=0)) / values.std(axis=0)
    assert block_correlation(values) == pytest.approx(stats.pearsonr(*values.T).statistic)
    assert block_correlation(np.ones((3, 2))) is None


def test_hedges_correction_takes_the_bias_away():
    draw = np.random.default_rng(2)
    found = [hedges_d(pd.Series(draw.normal(1, 1, 6))) for _ in range(4000)]
    assert np.mean(found) == pytest.approx(1.0, abs=0.03)
    assert hedges_d(pd.Series([1.0, 1.0, 1.0])) is None
