"""Times to a target with censoring, areas and bands: by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from analysis.convergence import bands, num_censored, sooner, targets, times_to_target, values_of

CURVES = {
    # Targets are 0.9 of the last value of plain: 0.72, 0.63.
    "plain": [[0.2, 0.5, 0.73, 0.8], [0.2, 0.63, 0.65, 0.7]],
    "gated-1": [[0.5, 0.73, 0.8, 0.8], [0.1, 0.2, 0.3, 0.62]],
}
SECONDS = {"plain": [1.0, 2.0, 3.0, 4.0], "gated-1": [10.0, 20.0, 30.0, 40.0]}


@pytest.fixture
def frames(frames_of):
    made = frames_of({label: [0.8, 0.7] for label in CURVES})
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
    assert targets(frames, 0.9).to_dict() == pytest.approx({0: 0.72, 1: 0.63})


def test_times_count_whole_epochs_and_the_seconds_of_training(frames):
    plain = times_to_target(frames, "plain", 0.9)
    assert plain["epochs"].tolist() == [3, 2] and plain["seconds"].tolist() == [6, 3]
    assert not plain["censored"].any()
    gated = times_to_target(frames, "gated-1", 0.9)
    assert gated["epochs"].tolist() == [2, 4], "what never got there counts all its epochs"
    assert gated["seconds"].tolist() == [30, 100]
    assert gated["censored"].tolist() == [False, True] and num_censored(frames, "gated-1", 0.9) == 1
    assert values_of(frames, "gated-1", "epochs_to_target", 0.9).to_dict() == {0: 2, 1: 4}


def test_who_never_arrives_is_later_than_who_arrives_last(frames):
    assert sooner(frames, "gated-1", "plain", 0.9) == {
        "sooner": 1, "later": 1, "tied": 0, "neither": 0,
    }  # fmt: skip
    assert sooner(frames, "plain", "plain", 0.9)["tied"] == 2
    # At the very end plain arrives in its fourth epoch, and gated-1 in block 1 not at all.
    assert sooner(frames, "gated-1", "plain", 1.0)["later"] == 1
    assert sooner(frames, "gated-1", "gated-1", 1.0)["neither"] == 1


def test_figures_of_curves(frames):
    area = values_of(frames, "plain", "mean_validation_accuracy")
    assert area.to_dict() == pytest.approx({b: np.mean(CURVES["plain"][b]) for b in (0, 1)})
    assert values_of(frames, "plain", "last_grad_norm").to_dict() == {0: 1.0, 1: 2.0}
    with pytest.raises(ValueError, match="no measure 'speed' of a trial"):
        values_of(frames, "plain", "speed")


def test_bands_are_pointwise_students(frames):
    found = bands(frames, "validation_accuracy").query("label == 'plain' and epoch == 2")
    values = [0.5, 0.63]
    oracle = stats.t.interval(0.95, 1, np.mean(values), stats.sem(values))
    assert found[["n", "mean"]].values.tolist() == [[2, pytest.approx(0.565)]]
    assert found[["low", "high"]].values[0] == pytest.approx(oracle)


def test_a_band_ends_where_a_block_diverged(frames_of):
    frames = frames_of({"plain": [0.8, None], "gated-1": [0.8, 0.8]})
    found = bands(frames, "train_loss").groupby("label")["epoch"].max()
    assert found.to_dict() == {"plain": 1, "gated-1": 8}
    assert math.isnan(values_of(frames, "plain", "mean_validation_accuracy")[1])


def test_seconds_that_were_not_recorded_are_none(frames_of):
    times = times_to_target(frames_of({"plain": [0.8]}), "plain", 0.9)
    assert times["seconds"].isna().all() and times["epochs"].notna().all()
