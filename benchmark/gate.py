"""The gate on our own cases: ``python -m benchmark gate [--base REV]``."""

import argparse
from pathlib import Path

from overconv.bench import command

HELP = command.HELP
CASES = Path(__file__).parent / "cases.py"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    command.add_arguments(parser, CASES)


def run(options: argparse.Namespace) -> int:
    return command.run(options, command="python -m benchmark gate")
