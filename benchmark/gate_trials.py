"""How often the gate is right: whole gates on a change that is known, under a load that is known.

Each trial is a gate of its own, with fresh processes, on a small repository whose layer calls an
``MDConv2d`` 20 times at the base; head calls it 20, 21 or 22 times. A second case beside it never
changes.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmark.tables import FOLDER, markdown, record, save
from overconv.bench.gate import Report
from overconv.bench.gate import run as run_gate

HELP = "Table: false alarms, missed slow-downs and silences of the gate, on known changes."
CALLS = 20
PLANTED = {"none": 20, "+5 %": 21, "+10 %": 22}
LOADS = {
    "none": (),
    "busy": ("while True: pass",),
    "training": (
        "import torch; torch.set_num_threads(1); m = torch.nn.Conv2d(64, 64, 3, padding=1)\n"
        "while True: m(torch.randn(8, 64, 32, 32)).square().mean().backward()",
    ),
}
OUTCOMES = {0: "pass", 1: "regression", 3: "cannot judge"}

LAYER = """
from torch import nn

from overconv.operators.mdconv import MDConv2d


class Repeated(nn.Module):
    def __init__(self, calls, *arguments):
        super().__init__()
        self.calls, self.layer = calls, MDConv2d(*arguments)

    def forward(self, x):
        for _ in range(self.calls):
            y = self.layer(x)
        return y
"""
CASES = """
from functools import partial

from overconv.bench.cases import Case
from planted.layer import Repeated

CASES = (
    Case("changed", partial(Repeated, {calls}, 32, 32, 3, 1, 1), (1, 32, 14, 14)),
    Case("still", partial(Repeated, 20, 64, 128, 1), (1, 64, 14, 14)),
)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--same", type=int, default=100, metavar="N", help="gates without a change")
    parser.add_argument("--ten", type=int, default=40, metavar="N", help="gates with 10 %% planted")
    parser.add_argument("--five", type=int, default=20, metavar="N", help="gates with 5 %% planted")
    parser.add_argument("--load", choices=LOADS, default="training", help="beside all of them")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the trials")
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        default=FOLDER,
        help="where gate_trials.json and .md go (default: the committed ones)",
    )


def run(options: argparse.Namespace) -> int:
    numbers = {"none": options.same, "+5 %": options.five, "+10 %": options.ten}
    if min(numbers.values()) < 0 or not any(numbers.values()):
        raise ValueError(f"numbers of gates must not be negative, nor all 0, got {numbers}")
    found = measure(numbers, load=options.load, seed=options.seed)
    words = text(found)
    print(words)
    print(f"written: {save('gate_trials', found, words, options.out)}")
    return 0


def measure(numbers: dict[str, int], *, load: str = "training", seed: int = 0) -> dict[str, Any]:
    """Run so many gates with each change planted, in random order, beside a load."""
    trials = [change for change, number in numbers.items() for _ in range(number)]
    random.Random(seed).shuffle(trials)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, loaded(load):
        repository = planted(Path(folder))
        for number, change in enumerate(trials, 1):
            _git(repository, "checkout", "--quiet", _branch(change))
            started = time.monotonic()
            report = run_gate(repository / "cases.py", base="base", exact=False)
            rows.append(_row(change, report, time.monotonic() - started))
            print(f"{number:4}/{len(trials)}  {change:5}  {rows[-1]['seconds']:5.1f} s  "
                  f"{report.sentence}", flush=True)  # fmt: skip
    command = f"python -m benchmark gate-trials --load {load}"
    return record(command, rows, load=load, numbers=numbers, seed=seed)


def _row(change: str, report: Report, seconds: float) -> dict[str, Any]:
    cases = {
        verdict.case: {
            "outcome": verdict.outcome,
            "wall": None if verdict.ratio is None else round(verdict.ratio.estimate, 4),
            "cpu": None if verdict.cpu is None else round(verdict.cpu.estimate, 4),
            "groups": verdict.groups,
            "pairs": verdict.pairs,
        }
        for verdict in report.verdicts
    }
    return {
        "planted": change,
        "outcome": OUTCOMES[report.exit_status],
        "sentence": report.sentence,
        "cases": cases,
        "seconds": round(seconds, 1),
        "load": report.machine["load"],
    }


def planted(root: Path) -> Path:
    """A repository with a tag ``base`` and a branch for each change."""
    (root / "planted").mkdir()
    (root / "planted" / "__init__.py").touch()
    (root / "planted" / "layer.py").write_text(LAYER, encoding="utf-8")
    (root / "pyproject.toml").touch()
    _git(root, "init", "--quiet", "--initial-branch=main")
    for change, calls in PLANTED.items():
        (root / "cases.py").write_text(CASES.format(calls=calls), encoding="utf-8")
        _git(root, "checkout", "--quiet", "-b", _branch(change))
        _git(root, "add", "--all")
        _git(root, "commit", "--quiet", "--allow-empty", f"--message={change}")
        if calls == CALLS:
            _git(root, "tag", "base")
    return root


def _branch(change: str) -> str:
    return f"calls-{PLANTED[change]}"


def _git(root: Path, *arguments: str) -> None:
    who = "-c", "user.name=gate trials", "-c", "user.email=nobody@example.org"
    subprocess.run(["git", *who, *arguments], cwd=root, check=True, capture_output=True)


@contextmanager
def loaded(load: str) -> Iterator[None]:
    """Other work on the machine, free to run on any core; ended with the block."""
    with ExitStack() as stack:
        for code in LOADS[load]:
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            process = subprocess.Popen([sys.executable, "-c", code], env=environment)
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield


def text(found: dict[str, Any]) -> str:
    """Outcomes by what was planted, ratios that were read, and how long a gate took."""
    lines = []
    for change in PLANTED:
        rows = [row for row in found["rows"] if row["planted"] == change]
        if not rows:
            continue
        outcomes = Counter(row["outcome"] for row in rows)
        # A regression that the unchanged case is said to have is a false alarm in any row.
        alarms = sum(row["cases"]["still"]["outcome"] == "fail" for row in rows)
        read = [row["cases"]["changed"]["wall"] for row in rows]
        read = [value for value in read if value is not None]
        span = f"{min(read):.3f} to {max(read):.3f}" if read else "nothing"
        seconds = sorted(row["seconds"] for row in rows)
        numbers = [outcomes[outcome] for outcome in OUTCOMES.values()]
        lines.append(
            [change, len(rows), *numbers, alarms, span, f"{seconds[len(seconds) // 2]:.0f}"]
        )
    columns = ["planted", "gates", *OUTCOMES.values()]
    columns += ["unchanged case failed", "ratio read", "seconds (median)"]
    head = f"Gates of two cases; load beside them: {found['load']}."
    return f"{head}\n\n{markdown(columns, lines)}"
