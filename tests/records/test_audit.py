"""Which stratum owns a block, how far a folder is, and what is wrong in it."""

import re

import pytest

from records.audit import faults, progress
from records.blocks import owner
from records.plan import Plan
from records.record import digest


@pytest.fixture
def made(make_record):
    """A record whose identities are right: of an arm, in a block, in an environment."""

    def make(arm="plain", block=0, threads=1, finished=0.0, **changes):
        configuration, environment = {"arm": arm, "block": block}, {"threads": threads}
        return make_record(
            configuration=configuration,
            environment=environment,
            trial=digest(configuration),
            stratum=digest(environment),
            times={"finished": finished},
            **changes,
        )

    return make


def test_a_block_belongs_to_the_stratum_that_holds_most_of_it(made):
    one, two = digest({"threads": 1}), digest({"threads": 2})
    assert owner([]) is None
    assert owner([made(threads=2)]) == two
    tie = [made(threads=2, finished=2.0), made(threads=1, finished=3.0)]
    assert owner(tie) == owner(tie[::-1]) == one, "run anew, as much of it"
    assert owner([*tie, made(arm="gated", threads=2, finished=1.0)]) == two


PLAN = Plan(
    name="depth",
    question="?",
    preset="smoke",
    baseline="plain",
    arms={"plain": {"arm": "plain"}, "gated": {"arm": "gated"}},
)


def test_progress_says_what_is_lacking(store, made):
    store.save_plan(PLAN)
    for record in (made(), made("gated"), made(block=1, outcome="diverged"), made("other")):
        store.publish(record)
    stratum = digest({"threads": 1})
    assert list(progress(store)) == [
        f"depth (smoke, {PLAN.hash}): 2 arms, 2 blocks",
        f"    block 0: 2 of 2 trials, stratum {stratum}",
        f"    block 1: 1 of 2 trials, stratum {stratum}, 1 diverged, lacks gated",
    ]


def test_progress_of_an_empty_folder_is_a_line(store):
    assert list(progress(store)) == [f"no plan in {store.root}"]


def test_a_sound_folder_has_no_faults(store, made):
    store.save_plan(PLAN)
    store.publish(made())
    assert list(faults(store)) == []


def test_every_fault_names_its_file(store, made):
    plan = store.save_plan(PLAN)
    plan.rename(plan.with_name("depth.0.json"))
    record = made()
    store.publish(record)
    with pytest.raises(ValueError, match="differs"):
        store.publish(made(correct=None))
    for name, change in (
        ("cut", lambda content: content[:40]),
        ("newer", lambda content: content.replace(b'version":1', b'version":7')),
        ("moved", lambda content: content),
    ):
        path = store.root / "trials" / name / record.stratum / "record.json"
        path.parent.mkdir(parents=True)
        path.write_bytes(change(record.to_bytes()))
    found = list(faults(store))
    for words in (
        "trials/cut/.*cut short",
        "trials/newer/.*schema version 7 is newer",
        "trials/moved/.*is the record of",
        "record.conflict-.*gave other bytes",
        r"studies/depth\.0\.json: is the plan depth",
    ):
        assert sum(re.search(words, line) is not None for line in found) == 1, words
    assert len(found) == 5 and not any("\n" in line for line in found)


def test_a_record_that_was_edited_is_a_fault(store, make_record):
    store.publish(make_record(trial="t", stratum="s"))
    found = list(faults(store))
    assert "trial t is not the hash of its configuration" in found[0]
    assert "stratum s is not the hash of its environment" in found[1]
