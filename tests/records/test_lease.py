"""Claims on trials: one holder at a time, none waited for once it is dead, nothing left behind."""

import errno
import os
import shutil
import time

import pytest

from records import files, lease, process
from records.files import numbered
from records.lease import Claim, Claimed, Holder, Watcher, claim, look, sweep, tidy
from records.process import Process

HERE = Process.current()


class Clock:
    """A clock that is set by hand."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def record(make_record):
    return make_record()


@pytest.fixture
def take(store, record):
    """Claim the trial of ``record``; whatever was claimed is released at the end."""
    held = []

    def take(seconds=60.0, **options):
        found = claim(store, record.trial, record.stratum, seconds, **options)
        if isinstance(found, Claim):
            held.append(found)
        return found

    yield take
    for found in held:
        found.release()


@pytest.fixture
def put_claim(store, record):
    """Put a claim of somebody else's there, as its generation."""

    def put(generation=1, beat=None, seconds=60.0, released=False, **changes):
        folder = store.claims_path(record.trial, record.stratum)
        folder.mkdir(parents=True, exist_ok=True)
        there = HERE.model_copy(update=changes)
        content = Claimed(process=there, started=1000.0, lease=seconds, released=released)
        (folder / f"{generation}.json").write_bytes(content.to_bytes())
        if beat is not None:
            (folder / f"{generation}.beat").write_text(beat)
        return folder

    return put


ELSEWHERE = {"host": "elsewhere", "boot": "another"}


def wait_for(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.005)


def folders(store):
    return sorted(p.name for p in store.root.glob("trials/*/*/*"))


# One holder


def test_a_trial_is_claimed_by_one(take, store, record):
    mine = take()
    assert isinstance(mine, Claim) and mine.generation == 1 and not mine.lost()
    other = take()
    assert isinstance(other, Holder) and other.generation == 1 and not other.is_dead()
    assert f"{HERE.host} process {HERE.pid}, since 2" in other.describe()
    assert [p.name for p in store.claims_path(record.trial, record.stratum).glob("*.json")] == [
        "1.json"
    ]


def test_strata_and_trials_do_not_get_in_each_others_way(take, store, record):
    take()
    for trial, stratum in ((record.trial, "s"), ("t", record.stratum)):
        with claim(store, trial, stratum) as other:
            assert isinstance(other, Claim)


def test_what_is_released_is_free_at_once_and_keeps_its_checkpoints(take, store, record):
    checkpoints = store.checkpoints_path(record.trial, record.stratum)
    with take():
        checkpoints.mkdir()
        (checkpoints / "5.checkpoint").write_bytes(b"x")
    holder = look(store, record.trial, record.stratum)
    assert holder.is_dead() and holder.claimed.released
    again = take()
    assert isinstance(again, Claim) and again.generation == 2
    assert (checkpoints / "5.checkpoint").exists()


def test_it_is_released_when_the_trial_fails(take, store, record):
    with pytest.raises(RuntimeError), take():
        raise RuntimeError
    assert look(store, record.trial, record.stratum).is_dead()


def test_what_is_recorded_is_not_claimed(take, store, record):
    store.publish(record)
    assert take() is None
    assert folders(store) == ["record.json"]


def test_claims_and_checkpoints_go_once_the_record_is_out(take, store, record):
    with take() as mine:
        checkpoints = store.checkpoints_path(record.trial, record.stratum)
        checkpoints.mkdir()
        (checkpoints / "5.checkpoint").write_bytes(b"x")
        store.note_failure(record.trial, record.stratum, "once")
        store.publish(record)
        assert "claims" in folders(store), "not before it is released"
    mine.release()
    assert folders(store) == ["failures", "record.json"]


def test_a_record_that_cannot_be_read_is_a_record(take, store, record):
    path = store.folder(record.trial, record.stratum) / "record.json"
    path.parent.mkdir(parents=True)
    path.symlink_to("nowhere")
    assert take() is None


def test_whoever_comes_to_know_too_late_of_a_record_trains_nothing(take, store, record):
    """The record and its clean-up fall between the first look and the claim."""
    has, looks = store.has, []

    def has_not_yet(*names):
        looks.append(has(*names))
        if len(looks) == 1:
            store.publish(record)
            return False
        return has(*names)

    store.has = has_not_yet
    assert take() is None
    assert folders(store) == ["record.json"], "its own claim is gone again"


