"""The seam between what is to be run and where it runs: tasks, what is said of them, the backlog.

An engine asks the backlog for tasks, has ``ablations.worker.run_task`` run each of them somewhere,
and passes on what that says. It asks nothing of the results: a trial publishes its own record, so
an engine that dies loses nothing but the steps since the last checkpoints.
"""

import json
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Protocol

# {"started": where}            an engine gave the task to somebody
# {"resumed": step}             from a checkpoint
# {"epoch": n, "values": {..}}  an epoch has ended
# {"note": text}                something that people should see
# {"retried": why}              the process that ran it is gone; it is run again
# and at the end one of
# {"finished": summary}         recorded, by this run
# {"recorded": summary or None} recorded, by another launcher
# {"held": who}                 another launcher runs it
# {"stopped": step}             as asked to; a checkpoint is kept
# {"lost": why}                 the process that ran it is gone
# {"failed": text}              a traceback, or why it is not tried again
# {"environment": description}  of the stratum, if that was the question
Message = dict[str, Any]
LAST = frozenset({"finished", "recorded", "held", "stopped", "lost", "failed", "environment"})
KINDS = LAST | {"started", "resumed", "note", "retried"}  # and epoch with values

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")

Say = Callable[[Message], None]
Stop = Callable[[], bool]  # whether to stop, asked often


@dataclass(frozen=True, kw_only=True)
class Task:
    """One trial of a plan, in plain values: all that another process needs in order to run it.

    Args:
        study: A name, or the absolute path of a file; ``study_hash`` is the hash of that file.
        preset, dataset, model, data_root, device: As given to ``run``; None: the preset's.
        results: Absolute path of the results folder.
        arm, block: Which trial of the study.
        expect: ``trial/stratum`` as planned; a process that finds another one refuses. Empty: no
            trial, but the question in which stratum a process trains.
        ranks: Processes that share the trial's batch.
        checkpoint_every: Steps between checkpoints, apart from those at the ends of epochs.
        lease: Seconds without a sign of life after which others may take the trial.
    """

    study: str
    study_hash: str
    preset: str
    dataset: str | None = None
    model: str | None = None
    data_root: str | None = None
    device: str = "cpu"
    results: str
    arm: str
    block: int
    expect: str
    ranks: int = 1
    checkpoint_every: int = 200
    lease: float = 60.0

    @property
    def name(self) -> str:
        return f"{self.arm} block {self.block}"

    @property
    def trial(self) -> str:
        return self.expect.partition("/")[0]

    @property
    def stratum(self) -> str:
        return self.expect.partition("/")[2]

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Task":
        """The task that :meth:`to_json` wrote.

        Raises:
            ValueError: ``text`` is none.
        """
        found = json.loads(text)
        names = {f.name for f in fields(cls)}
        if not isinstance(found, dict) or found.keys() != names:
            raise ValueError(f"no task: {text[:200]!r}; allowed: an object of {sorted(names)}")
        return cls(**found)


def child_variables(threads: int | None = None) -> dict[str, str]:
    """Variables for a process that is to find this package, and to keep to so many threads."""
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    found = {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}
    return found if threads is None else {**found, **dict.fromkeys(THREADS, str(threads))}


def parse_message(line: str) -> Message | None:
    """The message that a worker wrote as ``line``; None: something else was printed."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    whole = {"epoch", "values"} if "epoch" in found else KINDS & found.keys()
    return found if found.keys() == whole and (len(found) == 1 or "epoch" in found) else None


class Listener(Protocol):
    """Who wants to know how the trials are getting on."""

    def heard(self, task: Task, message: Message) -> None: ...


class Ledger(Protocol):
    """What the results folder says of a task, and what it is to keep."""

    def look(self, task: Task) -> Literal["free", "held", "recorded"]:
        """Whether ``task`` is there, or somebody alive works on it."""

    def note_failure(self, task: Task, text: str) -> None:
        """Keep why ``task`` is not tried again."""


@dataclass(frozen=True)
class Outcome:
    """What came of the tasks: ``failed`` by task, with the reason; ``left`` are still to be run."""

    num_done: int
    failed: dict[Task, str]
    left: list[Task]


@dataclass
class Backlog:
    """The tasks that are left, and what has become of the others.

    A task that another launcher holds is put back, and given out again once its holder has
    recorded it or is dead. A task whose process died is given out again ``retries`` times.
    """

    waiting: deque[Task]
    listener: Listener
    ledger: Ledger
    retries: int = 1
    look_every: float = 1.0
    running: set[Task] = field(default_factory=set)
    held: dict[Task, float] = field(default_factory=dict)  # and when to look again
    failed: dict[Task, str] = field(default_factory=dict)
    losses: Counter[Task] = field(default_factory=Counter)
    num_done: int = 0

    @classmethod
    def of(
        cls, tasks: Iterable[Task], listener: Listener, ledger: Ledger, **options: Any
    ) -> "Backlog":
        return cls(deque(tasks), listener, ledger, **options)

    @property
    def open(self) -> bool:
        """Whether anything is still to be run, or is being run."""
        return bool(self.waiting or self.held or self.running)

    def next(self) -> Task | None:
        """A task to run now; None: there is none at the moment."""
        self._look_at_held()
        if not self.waiting:
            return None
        task = self.waiting.popleft()
        self.running.add(task)
        return task

    def heard(self, task: Task, message: Message) -> None:
        """Take in what is said of ``task``."""
        if LAST.isdisjoint(message):
            self.listener.heard(task, message)
            return
        self.running.discard(task)
        match message:
            case {"held": _}:
                self.held[task] = time.monotonic() + self.look_every
            case {"stopped": _}:
                self.waiting.appendleft(task)
            case {"lost": why} if self.losses[task] < self.retries:
                self.losses[task] += 1
                self.waiting.appendleft(task)
                message = {"retried": why}
            case {"lost": why}:
                last = why.strip().splitlines()[-1]
                text = f"{why}\nlost {self.losses[task] + 1} times, not tried again: {last}"
                self.ledger.note_failure(task, text)
                self.failed[task] = text
                message = {"failed": text}
            case {"failed": text}:
                self.failed[task] = text
            case _:
                self.num_done += 1
        self.listener.heard(task, message)

    def outcome(self) -> Outcome:
        """How things stand."""
        left = [*self.running, *self.held, *self.waiting]
        return Outcome(self.num_done, dict(self.failed), left)

    def _look_at_held(self) -> None:
        now = time.monotonic()
        for task in [task for task, due in self.held.items() if due <= now]:
            del self.held[task]
            match self.ledger.look(task):
                case "held":
                    self.held[task] = now + self.look_every
                case "free":
                    self.waiting.append(task)
                case "recorded":
                    self.heard(task, {"recorded": None})


class Engine(Protocol):
    """Somewhere to run trials; ``elsewhere``: on machines that may be unlike this one."""

    @property
    def elsewhere(self) -> bool: ...

    def run(self, backlog: Backlog, stop: Stop) -> None:
        """Run until ``backlog`` is no longer open, or, once ``stop()``, until all have left."""
