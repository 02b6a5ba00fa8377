"""The exact figures of our cases are the committed ones, in every run of the tests."""

from pathlib import Path

import pytest

from benchmark.cases import CASES
from overconv.bench.exact import figures
from overconv.bench.golden import accept_command, compare, figures_path, load, only

CASES_FILE = Path(__file__).parents[2] / "benchmark" / "cases.py"


def test_every_case_has_committed_figures():
    assert load(figures_path(CASES_FILE))["any"].keys() == {case.name for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_figures_are_the_committed_ones(case):
    committed = only(load(figures_path(CASES_FILE)), [case.name])
    assert compare({case.name: figures(case)}, committed) == [], accept_command(CASES_FILE)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_figures_say_what_the_case_does(case):
    """Every module is counted, and what is trained has a backward pass."""
    found = load(figures_path(CASES_FILE))["any"][case.name]
    assert found["uncounted"] == 0
    assert found["macs.convolution"] > 0
    backward = sum(value for name, value in found.items() if name.startswith("macs_backward"))
    assert (backward > 0) == (case.step == "training")
