"""A results folder: published once whatever races or dies, never replaced, wrong files named."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from records import files
from records.plan import Plan
from records.record import Record
from records.store import NondeterminismError, Store, first_difference

ROOT = Path(__file__).parents[2]
PLAN = Plan(name="depth", question="?", preset="smoke", baseline="plain", arms={"plain": {}})


def leftovers(store: Store) -> list[str]:
    return [str(path) for path in store.root.rglob("*") if path.name.startswith(".")]


def test_a_missing_folder_reads_as_an_empty_store(store):
    assert (store.paths(), list(store.records()), store.plans(), store.strata()) == ([], [], [], {})
    assert store.find("t") == [] and store.get("t", "s") is None
    assert not store.root.exists(), "reading writes nothing"


def test_what_was_published_is_found(store, make_record):
    record, elsewhere = make_record(), make_record(stratum="elsewhere")
    assert store.publish(record) == "new"
    assert store.publish(elsewhere) == "new"
    assert store.get(record.trial, record.stratum) == record
    assert store.find(record.trial) == sorted([record, elsewhere], key=lambda r: r.stratum)
    assert list(store.records()) == store.find(record.trial)
    path = store.root / "trials" / record.trial / record.stratum / "record.json"
    assert path in store.paths()
    assert path.read_bytes() == record.to_bytes()
    assert not leftovers(store)


def test_a_second_finisher_that_agrees_changes_nothing(store, make_record):
    first = make_record()
    store.publish(first)
    [path] = store.paths()
    before = (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes())
    assert store.publish(make_record(times={"finished": 2.0, "host": "there"})) == "equal"
    assert (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes()) == before
    assert [p.name for p in path.parent.iterdir()] == ["record.json"]


def test_a_second_finisher_that_disagrees_is_loud_and_loses_nothing(store, make_record):
    first = make_record()
    second = make_record(metrics={"test_accuracy": 0.25, "test_loss": 0.5})
    store.publish(first)
    for _ in range(2):
        with pytest.raises(NondeterminismError) as caught:
            store.publish(second)
    [path] = store.paths()
    assert str(path) in str(caught.value)
    assert "metrics.test_accuracy: 0.875, now 0.25" in str(caught.value)
    assert "\n" not in str(caught.value)
    [conflict] = path.parent.glob("record.conflict-*.json")
    assert conflict.name in str(caught.value)
    assert path.read_bytes() == first.to_bytes(), "a record was overwritten"
    assert conflict.read_bytes() == second.to_bytes()
    assert list(store.records()) == [first]
    assert store.conflicts(first) == [conflict]


def test_a_planted_overwriting_publisher_is_caught(store, make_record, monkeypatch):
    monkeypatch.setattr("os.link", os.replace)
    with pytest.raises(AssertionError, match=r"overwritten|DID NOT RAISE|assert"):
        try:
            test_a_second_finisher_that_disagrees_is_loud_and_loses_nothing(store, make_record)
        except pytest.fail.Exception as error:
            raise AssertionError(str(error)) from None


def test_a_broken_record_is_not_replaced(store, make_record):
    store.publish(make_record())
    [path] = store.paths()
    path.write_bytes(b'{"schema')
    with pytest.raises(ValueError, match="cut short") as caught:
        store.publish(make_record())
    assert str(path) in str(caught.value)
    assert path.read_bytes() == b'{"schema'


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ({"a": {"b": [1, {"c": 2}]}}, {"a": {"b": [1, {"c": 3}]}}, "a.b[1].c: 2, now 3"),
        ({"a": 1}, {"a": 1, "b": 2}, "b: only now"),
        ({"a": 1, "b": 2}, {"b": 3}, "a: not now"),
        ({"a": [1]}, {"a": [1, 2]}, "a: 1 values, now 2"),
        ({"a": "x" * 99}, {"a": None}, f'a: "{"x" * 36}..., now null'),
    ],
)
def test_the_first_difference_is_named(before, now, expected):
    assert first_difference(before, now) == expected


# Races and deaths


# Publishes the records of a file, a line each, again and again until it is told to stop.
PUBLISHER = """
import sys, time
from pathlib import Path
from records.record import Record
from records.store import NondeterminismError, Store
root, source, go, times = sys.argv[1:]
records = [Record.from_bytes(line) for line in Path(source).read_bytes().splitlines()]
print("ready", flush=True)
while not Path(go).exists():
    time.sleep(0.0005)