def test_a_folder_that_is_tidied_at_the_worst_moment_is_no_error(
    take, store, record, monkeypatch, put_claim
):
    put_claim(released=True)
    call = files.call

    def tidied_before_the_link(function, *given, **named):
        if function is os.link and given[1].parent.name == "claims":
            store.publish(record)
            tidy(store, record.trial, record.stratum)
        return call(function, *given, **named)

    monkeypatch.setattr(files, "call", tidied_before_the_link)
    assert take() is None
    assert folders(store) == ["record.json"]


def test_what_the_dead_left_beside_records_is_swept(store, record, put_claim, make_record):
    put_claim(pid=2**22)
    store.checkpoints_path(record.trial, record.stratum).mkdir()
    unfinished = make_record(trial="unfinished")
    store.claims_path(unfinished.trial, unfinished.stratum).mkdir(parents=True)
    assert sweep(store) == 0, "nothing is recorded"
    store.publish(record)
    assert sweep(store) == 1
    assert folders(store) == ["claims", "record.json"]
    assert sweep(store) == 0


def test_what_is_not_recorded_is_never_cleared_away(take, store, record):
    take()
    with pytest.raises(AssertionError, match="may still be needed"):
        tidy(store, record.trial, record.stratum)
    assert folders(store) == ["claims"]


# The dead


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"pid": 2**22}, id="no such process"),
        pytest.param({"start": HERE.start - 1}, id="its number was given to another process"),
    ],
)
def test_a_dead_process_of_this_machine_is_not_waited_for(changes, take, put_claim):
    put_claim(**changes)
    found = take()
    assert isinstance(found, Claim) and found.generation == 2


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"pid": 2**22, **ELSEWHERE}, id="another machine"),
        pytest.param({"pid": 2**22, "boot": "before"}, id="this machine before it was started"),
        pytest.param({"start": 5, "namespaces": "pid:[1]"}, id="a container of the same name"),
        pytest.param({"pid": 2**22, "boot": None, "start": None}, id="a system that tells nothing"),
    ],
)
def test_a_process_that_cannot_be_seen_is_judged_by_its_heartbeat(changes, take, put_claim):
    put_claim(beat="1", **changes)
    clock = Clock()
    watcher = Watcher(clock)
    assert isinstance(take(watcher=watcher), Holder)
    clock.now += 59.9
    assert isinstance(take(watcher=watcher), Holder)
    clock.now += 0.2
    found = take(watcher=watcher)
    assert isinstance(found, Claim) and found.generation == 2


def test_a_heartbeat_that_moves_is_alive_for_another_lease(take, put_claim):
    put_claim(beat="1", **ELSEWHERE)
    clock = Clock()
    holder = take(watcher=Watcher(clock))
    for beat in "2345":
        clock.now += 59
        put_claim(beat=beat, **ELSEWHERE)
        assert not holder.is_dead()
    clock.now += 59
    assert not holder.is_dead()
    clock.now += 1
    assert holder.is_dead()


def test_an_onlooker_that_is_stopped_between_its_looks_kills_nobody(take, put_claim, monkeypatch):
    """The clock runs on during a look: what was read as it began was not still until it ended."""
    put_claim(beat="1", **ELSEWHERE)
    clock, read = Clock(), lease._read

    def read_slowly(path, root):
        found = read(path, root)
        clock.now += 1000 if path.suffix == ".beat" else 0
        return found

    monkeypatch.setattr(lease, "_read", read_slowly)
    holder = take(watcher=Watcher(clock))
    assert not holder.is_dead()


def test_no_clock_that_can_be_set_decides(take, put_claim, monkeypatch):
    put_claim(beat="1", **ELSEWHERE)
    clock = Clock()
    holder = take(watcher=Watcher(clock))
    for jump in (-(10.0**6), 10.0**6):
        now = time.time() + jump
        monkeypatch.setattr(time, "time", lambda now=now: now)
        os.utime(holder.beat, (now, now))
        assert not holder.is_dead()
    clock.now += 60
    assert holder.is_dead()


def test_a_holder_with_a_longer_lease_beats_more_slowly(take, put_claim):
    put_claim(beat="1", seconds=600, **ELSEWHERE)
    clock = Clock()
    holder = take(watcher=Watcher(clock))
    clock.now += 599
    assert not holder.is_dead()
    clock.now += 1
    assert holder.is_dead()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null", b"\xff" * 40, b"[" * 100_000, b'{"schema_version": 2}', None],
    ids=["empty", "cut", "null", "bytes", "deep", "newer", "folder"],
)
def test_a_claim_that_cannot_be_read_holds_for_a_lease(content, take, put_claim):
    folder = put_claim()
    (folder / "1.json").unlink()
    if content is None:
        (folder / "1.json").mkdir()
    else:
        (folder / "1.json").write_bytes(content)
    clock = Clock()
    holder = take(watcher=Watcher(clock))
    assert "1.json, which cannot be read" in holder.describe() and not holder.is_dead()
    clock.now += 60
    found = take(watcher=holder._watcher)
    assert isinstance(found, Claim) and found.generation == 2


