"""``python -m overconv.bench gate --cases FILE``: the gate, for a project of any kind."""

import argparse
import sys
from collections.abc import Sequence

from overconv.bench import command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    top = argparse.ArgumentParser(prog="python -m overconv.bench")
    commands = top.add_subparsers(required=True, metavar="command")
    gate = commands.add_parser("gate", help=command.HELP, description=command.HELP)
    command.add_arguments(gate)
    options = top.parse_args(arguments)
    try:
        return command.run(options)
    except (ValueError, OSError) as error:
        print(f"python -m overconv.bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # all is cleaned up by now
        print("python -m overconv.bench: interrupted, there is no verdict", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