for _ in range(int(times)):
    for record in records:
        try:
            print(Store(root).publish(record), flush=True)
        except NondeterminismError:
            print("different", flush=True)
"""


def start_publisher(store: Store, name: str, records: list[Record], times: int = 1):
    source = store.root.with_name(name)
    source.write_bytes(b"".join(record.to_bytes() for record in records))
    go = store.root.with_name("go")
    command = [sys.executable, "-c", PUBLISHER, store.root, source, go, str(times)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def race(store: Store, rivals: list[list[Record]]) -> list[list[str]]:
    """Outcomes, by trial, of processes that publish the same trials at once."""
    processes = [start_publisher(store, f"rival{i}", r) for i, r in enumerate(rivals)]
    store.root.with_name("go").touch()
    outcomes = [process.communicate()[0].split() for process in processes]
    assert all(process.returncode == 0 for process in processes)
    return [sorted(trial) for trial in zip(*outcomes, strict=True)]


def test_racing_processes_that_agree_leave_one_record(store, make_record):
    rivals = [
        [make_record(trial=f"t{n:02}", times={"finished": float(rival)}) for n in range(40)]
        for rival in range(4)
    ]
    assert race(store, rivals) == [["equal"] * 3 + ["new"]] * 40
    published = [path.read_bytes() for path in store.paths()]
    winners = [
        [r.to_bytes() for r in rival].index(p) == n
        for n, p in enumerate(published)
        for rival in rivals
        if p in [r.to_bytes() for r in rival]
    ]
    assert winners == [True] * 40, "a record holds bytes that nobody published"
    assert all([f.name for f in p.parent.iterdir()] == ["record.json"] for p in store.paths())


def test_racing_processes_that_disagree_lose_no_bytes(store, make_record):
    rivals = [
        [make_record(trial=f"t{n:02}", metrics={"test_accuracy": rival / 8}) for n in range(40)]
        for rival in range(4)
    ]
    assert race(store, rivals) == [["different"] * 3 + ["new"]] * 40
    for path, *records in zip(store.paths(), *rivals, strict=True):
        kept = [file.read_bytes() for file in path.parent.iterdir()]
        assert sorted(kept) == sorted(record.to_bytes() for record in records)


def test_a_killed_publisher_leaves_whole_records_or_none(store, make_record):
    records = [make_record(trial=f"t{n:03}") for n in range(400)]
    held = 0
    for attempt in range(6):
        process = start_publisher(store, "source", records, times=100)
        store.root.with_name("go").touch()
        for _ in range(held + 7 * attempt):  # what is there already, and some more
            process.stdout.readline()
        process.kill()
        process.communicate()
        found = list(store.records())
        assert found == records[: len(found)], "a record is cut short, or another's"
        assert len(found) >= held, "a record was lost"
        held = len(found)
    assert 7 < held < 400
    assert [store.publish(record) for record in records] == ["equal"] * held + ["new"] * (
        400 - held
    )


# Publishes a record, and says what the interpreter does to which file.
WATCHED = """
import os, sys
from records.record import Record
from records.store import Store
root, content = sys.argv[1:]
record, events = Record.from_bytes(content.encode()), []

