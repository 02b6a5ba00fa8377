"""Processes that measure, seen from the gate: started, talked to, and ended in any case."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overconv import timing
from overconv.bench import cases, provenance, worker
from overconv.bench.provenance import import_roots, is_installed, project_root
from overconv.timing import Sample

SILENCE = 300.0  # seconds without an answer after which a process is given up
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",  # sets are walked in the same order on both sides
    "PYTHONDONTWRITEBYTECODE": "1",  # nothing is left behind in the trees
}


class CannotJudge(Exception):
    """Why the gate has no verdict, in a sentence."""


class Refused(Exception):
    """A worker answers that something fails.

    Attributes:
        kind: ``"output"``: the module puts out something else than it should; ``"raised"``: its
            code raises; ``"revision"``: a module came from elsewhere; ``"load"``: the file of
            cases cannot be read.
        missing: The module that was not found, if that is why.
    """

    def __init__(self, sentence: str, kind: str, missing: str = "") -> None:
        super().__init__(sentence)
        self.kind, self.missing = kind, missing


@dataclass(frozen=True)
class Place:
    """A revision's files.

    Attributes:
        tree: Its root folder.
        project: The folder inside it that the cases' project has as its root.
        cases: The file of cases.
    """

    tree: Path
    project: Path
    cases: Path

    def moved(self, tree: Path) -> "Place":
        """The same places in another tree."""
        return Place(
            tree,
            tree / self.project.relative_to(self.tree),
            tree / self.cases.relative_to(self.tree),
        )


class Worker:
    """One process that measures one revision; of use after :meth:`read`.

    Args:
        role: What it is called in sentences.
        place: What it measures.
        here: The place of head; equal to ``place`` if that is what is measured.
        core: The only one that it may run on; None: any.
    """

    def __init__(self, role: str, place: Place, here: Place, core: int | None) -> None:
        self.role = role
        self.silence = SILENCE
        self._doing = "loading its cases"
        self._folder = Path(tempfile.mkdtemp(prefix="gate-"))
        self._process: subprocess.Popen[str] | None = None
        self.description: dict[str, Any] = {}
        try:
            self._start(place, here, core)
        except BaseException:
            self.close()
            raise

    def read(self) -> "Worker":
        """Wait until it has read its cases; several processes may do that at a time.

        Raises:
            CannotJudge: They cannot be read, or its modules come from elsewhere.
        """
        try:
            self.description = self._answer()
        except Refused as refused:
            if refused.kind == "load":
                raise Unreadable(self.role, refused) from None
            raise CannotJudge(f"in {self.role}, {refused}") from None
        return self

    def _start(self, place: Place, here: Place, core: int | None) -> None:
        for module in (worker, cases, provenance, timing):
            assert module.__file__ is not None
            shutil.copy(module.__file__, self._folder)
        places = {
            "tree": str(place.tree),
            "project": str(place.project),
            "cases": str(place.cases),
            "other": None if place == here else str(here.tree),
            "paths": [str(path) for path in _paths(place, here)],
            "core": core,
        }
        script = str(self._folder / "worker.py")
        with (self._folder / "stderr").open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-P", script, json.dumps(places)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=_environment(os.environ, here.tree),
                start_new_session=True,  # a Ctrl-C is for the gate, which then ends its workers
                text=True,
            )

    @property
    def cases(self) -> dict[str, dict[str, Any]]:
        """Name to shape, step, limit, tolerance and whether it has a plain and an expected."""
        return {case["name"]: case for case in self.description["cases"]}

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def prepare(self, what: str, case: str | None = None) -> float:
        """Build, check and warm up; seconds of one call.

        Raises:
            Refused: The code under test fails.
            CannotJudge: The process is gone.
        """
        doing = f"preparing {case or 'a convolution'}" + (", plain" if what == "plain" else "")
        return self._asked(doing, do="prepare", what=what, case=case)["seconds"]

    def sample(self, what: str, calls: int) -> Sample:
        """One sample of so many calls; times are of one call."""
        return Sample(**self._asked("being timed", do="sample", what=what, calls=calls))

    def figures(self, case: str) -> dict[str, int]:
        """The exact integers of a case."""
        return self._asked(f"counting {case}", do="figures", case=case)["figures"]

    def _asked(self, doing: str, **command: Any) -> dict[str, Any]:
        self._doing = doing
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):  # a ValueError where it was closed before
            raise self._gone() from None
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process is not None and self._process.stdout is not None
        # An answer is one whole line, so that nothing is left in the buffer that select cannot see.
        ready, _, _ = select.select([self._process.stdout], [], [], self.silence)
        if not ready:
            self._process.kill()  # a late answer must not pass for that to the next command
            raise CannotJudge(
                f"the process that measures {self.role} gave no answer for {self.silence:g} seconds"
                f" while {self._doing}"
            )
        line = self._process.stdout.readline()
        if not line:
            raise self._gone()
        answer = json.loads(line)
        if "error" in answer:
            raise Refused(answer["error"], answer["kind"], answer.get("missing", ""))
        return answer

    def _gone(self) -> CannotJudge:
        assert self._process is not None
        try:
            status = self._process.wait(5)
        except subprocess.TimeoutExpired:
            return CannotJudge(f"the process that measures {self.role} closed its output")
        how = f"ended with status {status}"
        if status < 0:
            how = f"was killed by {signal.Signals(-status).name}"
            if -status == signal.SIGKILL:
                how += " (too little memory, or somebody's hand)"
        last = (self._folder / "stderr").read_text(encoding="utf-8", errors="replace").split("\n")
        words = next((f": {line.strip()}" for line in reversed(last) if line.strip()), "")
        return CannotJudge(
            f"the process that measures {self.role} {how} while {self._doing}{words}"
        )

    def close(self) -> None:
        """End the process; may be called again."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                with suppress(BrokenPipeError):  # the rest of a command that nobody reads
                    pipe.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _paths(place: Place, here: Place) -> list[Path]:
    """Where imports are looked for first: as here, but in the tree that is measured."""
    own = [Path(entry) for entry in sys.path if entry]
    inside = [path for path in own if path.is_relative_to(here.tree) and not is_installed(path)]
    moved = [place.tree / path.relative_to(here.tree) for path in inside]
    return list(dict.fromkeys([*import_roots(place.project), *moved]))


