"""Local engines on made workers: order, number, failure, death, and being told to leave."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from ablations.engines import local
from ablations.engines.engine import Backlog, Task
from ablations.engines.local import InProcess, Workers

# What it is asked to do is the arm; it does nothing of what a real one loads.
WORKER = """
import json, os, pathlib, signal, sys, threading, time
folder, num = pathlib.Path(sys.argv[1]), 0
def say(**message): print(json.dumps(message), flush=True)
for line in sys.stdin:
    task = json.loads(line)
    num += 1
    (folder / f"{task['arm']}-{time.time_ns()}").write_text(f"{os.getpid()} {num}")
    print("noise on standard output")
    say(epoch=0, values={})
    deed = task["arm"].partition("_")[0]
    first = len(list(folder.glob(task["arm"] + "-*"))) == 1
    if deed == "killed" or (deed == "once" and first):
        print("last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if deed == "leaves": sys.exit("it left")
    if deed == "fails": say(failed="Traceback")
    elif deed == "waits":
        sys.stdin.read()  # until it is told to leave
        (folder / "left").touch()
        say(stopped=5)
    elif deed == "hangs":
        time.sleep(1000)
    elif deed == "meets":
        time.sleep(0.4)
        seen = {p.read_text().split()[0] for p in folder.glob("meets_*")}
        say(finished={"seen": len(seen), "threads": os.environ["OMP_NUM_THREADS"]})
    else: say(finished={})
"""


def task(arm: str) -> Task:
    return Task(study="s", study_hash="h", preset="p", results="r", arm=arm, block=0, expect="t/s")


class Said:
    def __init__(self):
        self.heard_of, self.messages, self.on_epoch = [], {}, lambda task: None

    def heard(self, task, message):
        [kind, *_] = message
        self.heard_of.append((task.arm, kind))
        self.messages[task.arm] = message[kind]
        if kind == "epoch":
            self.on_epoch(task)

    def look(self, task):
        return "held"

    def note_failure(self, task, text):
        pass


@pytest.fixture
def said():
    return Said()


@pytest.fixture
def workers(tmp_path):
    def make(number: int, threads: int = 1) -> Workers:
        return Workers(number, threads, (sys.executable, "-c", WORKER, str(tmp_path)))

    return make


def processes(folder, pattern="*-*"):
    """Process and its number of tasks so far, of each task that was begun."""
    paths = sorted(folder.glob(pattern), key=lambda path: path.name.rpartition("-")[2])
    return [tuple(map(int, path.read_text().split())) for path in paths]


def never():
    return False


def run(engine, arms, said, stop=never, retries=1):
    backlog = Backlog.of(map(task, arms), said, said, retries=retries)
    engine.run(backlog, stop)
    return backlog.outcome()


def test_workers_persist(workers, said, tmp_path):
    outcome = run(workers(1), ["a", "b", "c"], said)
    assert (outcome.num_done, outcome.failed, outcome.left) == (3, {}, [])
    assert [number for _, number in processes(tmp_path)] == [1, 2, 3]
    assert len({process for process, _ in processes(tmp_path)}) == 1
    assert said.heard_of == [(arm, kind) for arm in "abc" for kind in ("epoch", "finished")]


def test_as_many_at_once_as_asked_for_with_their_threads(workers, said):
    arms = [f"meets_{n}" for n in range(4)]
    assert run(workers(2, threads=3), arms, said).num_done == 4
    assert {said.messages[arm]["seen"] for arm in arms} == {2}
    assert {said.messages[arm]["threads"] for arm in arms} == {"3"}


def test_no_more_workers_than_tasks(workers, said, tmp_path):
    assert run(workers(8), ["a", "b"], said).num_done == 2
    assert len({process for process, _ in processes(tmp_path)}) <= 2


def test_a_killed_worker_costs_its_trial_an_attempt_and_nobody_else(workers, said, tmp_path):
    outcome = run(workers(2), ["killed", "a", "once", "b", "fails", "leaves"], said)
    assert outcome.num_done == 3
    assert {t.arm for t in outcome.failed} == {"killed", "fails", "leaves"}
    assert [kind for arm, kind in said.heard_of if arm == "once"] == [
        "epoch", "retried", "epoch", "finished",
    ]  # fmt: skip
    assert [kind for arm, kind in said.heard_of if arm == "killed"] == [
        "epoch", "retried", "epoch", "failed",
    ]  # fmt: skip
    assert len(processes(tmp_path, "fails-*")) == 1, "a failure is not tried again"
    text = said.messages["killed"]
    assert "last words" in text
    assert "SIGKILL (perhaps out of memory)" in text
    assert "it left" in said.messages["leaves"]
    assert "exit status 1" in said.messages["leaves"]


def test_workers_that_are_told_to_leave_are_waited_for(workers, said, tmp_path):
    asked = threading.Event()
    said.on_epoch = lambda task: asked.set()
    outcome = run(workers(2), ["waits_1", "waits_2", "a"], said, stop=asked.is_set)
    assert outcome.num_done == 0
    assert {t.arm for t in outcome.left} == {"waits_1", "waits_2", "a"}
    begun = {arm for arm, kind in said.heard_of if kind == "epoch"}
    assert {arm for arm, kind in said.heard_of if kind == "stopped"} == begun
    assert (tmp_path / "left").exists()


def test_at_a_second_signal_nobody_is_left_behind(workers, said, tmp_path):
    class Second(SystemExit):
        pass

    def on_epoch(task):
        raise Second

    said.on_epoch = on_epoch
    with pytest.raises(Second):
        run(workers(1), ["hangs"], said)
    [(process, _)] = processes(tmp_path)
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_signals_of_the_terminal_do_not_reach_workers(workers, said, tmp_path):
    """Their process group is not this one's, which a terminal would interrupt."""
    groups = []
    said.on_epoch = lambda task: groups.append(os.getpgid(processes(tmp_path)[0][0]))
    run(workers(1), ["meets_1"], said)
    assert groups
    assert os.getpgid(0) not in groups


def test_workers_leave_when_their_launcher_is_killed(tmp_path):
    """The end of its input tells a worker, however the launcher ended."""
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from ablations.engines.engine import Backlog, Task
from ablations.engines.local import Workers
class Said:
    def heard(self, task, message): print("heard", flush=True)
task = Task(study="s", study_hash="h", preset="p", results="r", arm="waits", block=0, expect="t/s")
worker = (sys.executable, "-c", {WORKER!r}, {str(tmp_path)!r})
Workers(1, 1, worker).run(Backlog.of([task], Said(), Said()), lambda: False)
"""
    launcher = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert launcher.stdout is not None
    with launcher.stdout:
        assert launcher.stdout.readline() == "heard\n"
        launcher.send_signal(signal.SIGKILL)
        launcher.wait()
    for _ in range(500):
        if (tmp_path / "left").exists():
            return
        time.sleep(0.02)
    raise AssertionError("the worker is still there")


def test_in_process_asks_before_each_trial_and_waits_for_the_held(said, monkeypatch):
    ran = []

    def run_task(task, say, stop):
        ran.append(task.arm)
        say({"held": "other"} if ran == ["a"] else {"finished": {}})

    monkeypatch.setattr(local, "run_task", run_task)
    states = iter(["held", "free"])
    said.look = lambda task: next(states)
    backlog = Backlog.of([task("a"), task("b")], said, said, look_every=0.0)
    InProcess().run(backlog, never)
    assert ran == ["a", "b", "a"]
    assert backlog.num_done == 2

    ran.clear()
    backlog = Backlog.of([task("c"), task("d")], said, said)
    InProcess().run(backlog, lambda: bool(ran))
    assert ran == ["c"]
    assert [t.arm for t in backlog.outcome().left] == ["d"]
