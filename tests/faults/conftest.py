"""Faults to be put in: a death before, in and after each system call, an error in its place."""

import contextlib
import errno
import os
import pickle
import signal
import stat
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from records.record import Record, digest

ROOT = Path(__file__).parents[2]

# Programs, and what only they share: they find each other by folder.
collect_ignore = [
    "cluster.py",
    "kill_trials.py",
    "ray_trials.py",
    "share_trials.py",
    "slurm_trials.py",
]

# Everything by which a file system is changed; reading cannot leave anything half done.
CHANGING = (
    "open", "write", "fsync", "close", "mkdir", "link", "rename", "replace", "unlink", "remove",
    "rmdir", "chmod", "fchmod", "truncate", "ftruncate", "symlink", "utime",
)  # fmt: skip


@dataclass
class Perform:
    """A call that was asked for."""

    name: str
    real: Callable[..., Any]
    args: tuple[Any, ...]
    options: dict[str, Any]

    def __call__(self) -> Any:
        return self.real(*self.args, **self.options)

    def half(self) -> None:
        """Half of it, where there is one: a write of half of the bytes."""
        if self.name == "write":
            self.real(self.args[0], self.args[1][: len(self.args[1]) // 2])


@dataclass
class Calls:
    """The changing calls of this process on files under ``root``, counted, and acted upon.

    ``act(number, name, perform)`` is asked to ``perform()`` each, and may do something else.
    """

    root: Path
    act: Callable[[int, str, Perform], Any]
    made: list[str] = field(default_factory=list)
    paths: dict[int, Path] = field(default_factory=dict)

    @contextlib.contextmanager
    def watched(self) -> Iterator["Calls"]:
        """Within: every such call goes by here."""
        real = {name: getattr(os, name) for name in CHANGING}
        try:
            for name, function in real.items():
                setattr(os, name, self._instead(name, function))
            yield self
        finally:
            for name, function in real.items():
                setattr(os, name, function)

    def _instead(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            path = self._path(args[0], options)
            reading = name == "open" and not args[1] & (os.O_WRONLY | os.O_RDWR)
            if not path.is_relative_to(self.root) or (reading and path.is_dir()):
                result = real(*args, **options)
            elif reading:
                return real(*args, **options)
            else:
                self.made.append(f"{name} {path.relative_to(self.root)}")
                perform = Perform(name, real, args, options)
                result = self.act(len(self.made), name, perform)
            if name == "open":
                self.paths[result] = path
            if name == "close":
                self.paths.pop(args[0], None)
            return result

        return call

    def _path(self, given: Any, options: dict[str, Any]) -> Path:
        if isinstance(given, int):
            return self.paths.get(given, Path("/"))
        folder = options.get("dir_fd")
        return Path(os.fsdecode(given)) if folder is None else self._path(folder, {}) / given


class Victim:
    """Runs an action in a copy of this process, which dies where it is told to."""

    def __init__(self, root: Path):
        self.root = root

    def calls(self, action: Callable[[], Any]) -> list[str]:
        """The changing calls that ``action`` makes under the root, as ``name path``."""
        status, made = self._run(action, lambda number, name, perform: perform())
        assert status == 0, made
        return made

    def die(self, action: Callable[[], Any], at: int, when: str) -> None:
        """``action`` dies by SIGKILL ``before`` or ``after`` its call number ``at``, or ``amid``
        it: half of the bytes are written (other calls have no half: that is before them)."""
        assert self.may_die(action, at, when), f"{at} {when}: it ended by itself"

    def may_die(self, action: Callable[[], Any], at: int, when: str) -> bool:
        """As :meth:`die`; returns whether it did, where it may end before that call."""

        def act(number: int, name: str, perform: Perform) -> Any:
            if number != at:
                return perform()
            try:
                if when == "amid":
                    perform.half()
                elif when == "after":
                    perform()
            finally:
                os.kill(os.getpid(), signal.SIGKILL)
            return None

        status, made = self._run(action, act)
        assert status in (0, -signal.SIGKILL), made
        return status != 0

    def _run(self, action: Callable[[], Any], act: Callable[..., Any]) -> tuple[int, Any]:
        reading, writing = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # threads: none that it needs
            child = os.fork()
        if child == 0:
            status: tuple[int, Any] = (1, "")
            try:
                with Calls(self.root, act).watched() as calls:
                    action()
                status = (0, calls.made)
            except BaseException:
                status = (1, traceback.format_exc())
            finally:
                os.write(writing, pickle.dumps(status))
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            told = pipe.read()
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return pickle.loads(told) if ended == 0 else (ended, None)


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: nothing waits for a disk to sync."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as name:
        yield Path(name)


@pytest.fixture
def victim(scratch: Path) -> Victim:
    return Victim(scratch)


@pytest.fixture
def refusing(scratch: Path) -> Callable[..., contextlib.AbstractContextManager[Calls]]:
    """``with refusing("write", at=3)``: the third changing call of that name fails: disk full."""

    def refuse(
        kind: str, at: int = 1, error: int = errno.ENOSPC, ever_after: bool = False
    ) -> contextlib.AbstractContextManager[Calls]:
        seen = 0

        def act(number: int, name: str, perform: Perform) -> Any:
            nonlocal seen
            seen += name == kind
            if name == kind and (seen == at or (ever_after and seen > at)):
                raise OSError(error, os.strerror(error))
            return perform()

        return Calls(scratch, act).watched()

    return refuse


@pytest.fixture
def record() -> Record:
    """A small record, whose identities fit."""
    configuration = {"arm": {"layer": None}, "recipe": {"lr": 0.1}, "block": 0}
    environment = {"torch": "2.14.1", "threads": 1}
    return Record(
        trial=digest(configuration),
        stratum=digest(environment),
        configuration=configuration,
        outcome="finished",
        metrics={"test_accuracy": 0.875},
        curves={"train_loss": [1.5, 0.25]},
        costs={"parameters_training": 10},
        correct="gA==",
        environment=environment,
        times={"finished": 1000.5, "seconds": 1.0},
    )


@pytest.fixture
def leftovers() -> Callable[[Path], list[str]]:
    """Names of the plain files of a results folder's trials that are no record."""
    return _no_records


def _no_records(folder: Path) -> list[str]:
    return sorted(
        str(path.relative_to(folder))
        for path in folder.glob("trials/**/*")
        if not stat.S_ISDIR(path.lstat().st_mode) and path.name != "record.json"
    )


@pytest.fixture
def command() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts ``python -m ablations ...`` in a process group of its own; ends all at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(
        *arguments: object, before: tuple[str, ...] = (), **options: Any
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*before, sys.executable, "-m", "ablations", *map(str, arguments)],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, start_new_session=True, **options,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def long_study(tmp_path: Path) -> Callable[..., Path]:
    """The study of the long trials, of ``epochs`` each, under a module name of its own."""

    def write(epochs: int = 1, **changes: str) -> Path:
        text = Path(__file__).with_name("long_study.py").read_text()
        for old, new in {"EPOCHS = 12": f"EPOCHS = {epochs}", **changes}.items():
            assert old in text, old
            text = text.replace(old, new)
        path = tmp_path / f"study_{tmp_path.name.replace('-', '_')}.py"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def durable_order() -> Callable[[list[str]], list[str]]:
    """What a loss of power could undo, of calls as :meth:`Victim.calls` gives them.

    A file's content must be synced before another name is given to it, and a folder after each
    name that it was given.
    """

    def faults(calls: list[str]) -> list[str]:
        found = []
        for number, call in enumerate(calls):
            name, path = call.split(" ", 1)
            if name in ("link", "rename", "replace") and f"fsync {path}" not in calls[:number]:
                found.append(f"{call}: before its content was synced")
            if name in ("link", "rename", "replace", "mkdir"):
                folder = str(Path(path).parent)
                if not any(after == f"fsync {folder}" for after in calls[number:]):
                    found.append(f"{call}: {folder} was never synced")
        return found

    return faults


# A layer of the user's: something happens in each step of its training.
FAULTY = """
from torch import nn

from overconv.operators.base import Macs


class Faulty(nn.Conv2d):
    def forward(self, x):
        if self.training and x.device.type != "meta":
            happen()
        return super().forward(x)

    def macs(self, image):
        return Macs()


"""


@pytest.fixture
def short_study(tmp_path: Path) -> Callable[..., Path]:
    """A study of three arms; ``happen``: a function of this name, for the one called faulty."""

    def write(happen: str | None = None) -> Path:
        number = len(list(tmp_path.glob("study_*.py")))
        path = tmp_path / f"study_{tmp_path.name.replace('-', '_')}_{number}.py"
        text = Path(__file__).with_name("short_study.py").read_text()
        if happen is not None:
            text = text.replace("partial(MDConv2d, depth=3)", 'Faulty, start="own"')
            text = text.replace("HELD =", f"{happen}\n\n{FAULTY}HELD =", 1)
        path.write_text(text)
        return path

    return write
