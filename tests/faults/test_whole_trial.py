"""A whole trial, killed at each system call by which it changes its results folder.

Claim, heartbeat, checkpoints, record, clearing: whatever the last call was, the next process ends
with the record of a trial that nobody disturbed.
"""

import dataclasses
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

import pytest

from ablations import files
from ablations.engines.engine import Task
from ablations.setting import open_study
from ablations.worker import run_task
from records.canonical import digest
from records.lease import look
from records.store import Store

EVERY_NTH = 20  # call is tried in the short test; the long one tries each


@pytest.fixture
def task(short_study, scratch):
    """A trial of 36 steps with a checkpoint every 7 and at the ends of its two epochs."""
    study = str(short_study())
    held = {"study": study, "study_hash": files.file_hash(study), "preset": "smoke"}
    nothing = dict.fromkeys(("dataset", "model", "data_root"))
    opened = open_study(**held, **nothing, device="cpu", ranks=1, needs_data=True)
    trial = opened.cells(["gated"])["gated"].trial(0)
    return Task(
        **held, results=str(scratch / "results"), arm="gated", block=0, ranks=1,
        expect=f"{trial}/{digest(opened.environment)}", checkpoint_every=7,
        lease=3600.0,  # so that its heart beats but once, and the calls are always the same
    )  # fmt: skip


def finish(task):
    """Run it to the end in this process; returns the messages."""
    said = []
    run_task(task, said.append, lambda: False)
    assert "finished" in said[-1] or "recorded" in said[-1], said[-1]
    return said


@pytest.mark.parametrize("when", ["before", "amid", "after"])
@pytest.mark.parametrize("nth", [EVERY_NTH, pytest.param(1, marks=pytest.mark.slow)])
def test_at_each_call(victim, leftovers, task, when, nth):
    # In a process that has not trained: torch refuses to in the fork of one that has.
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=fresh) as process:
        process.submit(die_at_each_call, victim, leftovers, task, when, nth).result()


def die_at_each_call(victim, leftovers, task, when, nth):
    calls = victim.calls(lambda: finish(task))
    assert len(calls) > 80
    [undisturbed] = Store(task.results).records()
    numbers = [n for n, call in enumerate(calls, 1) if when != "amid" or call.startswith("write")]
    resumed = 0
    for at in numbers[:: max(1, nth * len(numbers) // len(calls))]:
        again = dataclasses.replace(task, results=str(victim.root / f"{when}-{at}"))
        store = Store(again.results)
        victim.die(lambda again=again: finish(again), at, when)
        for record in store.records():
            assert record.compared() == undisturbed.compared(), (at, calls[at - 1])
        said = finish(again)
        [record] = store.records()
        assert record.compared() == undisturbed.compared(), (at, calls[at - 1])
        assert store.conflicts(record) == []
        resumed += any("resumed" in message for message in said)
        assert look(store, task.trial, task.stratum) is None
        # What dies while it publishes leaves its temporary file, which `verify` names.
        left = [name for name in leftovers(store.root) if ".record.json." not in name]
        assert left == [], (at, calls[at - 1])
    assert resumed > 0


def test_the_harness_kills_where_it_says(victim, scratch):
    target, other = scratch / "file", scratch / "other"

    def write():
        file = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.write(file, b"0123456789")
        os.close(file)
        target.replace(other)

    assert victim.calls(write) == ["open file", "write file", "close file", "replace file"]
    for at, when, size in ((1, "after", 0), (2, "before", 0), (2, "amid", 5), (2, "after", 10)):
        other.unlink(missing_ok=True)
        victim.die(write, at, when)
        assert target.stat().st_size == size
        assert not other.exists()
    victim.die(write, 4, "after")
    assert not target.exists() and other.exists()
    assert not victim.may_die(write, 5, "before")
