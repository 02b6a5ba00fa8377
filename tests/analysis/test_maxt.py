"""The exact test, against scipy's permutation test and by hand."""

import itertools

import numpy as np
import pytest
from scipy import stats

from analysis.maxt import MOST_EXACT, max_t, smallest_p


@pytest.mark.parametrize("n", [2, 6, 9])
def test_of_one_contrast_it_is_scipys_sign_flip_test(n):
    values = np.random.default_rng(n).normal(0.5, 1, n)
    oracle = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    [p] = max_t(values[:, None])
    assert p == pytest.approx(oracle.pvalue)


def by_definition(differences):
    """Step-down p, pattern by pattern, over all 2^n of them."""
    n, m = differences.shape
    means = np.abs(differences.mean(axis=0))
    p, last = np.zeros(m), 0.0
    left = list(np.argsort(-means))
    while left:
        here = left[0]
        count = sum(
            max(abs(np.dot(signs, differences[:, c])) / n for c in left) >= means[here] - 1e-12
            for signs in itertools.product((1, -1), repeat=n)
        )
        last = max(last, count / 2**n)
        p[here] = last
        left.pop(0)
    return p


@pytest.mark.parametrize("seed", range(4))
def test_it_is_its_definition(seed):
    draw = np.random.default_rng(seed)
    differences = draw.normal(size=(6, 3)) + draw.normal(size=(6, 1)) + [1.0, 0.4, 0]
    assert max_t(differences) == pytest.approx(by_definition(differences))


def test_six_blocks_that_agree_reach_what_six_blocks_can():
    found = max_t(np.array([[0.1, 0.02], [0.2, 0.01], [0.1, 0.03], [0.3, 0.02]] * 2)[:6])
    assert found == (2 / 64, 2 / 64) == (smallest_p(6),) * 2


def test_ties_count_as_reached():
    """Differences of 1, 1, 1, -1 examples: 10 of 16 patterns give a mean as large."""
    [p] = max_t(np.array([[0.001], [0.001], [0.001], [-0.001]]) * 3.3)
    assert p == 10 / 16


def test_a_large_effect_does_not_hide_a_small_one():
    draw = np.random.default_rng(0)
    small = 0.01 + 0.001 * draw.standard_normal(10)
    large = 0.1 + 0.001 * draw.standard_normal(10)
    assert max(max_t(np.column_stack([small, large]))) == smallest_p(10)


def test_beyond_what_can_be_counted_patterns_are_drawn_and_repeat():
    values = np.random.default_rng(1).normal(0.4, 1, (MOST_EXACT + 1, 2))
    found, again = max_t(values), max_t(values)
    assert found == again
    oracle = by_definition_of_one(values[:, 0])
    assert max_t(values[:, :1])[0] == pytest.approx(oracle, abs=0.01)
    assert min(max_t(np.ones((30, 1)))) >= smallest_p(30) > 0


def by_definition_of_one(values):
    signs = np.array(list(itertools.product((1, -1), repeat=len(values) - 1)))
    means = np.abs(values[0] + signs @ values[1:])
    return (means >= abs(values.sum()) - 1e-12).mean()


@pytest.mark.parametrize("values", [np.zeros((0, 2)), np.zeros(3), np.array([[np.nan]])])
def test_what_is_no_table_is_refused(values):
    with pytest.raises(ValueError, match="allowed: .blocks, contrasts., all finite"):
        max_t(values)


def false_rate(flip, studies=400, num_arms=6, n=8):
    """How often a study without an effect gets a p of 5 % by ``flip``."""
    draw = np.random.default_rng(7)
    false = 0
    for _ in range(studies):
        noise = draw.standard_normal((n, num_arms))
        noise[:, 0] *= 3
        false += min(flip(noise[:, 1:] - noise[:, :1])) <= 0.05
    return false / studies


def each_by_itself(differences):
    """Planted: contrasts that are flipped alone, as if there were no others."""
    return [max_t(differences[:, [c]])[0] for c in range(differences.shape[1])]


def test_arms_that_are_flipped_alone_are_caught():
    assert false_rate(max_t) <= 0.07
    assert false_rate(each_by_itself) > 0.09, "the test above could not have caught it"


def one_arm_apart(differences):
    """Planted: the last contrast is flipped by signs of its own, the others together."""
    n, m = differences.shape
    means = np.abs(differences.mean(axis=0))
    signs = np.array(list(itertools.product((1, -1), repeat=n)))
    shuffled = signs[np.random.default_rng(0).permutation(len(signs))]
    flipped = np.abs(np.column_stack([signs @ differences[:, :-1], shuffled @ differences[:, -1]]))
    return (flipped.max(axis=1)[:, None] / n >= means - 1e-12).mean(axis=0)


def test_one_arm_that_is_flipped_apart_from_its_block_is_caught():
    """Contrasts with one baseline go together; a flip apart from it forgets by how much."""
    draw = np.random.default_rng(5)
    values = draw.standard_normal((8, 3)) * [3, 1, 1]
    differences = values[:, 1:] - values[:, :1]
    order = np.argsort(-np.abs(differences.mean(axis=0)))
    largest = order[0]
    right = by_definition(differences)[largest]
    assert max_t(differences)[largest] == pytest.approx(right)
    assert abs(one_arm_apart(differences)[largest] - right) > 0.01


def one_sided(differences):
    """Planted: only patterns whose mean is as high count, not those that are as low."""
    n = len(differences)
    signs = np.array(list(itertools.product((1, -1), repeat=n)))
    flipped = (signs @ differences / n).max(axis=1)
    return (flipped[:, None] >= differences.mean(axis=0) - 1e-12).mean(axis=0)


def test_it_is_two_sided():
    differences = np.random.default_rng(3).normal(0.3, 1, (8, 3))
    assert max_t(differences * [1, -1, 1]) == max_t(differences)
    [p] = max_t(-np.abs(differences[:, :1]))
    assert p == smallest_p(8) == 2 / 2**8, "all eight below zero are as telling as all above"
    assert one_sided(np.abs(differences[:, :1])) == [1 / 2**8], "half of it"
    assert one_sided(-np.abs(differences[:, :1])) == [1.0], "and blind to the other side"
