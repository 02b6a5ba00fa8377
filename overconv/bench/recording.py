"""What the gate compares with, made anew: exact figures, and this machine's ratios to plain."""

import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from overconv.bench import golden, ratios
from overconv.bench.host import ended_by_signals, machine, quiet_core
from overconv.bench.judging import calls_in_a_sample, judge
from overconv.bench.rounds import Rounds
from overconv.bench.workers import CannotJudge, Refused, Worker, counted, placed

PROCESSES = 3  # fresh ones, since each has its own layout in memory
GROUPS = 20

Say = Callable[[str], None]


def accept(cases_file: Path | str, *, say: Say) -> Path:
    """Make the present exact figures of all cases the committed ones; returns their file.

    Raises:
        ValueError: There is no such file, or no case.
        CannotJudge: A case cannot be counted; nothing is written then.
    """
    place = placed(cases_file)
    with ended_by_signals(), Worker("head", place, place, quiet_core()) as worker:
        worker.read()
        found, failed = counted(worker, list(worker.cases))
        version = worker.description["torch"]
    if failed:
        raise CannotJudge(f"nothing is written, {failed[0]}")
    path = golden.figures_path(place.cases)
    old = golden.load(path) if path.exists() else {"any": {}}
    for difference in golden.compare(found, old, version):
        say(f"accepted  {difference}")
    golden.save(path, found, version)
    return path


def record(cases_file: Path | str, *, say: Say) -> Path:
    """Make the present ratios of all cases with a plain counterpart this machine's baseline.

    The median of three fresh processes, each of which has shown that it can tell 10 % apart.

    Raises:
        ValueError: There is no such file, or no case has a plain counterpart.
        CannotJudge: A case fails, or this machine cannot resolve 10 % now; nothing is written then.
    """
    place, core = placed(cases_file), quiet_core()
    taken: dict[str, list[tuple[float, float]]] = {}
    with ended_by_signals():
        for _ in range(PROCESSES):
            with Worker("head", place, place, core) as worker:
                worker.read()
                names = [name for name, case in worker.cases.items() if case["plain"]]
                if not names:
                    raise ValueError(f"no case in {place.cases} has a plain counterpart")
                test = Rounds((), say)
                test.measure(worker, None)
                assert test.calibration is not None
                if test.calibration.outcome != "pass":
                    raise CannotJudge(f"nothing is written, {test.calibration.reason}")
                for name in names:
                    taken.setdefault(name, []).append(_ratio(worker, name))
    found = {name: _medians(pairs) for name, pairs in taken.items()}
    for name, (wall, cpu) in found.items():
        say(f"recorded {name}: {wall:.3f} of plain, CPU {cpu:.3f}")
    path = ratios.ratios_path(place.cases)
    this = machine(core)
    ratios.save(path, this["key"], this["fingerprint"], found)
    return path


def _ratio(worker: Any, name: str) -> tuple[float, float]:
    try:
        seconds = max(worker.prepare("case", name), worker.prepare("plain", name))
    except Refused as refused:
        raise CannotJudge(f"nothing is written, {name} fails: {refused}") from None
    calls = calls_in_a_sample(seconds)
    takes = partial(worker.sample, "case"), partial(worker.sample, "plain")
    order = random.Random()
    found = judge(*takes, (calls, calls), limit=1.05, level=0.99, order=order, looks=(GROUPS,))
    return found.wall.estimate, found.cpu.estimate


def _medians(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return median(wall for wall, _ in pairs), median(cpu for _, cpu in pairs)
