"""How arms train beside the baseline: by hand, from curves that are written out."""

import csv
import io

import numpy as np
import pytest
from scipy import stats

from analysis.training_table import TARGET, training_table

# Targets are 0.95 of the last value of plain: 0.76, 0.665, 0.76.
CURVES = {
    "plain": [[0.2, 0.77, 0.79, 0.8], [0.2, 0.6, 0.67, 0.7], [0.3, 0.4, 0.5, 0.8]],
    "gated-1": [[0.77, 0.78, 0.8, 0.8], [0.1, 0.2, 0.3, 0.4], [0.3, 0.77, 0.78, 0.8]],
}
EPOCHS = {"plain": [2, 3, 4], "gated-1": [1, 4, 2]}  # the second of gated-1 never gets there


@pytest.fixture
def frames(frames_of):
    made = frames_of({label: [0.8, 0.7, 0.8] for label in CURVES})
    records = []
    for row, record in zip(made.cells.itertuples(), made.records, strict=True):
        curves = {
            "validation_accuracy": CURVES[row.label][row.block],
            "grad_norm": [2.0, 1.0, 1.0, 0.5 + row.block + 0.1 * (row.label == "gated-1")],
        }
        seconds = [10.0 if row.label == "gated-1" else 1.0] * 4
        times = record.times | {"epochs": {"train": seconds, "evaluate": [0.1] * 4}}
        records.append(record.model_copy(update={"curves": curves, "times": times}))
    object.__setattr__(made, "records", tuple(records))
    return made


def numbers(table):
    [row] = csv.DictReader(io.StringIO(table.to_csv()))
    return row


def check(row, measure, differences):
    low, high = stats.t.interval(0.95, 2, np.mean(differences), stats.sem(differences))
    found = [float(row[f"{measure}_{end}"]) for end in ("difference", "low", "high")]
    assert found == pytest.approx([np.mean(differences), low, high]), measure


def test_every_difference_is_paired(frames):
    row = numbers(training_table(frames))
    assert float(row["target"]) == TARGET == 0.95
    areas = [np.mean(CURVES["gated-1"][b]) - np.mean(CURVES["plain"][b]) for b in range(3)]
    check(row, "mean_validation_accuracy", [100 * x for x in areas])
    check(row, "epochs_to_target", np.subtract(EPOCHS["gated-1"], EPOCHS["plain"]))
    seconds = np.multiply(10, EPOCHS["gated-1"]) - EPOCHS["plain"]
    check(row, "seconds_to_target", seconds)
    assert float(row["last_grad_norm_difference"]) == pytest.approx(0.1)


def test_who_never_arrives_is_counted_and_is_not_sooner(frames):
    table = training_table(frames)
    [row] = table.rows
    assert (row["sooner"], row["never"], row["n"]) == ("2 of 3", "1 of 3", "3")
    found = numbers(table)
    assert (found["sooner"], found["later"], found["tied"], found["never_reached"]) == tuple("2101")
    assert row["epochs_to_target"] == "-0.7 (-4.5 to +3.1)"
    assert [c.heading for c in table.columns if c.key.endswith("target")] == [
        "to the target, epochs",
        "to the target, s",
    ]


def test_times_of_few_epochs_are_left_out(frames):
    object.__setattr__(frames, "curves", frames.curves[frames.curves["epoch"] <= 2])
    table = training_table(frames)
    keys = [column.key for column in table.columns]
    assert keys == ["arm", "n", "mean_validation_accuracy", "last_grad_norm"] or (
        "train_loss" in keys and not any("target" in key or key == "sooner" for key in keys)
    )
    assert "tell little of fewer than 5 epochs" in table.footnotes[-1]


def test_an_arm_that_diverged_is_not_compared(frames_of):
    frames = frames_of({"plain": [0.8, 0.8], "gated-1": [0.9, None], "gated-2": [0.9, 0.85]})
    one, other = training_table(frames).rows
    assert one["mean_validation_accuracy"] == "-" and one["never"] == "1 diverged"
    assert other["mean_validation_accuracy"] != "-"


def test_nothing_to_compare_is_no_table(frames_of):
    assert training_table(frames_of({"plain": [0.8]})) is None
    assert training_table(frames_of({"plain": [None], "gated-1": [0.8]}, name="lost")) is None
