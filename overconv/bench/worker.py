"""The process that measures one revision: loads its cases, and takes samples when it is told to.

Run as a script, from a private copy of three files of the present revision (this one, ``cases.py``
and ``overconv/timing.py``), so that both sides of a comparison are measured by the same code even
where the revision under test has another harness or none. From the tree under test come the file
of cases and what that imports, and nothing else: this file imports torch alone.

It reads commands and writes answers, a JSON object a line::

    {"do": "prepare", "what": "case", "case": NAME}  -> {"seconds": of one call}
    {"do": "sample", "what": "case", "calls": 20}    -> {"wall": s, "cpu": s, "switches": n}
    {"do": "figures", "case": NAME}                  -> {"figures": {...}}
    anything that fails                              -> {"error": sentence, "kind": KIND}

``what`` is ``"case"``, ``"plain"`` (its counterpart) or ``"fixed"`` (a convolution that is the same
everywhere, on which the gate tests itself).
"""

import gc
import importlib
import importlib.util
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

WARM_SECONDS = 0.03  # of calls before the first that counts, and at least
WARM_CALLS = 3
ATTRIBUTES = ("name", "build", "shape", "plain", "step", "expected", "tolerance", "limit")


class WrongRevision(Exception):
    """A module was imported from another place than the tree under test."""


# What the tree gives.


def load_module(path: Path, name: str) -> ModuleType:
    """The Python file as a module of that name, run now."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, f"{path} is no Python file"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses and pickle look for it
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def import_roots(project: Path) -> list[Path]:
    """Where a project's packages are imported from: its root, and ``src`` if there is one."""
    source = project / "src"
    return [project, *([source] if source.is_dir() else [])]


def project_root(path: Path) -> Path:
    """The nearest folder above a file that holds ``pyproject.toml``, ``setup.py`` or ``.git``.

    The file's own folder where there is none.
    """
    marks = "pyproject.toml", "setup.py", ".git"
    for folder in path.resolve().parents:
        if any((folder / mark).exists() for mark in marks):
            return folder
    return path.resolve().parent


def is_installed(path: Path) -> bool:
    """Whether a file or folder belongs to the interpreter and what is installed in it."""
    if {"site-packages", "dist-packages"} & set(path.parts):
        return True
    return any(path.is_relative_to(prefix) for prefix in {sys.prefix, sys.base_prefix} - {"/usr"})


def foreign_modules(
    files: Iterable[tuple[str, str]], tree: Path, roots: Sequence[Path], other: Path | None
) -> list[str]:
    """Modules that lie in the wrong place, each as ``"name from file"``.

    Args:
        files: Name and file of each module that is loaded.
        tree: Folder of the revision under test.
        roots: Where its packages are imported from.
        other: Folder of the other revision.
    """
    inside: dict[str, bool] = {}
    wrong = []
    for name, file in files:
        path = Path(file).resolve()
        top = name.partition(".")[0]
        if path.is_relative_to(tree) and not is_installed(path):
            continue
        if other is not None and path.is_relative_to(other) and not is_installed(path):
            wrong.append(f"{name} from {file}")
            continue
        if top not in inside:
            inside[top] = top not in sys.stdlib_module_names and _holds(tree, roots, top)
        if inside[top]:
            wrong.append(f"{name} from {file}")
    return wrong


def _holds(tree: Path, roots: Sequence[Path], top: str) -> bool:
    """Whether a tree has a package of that name, or, at its roots, a module."""
    if any((root / f"{top}.py").exists() for root in roots):
        return True
    below = [folder for folder in tree.iterdir() if folder.is_dir() and folder.name[0] != "."]
    apart = [f for f in below if not (f / "__init__.py").exists() and not is_installed(f)]
    return any((folder / top / "__init__.py").exists() for folder in (*roots, *apart))


def declared(module: ModuleType) -> list[Any]:
    """The cases of a file; by their attributes, since their class comes from the tree under test.

    Raises:
        ValueError: There is no ``CASES``, one of them is no case, or two have the same name.
    """
    found = getattr(module, "CASES", None)
    if not isinstance(found, tuple | list):
        raise ValueError(f"it must define CASES, a tuple of cases, got {found!r}")
    for case in found:
        lacks = [name for name in ATTRIBUTES if not hasattr(case, name)]
        if lacks:
            raise ValueError(f"{case!r} is no case: it has no {lacks[0]}")
    twice = [name for name, n in Counter(case.name for case in found).items() if n > 1]
    if twice:
        raise ValueError(f"two cases have the name {twice[0]!r}")
    return list(found)


# What is done with it.


