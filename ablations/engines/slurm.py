"""On a Slurm cluster, through submitit: an array job, a trial each, requeued when preempted."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ablations.engines.engine import (
    LAST,
    Backlog,
    Message,
    Stop,
    Task,
    child_variables,
    parse_message,
)
from ablations.engines.threaded import TaskThread
from ablations.ranks import PATIENCE

LOOK = 1.0  # seconds between two looks at what jobs have written
ASK = 10.0  # seconds between two questions to Slurm
ARRAY = 1000  # jobs in an array: Slurm's own limit, unless it is configured
TAIL = 4096  # characters of what a job said last
# Minutes until a job is requeued, and the seconds before that in which it leaves; how often.
DEFAULTS = {
    "name": "ablations",
    "timeout_min": 240,
    "slurm_signal_delay_s": 120,
    "slurm_additional_parameters": {"requeue": True},  # when preempted; a cluster may say no
}
TIMEOUTS = 1000
UNTIL_KILLED = 600.0


@dataclass(frozen=True)
class Slurm:
    """Jobs of a Slurm cluster, which all see the results folder and ``folder`` by one path.

    A job that is preempted or reaches its time limit keeps a checkpoint and is requeued. A job
    whose process or node dies costs its trial an attempt. Jobs outlive a launcher that dies.

    Args:
        folder: Where submitit keeps its files. Jobs unpickle what they find there, so it is for
            its owner alone.
        cpus, gpus: Of each trial.
        threads: Of each process.
        most: Trials at a time, at most; None: as the cluster likes.
        parameters: Of submitit's ``AutoExecutor``, for instance ``slurm_partition``.
        cluster: ``"slurm"``, or ``"local"`` for submitit's processes on this machine.
    """

    folder: Path
    cpus: int
    gpus: int
    threads: int
    most: int | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    cluster: str = "slurm"

    @property
    def elsewhere(self) -> bool:
        return self.cluster != "local"

    def run(self, backlog: Backlog, stop: Stop) -> None:
        """As :meth:`ablations.engines.engine.Engine.run`.

        Raises:
            ValueError: As :meth:`executor`.
        """
        executor, jobs, queue = self.executor(), list[_Job](), _Queue(self.cluster)
        while backlog.open and not stop():
            jobs += self._submit(executor, backlog)
            time.sleep(LOOK)
            _listen(jobs, backlog, queue)
        for job in jobs:
            job.submitted.cancel(check=False)
        until = time.monotonic() + PATIENCE
        while jobs and time.monotonic() < until:
            time.sleep(LOOK)
            _listen(jobs, backlog, queue, leaving=True)

    def executor(self) -> Any:
        """submitit's executor, which writes the batch script.

        Raises:
            ValueError: submitit is not installed, there is no Slurm, a parameter is unknown, or
                others may write to the folder.
        """
        try:
            import submitit
        except ImportError:
            raise ValueError("--engine slurm needs submitit: pip install '.[slurm]'") from None
        _make_private(self.folder)
        given = {"cpus_per_task": self.cpus}
        if self.gpus:
            given["gpus_per_node"] = self.gpus
        if self.most:
            given["slurm_array_parallelism"] = self.most
        try:
            executor = submitit.AutoExecutor(
                self.folder / "%j", self.cluster, slurm_max_num_timeout=TIMEOUTS
            )
            executor.update_parameters(**{**DEFAULTS, **given, **self.parameters})
        except (RuntimeError, ValueError, TypeError, NameError) as error:
            raise ValueError(f"--engine slurm: {error}") from error
        return executor

    def _submit(self, executor: Any, backlog: Backlog) -> list["_Job"]:
        """An array of jobs for the tasks that can be run now."""
        tasks: list[Task] = []
        while len(tasks) < ARRAY and (task := backlog.next()) is not None:
            tasks.append(task)
        if not tasks:
            return []
        # Jobs inherit the variables of who submits them.
        os.environ.update(child_variables(self.threads))
        submitted = executor.map_array(Trial(), [task.to_json() for task in tasks])
        return [_Job(task, job) for task, job in zip(tasks, submitted, strict=True)]


def _make_private(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = folder.stat()
    if found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise ValueError(
            f"--slurm folder={folder}: jobs unpickle what they find there, and others may write "
            "there; allowed: a folder that its owner alone may write to"
        )


class Trial:
    """What a job runs. When submitit is told that the job has to leave, it calls ``checkpoint``."""

    def __call__(self, text: str) -> None:
        """Run the trial of a task; what it says is written to the job's output."""
        self._thread = TaskThread(Task.from_json(text))
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._thread.request.make())
        self._thread.start()
        for message in self._thread.messages():
            print(json.dumps(message), flush=True)
        if self._thread.request():
            # Cancelled, or preempted and to be requeued: a job that ends by itself would not be.
            time.sleep(UNTIL_KILLED)

    def checkpoint(self, text: str) -> Any:
        """Have the trial leave in order; returns what is to be run when the job comes back."""
        from submitit.helpers import DelayedSubmission

        self._thread.request.make()
        self._thread.join()
        return DelayedSubmission(Trial(), text)


@dataclass
class _Job:
    """A submitted job, and how much of what it wrote has been read."""

    task: Task
    submitted: Any
    read: int = 0
    gone: bool = False
    since: float = field(default_factory=time.monotonic)

    def messages(self) -> list[Message]:
        """What it has said since the last call. Its pickled result is never looked at."""
        try:
            with self.submitted.paths.stdout.open("rb") as file:
                file.seek(self.read)
                text = file.read()
        except FileNotFoundError:  # it has not begun
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self.read += len(whole)
        lines = whole.decode(errors="replace").splitlines()
        return [message for message in map(parse_message, lines) if message is not None]

    def complaint(self) -> str:
        """What it said to people last, and its name."""
        said = (self.submitted.stderr() or "").strip()[-TAIL:]
        return f"{said}\njob {self.submitted.job_id} ended without a last word".lstrip()


class _Queue:
    """Which jobs wait or run. Asked of squeue: not every cluster keeps the accounts of sacct."""

    def __init__(self, cluster: str) -> None:
        self.cluster, self.asked = cluster, time.monotonic()
        self.known: set[str] | None = None

    def has_lost(self, job: _Job) -> bool:
        """Whether ``job`` is certainly neither waiting nor running."""
        if self.cluster == "local":
            return job.submitted.done()
        if time.monotonic() > self.asked + ASK:
            self.asked, self.known = time.monotonic(), _queued()
        # An answer knows nothing of a job that was submitted after the question.
        if self.known is None or self.asked <= job.since:
            return False
        return job.submitted.job_id not in self.known


def _queued() -> set[str] | None:
    """Jobs as ``12`` or ``12_3``; None: Slurm did not say."""
    command = ["squeue", "--me", "--noheader", "--array", "--format=%i"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):  # it is busy, or being restarted
        return None
    return set(asked.stdout.split())


def _listen(jobs: list[_Job], backlog: Backlog, queue: _Queue, *, leaving: bool = False) -> None:
    """Pass on what the jobs have said; those that have ended are taken out."""
    for job in list(jobs):
        gone = job.gone
        job.gone = queue.has_lost(job)
        for message in job.messages():
            if LAST.isdisjoint(message):
                backlog.heard(job.task, message)
            elif leaving or "stopped" not in message:  # or it was preempted, and will come back
                backlog.heard(job.task, message)
                jobs.remove(job)
                break
        else:
            if gone and job.gone:  # a shared file system may show late what it wrote last
                jobs.remove(job)
                backlog.heard(job.task, {"lost": job.complaint()})
