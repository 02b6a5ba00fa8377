"""Made-up records, as :mod:`records.store` would hold them."""

import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from analysis.frames import Frames, study_frames
from records.store import Store

MADE = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "records" / "made.py")))


@pytest.fixture
def made() -> SimpleNamespace:
    """The names of tests/records/made.py."""
    return MADE


@pytest.fixture
def frames_of(tmp_path: Path):
    """Frames of trials that gave these test accuracies, by arm; None: it diverged."""

    def make(accuracies: Mapping[str, Sequence[float | None]], **changes) -> Frames:
        plan = MADE.make_results(tmp_path, accuracies, **changes)
        return study_frames(plan, Store(tmp_path))

    return make