def _environment(present: Mapping[str, str], tree: Path) -> dict[str, str]:
    entries = present.get("PYTHONPATH", "").split(os.pathsep)
    outside = [e for e in entries if e and not Path(e).resolve().is_relative_to(tree)]
    kept = {name: value for name, value in present.items() if name != "PYTHONPATH"}
    path = {"PYTHONPATH": os.pathsep.join(outside)} if outside else {}
    return {**kept, **path, **ONE_THREAD}


class Unreadable(CannotJudge):
    """A file of cases cannot be read.

    Attributes:
        before_cases: Because its revision is older than what cases are made of.
    """

    def __init__(self, role: str, refused: Refused) -> None:
        super().__init__(f"the cases of {role} cannot be read: {refused}")
        self.before_cases = refused.missing.startswith("overconv.bench")


def placed(cases_file: Path | str) -> Place:
    """A file of cases and the project that it is part of.

    Raises:
        ValueError: There is no such file.
    """
    path = Path(cases_file).resolve()
    if not path.is_file():
        raise ValueError(f"there is no file of cases {path}")
    project = project_root(path)
    return Place(project, project, path)


def counted(worker: Worker, names: Sequence[str]) -> tuple[dict[str, dict[str, int]], list[str]]:
    """Exact figures by case, and a sentence for each case that cannot be counted."""
    found, failed = {}, []
    for name in names:
        try:
            found[name] = worker.figures(name)
        except Refused as refused:
            failed.append(f"{name}: cannot be counted: {refused}")
    return found, failed