class Bench:
    """The commands; holds what is being measured."""

    def __init__(self, tree: Path, project: Path, other: Path | None, cases_file: Path) -> None:
        self.tree, self.other, self.roots = tree, other, import_roots(project)
        here = Path(__file__).parent
        self.harness: Any = load_module(here / "cases.py", "_gate_cases")
        self.timing: Any = load_module(here / "timing.py", "_gate_timing")
        self.cases = {case.name: case for case in declared(load_module(cases_file, "_cases"))}
        self.calls: dict[str, Callable[[], object]] = {}
        self.proven = {"__main__", "_gate_cases", "_gate_timing"}
        self.prove()

    def prove(self) -> None:
        """All that was imported by now is of the tree under test, or of no tree."""
        files = [
            (name, file)
            for name, module in list(sys.modules.items())
            if name not in self.proven
            and isinstance(file := getattr(module, "__file__", None), str)
        ]
        wrong = foreign_modules(files, self.tree, self.roots, self.other)
        if wrong:
            raise WrongRevision(f"measured the wrong revision: {wrong[0]}, not from {self.tree}")
        self.proven.update(name for name, _ in files)

    def describe(self) -> dict[str, Any]:
        """The cases, and what of the tree was imported for them."""
        loaded = [
            name
            for name, module in list(sys.modules.items())
            if isinstance(file := getattr(module, "__file__", None), str)
            and Path(file).is_relative_to(self.tree)
            and not is_installed(Path(file))
            and name != "_cases"
        ]
        cases = [
            {
                "name": case.name,
                "shape": list(case.shape),
                "step": case.step,
                "limit": float(case.limit),
                "plain": case.plain is not None,
            }
            for case in self.cases.values()
        ]
        packages = sorted({name.partition(".")[0] for name in loaded})
        return {
            "cases": cases,
            "packages": packages,
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
        }

    def prepare(self, what: str, case: str | None = None) -> dict[str, Any]:
        """Build, check and warm up; the old one of the same kind is dropped first."""
        self.calls.pop(what, None)
        gc.collect()
        if what == "fixed":
            conv = nn.Conv2d(32, 32, 3, padding=1).eval()
            x = torch.zeros(1, 32, 14, 14).normal_(generator=torch.Generator().manual_seed(1))
            call: Callable[[], object] = torch.inference_mode()(lambda: conv(x))
        else:
            assert case is not None
            chosen = self.cases[case]
            module = self.harness.make(chosen, plain=what == "plain")
            x = self.harness.inputs(chosen)
            if what == "case":
                self.harness.check_output(chosen, module, x)
            call = self.harness.prepared(chosen, module, x)
        seconds = warm(call)
        self.prove()
        self.calls[what] = call
        return {"seconds": seconds}

    def sample(self, what: str, calls: int) -> dict[str, Any]:
        """One sample; a call before it brings back what the other process drove from the caches."""
        call = self.calls[what]
        if calls > 1:
            call()
        taken = self.timing.sample(call, calls, "cpu")
        return {"wall": taken.wall, "cpu": taken.cpu, "switches": taken.switches}

    def figures(self, case: str) -> dict[str, Any]:
        """The exact integers of a case, by the library that the tree imports."""
        exact: Any = importlib.import_module("overconv.bench.exact")
        found = exact.figures(self.cases[case])
        self.prove()
        return {"figures": dict(found)}


def warm(call: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Call until caches and allocators are settled; the shortest of the last calls, in seconds."""
    start, calls = clock(), 0
    while calls < WARM_CALLS or clock() - start < WARM_SECONDS:
        call()
        calls += 1
    times = []
    for _ in range(WARM_CALLS):
        start = clock()
        call()
        times.append(clock() - start)
    return min(times)


def answered(bench: Bench, command: dict[str, Any]) -> dict[str, Any]:
    """What a command gives, or the error that it ends in: the code under test may do anything."""
    kinds = {"WrongOutput": "output", "WrongRevision": "revision"}
    try:
        return getattr(bench, command.pop("do"))(**command)
    except Exception as error:  # whatever the code under test raises is an answer
        kind = kinds.get(type(error).__name__, "raised")
        return {"error": sentence(error, kind), "kind": kind}


def sentence(error: Exception, kind: str = "raised") -> str:
    if kind in ("output", "revision"):
        return str(error)
    return f"{type(error).__name__}: {error}"


def main(argument: str) -> int:
    """Serve until the input ends. ``argument``: a JSON object of places, and the core to run on."""
    places = json.loads(argument)
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what the code under test prints must not come between the answers
    if places["core"] is not None:
        os.sched_setaffinity(0, {places["core"]})
    torch.set_num_threads(1)
    tree, project = Path(places["tree"]), Path(places["project"])
    other = Path(places["other"]) if places["other"] else None
    kept = [
        entry
        for entry in sys.path
        if other is None or not Path(entry).is_relative_to(other) or is_installed(Path(entry))
    ]
    sys.path[:] = [*places["paths"], *kept]
    os.chdir(project)
    try:
        bench = Bench(tree, project, other, Path(places["cases"]))
        answer = bench.describe()
    except Exception as error:  # whatever importing the file of cases ends in
        kind = "revision" if type(error) is WrongRevision else "load"
        missing = (error.name or "") if isinstance(error, ModuleNotFoundError) else ""
        answer = {"error": sentence(error, kind), "kind": kind, "missing": missing}
    print(json.dumps(answer), file=channel)
    if "error" in answer:
        return 1
    gc.collect()
    gc.freeze()  # what is imported stays, and need not be looked through again
    gc.disable()  # a collection falls into a sample of one side only
    for line in sys.stdin:
        print(json.dumps(answered(bench, json.loads(line))), file=channel)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
