"""Main effects and interactions of a grid, against statsmodels."""

import numpy as np
import pandas as pd
import pytest
from statsmodels.formula.api import ols

from analysis.factorial import effect_weights, factorial
from records.grid import grid

FACTORS = {
    "gates": {"linear": ["linear-2", "linear-3"], "gated": ["gated-2", "gated-3"]},
    "layers": {"2": ["linear-2", "gated-2"], "3": ["linear-3", "gated-3"]},
}


@pytest.fixture
def frames(frames_of, made):
    return frames_of(made.realistic(6), factors=FACTORS)


def test_effects_are_those_of_a_fitted_model(frames):
    found = factorial(frames)
    cells = {arm: place for place, arm in grid(FACTORS).items()}
    rows = frames.cells[frames.cells["label"].isin(list(cells))]
    long = pd.DataFrame(
        {
            "y": rows["test_accuracy"],
            "block": rows["block"],
            "gates": [cells[label][0] for label in rows["label"]],
            "layers": [cells[label][1] for label in rows["label"]],
        }
    )
    plain = "C(gates, Treatment('linear'))", "C(layers, Treatment('2'))"
    fitted = ols(f"y ~ {plain[0]} * {plain[1]} + C(block)", long).fit()
    step = fitted.params[f"{plain[0]}[T.gated]:{plain[1]}[T.3]"]
    gates = fitted.params[f"{plain[0]}[T.gated]"] + step / 2  # mean over the layers
    assert [e.factor for e in found.main] == ["gates", "layers"] and found.n == 6
    assert found.main[0].interval.mean == pytest.approx(gates)
    [interaction] = found.interactions
    assert interaction.interval.mean == pytest.approx(step)
    pooled = interaction.interval.models[0]
    error = (pooled.variance / 6) ** 0.5
    assert error == pytest.approx(fitted.bse[f"{plain[0]}[T.gated]:{plain[1]}[T.3]"])
    assert pooled.rate * 5 == fitted.df_resid


def test_three_levels_are_compared_with_the_first():
    factors = {"a": {"x": "123", "y": "456"}, "b": {"p": "14", "q": "25", "r": "36"}}
    main, interactions = effect_weights(factors)
    assert list(main) == [("a", "y", "", ""), ("b", "q", "", ""), ("b", "r", "", "")]
    means = np.array([1, 2, 4, 10, 20, 40.0])
    assert {key: float(np.dot(row, means)) for key, row in main.items()} == pytest.approx(
        {
            ("a", "y", "", ""): 70 / 3 - 7 / 3,
            ("b", "q", "", ""): 11 - 5.5,
            ("b", "r", "", ""): 22 - 5.5,
        }
    )
    assert {key: float(np.dot(row, means)) for key, row in interactions.items()} == pytest.approx(
        {("a", "y", "b", "q"): (20 - 2) - (10 - 1), ("a", "y", "b", "r"): (40 - 4) - (10 - 1)}
    )


def test_a_study_without_a_grid_has_none(frames_of):
    assert factorial(frames_of({"plain": [0.8, 0.7]})) is None


def test_what_lacks_an_arm_has_no_effects(frames_of, made):
    values = made.realistic(3)
    values["gated-3"][1] = None
    found = factorial(frames_of(values, factors=FACTORS))
    assert found.main == () and found.why == "trials of gated-3 diverged"
    values["gated-3"] = []
    assert factorial(frames_of(values, factors=FACTORS, name="l")).why == (
        "fewer than 3 whole blocks"
    )
