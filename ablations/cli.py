"""The command line: `python -m ablations list|run|status|verify|export`.

Exit status: 0 done, 1 a trial failed or a record is wrong, 2 usage or bad input, 130 and 143
stopped by a signal.
"""

import argparse
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ablations import files
from ablations.presets import MODELS, PRESETS
from ablations.run import run, run_planned_trial
from records.audit import faults, progress
from records.store import Store

DESCRIPTION = "Run scripted ablations, and look after what they recorded."


STOPPED = "stopped: what is published stays, running again goes on"


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _stop)
    try:
        return options.command(options)
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f"python -m ablations: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def _stop(*_: object) -> NoReturn:
    print(STOPPED, file=sys.stderr)
    sys.exit(143)


def parser() -> argparse.ArgumentParser:
    top = Parser(prog="python -m ablations", description=DESCRIPTION)
    commands = top.add_subparsers(required=True, metavar="command", parser_class=Parser)

    def command(name: str, function: Callable, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.set_defaults(command=function)
        return made

    command("list", _list, "The studies and presets, and what they ask.")
    _add_run(command("run", run, "Run what a study lacks; running again resumes."))
    _add_trial(command("trial", run_planned_trial, "Run one trial of a plan: what a worker does."))
    _add_results(command("status", _status, "What the plans of a results folder have, and lack."))
    _add_results(command("verify", _verify, "Check records and plans against their identities."))
    export = command("export", _export, "Copy plans and records to a folder that can be committed.")
    _add_results(export)
    export.add_argument("--to", default="reports/data", metavar="DIR", help="default: reports/data")
    return top


def _add_run(command: argparse.ArgumentParser) -> None:
    _add_setting(command)
    number = command.add_mutually_exclusive_group()
    number.add_argument(
        "--seeds", type=_positive, metavar="N", help="blocks 0 to N-1 (default: the preset's)"
    )
    number.add_argument(
        "--blocks", type=_blocks, metavar="3-5", help="these blocks, for instance 3-5 or 0,2"
    )
    command.add_argument("--arms", metavar="A,B", help="run these arms only (default: all)")
    command.add_argument(
        "--workers", type=_positive, default=1, metavar="N",
        help="trials at a time, each in a process of its own (default: 1, in this process)",
    )  # fmt: skip
    command.add_argument(
        "--dry-run", action="store_true", help="say what would be run, and how long it would take"
    )
    command.add_argument(
        "--anew", action="store_true",
        help="run blocks that belong to another stratum anew in this one, whole",
    )  # fmt: skip
    command.add_argument(
        "--accept-source", action="store_true",
        help="after a change of source that should not matter: train one trial an arm again, "
        "and go on in the old stratum if all bytes agree",
    )  # fmt: skip


def _add_trial(command: argparse.ArgumentParser) -> None:
    _add_setting(command)
    command.add_argument("--arm", required=True, metavar="LABEL")
    command.add_argument("--block", type=int, required=True, metavar="B")
    command.add_argument(
        "--expect", required=True, metavar="ID/STRATUM", help="the trial and stratum as planned"
    )
    command.add_argument("--study-hash", required=True, metavar="HASH", help="of the study's file")


def _add_setting(command: argparse.ArgumentParser) -> None:
    presets, models = ", ".join(PRESETS), ", ".join(MODELS)
    command.add_argument("study", help="a name from `list`, or a path that ends in .py")
    command.add_argument(
        "--preset", default="smoke", metavar="P", help=f"{presets} (default: smoke)"
    )
    command.add_argument("--dataset", metavar="D", help="data set (default: the preset's)")
    command.add_argument("--model", metavar="M", help=f"{models} (default: the preset's)")
    command.add_argument("--data-root", metavar="DIR", help="where the data sets are")
    command.add_argument("--device", default="cpu", metavar="cpu|cuda", help="default: cpu")
    _add_results(command)


def _add_results(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--results", default="results", metavar="DIR", help="results folder (default: results)"
    )


def _positive(text: str) -> int:
    if not re.fullmatch(r"[0-9]+", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: whole numbers from 1")
    return int(text)


def _blocks(text: str) -> list[int]:
    blocks: list[int] = []
    for part in text.split(","):
        ends = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", part)
        if ends is None or int(ends[2] or ends[1]) < int(ends[1]):
            raise argparse.ArgumentTypeError(f"{text!r}; allowed: blocks like 3, 3-5 or 0,2,4-6")
        blocks += range(int(ends[1]), int(ends[2] or ends[1]) + 1)
    return sorted(set(blocks))


def _list(options: argparse.Namespace) -> int:
    for name in files.names():
        study = files.load(name)
        print(f"{name}: {study.question}")
        print(f"    arms: {', '.join(study.arms)}")
        print(f"    claims: {', '.join(claim.name for claim in study.claims) or 'none'}")
    print("presets:")
    for name, preset in PRESETS.items():
        held = f"{preset.dataset}, {preset.model}, {preset.recipe.epochs} epochs"
        print(f"    {name}: {preset.purpose} ({held}, {preset.num_blocks} blocks)")
    return 0


def _store(options: argparse.Namespace) -> Store:
    if not Path(options.results).is_dir():
        raise ValueError(f"no results folder {options.results!r}")
    return Store(options.results)


def _status(options: argparse.Namespace) -> int:
    for line in progress(_store(options)):
        print(line)
    return 0


def _verify(options: argparse.Namespace) -> int:
    store = _store(options)
    found = list(faults(store))
    for fault in found:
        print(fault, file=sys.stderr)
    print(f"{sum(1 for _ in store.paths())} records, {len(found)} faults")
    return 1 if found else 0


def _export(options: argparse.Namespace) -> int:
    store, target = _store(options), Store(options.to)
    target.check_writable()
    counts: dict[Any, int] = {"new": 0, "equal": 0}
    for plan in store.plans():
        target.save_plan(plan)
    for record in store.records():
        counts[target.publish(record)] += 1
    print(f"{options.to}: {counts['new']} records new, {counts['equal']} there already")
    return 0
