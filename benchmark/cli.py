"""The command line: `python -m benchmark loop`. Exit status: 0 done, 2 usage or bad input."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from benchmark.loop import measure


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    top = Parser(prog="python -m benchmark", description="Measure what things cost.")
    commands = top.add_subparsers(required=True, metavar="command", parser_class=Parser)
    text = "Overhead of the training loop over the bare forward, backward and optimiser step."
    loop = commands.add_parser("loop", help=text, description=text)
    loop.add_argument(
        "--rounds", type=int, default=400, metavar="N", help="pairs of steps (default: 400)"
    )
    loop.add_argument("--width", type=float, default=8.0, help="of the ResNet-8 (default: 8)")
    loop.add_argument("--batch-size", type=int, default=128, metavar="B", help="default: 128")
    loop.add_argument("--json", metavar="FILE", help="append all samples to it, as a line of JSON")
    options = top.parse_args(arguments)
    try:
        found = measure(rounds=options.rounds, width=options.width, batch_size=options.batch_size)
        if options.json:
            with Path(options.json).open("a", encoding="utf-8") as file:
                file.write(json.dumps(found) + "\n")
    except (ValueError, OSError) as error:
        print(f"python -m benchmark: {error}", file=sys.stderr)
        return 2
    print(
        f"training loop / bare step on the same batches: "
        f"{found['ratio_minimum']:.4f} (minimum), "
        f"{found['ratio_p20']:.4f} (20th percentile), {found['ratio_mean']:.4f} (mean) over "
        f"{options.rounds} interleaved pairs of steps; "
        f"a bare step takes {found['milliseconds_bare']:.2f} ms here"
    )
    return 0
