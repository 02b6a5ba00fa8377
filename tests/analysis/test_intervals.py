"""Simultaneous quantiles and intervals, against tables, scipy and statsmodels."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

from analysis import intervals as module
from analysis.intervals import blocks_until, pairwise, simultaneous_intervals, widest
from analysis.looks import FEWEST_BLOCKS, reached, share
from analysis.maxt import smallest_p
from analysis.quantiles import bounds, effect_found, simultaneous, student
from analysis.verdicts import within

ARMS = ("a", "b", "c", "d", "e")


def against_first(num_arms):
    labels = [str(arm) for arm in range(num_arms)]
    return pairwise([(label, "0") for label in labels[1:]], labels)


def made(n=10, num_arms=5, seed=3):
    draw = np.random.default_rng(seed)
    return 0.9 + 0.01 * draw.standard_normal((n, num_arms)) + 0.02 * draw.standard_normal((n, 1))


@pytest.mark.parametrize("num_arms", [3, 5, 8])
@pytest.mark.parametrize("df", [5, 20, 63.5])
@pytest.mark.parametrize("confidence", [0.90, 0.95, 0.983])
def test_of_all_pairs_the_quantile_is_tukeys(num_arms, df, confidence):
    labels = [str(arm) for arm in range(num_arms)]
    family = pairwise(list(itertools.combinations(labels, 2)), labels)
    oracle = stats.studentized_range.ppf(confidence, num_arms, df) / 2**0.5
    assert simultaneous(family, confidence, df) == pytest.approx(oracle, rel=2e-3)


def dunnett(contrasts, q, df):
    """P(all |t| <= q) by Dunnett's double integral: given the baseline, arms are independent."""
    z, at = np.polynomial.hermite_e.hermegauss(80)
    s = np.linspace(1e-3, 4, 2001)[:, None]
    inside = stats.norm.cdf(z + q * 2**0.5 * s) - stats.norm.cdf(z - q * 2**0.5 * s)
    given_s = (inside**contrasts @ at) / at.sum()
    density = stats.chi2.pdf(df * s[:, 0] ** 2, df) * 2 * df * s[:, 0]
    return np.trapezoid(given_s * density, s[:, 0])


@pytest.mark.parametrize("contrasts", [2, 3, 7, 12])
@pytest.mark.parametrize("df", [5, 15, 63])
@pytest.mark.parametrize("confidence", [0.90, 0.95])
def test_of_many_against_one_the_quantile_is_dunnetts(contrasts, df, confidence):
    found = simultaneous(against_first(contrasts + 1), confidence, df)
    assert dunnett(contrasts, found, df) == pytest.approx(confidence, abs=1e-3)


def test_the_quantile_is_scipys_for_unpaired_arms():
    draw = np.random.default_rng(0)
    groups = draw.standard_normal((5, 8))
    found = stats.dunnett(*groups[1:], control=groups[0], rng=np.random.default_rng(1))
    low, high = found.confidence_interval(0.95)
    spread = np.sqrt(groups.var(axis=1, ddof=1).mean() * 2 / 8)
    oracle = (high - low) / 2 / spread
    assert simultaneous(against_first(5), 0.95, 35) == pytest.approx(oracle.mean(), rel=0.01)


def test_of_one_contrast_the_quantile_is_students():
    for family in (against_first(2), ((1.0, -1.0), (-1.0, 1.0))):
        assert simultaneous(family, 0.95, 9) == student(0.95, 9) == stats.t.ppf(0.975, 9)


@pytest.mark.parametrize("df", [5, 20, 63.5])
def test_bounds_of_one_contrast_are_two_one_sided_tests(df):
    assert bounds(against_first(2), 0.95, df) == pytest.approx(stats.t.ppf(0.95, df))