def watch(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        writes = set(mode or "r") & set("wxa+") or flags & (os.O_WRONLY | os.O_RDWR)
        if writes and isinstance(path, (str, os.PathLike)):
            events.append(("write", os.path.basename(path)))
    elif event in ("os.link", "os.rename", "os.truncate"):
        events.append((event, *map(os.path.basename, arguments[:2])))

sys.addaudithook(watch)
Store(root).publish(record)
for event in list(events):
    print(*event)
"""


def test_a_record_appears_by_one_link_of_a_whole_file(store, make_record):
    """Not by a rename, which replaces; never open for writing, so never seen or left in part."""
    command = [sys.executable, "-c", WATCHED, store.root, make_record().to_bytes().decode()]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    [write, link] = printed.splitlines()
    temporary = write.removeprefix("write ")
    assert temporary.endswith(".tmp")
    assert link == f"os.link {temporary} record.json"


def test_a_repeated_link_of_a_network_file_system_is_no_second_finisher(tmp_path, monkeypatch):
    link = os.link

    def link_and_fail(source, target):
        link(source, target)
        raise FileExistsError

    monkeypatch.setattr("os.link", link_and_fail)
    assert files.publish_once(tmp_path / "a" / "b", b"x", tmp_path)


def test_what_is_published_is_synced_with_its_folders(store, make_record, monkeypatch):
    synced = []

    def note(descriptor):
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))

    monkeypatch.setattr("os.fsync", note)
    record = make_record()
    store.publish(record)
    folder = store.root / "trials" / record.trial / record.stratum
    assert [p for p in synced if p.endswith(".tmp")], "the bytes"
    wanted = {str(f) for f in (folder, folder.parent, folder.parent.parent, store.root)}
    assert wanted <= set(synced), "the names of the file and of its folders"
    assert synced[-1] == str(folder), "after the link"


# Files that are wrong


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:100]), "cut short"),
        (lambda path: path.write_bytes(b""), "cut short"),
        (lambda path: path.write_bytes(b"\x80\x00"), "no JSON"),
        (
            lambda path: path.write_bytes(path.read_bytes().replace(b'version":1', b'version":2')),
            "schema version 2 is newer than 1",
        ),
        (
            lambda path: path.write_bytes(path.read_bytes().replace(b'"trial":"', b'"trial":"x')),
            "is the record of x",
        ),
        (lambda path: path.unlink() or path.mkdir(), "Is a directory"),
    ],
)
def test_a_record_that_cannot_be_read_is_an_error_that_names_it(
    damage, complaint, store, make_record
):
    record = make_record()
    store.publish(record)
    [path] = store.paths()
    damage(path)
    for read in (lambda: list(store.records()), lambda: store.find(record.trial)):
        with pytest.raises(ValueError, match=complaint) as caught:
            read()
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


def test_a_plan_is_kept_once_and_a_broken_one_is_named(store):
    path = store.save_plan(PLAN)
    assert path == store.root / "studies" / f"depth.{PLAN.hash}.json"
    assert store.save_plan(PLAN) == path
    assert store.plans() == [PLAN]
    path.write_bytes(path.read_bytes()[:50])
    for read in (store.plans, lambda: store.save_plan(PLAN)):
        with pytest.raises(ValueError, match="cut short") as caught:
            read()
        assert str(path) in str(caught.value)


def test_what_is_known_of_a_stratum_is_not_replaced(store):
    store.save_stratum("s", {"threads": 1})
    store.save_stratum("s", {"threads": 1})
    assert store.strata() == {"s": {"threads": 1}}
    with pytest.raises(ValueError, match=r"strata/s\.json says something else"):
        store.save_stratum("s", {"threads": 2})
    assert store.strata() == {"s": {"threads": 1}}


def test_a_folder_that_can_be_written_is_left_empty(store):
    store.check_writable()
    assert list(store.root.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_refused_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "results"):
        with pytest.raises(ValueError, match="cannot be written: ") as caught:
            Store(root).check_writable()
        assert repr(str(root)) in str(caught.value)

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    with pytest.raises(ValueError, match=r"does not offer hard links.*\(Operation not permitted\)"):
        Store(tmp_path / "no_links").check_writable()
    assert list((tmp_path / "no_links").iterdir()) == []
