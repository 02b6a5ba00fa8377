"""The command line: `python -m ablations list|run|status|verify|export`.

Exit status: 0 done, 1 a trial failed or a record is wrong, 2 usage or bad input, 130 and 143
stopped by a signal, 141 nobody reads the output.
"""

import argparse
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from ablations import files
from ablations.care import add_export_arguments, export, status, verify
from ablations.presets import MODELS, PRESETS
from ablations.run import run
from ablations.serving import run_rank, serve
from records.lease import LONGEST, printable

DESCRIPTION = "Run scripted ablations, and look after what they recorded."


MOST_BLOCKS = 10_000  # more would only be found to be too many when memory is full
ENGINES = ("local", "ray", "slurm")
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
        status = options.command(options)
        if sys.stdout is not None:  # it is closed: nobody wants to read it
            sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # whoever read the output, for instance `head`, has enough
        with Path(os.devnull).open("wb") as nowhere:  # Python flushes once more as it ends
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (ValueError, OSError) as error:
        line = printable(" ".join(str(error).split()))  # it may quote a file of anybody's
        print(f"python -m ablations: {line}", file=sys.stderr)
        return 2


def _stop(*_: object) -> NoReturn:
    print(STOPPED, file=sys.stderr)
    sys.exit(128 + signal.SIGTERM)


def parser() -> argparse.ArgumentParser:
    top = Parser(prog="python -m ablations", description=DESCRIPTION)
    commands = top.add_subparsers(required=True, metavar="command", parser_class=Parser)

    def command(name: str, function: Callable, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.set_defaults(command=function)
        return made

    command("list", _list, "The studies and presets, and what they ask.")
    _add_run(command("run", run, "Run what a study lacks; running again resumes."))
    trial = command("trial", run_rank, "Run one trial as a rank of torchrun: what a worker starts.")
    trial.add_argument("task", metavar="TASK", help="the trial as planned, in JSON")
    command("worker", serve, "Run trials that are given as lines on standard input.")
    _add_results(command("status", status, "What is done, what runs or died, and what failed why."))
    _add_results(command("verify", verify, "Check every file against its name and its hash."))
    exporting = command("export", export, "Copy plans and records to other places and formats.")
    _add_results(exporting)
    add_export_arguments(exporting)
    return top


def _add_run(command: argparse.ArgumentParser) -> None:
    _add_setting(command)
    number = command.add_mutually_exclusive_group()
    number.add_argument(
        "--seeds", type=_seeds, metavar="N", help="blocks 0 to N-1 (default: the preset's)"
    )
    number.add_argument(
        "--blocks", type=_blocks, metavar="3-5", help="these blocks, for instance 3-5 or 0,2"
    )
    command.add_argument("--arms", metavar="A,B", help="run these arms only (default: all)")
    command.add_argument(
        "--workers", type=_positive, metavar="N",
        help="trials at a time, in as many processes (default: 1, in this process)",
    )  # fmt: skip
    command.add_argument(
        "--engine", choices=ENGINES, default="local", help="where trials run (default: local)"
    )
    command.add_argument(
        "--address", metavar="A",
        help="of a Ray cluster, auto: this machine's (default: a Ray of its own for this run)",
    )  # fmt: skip
    command.add_argument(
        "--gpus", type=_share, default=0.0, metavar="G",
        help="GPUs a trial on Ray or Slurm; on Ray a fraction, too (default: 0)",
    )  # fmt: skip
    command.add_argument(
        "--slurm", type=_pair, action="append", default=[], metavar="KEY=VALUE",
        help="a parameter of submitit, for instance slurm_partition=gpu; or folder=DIR, where its "
        "files go, cluster=local, its processes here",
    )  # fmt: skip
    command.add_argument(
        "--ranks", type=_positive, metavar="R",
        help="processes that share each trial's batch (default: the preset's)",
    )  # fmt: skip
    command.add_argument(
        "--checkpoint-every", type=_positive, default=200, metavar="N",
        help="steps between checkpoints, which are kept after each epoch too (default: 200)",
    )  # fmt: skip
    command.add_argument(
        "--lease", type=_seconds, default=60.0, metavar="S",
        help="seconds without a sign of life after which another launcher takes a trial "
        "(default: 60)",
    )  # fmt: skip
    command.add_argument(
        "--retries", type=_whole, default=1, metavar="N",
        help="times that a trial is tried again whose process died (default: 1)",
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
    if not re.fullmatch(r"[0-9]{1,18}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: whole numbers from 1")
    return int(text)


def _whole(text: str) -> int:
    return 0 if text == "0" else _positive(text)


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) or not 0 < float(text) <= LONGEST:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: seconds, up to {LONGEST:.0f}")
    return float(text)


def _share(text: str) -> float:
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: numbers from 0")
    return float(text)


def _pair(text: str) -> tuple[str, str | int]:
    key, found, value = text.partition("=")
    if not found or not key.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: KEY=VALUE")
    return key, int(value) if value.isdecimal() else value


def _blocks(text: str) -> list[int]:
    blocks: set[int] = set()
    for part in text.split(","):
        ends = re.fullmatch(r"([0-9]{1,18})(?:-([0-9]{1,18}))?", part)
        if ends is None or int(ends[2] or ends[1]) < int(ends[1]):
            raise argparse.ArgumentTypeError(f"{text!r}; allowed: blocks like 3, 3-5 or 0,2,4-6")
        _check_number(text, int(ends[2] or ends[1]) - int(ends[1]) + 1 + len(blocks))
        blocks |= set(range(int(ends[1]), int(ends[2] or ends[1]) + 1))
    return sorted(blocks)


def _seeds(text: str) -> int:
    return _check_number(text, _positive(text))


def _check_number(text: str, number: int) -> int:
    if number > MOST_BLOCKS:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: up to {MOST_BLOCKS:,} blocks")
    return number


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
