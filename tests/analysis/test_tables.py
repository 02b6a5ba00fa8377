"""The table of a study: its numbers by hand, its words, and its three tellings."""

import csv
import io

import pytest

from analysis import summary
from analysis.numbers import count, decimals, signed
from analysis.summary import compare, costs_of, summarise
from analysis.table import Column, Table
from analysis.tables import study_table
from analysis.verdict_tables import claim_table
from analysis.verdicts import judge
from records.claim import Claim, Contrast

BY_HAND = {"plain": [0.80, 0.82, 0.87], "gated-1": [0.83, 0.84, 0.88]}  # +3, +2, +1 points


def cells(table, label):
    return next(row for row in table.rows if row["arm"] == label)


def test_the_numbers_are_those_computed_by_hand(frames_of):
    row = cells(study_table(frames_of(BY_HAND)), "gated-1")
    # mean 2, standard deviation 1, t(0.975, 2) = 4.3027: 4.3027 / sqrt(3) = 2.4841
    assert row == {
        "arm": "gated-1",
        "parameters_training": "23,910",
        "parameters_deployed": "23,910",
        "macs_training": "1.25 M",
        "macs_deployed": "1.25 M",
        "n": "3",
        "value": "85.0",
        "difference": "+2.0",
        "interval": "-0.5 to +4.5",
    }
    baseline = cells(study_table(frames_of(BY_HAND)), "plain")
    assert (baseline["value"], baseline["difference"], baseline["interval"]) == (
        "83.0",
        "baseline",
        "",
    )


def test_the_csv_holds_the_unrounded_numbers(frames_of):
    rows = list(csv.DictReader(io.StringIO(study_table(frames_of(BY_HAND)).to_csv())))
    assert [row["arm"] for row in rows] == ["plain", "gated-1"]
    found = rows[1]
    assert float(found["difference"]) == pytest.approx(2)
    assert float(found["low"]) == pytest.approx(2 - 2.484138, abs=1e-6)
    assert float(found["high"]) == pytest.approx(2 + 2.484138, abs=1e-6)
    assert float(found["accuracy_percent"]) == pytest.approx(85)
    assert (found["against"], found["pairs"], found["unit"]) == ("plain", "3", "points")
    assert (found["parameters_training"], found["trials"], found["diverged"]) == ("23910", "3", "0")
    assert rows[0]["difference"] == "NA"
    assert all(value for row in rows for value in row.values()), "an empty cell says nothing"


def test_text_is_aligned_and_ends_with_what_it_is_not(frames_of):
    text = study_table(frames_of(BY_HAND)).to_text()
    lines = text.splitlines()
    assert lines[0].startswith("depth (reference, fashion_mnist): Does depth")
    heading, rule, plain, gated = lines[2:6]
    assert heading.startswith("arm") and set(rule) == {"-", " "}
    assert plain.startswith("plain") and gated.startswith("gated-1")
    assert len(heading) == len(rule) or heading.endswith("interval, points")
    assert "estimates and not verdicts" in text
    assert text.isascii() and all(len(line) <= 130 for line in lines)


def test_markdown_is_a_table(frames_of):
    lines = study_table(frames_of(BY_HAND)).to_markdown().splitlines()
    assert lines[2:6] == [
        "| arm | parameters | parameters deployed | MACs | MACs deployed | n | accuracy, % | "
        "difference, points | 95 % interval, points |",
        "| :-- | --: | --: | --: | --: | --: | --: | --: | --: |",
        "| plain | 19,562 | 19,562 | 1.24 M | 1.24 M | 3 | 83.0 | baseline |  |",
        "| gated-1 | 23,910 | 23,910 | 1.25 M | 1.25 M | 3 | 85.0 | +2.0 | -0.5 to +4.5 |",
    ]


