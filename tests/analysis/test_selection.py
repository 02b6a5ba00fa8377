"""The table by which a setting is chosen: right on validation examples, blind to the test."""

import math
from statistics import mean, stdev

import pytest

from analysis.frames import study_frames
from analysis.selection import main, markdown, selection_table
from records.store import Store

VALIDATION = {"plain": [0.81, 0.83, 0.80], "rate-0.2": [0.84, 0.85, 0.86], "late": [0.9]}


@pytest.fixture
def store_of(made, tmp_path):
    def make(folder: str, test: float = 0.5, diverged: bool = False) -> Store:
        store = Store(tmp_path / folder)
        plan = made.make_plan(tuple(VALIDATION), notes={"late": "a block alone"})
        store.save_plan(plan)
        for label, values in VALIDATION.items():
            for block, value in enumerate(values, start=100):
                record = made.make_record(plan, label, block, test)
                metrics = {**record.metrics, "validation_accuracy": value}
                curves = {**record.curves, "train_accuracy": [0.1, value - 0.01 * block + 1]}
                store.publish(record.model_copy(update={"metrics": metrics, "curves": curves}))
        if diverged:
            store.publish(made.make_record(plan, "rate-0.2", 103, None))
        return store

    return make


def test_means_and_paired_differences_by_hand(store_of):
    store = store_of("results")
    table = selection_table(study_frames(store.plans()[0], store))
    rows = {row["arm"]: row for row in table.data}
    differences = [100 * (b - a) for a, b in zip(*list(VALIDATION.values())[:2], strict=True)]
    assert rows["rate-0.2"]["validation_accuracy"] == pytest.approx(100 * mean([0.84, 0.85, 0.86]))
    assert rows["rate-0.2"]["difference"] == pytest.approx(mean(differences))
    assert rows["rate-0.2"]["standard_error"] == pytest.approx(stdev(differences) / math.sqrt(3))
    assert rows["plain"]["train_accuracy"] == pytest.approx(100 * (mean([0.81, 0.83, 0.80]) - 0.01))
    # Of the block that both have, not of the means: 0.90 less 0.81.
    assert rows["late"]["difference"] == pytest.approx(9)
    shown = {row["arm"]: row for row in table.rows}
    assert shown["late"]["difference"] == "+9.00" and shown["late"]["note"] == "a block alone"
    assert shown["rate-0.2"]["difference"] == "+3.67 (1.20)"
    assert shown["plain"]["difference"] == "" and shown["plain"]["n"] == "3"


def test_no_test_score_is_read(store_of):
    assert markdown(store_of("one", test=0.3)) == markdown(store_of("other", test=0.9))


def test_a_diverged_trial_is_told(store_of, capsys):
    store = store_of("results", diverged=True)
    assert main([str(store.root)]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "rate-0.2" in line)
    assert "1 diverged" in row and "| 3 |" in row


def test_a_folder_that_is_none(tmp_path, capsys):
    assert main([str(tmp_path / "nothing")]) == 2
    assert "no results folder" in capsys.readouterr().err


def test_a_page_is_filled_between_its_marks(store_of, tmp_path, capsys):
    page, root = tmp_path / "page.md", str(store_of("results").root)
    page.write_text("before\n<!-- pilot: depth -->\nold\n<!-- end of pilot -->\nafter\n")
    for _ in range(2):  # twice gives the same
        assert main([root, "--page", str(page)]) == 0
        first, *_, last = page.read_text().splitlines()
        assert (first, last) == ("before", "after") and "old" not in page.read_text()
        assert page.read_text().count("+3.67 (1.20)") == 1
    page.write_text("<!-- pilot: breadth -->\n<!-- end of pilot -->\n")
    assert main([root, "--page", str(page)]) == 2
    assert "mark of 'breadth'; studies with records: depth" in capsys.readouterr().err
