"""A process that dies at any system call of publication loses no record and doubles none."""

import errno
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from records.lease import Claim, claim
from records.store import NondeterminismError, Store

ROOT = Path(__file__).parents[2]
WHEN = ["before", "amid", "after"]


@pytest.fixture
def results(scratch):
    """A new results folder at each call; not even the folder above it is there."""
    made = []

    def make():
        made.append(scratch / str(len(made)) / "results")
        return Store(made[-1])

    return make


def finish(store, record):
    """What a worker does at the end of a trial; returns what publishing said."""
    with claim(store, record.trial, record.stratum):
        return store.publish(record)


def recorded(store):
    """All that a reader can see: whole records or none."""
    return list(store.records())


@pytest.mark.parametrize("when", WHEN)
def test_a_record(victim, results, record, when):
    """At each call: no record or the whole one; and the second attempt ends with one."""
    store = results()
    calls = victim.calls(lambda: store.publish(record))
    [linked] = [number for number, call in enumerate(calls, 1) if call.startswith("link")]
    for at in range(1, len(calls) + 1):
        store = results()
        victim.die(lambda store=store: store.publish(record), at, when)
        out = at > linked or (at == linked and when == "after")
        assert recorded(store) == [record] * out, (at, calls)
        assert store.publish(record) == ("equal" if out else "new"), (at, calls)
        assert recorded(store) == [record]
        assert store.conflicts(record) == []


def test_a_record_is_on_the_disk_before_its_name_is(victim, results, record, durable_order):
    """Against loss of power; the folders above it too, down from the results folder's own."""
    store = results()
    assert durable_order(victim.calls(lambda: store.publish(record))) == []


@pytest.mark.parametrize("when", WHEN)
def test_a_second_finisher(victim, results, record, when):
    """One that dies while it finds its record there already changes nothing."""
    store = results()
    store.publish(record)
    calls = victim.calls(lambda: store.publish(record))
    for at in range(1, len(calls) + 1):
        victim.die(lambda: store.publish(record), at, when)
        assert recorded(store) == [record]
        assert store.conflicts(record) == []


@pytest.mark.parametrize("when", WHEN)
def test_a_record_that_differs(victim, results, record, when):
    """The first record stays; that there was another one is not lost once it is on the disk."""
    other = record.model_copy(update={"metrics": {"test_accuracy": 0.5}})

    def publish(store):
        with pytest.raises(NondeterminismError):
            store.publish(other)

    def prepared():
        store = results()
        store.publish(record)
        return store

    store = prepared()
    for at in range(1, len(victim.calls(lambda store=store: publish(store))) + 1):
        store = prepared()
        victim.die(lambda store=store: publish(store), at, when)
        assert recorded(store) == [record]
        publish(store)
        assert recorded(store) == [record]
        assert len(store.conflicts(record)) == 1


@pytest.mark.parametrize("when", WHEN)
def test_from_the_claim_to_the_last_file_that_is_cleared_away(victim, results, record, when):
    """Claim, heartbeat, checkpoints, record, clearing: a dead holder's trial is taken at once."""

    def prepared():
        store = results()
        folder = store.checkpoints_path(record.trial, record.stratum)
        folder.mkdir(parents=True)
        (folder / "10.checkpoint").write_bytes(b"as far as it was")
        return store

    store = prepared()
    calls = victim.calls(lambda store=store: finish(store, record))
    assert {call.split()[0] for call in calls} >= {"link", "replace", "unlink", "rmdir", "fsync"}
    # The heartbeat is a thread, so the order of calls differs: the last ones may not be reached.
    for at in range(1, len(calls) - 5):
        store = prepared()
        victim.die(lambda store=store: finish(store, record), at, when)
        held = recorded(store)
        assert held in ([], [record])
        taken = claim(store, record.trial, record.stratum)
        if held:
            assert taken is None, "it is recorded"
            continue
        assert isinstance(taken, Claim), f"{at} {when}: {taken} of {calls}"
        checkpoints = store.checkpoints_path(record.trial, record.stratum)
        assert (checkpoints / "10.checkpoint").exists(), "cleared away before the record was out"
        with taken:
            assert store.publish(record) == "new"
        assert recorded(store) == [record]


@pytest.mark.parametrize("kind", ["mkdir", "open", "write", "fsync", "link"])
def test_a_full_disk(results, record, refusing, kind):
    """An error that says so; nothing of the record is there, and it can be published later."""
    store = results()
    with refusing(kind, error=errno.ENOSPC), pytest.raises(OSError, match="No space left"):
        store.publish(record)
    assert recorded(store) == []
    assert not [path for path in store.root.rglob("*.tmp")]
    assert store.publish(record) == "new"


def test_a_network_that_repeats_a_link(results, record, monkeypatch):
    """The link was made, its answer lost, and the second try finds the file: it is ours."""
    real = os.link

    def twice(*args, **options):
        real(*args, **options)
        real(*args, **options)

    monkeypatch.setattr(os, "link", twice)
    assert results().publish(record) == "new"


SAME = {
    "linkat": "link", "rename": "replace", "renameat": "replace", "renameat2": "replace",
    "mkdirat": "mkdir", "unlinkat": "unlink", "fdatasync": "fsync", "pwrite64": "write",
}  # fmt: skip


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace, to see system calls")
def test_the_harness_sees_every_call_that_the_kernel_sees(victim, scratch, results, record):
    """Otherwise there would be a call at which nobody has died yet."""
    seen, store, other = Counter[str](), results(), results()
    made = Counter(call.split()[0] for call in victim.calls(lambda: store.publish(record)))
    code = (
        "import sys; from records.store import Store; from records.record import Record\n"
        "Store(sys.argv[1]).publish(Record.from_bytes(sys.stdin.buffer.read()))"
    )
    traced = other.root.parent.with_name("traced")
    names = (
        "link,rename,mkdir,unlink,rmdir,write,fsync,ftruncate,truncate,fallocate,copy_file_range"
    )
    names += "," + ",".join(SAME) + ",symlink,symlinkat,mknod,mknodat,sendfile,pwritev,writev"
    subprocess.run(
        ["strace", "-f", "-y", "-qq", "-o", traced, "-e", f"trace={names}",
         sys.executable, "-c", code, other.root],
        input=record.to_bytes(), cwd=ROOT, check=True,
    )  # fmt: skip
    for line in traced.read_text().splitlines():
        name = line.split(maxsplit=1)[1].partition("(")[0]
        if str(scratch) in line and "ENOENT" not in line:
            seen[SAME.get(name, name)] += 1
    assert seen == {name: made[name] for name in made if name not in ("open", "close")}
