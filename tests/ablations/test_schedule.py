"""What is left to run follows from the records: strata, blocks, and nothing twice."""

import dataclasses

import pytest

from ablations.acceptance import accept_source, resolve_stratum
from ablations.schedule import Job, differences, schedule
from ablations.study import Arm, Study
from ablations.trial import resolve, run_trial
from overconv import MDConv2d
from records.record import digest
from records.store import Store

STUDY = Study(
    name="s", question="?", baseline="plain", arms={"plain": Arm(), "gated": Arm(MDConv2d)}
)
HERE = {"torch": "1", "threads": 1, "sources": {"a": "1"}}
NEWER_SOURCE = {**HERE, "sources": {"a": "2"}}
TWO_THREADS = {**HERE, "threads": 2}
BOTH = [Job("plain", 0), Job("gated", 0)]


@pytest.fixture
def cells(setting):
    return resolve(STUDY, setting)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


@pytest.fixture
def publish(store, cells, dataset):
    def publish(job: Job, environment: dict):
        record = run_trial(cells[job.label], dataset, job.block, environment=environment)
        store.publish(record)
        return record

    return publish


def test_an_empty_folder_lacks_all_block_by_block(store, cells):
    work = schedule(store, cells, [0, 1], digest(HERE))
    assert work.todo == [*BOTH, Job("plain", 1), Job("gated", 1)]
    assert work.done == []


def test_what_is_recorded_is_done(store, cells, publish):
    publish(BOTH[0], HERE)
    work = schedule(store, cells, [0], digest(HERE))
    assert (work.done, work.todo) == (BOTH[:1], BOTH[1:])


@pytest.mark.parametrize("elsewhere", [NEWER_SOURCE, TWO_THREADS])
def test_a_block_belongs_to_the_stratum_of_its_first_record(elsewhere, store, cells, publish):
    publish(BOTH[0], HERE)
    work = schedule(store, cells, [0, 1], digest(elsewhere))
    assert work.elsewhere == {0: digest(HERE)}
    assert work.todo == [Job("plain", 1), Job("gated", 1)], "a block without records is free"


def test_a_block_can_be_run_anew_whole(store, cells, publish):
    publish(BOTH[0], HERE)
    work = schedule(store, cells, [0], digest(TWO_THREADS), anew=True)
    assert work.todo == BOTH, "the part that another stratum has counts for nothing"
    for job in BOTH:
        publish(job, TWO_THREADS)
    assert schedule(store, cells, [0], digest(TWO_THREADS)).done == BOTH
    assert schedule(store, cells, [0], digest(HERE)).elsewhere == {0: digest(TWO_THREADS)}


def test_arms_limit_what_is_run(store, cells):
    assert schedule(store, cells, [0], digest(HERE), labels=["gated"]).todo == BOTH[1:]


def test_the_difference_of_strata_is_named(store, publish):
    publish(BOTH[0], HERE)
    assert differences(TWO_THREADS, store.records(), digest(HERE)) == ["threads (1, here 2)"]
    assert differences(NEWER_SOURCE, store.records(), digest(HERE)) == ["sources"]


def test_source_that_does_not_matter_is_accepted(store, cells, publish, dataset):
    for job in BOTH:
        publish(job, HERE)

    def replay(job):
        return run_trial(cells[job.label], dataset, job.block, environment=NEWER_SOURCE)

    assert resolve_stratum(store, NEWER_SOURCE) == (digest(NEWER_SOURCE), NEWER_SOURCE)
    assert accept_source(store, cells, [0, 1], NEWER_SOURCE, replay)
    assert resolve_stratum(store, NEWER_SOURCE) == (digest(HERE), HERE)
    assert schedule(store, cells, [0], digest(HERE)).done == BOTH


def test_source_that_matters_is_not_accepted(store, cells, publish, dataset, capsys):
    for job in BOTH:
        publish(job, HERE)
    recipe = dataclasses.replace(cells["gated"].recipe, lr=0.049)
    changed = {**cells, "gated": dataclasses.replace(cells["gated"], recipe=recipe)}

    def replay(job):
        return run_trial(changed[job.label], dataset, job.block, environment=NEWER_SOURCE)

    assert not accept_source(store, cells, [0], NEWER_SOURCE, replay)
    assert "gated block 0 trained again: DIFFERENT in metrics" in capsys.readouterr().err
    assert resolve_stratum(store, NEWER_SOURCE)[0] == digest(NEWER_SOURCE)


@pytest.mark.parametrize(
    ("recorded", "message"),
    [([], "no block here belongs"), ([TWO_THREADS], "differs in sources, threads")],
)
def test_acceptance_is_for_source_alone(recorded, message, store, cells, publish):
    for environment in recorded:
        publish(BOTH[0], environment)
    with pytest.raises(ValueError, match=message):
        accept_source(store, cells, [0], NEWER_SOURCE, replay=None)
