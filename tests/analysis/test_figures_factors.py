"""The interaction plot and the table of effects of a grid."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import stats

from analysis.factorial import factorial
from analysis.factors import cell_means, draw_interaction, effects_table, interaction_figure

FACTORS = {
    "layers": {"2": ["linear-2", "gated-2"], "3": ["linear-3", "gated-3"]},
    "gates": {"linear": ["linear-2", "linear-3"], "gated": ["gated-2", "gated-3"]},
}
ARMS = ("linear-2", "gated-2", "linear-3", "gated-3")


@pytest.fixture
def frames(frames_of, made):
    return frames_of(made.realistic(6), factors=FACTORS)


def test_means_and_their_interval_within_blocks(frames, made):
    means = cell_means(frames).set_index("arm")
    table = np.array([made.realistic(6)[arm] for arm in ARMS]).T
    assert means.loc[list(ARMS), "mean"].tolist() == pytest.approx(table.mean(axis=0))
    # by hand: out of each value its block's mean, then Student's, widened by sqrt(4 / 3)
    for index, arm in enumerate(ARMS):
        inside = [row[index] - sum(row) / 4 for row in table]
        width = stats.t(5).ppf(0.975) * np.std(inside, ddof=1) / 6**0.5 * (4 / 3) ** 0.5
        assert (means.loc[arm, "high"] - means.loc[arm, "low"]) / 2 == pytest.approx(width)
    assert set(means["n"]) == {6}


def test_lines_are_levels_and_points_are_means(frames):
    axes = Figure().subplots()
    means = cell_means(frames)
    draw_interaction(axes, means, "layers", ["2", "3"], "gates", ["linear", "gated"])
    lines = {line.get_label(): line for line in axes.lines if line.get_marker() != "None"}
    by_arm = means.set_index("arm")["mean"]
    for gates in ("linear", "gated"):
        drawn = lines[gates].get_ydata()
        assert drawn == pytest.approx([by_arm[f"{gates}-2"], by_arm[f"{gates}-3"]])
    assert lines["linear"].get_marker() != lines["gated"].get_marker()
    assert lines["linear"].get_linestyle() != lines["gated"].get_linestyle()
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2", "3"]


def test_the_figure_is_deterministic_and_needs_a_grid(frames, frames_of, made):
    one, other = interaction_figure(frames), interaction_figure(frames)
    assert one.drawing == other.drawing and one.title == "layers x gates"
    assert interaction_figure(frames_of(made.realistic(2), name="other")) is None


def test_effects_are_told_with_their_unit(frames):
    table, found = effects_table(frames), factorial(frames)
    assert [row["effect"] for row in table.rows] == [
        "layers 3",
        "gates gated",
        "layers 3 at gates gated",
    ]
    assert table.rows[2]["against"] == "layers 2, more than at gates linear"
    assert table.columns[2].heading == "difference, points"
    for row, effect in zip(table.data, [*found.main, *found.interactions], strict=True):
        ends = [100 * x for x in (effect.interval.low, effect.interval.high)]
        assert [row["low"], row["high"]] == pytest.approx(ends)
    assert float(table.rows[1]["value"]) == pytest.approx(table.data[1]["difference"], abs=0.06)


def test_a_diverged_grid_says_so(frames_of, made):
    accuracies = {**made.realistic(6), "gated-2": [0.8, None, 0.8, 0.8, 0.8, 0.8]}
    table = effects_table(frames_of(accuracies, factors=FACTORS))
    assert table.rows == () and "trials of gated-2 diverged" in table.footnotes[0]


def test_a_grid_of_which_a_trial_diverged_has_no_figure(frames_of, made):
    """Without the block in which it did, gated-2 would be flattered: 0.9 of what it could be."""
    accuracies = {**made.realistic(6), "gated-2": [0.9, None, 0.9, 0.9, 0.9, 0.9]}
    frames = frames_of(accuracies, factors=FACTORS)
    assert cell_means(frames).empty and interaction_figure(frames) is None
    others = {**made.realistic(6), "wide-2": [0.9, None, 0.9, 0.9, 0.9, 0.9]}
    outside = frames_of(others, factors=FACTORS, name="outside")
    assert interaction_figure(outside) is not None, "an arm that is not of the grid"
