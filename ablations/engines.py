"""Engines: where trials run. Each runs the same trial function and asks nothing of the results.

A trial publishes its own record, so an engine that dies loses the trials in flight, nothing else.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Protocol

from ablations.schedule import Job
from records.record import Record

_MESSAGES = ({"epoch", "values"}, {"finished"})

OnEpoch = Callable[[int, dict[str, float]], None]


class Listener(Protocol):
    """Who wants to know how the trials are getting on."""

    def started(self, job: Job) -> None: ...
    def epoch(self, job: Job, epoch: int, values: dict[str, float]) -> None: ...
    def finished(self, job: Job, summary: dict) -> None: ...
    def failed(self, job: Job, message: str) -> None: ...


def summarise(record: Record) -> dict:
    """What a listener is told of a finished trial, in plain values."""
    return {
        "outcome": record.outcome,
        "test_accuracy": record.metrics.get("test_accuracy"),
        "seconds": record.times["seconds"],
    }


def run_in_process(
    jobs: Sequence[Job], run: Callable[[Job, OnEpoch], Record], listener: Listener
) -> int:
    """Run the trials one after the other in this process; returns how many failed."""
    num_failed = 0
    for job in jobs:
        listener.started(job)
        try:
            record = run(job, lambda epoch, values, job=job: listener.epoch(job, epoch, values))
        except Exception:  # one broken layer must not cost the other arms their trials
            num_failed += 1
            listener.failed(job, traceback.format_exc())
        else:
            listener.finished(job, summarise(record))
    return num_failed


def run_spawned(
    jobs: Sequence[Job], command: Callable[[Job], list[str]], listener: Listener, *, workers: int
) -> int:
    """Run each trial in a fresh process, ``workers`` at a time; returns how many failed.

    A process a trial: a killed one costs its own trial alone, and nothing that one trial leaves
    in a process (threads, caches, global generators) can reach the next.
    """
    waiting, running, num_failed = list(jobs), {}, 0
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                job = waiting.pop(0)
                running[job] = _Worker(command(job))
                listener.started(job)
            for job, worker in list(running.items()):
                finished = worker.process.poll()
                for message in worker.messages():
                    if "epoch" in message:
                        listener.epoch(job, message["epoch"], message["values"])
                    else:
                        worker.reported = True
                        listener.finished(job, message["finished"])
                if finished is not None:
                    del running[job]
                    if finished != 0 or not worker.reported:
                        num_failed += 1
                        listener.failed(job, worker.complaint(finished))
                    worker.close()
            time.sleep(0.05)
    finally:
        _stop_all(list(running.values()))
    return num_failed


def _stop_all(workers: list["_Worker"]) -> None:
    """End ``workers`` together; a second signal must not leave some of them running."""
    if not workers:
        return
    held = [(name, signal.signal(name, signal.SIG_IGN)) for name in (signal.SIGINT, signal.SIGTERM)]
    for worker in workers:
        worker.process.terminate()
    deadline = time.monotonic() + 5
    for worker in workers:
        try:
            worker.process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
        worker.close()
    for name, handler in held:
        signal.signal(name, handler)


class _Worker:
    """A process that runs one trial; it says on its standard output how far it is."""

    def __init__(self, command: list[str]):
        # Files, not pipes: a worker never waits for its reader, nor dies with it half way.
        self.output: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        self.errors: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self.output, stderr=self.errors
        )
        self.reported = False
        self._read_to = 0

    def messages(self) -> Iterator[dict]:
        """The messages that are new since the last call."""
        text = _read_from(self.output, self._read_to)
        complete = text[: text.rfind("\n") + 1]
        self._read_to += len(complete.encode())
        for line in complete.splitlines():
            with contextlib.suppress(json.JSONDecodeError):  # something else printed: not ours
                message = json.loads(line)
                if isinstance(message, dict) and message.keys() in _MESSAGES:
                    yield message

    def complaint(self, status: int) -> str:
        how = f"signal {-status}" if status < 0 else f"exit {status}"
        return f"{_read_from(self.errors, 0).strip() or 'it said nothing'}\n({how})"

    def close(self) -> None:
        self.output.close()
        self.errors.close()


def _read_from(file: IO[str], offset: int) -> str:
    # The worker shares the file's position, so it must not be moved: read beside it.
    size = os.fstat(file.fileno()).st_size
    return os.pread(file.fileno(), size - offset, offset).decode("utf-8", errors="replace")


def say(message: dict) -> None:
    """A worker's message to the engine that started it."""
    # A layer may have printed half a line before.
    print("\n" + json.dumps(message), file=sys.stdout, flush=True)