@pytest.mark.parametrize("contrasts", [2, 3, 7, 12])
@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.999])
def test_bounds_hold_on_whichever_side_each_is_chosen(contrasts, correlation):
    """One bound a contrast, the sides in turn, whatever the contrasts have in common."""
    draw, df = np.random.default_rng(contrasts), 9
    shape = (100_000, contrasts)
    z = (1 - correlation) ** 0.5 * draw.standard_normal(shape)
    z += correlation**0.5 * draw.standard_normal((shape[0], 1))
    t = z / np.sqrt(draw.chisquare(df, (shape[0], 1)) / df)
    quantile = bounds(against_first(contrasts + 1), 0.95, df)
    turns = (-1) ** np.arange(contrasts)
    for sides in (np.ones(contrasts), turns):
        assert (sides * t > quantile).any(axis=1).mean() <= 0.052
    joint = simultaneous(against_first(contrasts + 1), 0.90, df)
    if correlation == 0.999 and contrasts == 2:
        found = (turns * t > joint).any(axis=1).mean()
        assert found > 0.055, "intervals that hold together at 90 % would not do"
    assert quantile <= simultaneous(against_first(contrasts + 1), 0.95, df)


def test_equivalence_of_one_contrast_is_statsmodels():
    values = made(num_arms=2) - [0, 0.004]
    [narrow] = simultaneous_intervals(values, ((-1.0, 1.0),), 0.95, tails=1)
    for margin in (0.004, 0.01, 0.02, 0.05):
        p, *_ = ttost_paired(values[:, 1], values[:, 0], -margin, margin)
        assert within(narrow, margin) == (p < 0.05), (margin, p)
    assert ttost_paired(values[:, 1], values[:, 0], -0.05, 0.05)[0] < 0.05, "or nothing is seen"


def test_of_separate_pairs_it_is_that_of_independent_ones_by_simulation():
    family = pairwise([("b", "a"), ("d", "c")], "abcd")
    draw = np.random.default_rng(0)
    z, s = draw.standard_normal((200_000, 2)), np.sqrt(draw.chisquare(12, (200_000, 1)) / 12)
    oracle = np.quantile(np.abs(z / s).max(axis=1), 0.95)
    assert simultaneous(family, 0.95, 12) == pytest.approx(oracle, rel=0.01)


def test_two_arms_get_the_paired_t_interval():
    values = made(num_arms=2)
    [found] = simultaneous_intervals(values, ((-1.0, 1.0),), 0.95)
    oracle = stats.ttest_rel(values[:, 1], values[:, 0]).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high), rel=1e-9)
    assert found.df == 9 and found.n == 10


def test_the_three_models_are_those_of_their_definitions():
    values = made()
    weights = pairwise([("b", "a"), ("d", "c"), ("e", "a")], ARMS)
    found = simultaneous_intervals(values, weights, 0.95)
    long = pd.DataFrame(
        [
            (value, arm, block)
            for block, row in enumerate(values)
            for arm, value in zip(ARMS, row, strict=True)
        ],
        columns=["y", "arm", "block"],
    )
    fitted = ols("y ~ C(arm) + C(block)", long).fit()
    for interval, row in zip(found, weights, strict=True):
        pooled, contrasts, own = interval.models
        assert pooled.variance == pytest.approx(2 * fitted.mse_resid)
        assert pooled.rate * 9 == fitted.df_resid
        differences = values @ np.array(row)
        assert own.variance == pytest.approx(differences.var(ddof=1))
        assert interval.mean == pytest.approx(differences.mean())
        s = np.cov((values @ np.array(weights).T).T)
        assert contrasts.variance == pytest.approx(np.trace(s) / 3)
        eigen = np.linalg.eigvalsh(s)
        assert contrasts.rate == pytest.approx(eigen.sum() ** 2 / (eigen**2).sum())
    mean = fitted.params["C(arm)[T.b]"]
    assert found[0].mean == pytest.approx(mean)
    assert (found[0].models[0].variance / 10) ** 0.5 == pytest.approx(fitted.bse["C(arm)[T.b]"])


