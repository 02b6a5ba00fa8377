"""Times to a target with censoring, areas and bands: by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from analysis.convergence import (
    bands,
    difference_bands,
    sooner,
    targets,
    times_to_target,
    values_of,
)
from analysis.power import win_share

CURVES = {
    # Targets are 0.9 of the last value of plain: 0.72, 0.63, 0.54.
    "plain": [[0.2, 0.5, 0.73, 0.8], [0.2, 0.63, 0.65, 0.7], [0.1, 0.2, 0.3, 0.6]],
    "gated-1": [[0.5, 0.73, 0.8, 0.8], [0.1, 0.2, 0.3, 0.62], [0.2, 0.3, 0.6, 0.65]],
}
SECONDS = {"plain": [1.0, 2.0, 3.0, 4.0], "gated-1": [10.0, 20.0, 30.0, 40.0]}


@pytest.fixture
def frames(frames_of):
    made = frames_of({label: [0.8, 0.7, 0.6] for label in CURVES})
    for index, row in enumerate(made.cells.itertuples()):
        record = made.records[index]
        curves = {
            "validation_accuracy": CURVES[row.label][row.block],
            "grad_norm": [2.0, 1.0 + row.block],
        }
        times = record.times | {"epochs": {"train": SECONDS[row.label], "evaluate": [0.1] * 4}}
        changed = record.model_copy(update={"curves": curves, "times": times})
        records = [*made.records[:index], changed, *made.records[index + 1 :]]
        object.__setattr__(made, "records", tuple(records))
    return made


def test_the_target_is_the_baselines_in_the_same_block(frames):
    assert targets(frames, 0.9).to_dict() == pytest.approx({0: 0.72, 1: 0.63, 2: 0.54})


def test_times_count_whole_epochs_and_the_seconds_of_training(frames):
    plain = times_to_target(frames, "plain", 0.9)
    assert plain["epochs"].tolist() == [3, 2, 4] and plain["seconds"].tolist() == [6, 3, 10]
    assert not plain["censored"].any()
    gated = times_to_target(frames, "gated-1", 0.9)
    assert gated["epochs"].tolist() == [2, 4, 3], "what never got there counts all its epochs"
    assert gated["seconds"].tolist() == [30, 100, 60]
    assert gated["censored"].tolist() == [False, True, False]
    assert values_of(frames, "gated-1", "epochs_to_target", 0.9).to_dict() == {0: 2, 1: 4, 2: 3}


def test_who_never_arrives_is_later_than_who_arrives_last(frames):
    plain, gated = (times_to_target(frames, label, 0.9) for label in ("plain", "gated-1"))
    assert sooner(gated, plain).to_dict() == {0: 1.0, 1: -math.inf, 2: 1.0}
    wins = win_share(sooner(gated, plain))
    assert (wins.wins, wins.n, wins.ties) == (2, 3, 0)
    assert win_share(sooner(plain, plain)).ties == 3
    # At the very end plain arrives in its fourth epoch, and gated-1 in block 1 not at all.
    late = [times_to_target(frames, label, 1.0) for label in ("gated-1", "plain")]
    assert sooner(*late)[1] == -math.inf
    assert sooner(late[0], late[0]).to_dict() == {0: 0.0, 2: 0.0}, (
        "of two that never arrive, nothing"
    )


def test_a_trial_that_diverged_early_is_not_quick(frames):
    """Its two epochs would otherwise be the shortest time of all."""
    *others, last = frames.records
    lost = last.model_copy(
        update={
            "outcome": "diverged",
            "curves": {"validation_accuracy": [0.1, 0.2], "grad_norm": [2.0, 9.0]},
        }
    )
    object.__setattr__(frames, "records", (*others, lost))
    for measure in ("epochs_to_target", "seconds_to_target"):
        found = values_of(frames, "gated-1", measure, 0.9)
        assert not math.isnan(found[0]) and math.isnan(found[2]), measure
    assert not times_to_target(frames, "gated-1", 0.9)["censored"][2]


def test_figures_of_curves(frames):
    area = values_of(frames, "plain", "mean_validation_accuracy")
    assert area.to_dict() == pytest.approx({b: np.mean(CURVES["plain"][b]) for b in range(3)})
    assert values_of(frames, "plain", "last_grad_norm").to_dict() == {0: 1.0, 1: 2.0, 2: 3.0}
    with pytest.raises(ValueError, match="no measure 'speed' of a trial"):
        values_of(frames, "plain", "speed")


def test_bands_are_pointwise_students(frames):
    found = bands(frames, "validation_accuracy").query("label == 'plain' and epoch == 2")
    values = [0.5, 0.63, 0.2]
    oracle = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert found[["n", "mean"]].values.tolist() == [[3, pytest.approx(1.33 / 3)]]
    assert found[["low", "high"]].values[0] == pytest.approx(oracle)


def test_differences_are_paired_before_they_are_averaged(frames):
    found = difference_bands(frames, "validation_accuracy")
    assert set(found["label"]) == {"gated-1"}, "the baseline does not differ from itself"
    pairs = [np.subtract(CURVES["gated-1"][b], CURVES["plain"][b]) for b in range(3)]
    assert found["mean"].tolist() == pytest.approx(np.mean(pairs, axis=0).tolist())
    for epoch in range(4):
        values = [pair[epoch] for pair in pairs]
        oracle = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
        assert found[["low", "high"]].values[epoch] == pytest.approx(oracle)


def test_of_two_blocks_no_band_is_told(frames_of):
    """It would be 9 standard deviations wide to each side."""
    two = bands(frames_of({"plain": [0.8, 0.7]}), "validation_accuracy")
    assert two["n"].tolist() == [2] * 8 and two["low"].isna().all() and two["mean"].notna().all()


def test_equal_values_and_single_blocks_have_no_band(frames_of):
    one = bands(frames_of({"plain": [0.8]}), "validation_accuracy")
    assert one["n"].tolist() == [1] * 8 and one["low"].isna().all() and one["mean"].notna().all()
    assert bands(frames_of({"plain": []}, name="none"), "validation_accuracy").empty


def test_a_band_ends_where_a_block_diverged(frames_of):
    frames = frames_of({"plain": [0.8, None], "gated-1": [0.8, 0.8]})
    found = bands(frames, "train_loss").groupby("label")["epoch"].max()
    assert found.to_dict() == {"plain": 1, "gated-1": 8}
    less = difference_bands(frames, "train_loss")
    assert less["epoch"].max() == 1, "nor is there anything to take off"
    assert math.isnan(values_of(frames, "plain", "mean_validation_accuracy")[1])


def test_seconds_that_were_not_recorded_are_none(frames_of):
    times = times_to_target(frames_of({"plain": [0.8]}), "plain", 0.9)
    assert times["seconds"].isna().all() and times["epochs"].notna().all()
