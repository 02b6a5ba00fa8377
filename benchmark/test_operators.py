"""Time of each layer among our cases."""

from collections.abc import Callable

import pytest

from benchmark.cases import LAYERS
from overconv.bench.cases import Case


@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.name)
def test_operators(case: Case, timed: Callable[[Case], None], benchmark: object) -> None:
    timed(case)
