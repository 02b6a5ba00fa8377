"""Records made by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from records.record import Record, digest
from records.store import Store


@pytest.fixture
def make_record() -> Callable[..., Record]:
    def make(**changes: Any) -> Record:
        configuration = {"arm": {"layer": None}, "recipe": {"lr": 0.1}, "block": 0}
        environment = {"torch": "2.14.1", "threads": 1}
        fields: dict[str, Any] = {
            "trial": digest(configuration),
            "stratum": digest(environment),
            "configuration": configuration,
            "outcome": "finished",
            "metrics": {"test_accuracy": 0.875, "test_loss": 0.5},
            "curves": {"train_loss": [1.5, 0.25]},
            "costs": {"parameters_training": 10, "macs_training": 1000},
            "correct": "gA==",
            "environment": environment,
            "times": {"finished": 1000.5, "host": "here"},
        }
        return Record(**{**fields, **changes})

    return make


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")
