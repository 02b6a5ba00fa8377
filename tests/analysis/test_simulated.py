"""Simulated studies of which the truth is known: a small version of `analysis/simulated.md`."""

import numpy as np
import pytest

from analysis import intervals, simulation
from analysis.maxt import max_t
from analysis.quantiles import simultaneous, student
from analysis.simulation import CASES, committed, false_after_looks, promise, rates

NAMED = {case.name: case for case in CASES}
SIZE = 500  # a rate of 5 % is then known within 1 %, so that 7.5 % would be a defect


@pytest.mark.parametrize(
    "name", ["equal", "skewed", "baseline x3", "one arm x3", "an arm diverged"]
)
def test_null_studies_get_no_verdict(name):
    found = rates(NAMED[name], 6, 8, SIZE)
    assert found.coverage >= 0.935
    assert found.false <= 0.05
    assert found.one_side <= 0.05


@pytest.mark.parametrize("name", ["baseline x3", "baseline x10", "one arm x3"])
def test_what_differs_by_the_margin_is_not_equal_on_whichever_side(name):
    """A noisy baseline moves all differences together, so that those of one sign or the other
    come to lie within the margin: the worst that can be."""
    assert rates(NAMED[name], 6, 3, 2 * SIZE).either_side <= 0.05


def test_planted_an_interval_of_twice_the_error_is_caught(monkeypatch):
    """What any one bound of joint 90 % intervals does."""

    def twice(family, confidence, df):
        return simultaneous(family, 2 * confidence - 1, df)

    monkeypatch.setattr(intervals, "bounds", twice)
    assert rates(NAMED["baseline x10"], 6, 3, 2 * SIZE).either_side > 0.05


def test_ten_blocks_find_two_standard_deviations():
    for num_arms in (4, 8):
        found = rates(NAMED["equal"], 10, num_arms, SIZE)
        assert found.power >= 0.85
        assert found.false <= 0.05
        assert found.equivalent >= 0.8, "and an arm that does not differ is called equivalent"


def test_pairing_helps_where_blocks_go_together():
    alone, paired = (rates(NAMED[n], 6, 4, 200).power for n in ("equal", "equal, correlated 0.5"))
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
    monkeypatch.setattr(intervals, "widest", lambda m, *rest: whole(m[:1], *rest))
    assert rates(NAMED["baseline x3"], 6, 8, 300).coverage < 0.88


def test_planted_one_sided_error_is_caught(monkeypatch):
    """Half of each p: what a test gives that looks at one side alone."""
    monkeypatch.setattr(simulation, "max_t", lambda d: tuple(p / 2 for p in max_t(d)))
    whole = intervals.simultaneous_intervals

    def one_sided(values, weights, confidence, family=None, tails=2):
        return whole(values, weights, 2 * confidence - 1, family, tails)

    monkeypatch.setattr(simulation, "simultaneous_intervals", one_sided)
    assert rates(NAMED["baseline x2"], 6, 4, SIZE).false > 0.055


def test_the_committed_table_holds_what_is_promised():
    """2,000 studies a case or more; a rate of 5 % is then known within 1 %, two standard errors."""
    found = committed()
    assert found.studies >= 2000
    for (n, num_arms, name), row in found.rows.items():
        case = (n, num_arms, name)
        assert row.coverage >= 0.94, case
        assert row.false <= 0.05, case
        assert row.one_side <= 0.05 and row.either_side <= 0.05, case
        if name == "equal" and n == 10:
            assert row.power >= 0.9, case


def test_a_table_that_lacks_a_case_is_refused(tmp_path):
    text = simulation.COMMITTED.read_text()
    line = next(line for line in text.splitlines() if line.startswith("| 10, 4 | skewed |"))
    (tmp_path / "table.md").write_text(text.replace(line, ""))
    with pytest.raises(ValueError, match=r"lacks \(10, 4, 'skewed'\)"):
        committed(tmp_path / "table.md")