@pytest.mark.parametrize("started", [-1, 1e15, 1e20, 1e300])
def test_a_time_that_no_calendar_has_is_no_claim_of_ours(started, take, put_claim):
    """It holds for a lease, as what cannot be read does, and can be described."""
    folder = put_claim(beat="1", **ELSEWHERE)
    text = (folder / "1.json").read_text()
    assert '"started":1000.0' in text
    (folder / "1.json").write_text(text.replace("1000.0", repr(started)))
    found = take()
    assert isinstance(found, Holder)
    assert "cannot be read" in found.describe()


def test_a_claim_that_none_can_follow_is_named(take, put_claim):
    """Put there by somebody: to publish the next one would be in vain, again and again."""
    folder = put_claim(10**9 - 1, released=True)
    with pytest.raises(ValueError, match=f"{folder}.*999999999.*none can follow"):
        take()


def test_what_a_claim_says_cannot_move_the_cursor(take, put_claim):
    put_claim(beat='{"notes": {"epoch": "\\u001b[2J"}}', **{**ELSEWHERE, "host": "\x1b]0;a\n"})
    said = take().describe()
    assert said.isprintable() and "epoch" in said


@pytest.mark.parametrize(
    "beat", ["", "{", "3", '{"notes": 3}', "[" * 100_000], ids=["empty", "cut", "int", "no", "deep"]
)
def test_a_heartbeat_that_is_damaged_is_one_all_the_same(beat, take, put_claim):
    put_claim(beat=beat, **ELSEWHERE)
    assert take().progress() == {}


# Heartbeats


def test_the_heart_beats_and_says_how_far_it_is(take, store, record):
    mine = take(0.3)
    holder = look(store, record.trial, record.stratum)
    wait_for(holder.beat.exists)
    before = holder.beat.read_bytes()
    mine.note(epoch=3, epochs=(1, 2))
    wait_for(lambda: holder.beat.read_bytes() != before)
    wait_for(lambda: holder.progress() == {"epoch": 3, "epochs": [1, 2]})
    assert ", epoch 3" in holder.describe()
    mine.release()
    beat = holder.beat.read_bytes()
    time.sleep(0.15)
    assert holder.beat.read_bytes() == beat, "no heartbeat after the release"


def test_no_two_holders_beat_alike(take, store, record):
    """A folder that was emptied and filled anew must not look like a heart that stands still."""
    beats = []
    for _ in range(2):
        take()
        holder = look(store, record.trial, record.stratum)
        wait_for(holder.beat.exists)
        beats.append(holder.beat.read_bytes())
        shutil.rmtree(store.root)
    assert beats[0] != beats[1]


def test_what_cannot_be_noted_is_said_to_who_notes(take):
    with pytest.raises(ValueError, match="cannot be recorded"):
        take().note(epoch=object())


def test_a_holder_that_was_taken_for_dead_finds_out(take, store, record, put_claim):
    mine = take(0.3)
    assert not mine.lost()
    folder = put_claim(generation=2, **ELSEWHERE)
    wait_for(mine.lost)
    before = (folder / "2.json").read_bytes()
    mine.release()
    assert (folder / "2.json").read_bytes() == before, "the other's claim is not touched"
    assert isinstance(take(), Holder)


def test_a_holder_whose_trial_somebody_else_finished_finds_out(take, store, record):
    mine = take(0.3)
    store.publish(record)
    tidy(store, record.trial, record.stratum)
    wait_for(mine.lost)
    mine.release()
    assert folders(store) == ["record.json"], "the folder is not made again"


def test_a_holder_whose_claim_alone_is_gone_finds_out(take, store, record):
    """Another one who clears away claims may be held up before it has removed their folder."""
    mine = take(0.3)
    (store.claims_path(record.trial, record.stratum) / "1.json").unlink()
    wait_for(mine.lost)


