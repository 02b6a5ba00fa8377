"""Where trials stand: done, diverged, running, dead, failed, begun, to do."""

import os
import time

import pytest

from records.lease import claim, look
from records.plan import Plan
from records.process import Process
from records.record import digest
from records.standing import MOST_BLOCKS, progress, standings

PLAN = Plan(
    name="depth",
    question="?",
    preset="smoke",
    baseline="plain",
    arms={label: {"arm": label} for label in ("plain", "gated", "wide")},
)
STRATUM = digest({"threads": 1})


@pytest.fixture
def made(make_record):
    def make(label, block, **changes):
        configuration = {"arm": label, "block": block}
        return make_record(
            configuration=configuration, environment={"threads": 1},
            trial=digest(configuration), stratum=STRATUM, **changes,
        )  # fmt: skip

    return make


@pytest.fixture
def folder(store):
    store.save_plan(PLAN)
    return store


def found(store):
    return {
        (trial.label, trial.block): (trial.state, trial.detail)
        for _, trials in standings(store)
        for trial in trials
    }


def test_each_state_is_told_from_the_others(folder, made):
    folder.publish(made("plain", 0))
    folder.publish(made("gated", 0, outcome="diverged"))
    trial = {label: PLAN.trial_id(label, 3) for label in PLAN.arms}
    with claim(folder, trial["plain"], STRATUM) as mine:
        mine.note(epoch=7)
        claim(folder, trial["gated"], STRATUM).release()
        folder.note_failure(trial["wide"], STRATUM, "ValueError: once\n")
        path = folder.note_failure(trial["wide"], STRATUM, "ValueError: again\n")
        states = found(folder)
    assert states["plain", 0] == ("done", "")
    assert states["gated", 0] == ("diverged", "")
    assert states["wide", 0] == ("to do", "")
    state, detail = states["plain", 3]
    assert state == "running" and f"process {os.getpid()}, since " in detail
    assert states["gated", 3] == ("begun", "stopped in order; running again goes on")
    assert states["wide", 3] == ("failed", f"ValueError: again ({path}, 2 times)")
    assert len(states) == 6, "blocks that were begun, all arms of them"


def test_a_dead_holder_is_told_from_a_live_one(folder):
    trial = PLAN.trial_id("gated", 1)
    mine = claim(folder, trial, STRATUM)
    path = folder.claims_path(trial, STRATUM) / "1.json"
    mine._ended.set()
    mine._thread.join()
    there = mine._claimed.model_copy(
        update={"process": Process.current().model_copy(update={"pid": 2**22})}
    )
    path.write_bytes(there.to_bytes())
    state, detail = found(folder)["gated", 1]
    assert state == "dead" and detail.endswith("running again takes it up")
    assert look(folder, trial, STRATUM).is_dead()


def test_a_holder_of_another_machine_that_is_silent_is_said_to_be(folder):
    trial = PLAN.trial_id("gated", 1)
    with claim(folder, trial, STRATUM) as mine:
        holder = look(folder, trial, STRATUM)
        deadline = time.monotonic() + 20
        while not holder.beat.exists():
            assert time.monotonic() < deadline
        there = Process.current().model_copy(update={"boot": "another"})
        content = mine._claimed.model_copy(update={"process": there}).to_bytes()
        (folder.claims_path(trial, STRATUM) / "1.json").write_bytes(content)
        assert "no sign of life" not in found(folder)["gated", 1][1]
        past = time.time() - 500
        os.utime(holder.beat, (past, past))
        state, detail = found(folder)["gated", 1]
    assert state == "running" and "; no sign of life for 50" in detail


def test_a_failure_before_a_new_attempt_is_past(folder):
    trial = PLAN.trial_id("gated", 1)
    folder.note_failure(trial, STRATUM, "ValueError: no")
    assert found(folder)["gated", 1][0] == "failed"
    mine = claim(folder, trial, STRATUM)
    assert found(folder)["gated", 1][0] == "running"
    mine.release()
    assert found(folder)["gated", 1][0] == "begun", "stopped before it could fail again"


def test_a_trial_that_is_recorded_is_done_whatever_came_before(folder, made):
    record = made("gated", 1)
    folder.note_failure(record.trial, STRATUM, "ValueError: no")
    folder.publish(record)
    assert found(folder)["gated", 1] == ("done", "")


def test_of_several_strata_the_one_that_gets_on_is_shown(folder):
    trial = PLAN.trial_id("gated", 1)
    folder.note_failure(trial, "s", "ValueError: no")
    with claim(folder, trial, STRATUM):
        assert found(folder)["gated", 1][0] == "running"


def test_plans_that_share_a_trial_both_show_it(folder):
    folder.save_plan(Plan(**{**PLAN.model_dump(), "name": "other"}))
    folder.note_failure(PLAN.trial_id("gated", 2), STRATUM, "ValueError: no")
    assert [[t.state for t in trials] for _, trials in standings(folder)] == [
        ["to do", "failed", "to do"]
    ] * 2


def test_the_lines_say_what_is_wrong_and_for_whom(folder, made):
    folder.publish(made("plain", 0))
    path = folder.note_failure(PLAN.trial_id("gated", 0), STRATUM, "ValueError: <b>\x1b[2J")
    assert list(progress(folder)) == [
        f"depth (smoke, {PLAN.hash}): 3 arms, 1 blocks, 1 done, 1 failed, 1 to do",
        f"    block 0: 1 of 3 trials, stratum {STRATUM}, lacks gated, wide",
        f"    failed  gated block 0: ValueError: <b>?[2J ({path})",
    ]


def test_what_no_plan_asks_for_ends_the_search(folder):
    folder.note_failure("unknown", STRATUM, "ValueError: no")
    folder.note_failure(PLAN.trial_id("gated", MOST_BLOCKS - 1), STRATUM, "ValueError: no")
    assert found(folder)["gated", MOST_BLOCKS - 1][0] == "failed"
    assert ("gated", 0) not in found(folder)
    assert list(progress(folder))[-1] == (
        "1 unfinished trials of no plan here, for instance unknown"
    )
