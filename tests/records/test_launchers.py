"""Real processes on one folder: racing for trials, stopped and woken, killed."""

import collections
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from records.lease import Claim, Holder, Watcher, claim, look
from records.record import Record, digest

ROOT = Path(__file__).parents[2]

# Takes what it can of the trials in the file RECORDS, again and again until all are recorded; says
# which it trains. A training takes SECONDS. LEASE: of its claims.
LAUNCHER = """
import sys, time
from pathlib import Path
from records.lease import Claim, claim
from records.record import Record
from records.store import Store
root, source, seconds, lease = sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4])
store = Store(root)
left = [Record.from_bytes(line) for line in Path(source).read_bytes().splitlines()]
print("ready", flush=True)
sys.stdin.readline()
while left:
    for record in list(left):
        found = claim(store, record.trial, record.stratum, lease)
        if found is None:
            left.remove(record)
        elif isinstance(found, Claim):
            with found:
                print("trains", record.trial, flush=True)
                end = time.monotonic() + seconds
                while time.monotonic() < end and not found.lost():
                    time.sleep(0.005)
                if found.lost():
                    print("lost", record.trial, flush=True)
                else:
                    store.publish(record)
                    print("published", record.trial, flush=True)
    time.sleep(0.01)
"""


@pytest.fixture
def records(make_record):
    found = []
    for block in range(12):
        configuration = {"arm": None, "block": block}
        found.append(make_record(configuration=configuration, trial=digest(configuration)))
    return found


@pytest.fixture
def start(tmp_path, store):
    """Start a launcher; it waits for a line. Whatever still runs at the end is killed."""
    started = []

    def start(records: list[Record], seconds: float, lease: float = 60.0):
        source = tmp_path / "records"
        source.write_bytes(b"".join(record.to_bytes() for record in records))
        arguments = [store.root, source, str(seconds), str(lease)]
        process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, *arguments],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        # A test that waits for what is never said has to fail, not to hang.
        timer = threading.Timer(120, process.kill)
        timer.start()
        started.append((process, timer))
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process, timer in started:
        timer.cancel()
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
        process.kill()
        process.communicate()


def go(*processes):
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()


def wait_for(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.005)


def folders(store):
    return {p.name for p in store.root.glob("trials/*/*/*")}


def test_four_launchers_train_each_trial_once(start, store, records):
    launchers = [start(records, 0.02) for _ in range(4)]
    go(*launchers)
    said = [launcher.communicate()[0].split("\n") for launcher in launchers]
    trained = [line for lines in said for line in lines if line.startswith("trains")]
    assert sorted(trained) == sorted(f"trains {record.trial}" for record in records)
    assert sum(any(lines) for lines in said) > 1, "one launcher did all the work: no race"
    assert sorted(r.trial for r in store.published()) == sorted(r.trial for r in records)
    assert folders(store) == {"record.json"}


def test_what_killed_launchers_held_is_taken_up_at_once(start, store, records):
    """With a lease of an hour: nobody waits for it, since the processes are gone."""
    launchers = [start(records[:6], 0.3, lease=3600.0) for _ in range(4)]
    go(*launchers)
    killed = launchers[:2]
    held = []
    for launcher in killed:
        held.append(launcher.stdout.readline().split()[1])
        launcher.kill()
        launcher.wait()
    said = [launcher.communicate()[0].splitlines() for launcher in launchers[2:]]
    trained = collections.Counter(
        line.split()[1] for lines in said for line in lines if line.startswith("trains")
    )
    assert set(trained.values()) == {1}, "a trial was trained twice by those that lived"
    assert set(held) <= set(trained), "what the killed ones held"
    assert sorted(r.trial for r in store.published()) == sorted(r.trial for r in records[:6])
    assert folders(store) == {"record.json"}


def test_a_stopped_holder_is_taken_over_and_gives_way_when_it_wakes(start, store, records):
    """Alive and of this machine, so that nothing but the heartbeat can tell."""
    [record] = records[:1]
    names = record.trial, record.stratum
    holder = start([record], seconds=600.0, lease=0.6)
    go(holder)
    assert holder.stdout.readline().startswith("trains")
    wait_for(lambda: look(store, *names).beat.exists())
    now = [0.0]
    watcher = Watcher(lambda: now[0])
    os.kill(holder.pid, signal.SIGSTOP)
    found = claim(store, *names, 0.6, watcher=watcher)
    assert isinstance(found, Holder), "one look does not tell"
    now[0] += 0.5
    assert not found.is_dead()
    now[0] += 0.2
    assert found.is_dead()
    with claim(store, *names, 0.6, watcher=watcher) as mine:
        assert isinstance(mine, Claim) and mine.generation == 2
        os.kill(holder.pid, signal.SIGCONT)
        assert holder.stdout.readline() == f"lost {record.trial}\n"
        wait_for(lambda: look(store, *names).beat.exists())
        assert not mine.lost(), "who woke up takes nothing back"
        store.publish(record)
    holder.communicate(timeout=60)
    assert list(store.published()) == [record]
    wait_for(lambda: folders(store) == {"record.json"})


def test_a_holder_that_wakes_after_all_is_over_disturbs_nothing(start, store, records):
    [record] = records[:1]
    names = record.trial, record.stratum
    holder = start([record], seconds=0.5, lease=60.0)
    go(holder)
    assert holder.stdout.readline().startswith("trains")
    os.kill(holder.pid, signal.SIGSTOP)
    now = [0.0]
    patient = Watcher(lambda: now[0])
    assert isinstance(claim(store, *names, watcher=patient), Holder)
    now[0] += 60
    with claim(store, *names, watcher=patient) as mine:
        assert isinstance(mine, Claim)
        store.publish(record)
    before = (store.paths()[0].stat().st_ino, store.paths()[0].stat().st_mtime_ns)
    assert folders(store) == {"record.json"}
    os.kill(holder.pid, signal.SIGCONT)
    said, _ = holder.communicate(timeout=60)
    # It may notice that its claim is gone, or finish and find the record equal to its own.
    assert said in (f"lost {record.trial}\n", f"published {record.trial}\n")
    assert (store.paths()[0].stat().st_ino, store.paths()[0].stat().st_mtime_ns) == before
    assert folders(store) == {"record.json"}
