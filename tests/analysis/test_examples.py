"""Seed noise and test-set noise apart: on tables whose components are known."""

import numpy as np
import pandas as pd
import pytest
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.contingency_tables import mcnemar

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
    found = paired_outcomes(frames, "gated-1", "plain")
    assert found.sum(axis=1).tolist() == [2, 4]
    result = on_new_data(found)
    assert (result.better, result.worse) == (6, 0)
    assert result.noise.mean == pytest.approx(6 / 40)
    assert result.low < result.noise.mean < result.high
    object.__setattr__(frames, "records", frames.records[:3])
    assert paired_outcomes(frames, "gated-1", "plain") is None, "a single block has both"


def test_a_record_that_hides_how_many_bits_it_has_is_named(frames_of):
    with pytest.raises(ValueError, match="data.num_test is None"):
        outcomes(frames_of({"plain": [0.5]}), "plain")


def test_by_example_it_is_mcnemars_test():
    """Two blocks of the same networks are one block said twice."""
    draw = np.random.default_rng(0)
    one = draw.choice([-1, 0, 1], 2000, p=[0.05, 0.87, 0.08])
    b, c = (one > 0).sum(), (one < 0).sum()
    oracle = mcnemar([[0, b], [c, 0]], exact=False, correction=False).pvalue
    assert on_new_data(np.stack([one, one])).p == pytest.approx(oracle, rel=0.15)


def test_the_bootstrap_repeats_and_is_near_the_components():
    values = np.sign(table(8, 500, 0.1, 0.3, 0.5)).astype(np.int8)
    found, again = on_new_data(values), on_new_data(values)
    assert found == again and found.seed == 20220227
    width = (found.boot_high - found.boot_low) / 2 / 1.96
    assert width == pytest.approx(found.noise.error_on_new_data, rel=0.3)
    with pytest.raises(ValueError, match="1 blocks, 5 examples"):
        noise(np.zeros((1, 5)))
