"""A results folder that looks like a real one."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest


@pytest.fixture(scope="session")
def made() -> SimpleNamespace:
    """The names of tests/records/made.py."""
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "records" / "made.py")))
