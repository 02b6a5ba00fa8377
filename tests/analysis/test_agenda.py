"""All claims are listed, costs are judged, and the tables say what was found."""

import csv
import dataclasses
import io
from pathlib import Path

import pytest

from analysis.agenda import AGENDA, CostClaim, Count, Ratio, all_verdicts, judge_cost
from analysis.tables import study_table
from analysis.verdict_tables import agenda_table, twins
from analysis.verdict_tables import verdict_table as table_of
from analysis.verdicts import verdicts
from records.claim import Claim, Contrast

ROOT = Path(__file__).parents[2]
[C3, C4] = [entry for entry in AGENDA if isinstance(entry, CostClaim)]
EQUAL = {
    "parameters_deployed": Count(layer=19_562, plain=19_562),
    "macs_deployed": Count(layer=1_000, plain=1_000),
}
MORE = Count(layer=1_001, plain=1_000, where="4 to 8, 3 x 3, image 7")


def verdict_table(frames):
    return table_of(frames.plan, verdicts(frames))


def ratio(value, width=0.01, joint=0.02):
    return Ratio(
        case=f"x{value}",
        value=value,
        low=value - width,
        high=value + width,
        joint_low=value - joint,
        joint_high=value + joint,
    )


@pytest.mark.parametrize(
    ("counts", "ratios", "word"),
    [
        (EQUAL, [ratio(1.0), ratio(1.02)], "supported"),
        (EQUAL, [ratio(1.0), ratio(1.045)], "inconclusive"),
        (EQUAL, [ratio(1.0), ratio(1.08)], "contradicted"),
        (EQUAL, [ratio(1.065)], "inconclusive"),
        (EQUAL, [], "no data"),
        (EQUAL | {"macs_deployed": MORE}, [ratio(1.0)], "contradicted"),
    ],
)
def test_equal_cost_needs_equal_counts_and_every_ratio(counts, ratios, word):
    found = judge_cost(C4, counts, ratios)
    assert found.word == word
    if counts is not EQUAL:
        told = "MACs deployed 1,001 against 1,000 (4 to 8, 3 x 3, image 7)"
        assert told in found.sentence and told in found.short


def test_a_count_that_is_missing_is_no_equal_one():
    with pytest.raises(ValueError, match="C4: no count of macs_deployed"):
        judge_cost(C4, {"parameters_deployed": Count(layer=1, plain=1)}, [ratio(1.0)])


def test_c3_gives_a_number():
    found = judge_cost(C3, {}, [ratio(1.43)])
    assert (found.word, found.sentence) == (
        "a number",
        "C3, a number: x1.43: 1.43 times (1.42 to 1.44).",
    )


def test_many_cases_are_told_by_their_ends():
    found = judge_cost(C3, {}, [ratio(value) for value in (1.43, 2.5, 1.1, 3.0)])
    assert found.sentence == "C3, a number: 1.10 to 3.00 times the time of Conv2d, in 4 cases."
    assert f"C3, a number: {found.short}." == found.sentence


def test_c3_is_told_beside_the_expanding_form_too():
    beside = [(1.2, 1.1, 1.3), (1.5, 1.01, 1.9), (1.0, 0.9, 1.1), (0.8, 0.7, 0.99), None]
    cases = [dataclasses.replace(ratio(1.5), other=other) for other in beside]
    found = judge_cost(C3, {}, cases)
    words = (
        "0.80 to 1.50 times that of its expanding form: "
        "slower in 2, faster in 1, not told apart in 1 of 4"
    )
    assert words in found.sentence and words in found.short


