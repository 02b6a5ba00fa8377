"""Seed noise and test-set noise apart: on tables whose components are known."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from analysis.examples import noise, on_new_data, outcomes, paired_outcomes
from records.record import pack_bits


def table(num_blocks, num_examples, block=0.0, example=0.0, rest=1.0, seed=0):
    draw = np.random.default_rng(seed)
    return (
        block * draw.standard_normal((num_blocks, 1))
        + example * draw.standard_normal((1, num_examples))
        + rest * draw.standard_normal((num_blocks, num_examples))
    )


def test_components_are_those_of_the_analysis_of_variance():
    values = table(4, 7, 0.5, 0.8)
    long = pd.DataFrame(
        [(v, b, e) for b, row in enumerate(values) for e, v in enumerate(row)],
        columns=["y", "b", "e"],
    )
    found, squares = noise(values), anova_lm(ols("y ~ C(b) + C(e)", long).fit())
    mean = squares["sum_sq"] / squares["df"]
    assert found.rest == pytest.approx(mean["Residual"])
    assert found.block == pytest.approx(max(0, (mean["C(b)"] - mean["Residual"]) / 7))
    assert found.example == pytest.approx(max(0, (mean["C(e)"] - mean["Residual"]) / 4))


def test_components_are_what_was_put_in():
    found = [noise(table(8, 400, 0.3, 0.5, 1.0, seed)) for seed in range(60)]
    assert np.mean([f.block for f in found]) == pytest.approx(0.09, rel=0.15)
    assert np.mean([f.example for f in found]) == pytest.approx(0.25, rel=0.05)
    assert np.mean([f.test_set for f in found]) == pytest.approx(0.5 / 20, rel=0.05)


def test_errors_are_the_spread_of_repeated_studies():
    means = [table(6, 100, 0.1, 0.6, 1.0, seed).mean() for seed in range(2000)]
    promised = np.mean(
        [noise(table(6, 100, 0.1, 0.6, 1.0, s)).error_on_new_data for s in range(100)]
    )
    assert promised == pytest.approx(np.std(means), rel=0.1)
    here = noise(table(6, 100, 0.1, 0.6))
    by_blocks = table(6, 100, 0.1, 0.6).mean(axis=1).std(ddof=1) / 6**0.5
    assert here.error_here == pytest.approx(by_blocks)


@pytest.fixture
def frames(frames_of):
    """Twenty examples; gated-1 is right in those that plain is, and in some more."""
    made = frames_of({"plain": [0.5, 0.5], "gated-1": [0.6, 0.7]})
    arms, records = {}, []
    for label, configuration in made.plan.arms.items():
        data = configuration["data"] | {"num_test": 20}
        arms[label] = configuration | {"data": data}
    for row, record in zip(made.cells.itertuples(), made.records, strict=True):
        right = round(20 * row.test_accuracy)
        records.append(
            record.model_copy(
                update={
                    "configuration": arms[row.label] | {"block": row.block},
                    "correct": pack_bits([i < right for i in range(20)]),
                }
            )
        )
    object.__setattr__(made, "plan", made.plan.model_copy(update={"arms": arms}))
    object.__setattr__(made, "records", tuple(records))
    return made


def test_bits_are_paired_by_block_and_example(frames):
    assert outcomes(frames, "plain")[0].tolist() == [True] * 10 + [False] * 10
    found = paired_outcomes(frames, "gated-1", "plain", [0, 1])
    assert found.sum(axis=1).tolist() == [2, 4]
    components = noise(found)
    assert components.mean == pytest.approx(6 / 40)
    low, high = on_new_data(components)
    assert low < components.mean < high
    assert paired_outcomes(frames, "gated-1", "plain", [0]) is None, "a single block"


def test_a_diverged_trial_has_no_outcomes(frames_of):
    frames = frames_of({"plain": [0.5, None], "gated-1": [0.5, 0.6]})
    assert list(outcomes(frames, "plain")) == [0]
    assert paired_outcomes(frames, "gated-1", "plain", [0, 1]) is None


def test_a_record_that_hides_how_many_bits_it_has_is_named(frames_of, made):
    arms = {"plain": made.configuration("plain", "x") | {"data": {"name": "digits"}}}
    with pytest.raises(ValueError, match="data.num_test is None"):
        outcomes(frames_of({"plain": [0.5]}, arms=arms), "plain")


def test_on_new_data_it_is_students_interval_with_both_errors():
    values = table(6, 50, 0.3, 0.5, 1.0)
    found = noise(values)
    error = np.hypot(stats.sem(values.mean(axis=1)), found.example**0.5 / 50**0.5)
    oracle = stats.t.interval(0.95, 5, values.mean(), error)
    assert on_new_data(found) == pytest.approx(oracle)


@pytest.mark.parametrize(("block", "example"), [(0.15, 0.6), (0.0, 0.6), (0.15, 0.0)])
def test_on_new_data_the_interval_holds_the_truth(block, example):
    """Blocks and examples drawn anew each time; the truth is zero."""
    held = 0
    for seed in range(500):
        low, high = on_new_data(noise(table(6, 80, block, example, 1.0, seed)))
        held += low < 0 < high
    assert held / 500 >= 0.93


def test_of_a_single_block_nothing_can_be_told_apart():
    with pytest.raises(ValueError, match="1 blocks, 5 examples"):
        noise(np.zeros((1, 5)))
