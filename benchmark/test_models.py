"""Time of each network among our cases."""

from collections.abc import Callable

import pytest

from benchmark.cases import NETWORKS
from overconv.bench.cases import Case


@pytest.mark.parametrize("case", NETWORKS, ids=lambda case: case.name)
def test_models(case: Case, timed: Callable[[Case], None], benchmark: object) -> None:
    timed(case)
