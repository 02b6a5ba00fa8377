"""Accepting a change of source: by bytes alone, and for what was recorded before it too."""

from dataclasses import dataclass
from typing import Any

import pytest

from ablations.acceptance import accept_source, resolve_stratum
from ablations.schedule import Job, schedule
from records.record import Record, digest
from records.store import Store

OLD: dict[str, Any] = {"torch": "1", "threads": 1, "sources": {"a": "1"}}
NEW = {**OLD, "sources": {"a": "2"}}
NEWER = {**OLD, "sources": {"a": "3"}}
SECOND = {**OLD, "sources": {"a": "0"}}
LABELS = ("plain", "gated", "wide")


@dataclass(frozen=True)
class MadeCell:
    """What of a cell is asked here."""

    configuration: dict[str, Any]

    def trial(self, block: int) -> str:
        return digest({**self.configuration, "block": block})


CELLS = {label: MadeCell({"arm": label}) for label in LABELS}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


def trained(label: str, block: int, environment: dict[str, Any], **changes: Any) -> Record:
    """What training gives: decided by arm and block alone, unless ``changes`` say otherwise."""
    configuration = (
        {**CELLS[label].configuration, "block": block}
        if label in CELLS
        else {
            "arm": label,
            "block": block,
        }
    )
    fields: dict[str, Any] = {
        "trial": digest(configuration),
        "stratum": digest(environment),
        "configuration": configuration,
        "outcome": "finished",
        "metrics": {"test_accuracy": len(label) / 8 + block / 64},
        "curves": {},
        "costs": {},
        "correct": None,
        "environment": environment,
        "times": {"finished": 1.0},
    }
    return Record(**{**fields, **changes})


class Replay:
    """Trains again, and remembers what."""

    def __init__(self, environment: dict[str, Any], **changes: Any):
        self.environment, self.changes, self.jobs = environment, changes, []

    def __call__(self, job: Job) -> Record:
        self.jobs.append(job)
        return trained(job.label, job.block, self.environment, **self.changes)


def publish(store: Store, environment: dict[str, Any], *jobs: tuple[str, int]) -> None:
    for job in jobs:
        store.publish(trained(*job, environment))


def test_a_block_recorded_before_an_acceptance_joins_it(store):
    """Block 1 was begun here, unaccepted; afterwards it is neither skipped nor run anew."""
    publish(store, OLD, ("plain", 0), ("gated", 0), ("wide", 0))
    publish(store, NEW, ("plain", 1), ("gated", 1))
    before = {path: path.read_bytes() for path in store.paths()}
    replay = Replay(NEW)
    assert accept_source(store, CELLS, range(3), NEW, replay)
    assert replay.jobs == [Job(label, 0) for label in LABELS]
    stratum, environment = resolve_stratum(store, NEW)
    assert (stratum, environment) == (digest(OLD), OLD)
    work = schedule(store, CELLS, range(2), stratum)
    assert work.todo == [Job("wide", 1)] and work.elsewhere == {}
    assert len(work.done) == 5
    publish(store, environment, ("wide", 1))
    assert schedule(store, CELLS, range(2), stratum).todo == []
    assert {r.stratum for r in store.records() if r.configuration["block"] == 1} == {digest(OLD)}
    assert {path: path.read_bytes() for path in before} == before, "no file was changed"


def test_one_that_was_still_running_joins_too(store):
    publish(store, OLD, ("plain", 0))
    assert accept_source(store, CELLS, [0], NEW, Replay(NEW))
    publish(store, NEW, ("gated", 0))  # by a launcher that had planned it before
    work = schedule(store, CELLS, [0], digest(OLD))
    assert work.todo == [Job("wide", 0)]


def test_a_change_after_a_change_is_accepted_into_the_first_stratum(store):
    publish(store, OLD, ("plain", 0))
    assert accept_source(store, CELLS, [0], NEW, Replay(NEW))
    publish(store, NEW, ("gated", 1))
    assert accept_source(store, CELLS, [0, 1], NEWER, Replay(NEWER))
    assert resolve_stratum(store, NEWER) == (digest(OLD), OLD)
    assert schedule(store, CELLS, [0, 1], digest(OLD)).elsewhere == {}


def test_what_is_accepted_already_is_not_trained_again(store, capsys):
    publish(store, OLD, ("plain", 0))
    assert accept_source(store, CELLS, [0], NEW, Replay(NEW))
    again = Replay(NEW)
    assert accept_source(store, CELLS, [0], NEW, again)
    assert again.jobs == [] and "accepted already" in capsys.readouterr().err


def test_other_bytes_are_not_accepted(store, capsys):
    publish(store, OLD, ("plain", 0), ("gated", 0))
    replay = Replay(NEW, metrics={"test_accuracy": 5 / 8})  # as it was for both five-letter arms
    assert accept_source(store, CELLS, [0], NEW, replay)
    assert not accept_source(store, CELLS, [0], NEWER, Replay(NEWER, correct="gA=="))
    assert "plain block 0 trained again: DIFFERENT in correct" in capsys.readouterr().err
    assert resolve_stratum(store, NEWER)[0] == digest(NEWER)


def test_what_both_strata_recorded_has_to_agree_too(store, capsys):
    """Block 0 of gated is not trained again, since block 1 was: the records speak all the same."""
    publish(store, OLD, ("plain", 1), ("gated", 1), ("plain", 2), ("gated", 2), ("wide", 2))
    different = trained("gated", 2, NEW, metrics={"test_accuracy": 0.0})
    store.publish(different)
    assert not accept_source(store, CELLS, [1, 2], NEW, Replay(NEW))
    said = capsys.readouterr().err
    assert f"trial {different.trial}, recorded in both strata" in said
    assert "DIFFERENT in metrics" in said
    assert resolve_stratum(store, NEW)[0] == digest(NEW)


@pytest.mark.parametrize(
    ("recorded", "message"),
    [
        ([], "no block here belongs to another stratum"),
        ([("plain", 0, NEW)], "no block here belongs to another stratum"),
        ([("plain", 0, {**OLD, "threads": 2})], "differs in sources, threads"),
        ([("plain", 0, OLD), ("plain", 1, SECOND)], "the blocks belong to strata"),
        ([("plain", 0, OLD), ("other", 0, OLD)], "also holds 1 trials that are not this study's"),
    ],
)
def test_what_cannot_be_accepted_is_an_error(recorded, message, store):
    for label, block, environment in recorded:
        store.publish(trained(label, block, environment))
    with pytest.raises(ValueError, match=message):
        accept_source(store, CELLS, [0, 1], NEW, Replay(NEW))


def test_trials_of_other_studies_in_other_strata_are_no_hindrance(store):
    store.publish(trained("other", 0, NEW))
    publish(store, OLD, ("plain", 0))
    assert accept_source(store, CELLS, [0], NEW, Replay(NEW))