def test_a_full_disk_stops_the_heartbeat_and_not_the_trial(take, monkeypatch, store, record):
    said = []
    mine = take(0.06, warn=said.append)
    holder = look(store, record.trial, record.stratum)
    wait_for(holder.beat.exists)
    call = files.call

    def full(function, *given, **named):
        if function is os.write:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return call(function, *given, **named)

    monkeypatch.setattr(files, "call", full)
    wait_for(lambda: said)
    time.sleep(0.1)
    assert said == [
        f"claim on {record.trial}/{record.stratum} has no heartbeat, and may be taken by another "
        "launcher: No space left on device"
    ], "once"
    assert not mine.lost()
    before = holder.beat.read_bytes()
    monkeypatch.undo()
    wait_for(lambda: holder.beat.read_bytes() != before)


def test_a_folder_that_cannot_be_written_is_an_error_that_names_it(take, monkeypatch, store):
    def read_only(function, *given, **named):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(given[0]))

    monkeypatch.setattr(files, "call", read_only)
    with pytest.raises(OSError, match=r"Read-only file system: '.*results") as caught:
        take()
    assert "\n" not in str(caught.value)


def test_what_turned_read_only_is_released_with_a_word(take, monkeypatch):
    said = []
    mine = take(warn=said.append)

    def read_only(function, *given, **named):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(given[0]))

    monkeypatch.setattr(files, "call", read_only)
    mine.release()
    assert f"{mine.trial}/{mine.stratum} cannot be released: Read-only file system" in said[-1]


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), float("inf"), 86401])
def test_a_lease_out_of_range_is_named(seconds, take):
    with pytest.raises(ValueError, match=f"lease={seconds}; allowed: more than 0, up to 86400"):
        take(seconds)


@pytest.mark.parametrize(("trial", "stratum"), [("../t", "s"), ("t", "a/b"), ("", "s"), ("t", ".")])
def test_names_that_lead_elsewhere_are_refused(trial, stratum, store):
    with pytest.raises(ValueError, match="is no name; allowed: letters"):
        claim(store, trial, stratum)


def test_claims_that_are_a_link_are_refused(take, store, record, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder = store.claims_path(record.trial, record.stratum)
    folder.parent.mkdir(parents=True)
    folder.symlink_to(elsewhere)
    with pytest.raises(ValueError, match="claims is a symbolic link"):
        take()
    assert list(elsewhere.iterdir()) == []


def test_a_repeated_link_of_a_network_file_system_wins(take, monkeypatch, store, record):
    call = files.call

    def link_and_fail(function, *given, **named):
        found = call(function, *given, **named)
        if function is os.link:
            raise FileExistsError
        return found

    monkeypatch.setattr(files, "call", link_and_fail)
    assert isinstance(take(), Claim)
    assert numbered(store.claims_path(record.trial, record.stratum)) == [1]


# Processes


def test_this_process_is_there():
    assert HERE.is_gone() is False
    assert HERE.start and HERE.boot and "pid:[" in HERE.namespaces


def test_a_process_that_nobody_waited_for_is_gone():
    pid = os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "1000")
    there = HERE.model_copy(update={"pid": pid, "start": process._stat(pid)[1]})
    assert there.is_gone() is False
    os.kill(pid, 9)
    wait_for(lambda: process._stat(pid)[0] == "Z")
    assert there.is_gone() is True
    os.waitpid(pid, 0)
    assert there.is_gone() is True


@pytest.mark.parametrize("error", [FileNotFoundError, ProcessLookupError, PermissionError])
def test_a_process_that_is_hidden_is_not_taken_for_dead(error, monkeypatch):
    def hidden(pid):
        raise error

    here = Process.current()
    monkeypatch.setattr(process, "_stat", hidden)
    monkeypatch.setattr(Process, "current", classmethod(lambda cls: here))
    assert here.is_gone() is None
    monkeypatch.setattr(os, "kill", lambda *_: (_ for _ in ()).throw(PermissionError()))
    assert here.is_gone() is None


def test_a_system_that_tells_nothing_is_never_taken_at_its_word(monkeypatch, tmp_path):
    monkeypatch.setattr(process, "_PROC", tmp_path)
    blind = Process.current()
    assert (blind.boot, blind.namespaces, blind.start) == (None, None, None)
    assert blind.is_gone() is None and HERE.is_gone() is None


def test_the_proc_of_another_namespace_is_not_believed(monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert Process.current().boot is None


@pytest.mark.parametrize("pid", [0, -1, 2**22 + 1])
def test_no_number_that_means_many_processes_is_read_from_a_file(pid):
    with pytest.raises(ValueError, match="pid"):
        Process(**{**HERE.model_dump(), "pid": pid})


def test_an_identity_survives_its_file():
    content = Claimed(process=HERE, started=1.5, lease=60.0).to_bytes()
    assert Claimed.from_bytes(content).process == HERE
    assert Process.current() == HERE