def test_one_block_has_no_interval_and_says_so(frames_of):
    table = study_table(frames_of({"plain": [0.8], "gated-1": [0.9]}))
    assert cells(table, "gated-1")["difference"] == "+10.0"
    assert cells(table, "gated-1")["interval"] == "-"
    assert any("nothing can be concluded" in note for note in table.footnotes)


def test_arms_are_compared_over_the_blocks_they_share(frames_of):
    frames = frames_of({"plain": [0.8, 0.7, 0.6], "gated-1": [0.9, 0.8]})
    compared = compare(frames, "gated-1", "plain").estimate
    assert (compared.n, compared.mean) == (2, pytest.approx(0.1)), "not 0.85 - 0.70"
    table = study_table(frames_of({"plain": [0.8, 0.7], "gated-1": [0.9, 0.8, 0.7]}, name="other"))
    assert any("gated-1: compared over the 2 blocks it shares" in n for n in table.footnotes)


def test_pairing_by_position_is_caught(frames_of, monkeypatch):
    accuracies = {"plain": [0.8, 0.7, 0.6], "gated-1": [0.85, 0.75, 0.65]}
    frames = frames_of(accuracies)
    shuffled = frames.cells.iloc[[2, 0, 1, 3, 4, 5]]  # rows of plain in another order
    object.__setattr__(frames, "cells", shuffled)
    expected = [0.05] * 3

    def differences():
        baseline = frames.by_block("plain", "test_accuracy")
        found = summary.paired_differences(frames.by_block("gated-1", "test_accuracy"), baseline)
        return found.tolist()

    assert differences() == pytest.approx(expected)
    by_position = lambda one, other: one.reset_index(drop=True) - other.reset_index(drop=True)  # noqa: E731
    monkeypatch.setattr(summary, "paired_differences", by_position)
    assert differences() != pytest.approx(expected), "the test could not have caught it"


def test_an_arm_with_a_diverged_trial_is_not_compared(frames_of):
    frames = frames_of({"plain": [0.8, 0.7], "gated-1": [0.9, None], "gated-2": [0.9, 0.7]})
    [plain, diverged, whole] = summarise(frames)
    assert diverged.value is None and diverged.difference.estimate is None
    assert diverged.difference.why == "1 of 2 trials of gated-1 diverged"
    assert whole.difference.estimate.n == 2, "the other arms keep all their blocks"
    table = study_table(frames)
    assert cells(table, "gated-1")["value"] == "1 diverged"
    assert cells(table, "gated-1")["difference"] == "-"
    assert any("gated-1: 1 of 2 trials diverged" in note for note in table.footnotes)


def test_a_diverged_baseline_leaves_nothing_to_compare(frames_of):
    frames = frames_of({"plain": [0.8, None], "gated-1": [0.9, 0.9]})
    assert summarise(frames)[1].difference.why == "1 of 2 trials of plain diverged"
    assert any("no arm is compared with it" in note for note in study_table(frames).footnotes)


def test_equal_differences_have_no_interval_and_say_so(frames_of):
    table = study_table(frames_of({"plain": [0.8, 0.7, 0.6], "gated-1": [0.8, 0.7, 0.6]}))
    assert cells(table, "gated-1")["difference"] == "0.0"
    assert cells(table, "gated-1")["interval"] == "-"
    assert any("all 3 differences are equal" in note for note in table.footnotes)


def test_an_unfinished_study_has_rows_for_all_arms(frames_of):
    table = study_table(frames_of({"plain": [0.8], "gated-1": []}))
    row = cells(table, "gated-1")
    assert [row["n"], row["value"], row["difference"], row["parameters_training"]] == list("0---")


# As in test_verdicts: two arms, six blocks, all above.
SURE = {
    "plain": [0.80, 0.82, 0.81, 0.83, 0.80, 0.82],
    "gated-1": [0.86, 0.87, 0.87, 0.88, 0.86, 0.87],
}