def test_claims_without_data_are_listed(frames_of, made):
    frames = frames_of(made.realistic(10))
    listed = all_verdicts(verdicts(frames), {"C3": judge_cost(C3, {}, [ratio(1.43)])})
    assert [entry.name for entry, _ in listed] == [
        "C1", "C1.own", "C2", "C3", "C4", "C5", "C6", "D1", "D2", "D3", "D4",
    ]  # fmt: skip
    assert [len(said) for _, said in listed] == [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]
    table = agenda_table(listed, [frames.plan])
    words = {row["claim"]: row["verdict"] for row in table.rows}
    assert words["C1"] == "no data: not run" and words["C3"] == "a number"
    assert words["D1"] == "in words"
    assert table.footnotes[0] == "5 % a claim on each data set: of each verdict, not of the list."


def test_claims_of_ones_own_follow(frames_of, made):
    mine = Claim(
        name="mine",
        wording="mine is best",
        direction="greater",
        margin=0.01,
        contrasts=[Contrast(arm="gated-1", against="plain")],
    )
    judged = verdicts(frames_of(made.realistic(10), claims=[mine]))
    [*_, (entry, [verdict])] = all_verdicts(judged, {})
    assert (entry.name, entry.judged_by, verdict.claim) == ("mine", "depth", mine)


def test_the_table_of_a_study_has_its_numbers(frames_of, made):
    table = verdict_table(frames_of(made.realistic(10)))
    assert [row["claim"] for row in table.rows] == ["D1", "", ""]
    whole, first, _ = table.rows
    assert (whole["verdict"], whole["n"]) == ("in words", "10")
    assert first["contrast"] == "gated-2 - gated-1" and first["verdict"] == "greater"
    assert (first["difference"], first["interval"], first["p"]) == (
        "+1.75", "+1.31 to +2.20", "0.002",
    )  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(table.to_csv())))
    assert float(rows[1]["low"]) == pytest.approx(1.31, abs=0.01)
    assert (rows[1]["unit"], rows[1]["blocks"], rows[1]["claim_verdict"]) == (
        "points", "10", "in words",
    )  # fmt: skip
    assert all(value for row in rows for value in row.values())
    assert table.to_text().isascii() and "5 % a claim" in table.to_text()


def test_units_stand_beside_what_has_several(frames_of, made):
    contrast = Contrast(arm="gated-1", against="plain")
    claims = [
        Claim(
            name=name,
            wording="?",
            direction="less",
            margin=0.01,
            contrasts=[contrast],
            measure=measure,
            target=target,
        )
        for name, measure, target in (("a", "test_accuracy", None), ("b", "epochs_to_target", 0.9))
    ]
    rows = verdict_table(frames_of(made.realistic(10), claims=claims)).rows
    assert [row["measure"] for row in rows] == ["test accuracy, points", "epochs to target, epochs"]


def test_a_study_that_has_begun_waits(frames_of, made):
    [row] = verdict_table(frames_of(made.realistic(3))).rows
    assert (row["claim"], row["verdict"]) == ("D1", "no verdict")


def test_a_study_without_claims_has_an_empty_table(frames_of):
    table = verdict_table(frames_of({"plain": [0.5]}))
    assert table.rows == () and table.to_text()


def test_plans_that_differ_in_a_word_are_named(frames_of):
    questions = ("Is it?", "Is it so?")
    plans = [frames_of({"plain": [0.8]}, question=question).plan for question in questions]
    [line] = twins(plans)
    assert line.startswith(
        "depth (reference, fashion_mnist) has 2 plans, which differ in question:"
    )
    assert twins(plans[:1]) == []
    assert line in agenda_table(all_verdicts([], {}), plans).footnotes


def test_means_over_different_blocks_are_told(frames_of):
    table = study_table(frames_of({"plain": [0.8, 0.7, 0.6], "gated-1": [0.9, 0.8]}))
    assert any("The arms have different blocks" in note for note in table.footnotes)
    even = study_table(frames_of({"plain": [0.8, 0.7], "gated-1": [0.9, 0.8]}, name="even"))
    assert not any("different blocks" in note for note in even.footnotes)


def test_the_tests_that_prove_a_cost_claim_are_there():
    for where in C4.evidence:
        path, _, name = where.partition("::")
        assert f"def {name}(" in (ROOT / path).read_text()
