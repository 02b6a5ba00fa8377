"""Which stratum owns a block, how far a folder is, and what is wrong in it."""

import os
import re

import pytest

from records.audit import faults, progress, remarks
from records.blocks import owner
from records.lease import claim
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
        f"depth (smoke, {PLAN.hash}): 2 arms, 2 blocks, 2 done, 1 diverged, 1 to do",
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


def matching(lines, words):
    return [line for line in lines if re.search(words, line)]


def test_what_is_damaged_or_a_trap_is_a_fault_of_one_line(store, made, tmp_path):
    """Hostile files cost a line each, and none of them is followed, waited for or read whole."""
    store.publish(made())
    stratum = digest({"threads": 1})

    def place(name):
        path = store.root / "trials" / name / stratum / "record.json"
        path.parent.mkdir(parents=True)
        return path

    with place("huge").open("wb") as file:
        file.truncate(2**30)
    place("deep").write_bytes(b"[" * 200_000)
    (tmp_path / "elsewhere").write_bytes(made().to_bytes())
    place("link").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(place("pipe"))
    place("folder").mkdir()
    (store.root / "trials" / "away").symlink_to(tmp_path)
    found = list(faults(store))
    for words in (
        "trials/huge/.*: has 1,073,741,824 bytes; allowed: 16,777,216",
        "trials/deep/.*: is nested too deep",
        "trials/link/.*record.json: is a symbolic link; allowed: plain files$",
        "trials/link/.*record.json: is a symbolic link; allowed: plain files and folders",
        "trials/pipe/.*: is no plain file",
        "trials/folder/.*: cannot be read: Is a directory",
        "trials/away: is a symbolic link",
    ):
        assert len(matching(found, words)) == 1, words
    assert len(found) == 7 and all(line.isprintable() for line in found)


def test_a_folder_that_leads_elsewhere_is_not_read(store, made, tmp_path):
    store.publish(made())
    [path] = store.paths()
    path.parent.rename(tmp_path / "moved")
    path.parent.symlink_to(tmp_path / "moved")
    [reading, link] = faults(store)
    assert reading.startswith(f"{path}: {path.parent} is a symbolic link; allowed: folders of this")
    assert link.startswith(f"{path.parent}: is a symbolic link")


def test_strata_and_failures_and_conflicts_are_checked_too(store, made):
    record = made()
    store.publish(record)
    with pytest.raises(ValueError, match="differs"):
        store.publish(made(correct=None))
    [conflict] = store.conflicts(record)
    conflict.rename(conflict.with_name("record.conflict-0.json"))
    store.save_stratum("s", {"environment": {"threads": 1}})
    store.save_stratum("u", {"same_as": {"stratum": "v", "environment": {}}})
    store.note_failure(record.trial, record.stratum, "no").write_bytes(b"{")
    found = list(faults(store))
    for words in (
        "record.conflict-0.json: a second run of this trial gave other bytes",
        "record.conflict-0.json: is not named by the hash of what it holds",
        "strata/s.json: stratum s is not the hash of its environment",
        "strata/u.json: .*stratum v is not the hash of its environment",
        "failures/1.json: cut short",
    ):
        assert len(matching(found, words)) == 1, words
    assert len(found) == 5


def test_strata_that_are_said_to_be_equal_and_are_not_are_a_fault(store, made):
    old, new = {"threads": 1}, {"threads": 2}
    store.publish(made(threads=1))
    store.publish(made(threads=2, metrics={"test_accuracy": 0.25}))
    assert list(faults(store)) == [], "nobody says that they are equal"
    same = {"stratum": digest(old), "environment": old}
    store.save_stratum(digest(new), {"environment": new, "same_as": same})
    [found] = faults(store)
    assert "stratum was accepted as equal, in metrics.test_accuracy: 0." in found
    assert "not used" not in "".join(remarks(store))


def test_what_is_foreign_left_or_of_another_stratum_is_remarked(store, made):
    store.save_plan(PLAN)
    record = made(finished=5.0)
    for one in (record, made("gated"), made(threads=2), made(block=1, threads=2), made("other")):
        store.publish(one)
    mine = claim(store, "unfinished", "s")
    folder = store.folder(record.trial, record.stratum)
    (folder / "claims").mkdir()
    (folder / ".record.json.0.tmp").write_bytes(b"{")
    (folder / "notes.txt").write_bytes(b"mine")
    (store.root / "README").write_bytes(b"mine")
    (store.root / "report").mkdir()
    (store.root / "report" / "index.html").write_bytes(b"")
    (store.root / "benchmark.jsonl").write_bytes(b"")
    found = list(remarks(store))
    one, two = digest({"threads": 1}), digest({"threads": 2})
    for words in (
        r"/\.record\.json\.0\.tmp: being written, or left by a process that died",
        "/notes.txt: foreign",
        "/README: foreign",
        f"{folder}/claims: left beside a record",
        f"depth: record {record.trial}/{two} is not used: block 0 belongs to stratum {one}, "
        "which differs in threads",
        rf"depth: blocks of several strata, {one}: blocks \[0\]; {two}: blocks \[1\]",
        f"record {made('other').trial}/{one}: no plan here asks for it",
    ):
        assert len(matching(found, words)) == 1, words
    assert len(found) == 7, found
    assert list(faults(store)) == []
    mine.release()


def test_remarks_of_a_damaged_folder_pass_over_what_is_a_fault(store, made):
    store.save_plan(PLAN).write_bytes(b"{")
    store.publish(made())
    store.paths()[0].write_bytes(b"{")
    assert list(remarks(store)) == []
    assert len(list(faults(store))) == 2