def test_the_widest_model_decides():
    noisy = made()
    noisy[:, 4] += 0.1 * np.random.default_rng(5).standard_normal(10)
    weights = pairwise([("b", "a"), ("e", "a")], ARMS[:2] + ARMS[4:])
    found = simultaneous_intervals(noisy[:, [0, 1, 4]], weights, 0.95)
    assert found[1].basis == "own", "the noisy arm is judged by its own spread"
    for interval in found:
        widths = [
            widest([interval.models[0], m], interval.family, 0.95, 10)[0] for m in interval.models
        ]
        assert interval.half_width == pytest.approx(max(widths))


def test_a_family_is_wider_than_one_and_counts_what_is_lost():
    values, weights = made(num_arms=3), against_first(3)
    wide = simultaneous_intervals(values, weights, 0.95, family=against_first(8))
    joint = simultaneous_intervals(values, weights, 0.95)
    alone = simultaneous_intervals(values, weights, 0.95, family=weights[:1])
    assert wide[0].half_width > joint[0].half_width > alone[0].half_width


def test_no_noise_is_no_width():
    values = np.tile([[0.8, 0.9]], (6, 1)) + np.arange(6)[:, None] / 10
    [found] = simultaneous_intervals(values, ((-1.0, 1.0),), 0.95)
    assert found.half_width == 0 and found.smallest_effect == 0


@pytest.mark.parametrize(
    ("values", "weights", "message"),
    [
        (np.zeros((1, 2)), ((-1.0, 1.0),), "1 blocks of values"),
        (np.full((3, 2), np.nan), ((-1.0, 1.0),), "all finite"),
        (np.zeros((3, 2)), ((-1.0, 1.0, 0.0),), "weights"),
        (np.zeros((3, 2)), ((-1.0, 0.5),), "sum to zero"),
    ],
)
def test_what_is_no_table_is_refused(values, weights, message):
    with pytest.raises(ValueError, match=message):
        simultaneous_intervals(values, weights, 0.95)


def test_the_smallest_effect_is_statsmodels():
    for n in (6, 10, 20):
        oracle = TTestPower().solve_power(nobs=n, alpha=0.05, power=0.8, alternative="two-sided")
        assert effect_found(student(0.95, n - 1), n - 1) / n**0.5 == pytest.approx(oracle, rel=1e-3)


def test_blocks_until_the_interval_is_as_narrow():
    [found] = simultaneous_intervals(made(num_arms=2), ((-1.0, 1.0),), 0.95)
    assert blocks_until(found, found.half_width * (1 + 1e-9)) == 10
    wanted = found.half_width / 2
    n = blocks_until(found, wanted)

    def width(n):
        return stats.t.ppf(0.975, n - 1) * found.models[2].variance ** 0.5 / n**0.5

    assert width(n) <= wanted < width(n - 1)
    assert blocks_until(found, 0) is None
    assert blocks_until(found, found.half_width / 1e3) is None


def test_planted_defects_of_the_quantile_are_seen(monkeypatch):
    """What the tests above would say of an interval that forgot the others, or its few blocks."""
    values, weights = made(), against_first(5)
    right = simultaneous_intervals(values, weights, 0.95)
    monkeypatch.setattr(module, "simultaneous", lambda family, c, df: student(c, df))
    forgot = simultaneous_intervals(values, weights, 0.95)
    assert all(a.half_width > 1.05 * b.half_width for a, b in zip(right, forgot, strict=True))
    monkeypatch.setattr(module, "simultaneous", lambda family, c, df: simultaneous(family, c, 1e6))
    endless = simultaneous_intervals(values, weights, 0.95)
    assert any(a.half_width > 1.02 * b.half_width for a, b in zip(right, endless, strict=True))


def test_looks_share_the_error_and_need_their_blocks():
    assert share((10,)) == 0.05 and share((6, 10, 15)) == pytest.approx(0.05 / 3)
    assert reached((6, 10), list(range(10))) == [6, 10]
    assert reached((10,), [*range(9), 10]) == [], "nobody chooses the blocks of a look"
    assert smallest_p(FEWEST_BLOCKS) <= 0.05 < smallest_p(FEWEST_BLOCKS - 1)
