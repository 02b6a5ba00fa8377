"""Engines on made trials: order, failure, death of a worker, nothing lost."""

import io
import sys

from ablations.engines import run_in_process, run_spawned
from ablations.progress import Progress, duration
from ablations.schedule import Job
from records.record import Record

JOBS = [Job("plain", 0), Job("gated", 0), Job("plain", 1)]


def record(outcome="finished") -> Record:
    return Record(
        trial="t",
        stratum="s",
        configuration={"block": 0},
        outcome=outcome,
        metrics={"test_accuracy": 0.5 if outcome == "finished" else None},
        curves={},
        costs={},
        correct=None,
        environment={},
        times={"seconds": 1.0, "finished": 0.0},
    )


class Log:
    def __init__(self):
        self.events = []

    def started(self, job):
        self.events.append(("started", job))

    def epoch(self, job, epoch, values):
        self.events.append(("epoch", job, epoch))

    def finished(self, job, summary):
        self.events.append(("finished", job, summary["outcome"]))

    def failed(self, job, message):
        self.events.append(("failed", job, message))


def test_one_failure_costs_one_trial():
    log = Log()

    def run(job, on_epoch):
        on_epoch(0, {})
        if job.label == "gated":
            raise RuntimeError("broken layer")
        return record()

    assert run_in_process(JOBS, run, log) == 1
    names = " ".join(event[0] for event in log.events)
    assert names == "started epoch finished started epoch failed started epoch finished"
    assert "broken layer" in log.events[5][2]


WORKER = """
import json, os, signal, sys
job = sys.argv[1]
print("noise on standard output")
print(json.dumps({"epoch": 0, "values": {}}), flush=True)
if job == "killed": os.kill(os.getpid(), signal.SIGKILL)
if job == "broken": sys.exit("it broke")
if job == "silent": sys.exit(0)
print(json.dumps({"finished": {"outcome": "finished", "test_accuracy": 0.5, "seconds": 1.0}}))
"""


def test_a_dead_worker_costs_its_own_trial():
    log = Log()
    jobs = [Job(label, 0) for label in ("good", "killed", "broken", "silent", "fine")]
    command = lambda job: [sys.executable, "-c", WORKER, job.label]  # noqa: E731
    assert run_spawned(jobs, command, log, workers=2) == 3
    ended = {e[1].label: e for e in log.events if e[0] in ("finished", "failed")}
    assert {label: event[0] for label, event in ended.items()} == {
        "good": "finished", "fine": "finished",
        "killed": "failed", "broken": "failed", "silent": "failed",
    }  # fmt: skip
    assert "signal 9" in ended["killed"][2]
    assert "it broke" in ended["broken"][2]
    assert sum(event[0] == "epoch" for event in log.events) == 5


def test_no_more_workers_than_asked_for(tmp_path):
    """Each worker notes how many of them it sees."""
    script = f"""
import pathlib, sys, time, uuid
mine = pathlib.Path({str(tmp_path)!r}) / uuid.uuid4().hex
mine.touch()
time.sleep(0.3)
seen = len(list(mine.parent.iterdir()))
mine.unlink()
print('{{"finished": {{"outcome": "finished", "test_accuracy": %d, "seconds": 0}}}}' % seen)
"""
    counts = []

    class Count(Log):
        def finished(self, job, summary):
            counts.append(summary["test_accuracy"])

    command = lambda job: [sys.executable, "-c", script]  # noqa: E731
    assert run_spawned(JOBS + [Job("more", 0)], command, Count(), workers=2) == 0
    assert len(counts) == 4
    assert max(counts) == 2


def test_progress_says_what_is_left():
    stream = io.StringIO()
    progress = Progress({job: 2 for job in JOBS}, stream)
    progress.started(JOBS[0])
    progress.epoch(JOBS[0], 0, {"validation_accuracy": 0.5})
    progress.finished(JOBS[0], {"outcome": "finished", "test_accuracy": 0.91234, "seconds": 3.2})
    progress.started(JOBS[1])
    progress.failed(JOBS[1], "Traceback\nValueError: no\n")
    progress.started(JOBS[2])
    progress.finished(JOBS[2], {"outcome": "diverged", "test_accuracy": None, "seconds": 1.0})
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("[1/3] plain block 0: 91.23 % test accuracy, 3 s; about ")
    assert lines[1] == "[2/3] gated block 0: FAILED"
    assert lines[-1] == "[3/3] plain block 1: diverged, 1 s"
    assert progress.num_done == progress.total


def test_durations_are_for_people():
    assert [duration(s) for s in (4.4, 99, 200, 5400, 7500)] == [
        "4 s", "99 s", "3 min", "90 min", "2 h 05 min",
    ]  # fmt: skip
