"""On this machine: in this process, or in worker processes that run one trial after the other."""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from functools import partial

from ablations.engines.engine import LAST, Backlog, Stop, Task, child_variables, parse_message
from ablations.worker import run_task

LOOK = 0.2  # seconds between two looks at what does not announce itself
TAIL = 4096  # bytes of what a worker said last


class InProcess:
    """One trial after the other, here."""

    elsewhere = False

    def run(self, backlog: Backlog, stop: Stop) -> None:
        """As :meth:`ablations.engines.engine.Engine.run`."""
        while backlog.open and not stop():
            task = backlog.next()
            if task is None:
                time.sleep(LOOK)
            else:
                run_task(task, partial(backlog.heard, task), stop)


@dataclass(frozen=True)
class Workers:
    """``number`` processes of ``command``, each with so many ``threads``.

    One that dies costs the trial that it was at an attempt. One whose launcher dies keeps a
    checkpoint and leaves.
    """

    number: int
    threads: int
    command: tuple[str, ...] = (sys.executable, "-m", "ablations", "worker")

    @property
    def elsewhere(self) -> bool:
        return False

    def run(self, backlog: Backlog, stop: Stop) -> None:
        """As :meth:`ablations.engines.engine.Engine.run`."""
        events: Events = queue.SimpleQueue()
        workers: list[_Worker] = []
        try:
            while backlog.open and not stop():
                self._give(backlog, workers, events)
                _listen(backlog, workers, events)
            for worker in workers:
                worker.dismiss()
            while workers:
                _listen(backlog, workers, events)
        finally:  # after a second signal some are left
            for worker in workers:
                worker.end(at_once=True)

    def _give(self, backlog: Backlog, workers: list["_Worker"], events: "Events") -> None:
        """Give each idle worker a task, and start those that are needed."""
        idle = [worker for worker in workers if worker.task is None]
        while idle or len(workers) < self.number:
            task = backlog.next()
            if task is None:
                return
            if not idle:
                idle.append(_Worker(self.command, self.threads, events))
                workers.append(idle[-1])
            idle.pop().give(task)


class _Worker:
    """A process that runs the tasks it is given, and says how it gets on."""

    def __init__(self, command: tuple[str, ...], threads: int, events: "Events") -> None:
        self.task: Task | None = None
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        # A session of its own: signals of the terminal are for the launcher, who passes them on.
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True,
            start_new_session=True, env={**os.environ, **child_variables(threads)},
        )  # fmt: skip
        self.reader = threading.Thread(target=self._read, args=(events,), daemon=True)
        self.reader.start()

    def _read(self, events: "Events") -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            events.put((self, line))
        events.put((self, None))

    def give(self, task: Task) -> None:
        """Have it run ``task``."""
        assert self.process.stdin is not None
        self.task = task
        with contextlib.suppress(BrokenPipeError):  # it is gone, which is seen soon
            self.process.stdin.write(task.to_json() + "\n")
            self.process.stdin.flush()

    def dismiss(self) -> None:
        """Have it leave; what it is at, it leaves in order."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def end(self, *, at_once: bool = False) -> str:
        """Wait for its end; returns what it said to people last, and how it ended."""
        if at_once:
            self.process.kill()
        status = self.process.wait()
        self.reader.join()
        how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        hint = " (perhaps out of memory)" if how == "SIGKILL" else ""
        self.errors.seek(max(0, self.errors.seek(0, os.SEEK_END) - TAIL))
        said = self.errors.read().decode(errors="replace").strip()
        self.dismiss()
        for file in (self.process.stdout, self.errors):
            assert file is not None
            file.close()
        return f"{said}\nworker process {self.process.pid} ended: {how}{hint}".lstrip()


Events = queue.SimpleQueue[tuple[_Worker, str | None]]  # None: it says nothing more


def _listen(backlog: Backlog, workers: list[_Worker], events: Events) -> None:
    """Pass on what a worker says; waits a little."""
    try:
        worker, line = events.get(timeout=LOOK)
    except queue.Empty:
        return
    if line is None:
        workers.remove(worker)
        complaint = worker.end()
        if worker.task is not None:
            backlog.heard(worker.task, {"lost": complaint})
        return
    message = parse_message(line)
    if message is not None and worker.task is not None:
        task = worker.task
        if not LAST.isdisjoint(message):
            worker.task = None
        backlog.heard(task, message)
