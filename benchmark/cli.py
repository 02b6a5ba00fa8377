"""The command line: `python -m benchmark`.

Exit status: 0 done, 1 stale or a regression, 2 usage or bad input, 3 cannot judge.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from benchmark.loop import measure
from benchmark.readme import README, filled
from benchmark.tables import FOLDER, load, save, with_other_machines

# What each table holds; a module of that name measures it and puts it into words.
TABLES = {
    "capacity": "dimension of the span of each dynamic layer's kernel, beside its parameters",
    "crosscheck": "formulas against two counters, for every layer, variant, form and mode",
    "deployment": "each layer under compilers, exporters, precisions and formats",
    "geometries": "each layer in a grid of geometries: how exact, and what is refused and why",
    "inference": "time of MobileNetV2 with each layer against the plain network",
    "plans": "the planned form of a layer against the best of its forms, on 44 shapes",
    "published": "published parameters and MACs of networks against ours, differences explained",
    "surgery": "networks of torchvision and timm, replaced and deployed",
    "training": "time of a training step, layer by layer, against timm's layer and the plain one",
}

# Those of times against another network's keep the record of each kind of processor.
BY_MACHINE = ("inference",)

# Modules that add their own arguments and run by themselves.
COMMANDS = ("costs", "operators", "models", "gate", "gate_trials")


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
    loop.set_defaults(run=_loop)
    loop.add_argument(
        "--rounds", type=int, default=400, metavar="N", help="pairs of steps (default: 400)"
    )
    loop.add_argument("--width", type=float, default=8.0, help="of the ResNet-8 (default: 8)")
    loop.add_argument("--batch-size", type=int, default=128, metavar="B", help="default: 128")
    loop.add_argument("--json", metavar="FILE", help="append all samples to it, as a line of JSON")
    for name, what in TABLES.items():
        text = f"Table: {what}."
        table = commands.add_parser(name, help=text, description=text)
        table.set_defaults(run=_table, table=name)
        table.add_argument(
            "--out",
            metavar="DIR",
            type=Path,
            default=FOLDER,
            help="where NAME.json and NAME.md go (default: the committed ones)",
        )
        table.add_argument(
            "--text-only",
            action="store_true",
            help="measure nothing: write NAME.md from NAME.json again",
        )
    for name in COMMANDS:
        module = _module(name)
        command = commands.add_parser(
            name.replace("_", "-"), help=module.HELP, description=module.HELP
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    text = "Write the tables in README.md from their committed records."
    readme = commands.add_parser("readme", help=text, description=text)
    readme.set_defaults(run=_readme)
    readme.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 if README.md would change"
    )
    options = top.parse_args(arguments)
    try:
        return options.run(options)
    except (ValueError, OSError) as error:
        print(f"python -m benchmark: {error}", file=sys.stderr)
        return 2


def _loop(options: argparse.Namespace) -> int:
    found = measure(rounds=options.rounds, width=options.width, batch_size=options.batch_size)
    if options.json:
        with Path(options.json).open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")
    print(
        f"training loop / bare step on the same batches: "
        f"{found['ratio_minimum']:.4f} (minimum), "
        f"{found['ratio_p20']:.4f} (20th percentile), {found['ratio_mean']:.4f} (mean) over "
        f"{options.rounds} interleaved pairs of steps; "
        f"a bare step takes {found['milliseconds_bare']:.2f} ms here"
    )
    return 0


def _table(options: argparse.Namespace) -> int:
    module = _module(options.table)
    if options.text_only:
        found = load(options.table, options.out)
    else:
        found = module.measure()
        if options.table in BY_MACHINE:
            there = (options.out / f"{options.table}.json").exists()
            found = with_other_machines(found, load(options.table, options.out) if there else None)
    text = module.text(found)
    path = save(options.table, found, text, options.out)
    print(text)
    print(f"written: {path}")
    return 0


def _readme(options: argparse.Namespace) -> int:
    written = README.read_text(encoding="utf-8")
    texts = {name: _module(name).text for name in (*TABLES, "gate_trials")}
    fresh = filled(written, {**texts, "surgery-short": _module("surgery").short})
    if options.check:
        if fresh == written:
            return 0
        print("README.md differs from its records: run python -m benchmark readme")
        return 1
    README.write_text(fresh, encoding="utf-8")
    return 0


def _module(name: str) -> Any:
    """Loaded when it is asked for: some need packages that the others do not."""
    return importlib.import_module(f"benchmark.{name}")
