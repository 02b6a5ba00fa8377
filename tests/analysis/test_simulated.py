"""Simulated studies of which the truth is known: a small version of `analysis/simulated.md`."""

from pathlib import Path

import numpy as np
import pytest

from analysis import intervals, simulation
from analysis.quantiles import student
from analysis.simulation import CASES, false_after_looks, promise, rates

NAMED = {case.name: case for case in CASES}
SIZE = 500  # a rate of 5 % is then known within 1 %, so that 7.5 % would be a defect


@pytest.mark.parametrize(
    "name", ["equal", "skewed", "baseline x3", "one arm x3", "an arm diverged"]
)
def test_null_studies_get_no_verdict(name):
    found = rates(NAMED[name], 6, 8, SIZE)
    assert found.coverage >= 0.935
    assert found.false <= 0.05
    assert found.equivalent <= 0.075


def test_ten_blocks_find_two_standard_deviations():
    for num_arms in (4, 8):
        found = rates(NAMED["equal"], 10, num_arms, SIZE)
        assert found.power >= 0.85
        assert found.false <= 0.05


def test_pairing_helps_where_blocks_go_together():
    alone, paired = (rates(NAMED[n], 6, 4, 200).power for n in ("equal", "correlated 0.5"))
    assert paired > alone + 0.15


def test_declared_looks_share_the_error_and_undeclared_ones_do_not():
    looks = (6, 7, 8, 9, 10, 11, 12)
    assert false_after_looks(looks, 2, 400) <= 0.06
    assert false_after_looks(looks, 2, 400, declared=False) > 0.075


def test_as_many_blocks_as_promised_make_the_interval_as_narrow():
    found = promise(6, 4, 1.5, 60)
    assert np.median(found) == pytest.approx(1, abs=0.15)


def test_planted_an_interval_that_forgot_the_others_is_caught(monkeypatch):
    monkeypatch.setattr(intervals, "simultaneous", lambda family, c, df: student(c, df))
    assert rates(NAMED["equal"], 6, 8, 300).coverage < 0.9


def test_planted_a_pooled_model_alone_is_caught(monkeypatch):
    """The guard that lets a noisy baseline through."""
    whole = intervals.widest
    monkeypatch.setattr(intervals, "widest", lambda m, f, c, n: whole(m[:1], f, c, n))
    assert rates(NAMED["baseline x3"], 6, 8, 300).coverage < 0.88


def test_planted_one_sided_error_is_caught(monkeypatch):
    monkeypatch.setattr(simulation, "ERROR", 0.10)
    assert rates(NAMED["baseline x2"], 6, 4, SIZE).false > 0.05


def test_the_committed_table_holds_what_is_promised():
    """2,000 studies a case; a rate of 5 % is then known within 0.5 %."""
    text = (Path(simulation.__file__).parent / "simulated.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith(("| 6,", "| 10,"))
    ]
    assert len(rows) == 4 * len(CASES)
    for setting, name, coverage, _, false, power, equivalent in rows:
        assert float(coverage) >= 0.94, (setting, name)
        assert float(false) <= 0.055 and float(equivalent) <= 0.055, (setting, name)
        if name == "equal" and setting.startswith("10"):
            assert float(power) >= 0.9