def claimed(**changes) -> Claim:
    fields = {
        "name": "C9",
        "wording": "gated is better",
        "direction": "greater",
        "contrasts": [Contrast(arm="gated-1", against="plain")],
        "margin": 0.005,
    }
    return Claim(**{**fields, **changes})


def test_a_claim_is_told_with_its_interval_and_its_cost(frames_of):
    frames = frames_of(SURE, claims=[claimed(fewer="parameters_training")], looks=[6])
    costs = {label: costs_of(frames, label) for label in SURE}
    table = claim_table(judge(frames, frames.plan.claims[0]), costs)
    [row] = table.rows
    # differences 6, 5, 6, 5, 6, 5: mean 5.5, sd 0.5477, t(0.975, 5) = 2.5706
    assert (row["n"], row["difference"], row["interval"]) == ("6", "+5.50", "+4.93 to +6.07")
    assert row["verdict"] == "contradicted", "it has more parameters, whatever its accuracy"
    assert (row["cost"], row["cost_against"]) == ("23,910", "19,562")
    assert row["parameters_training"] == "1.22" and row["macs_deployed"] == "1.01", "of each other"
    assert table.data[0]["parameters_training"] == pytest.approx(23_910 / 19_562)
    assert [c.heading for c in table.columns][3:5] == [
        "difference, points",
        "95 % interval, points",
    ]
    assert "not fewer" in " ".join(table.footnotes)


def test_a_claim_without_a_look_has_no_numbers(frames_of):
    frames = frames_of({label: values[:5] for label, values in SURE.items()}, claims=[claimed()])
    table = claim_table(judge(frames, frames.plan.claims[0]), {})
    assert table.rows == () and "10 of 20 trials" in table.footnotes[0]


def test_the_best_is_marked_only_where_all_intervals_say_so(frames_of):
    sure = study_table(frames_of(SURE))
    assert sure.best == {(1, "value")}
    assert "| **86.8" in sure.to_markdown() and "*86.8" in sure.to_text()
    near = {**SURE, "gated-2": [x + 0.001 * (-1) ** i for i, x in enumerate(SURE["gated-1"])]}
    table = study_table(frames_of(near, name="near"))
    assert not table.best and "not told from" in table.footnotes[-1]
    few = study_table(frames_of({k: v[:5] for k, v in SURE.items()}, name="few"))
    assert not few.best and "5 whole blocks cannot say so" in few.footnotes[-1]


def test_latex_is_escaped_and_ruled():
    columns = (Column("a", "arm_x", is_text=True), Column("b", "difference", unit="%"))
    rows = ({"a": "50% & #1 {x} \\", "b": "-0.5"}, {"a": "b", "b": "+1.0"})
    table = Table(title="T_1", columns=columns, rows=rows, data=rows, best=frozenset({(1, "b")}))
    lines = table.to_latex().splitlines()
    assert lines[3:11] == [
        r"\caption{T\_1}",
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"arm\_x & difference, \% \\",
        r"\midrule",
        r"50\% \& \#1 \{x\} \textbackslash{} & $-$0.5 \\",
        r"b & \textbf{+1.0} \\",
        r"\bottomrule",
    ]


@pytest.mark.parametrize(
    ("uncertainties", "digits"),
    [([0.034], 1), ([0.0034], 2), ([0.00034], 2), ([0.3], 1), ([None, 0.034, 0.001], 1), ([0], 1)],
)
def test_digits_follow_the_uncertainty(uncertainties, digits):
    assert decimals(uncertainties) == digits


def test_numbers_for_people():
    assert [count(v) for v in (0, 999, 999_999, 1e6, 12_345_678, 2.5e9, 1.234e12)] == [
        "0", "999", "999,999", "1.00 M", "12.3 M", "2.50 G", "1,234 G",
    ]  # fmt: skip
    assert [signed(v, 2) for v in (0.004, -0.004, 1.0, -1.005)] == [
        "0.00",
        "0.00",
        "+1.00",
        "-1.00",
    ]
