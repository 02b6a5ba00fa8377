import math
import random

import numpy as np
import pytest
from scipy import stats

from overconv.bench.statistics import bounded, group_ratios, ratio


def contended(seconds, count, seed):
    """Samples of which half were interrupted, some of them for long."""
    draw = random.Random(seed)
    clean = (seconds * (1 + 0.01 * draw.expovariate(1)) for _ in range(count))
    return [c * draw.uniform(1.8, 5) if draw.random() < 0.5 else c for c in clean]


def test_a_group_gives_the_ratio_of_its_minima():
    candidate = [3.0, 2.0, 9.0, 8.0, 7.0, 5.0, 100.0]
    reference = [1.0, 4.0, 4.0, 4.0, 2.0, 9.0, 1.0]
    assert group_ratios(candidate, reference, group=3) == [2.0 / 1.0, 5.0 / 2.0]
    assert group_ratios(candidate, reference, group=2) == [2.0, 2.0, 2.5]


@pytest.mark.parametrize("true", [1.0, 1.05, 1.1])
def test_the_ratio_survives_interruptions_that_move_the_median(true):
    found = [ratio(contended(true, 160, s), contended(1.0, 160, s + 1000)) for s in range(1, 21)]
    assert all(abs(r.estimate / true - 1) < 0.015 for r in found)
    assert all(r.low < r.estimate < r.high and r.groups == 40 for r in found)
    assert np.mean([r.low <= true <= r.high for r in found]) >= 0.9
    naive = [
        np.median(contended(true, 160, s)) / np.median(contended(1.0, 160, s + 1000))
        for s in range(1, 21)
    ]
    assert max(abs(n / true - 1) for n in naive) > 0.2


def test_the_interval_is_a_percentile_bootstrap_of_the_median():
    candidate, reference = contended(1.1, 80, 3), contended(1.0, 80, 4)
    ratios = group_ratios(candidate, reference)
    other = stats.bootstrap(
        (ratios,),
        np.median,
        confidence_level=0.9,
        method="percentile",
        n_resamples=20000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    ours = ratio(candidate, reference, level=0.9, resamples=20000)
    assert ours.low == pytest.approx(other.low, abs=2e-4)
    assert ours.high == pytest.approx(other.high, abs=2e-4)
    wider = ratio(candidate, reference, level=0.99, resamples=20000)
    assert wider.low < ours.low and ours.high < wider.high


def test_equal_seeds_give_equal_intervals():
    samples = contended(1.1, 40, 3), contended(1.0, 40, 4)
    assert ratio(*samples, resamples=50) == ratio(*samples, resamples=50)
    assert ratio(*samples, resamples=50) != ratio(*samples, resamples=50, seed=1)


@pytest.mark.parametrize(
    ("candidate", "reference", "more", "complaint"),
    [
        ([1.0] * 8, [1.0] * 7, {}, "in pairs, got 8 of the candidate and 7 of the reference"),
        ([1.0] * 7, [1.0] * 7, {}, "at least 2 groups of 4 pairs, got 1"),
        ([1.0] * 8, [0.0] * 8, {}, "positive seconds"),
        ([math.nan] * 8, [1.0] * 8, {}, "positive seconds"),
        ([1.0] * 8, [1.0] * 8, {"group": 0}, "got 0, 2000 and 0.98"),
        ([1.0] * 8, [1.0] * 8, {"level": 1.0}, "level between 0 and 1"),
    ],
)
def test_what_gives_no_ratio_is_refused(candidate, reference, more, complaint):
    with pytest.raises(ValueError, match=complaint):
        ratio(candidate, reference, **more)


@pytest.mark.parametrize("level", [0.99, 0.9996, 0.99993])
@pytest.mark.parametrize("n", [5, 10, 20, 33, 60])
def test_bounds_are_the_order_statistics_of_the_sign_test(n, level):
    ratios = [1 + 0.01 * i for i in range(n)]
    random.Random(0).shuffle(ratios)
    found = bounded(ratios, level)
    k = 0
    while stats.binom.cdf(k, n, 0.5) <= 1 - level:
        k += 1
    ordered = sorted(ratios)
    expected = (ordered[k - 1], ordered[-k]) if k else (-math.inf, math.inf)
    assert (found.low, found.high) == expected
    assert found.estimate == pytest.approx(np.median(ratios))


def test_bounds_hold_as_often_as_they_say():
    draw = np.random.default_rng(0)
    samples = draw.lognormal(0, 0.5, size=(4000, 20))  # of median 1, far from symmetric
    found = [bounded(row, 0.95) for row in samples]
    for wrong in ([r.low > 1 for r in found], [r.high < 1 for r in found]):
        assert 0.01 < np.mean(wrong) <= 0.055  # 0.021 by the binomial distribution


@pytest.mark.parametrize("level", [0.5, 1.0])
def test_a_level_that_bounds_nothing_is_refused(level):
    with pytest.raises(ValueError, match="between 0.5 and 1"):
        bounded([1.0] * 10, level)
    with pytest.raises(ValueError, match="no groups"):
        bounded([], 0.9)
