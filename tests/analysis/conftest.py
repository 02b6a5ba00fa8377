"""Made-up records, as :mod:`records.store` would hold them."""

import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from analysis.frames import Frames, study_frames
from analysis.verdicts import verdicts
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


@pytest.fixture
def judged(frames_of):
    """Verdicts of claims on accuracies, by arm; of a single claim its verdict."""

    def make(values: Mapping[str, Sequence[float | None]], *claims, **changes):
        found = verdicts(frames_of(values, claims=list(claims), **changes))
        return found if len(claims) > 1 else found[0]

    return make
