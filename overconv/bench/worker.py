"""The process that measures one revision: loads its cases, and takes samples when it is told to.

Run as a script, from a private copy of four files of the present revision (this one, ``cases.py``,
``provenance.py`` and ``overconv/timing.py``), so that both sides of a comparison are measured by
the same code even where the revision under test has another harness or none. From the tree under
test come the file of cases and what that imports, and nothing else: this file imports torch alone.

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
import traceback
from collections import Counter
from collections.abc import Callable
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


def beside(name: str) -> Any:
    """One of the files that were copied along."""
    return load_module(Path(__file__).parent / f"{name}.py", f"_gate_{name}")


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
        self.tree, self.other = tree, other
        self.harness, self.timing = beside("cases"), beside("timing")
        self.provenance = beside("provenance")
        self.roots = self.provenance.import_roots(project)
        self.cases = {case.name: case for case in declared(load_module(cases_file, "_cases"))}
        self.calls: dict[str, Callable[[], object]] = {}
        self.proven = {"__main__", "_gate_cases", "_gate_timing", "_gate_provenance"}
        self.prove()

    def prove(self) -> None:
        """All that was imported by now is of the tree under test, or of no tree."""
        files = [
            (name, file)
            for name, module in list(sys.modules.items())
            if name not in self.proven
            and isinstance(file := getattr(module, "__file__", None), str)
        ]
        wrong = self.provenance.foreign_modules(files, self.tree, self.roots, self.other)
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
            and not self.provenance.is_installed(Path(file))
            and name != "_cases"
        ]
        cases = [
            {
                "name": case.name,
                "shape": list(case.shape),
                "step": case.step,
                "limit": float(case.limit),
                "tolerance": float(case.tolerance),
                "expected": case.expected is not None,
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
        if what == "case":
            self.harness.check_output(chosen, module, x, again=True)
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
    except (Exception, SystemExit) as error:  # whatever the code under test raises is an answer
        kind = kinds.get(type(error).__name__, "raised")
        return {"error": sentence(error, bench.tree, kind), "kind": kind}


def sentence(error: BaseException, tree: Path, kind: str = "raised") -> str:
    """An error in words; where the code of the tree raised it, with the last line that did."""
    if kind in ("output", "revision"):
        return str(error)
    words, place = f"{type(error).__name__}: {error}".rstrip(": "), ""
    for frame in traceback.extract_tb(error.__traceback__):
        path = Path(frame.filename)
        if path.is_relative_to(tree) and path.exists():
            place = f" ({path.relative_to(tree).as_posix()}:{frame.lineno})"
    return words + place


def main(argument: str) -> int:
    """Serve until the input ends. ``argument``: a JSON object of places, and the core to run on."""
    places = json.loads(argument)
    channel, commands = os.fdopen(os.dup(1), "w", buffering=1), os.fdopen(os.dup(0))
    os.dup2(2, 1)  # what the code under test prints must not come between the answers
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # nor must it read what is meant for this
    if places["core"] is not None:
        os.sched_setaffinity(0, {places["core"]})
    torch.set_num_threads(1)
    tree, project = Path(places["tree"]), Path(places["project"])
    other = Path(places["other"]) if places["other"] else None
    is_installed = beside("provenance").is_installed
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
    except (Exception, SystemExit) as error:  # whatever importing the file of cases ends in
        kind = "revision" if type(error) is WrongRevision else "load"
        missing = (error.name or "") if isinstance(error, ModuleNotFoundError) else ""
        answer = {"error": sentence(error, tree, kind), "kind": kind, "missing": missing}
    print(json.dumps(answer), file=channel)
    if "error" in answer:
        return 1
    gc.collect()
    gc.freeze()  # what is imported stays, and need not be looked through again
    gc.disable()  # a collection falls into a sample of one side only
    for line in commands:
        print(json.dumps(answered(bench, json.loads(line))), file=channel)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
