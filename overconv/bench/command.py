"""The gate's command line, shared by ``python -m overconv.bench`` and the project's own."""

import argparse
from pathlib import Path

from overconv.bench.gate import run as run_gate
from overconv.bench.recording import accept, record
from overconv.bench.report import CANNOT_JUDGE, PASSED, writable
from overconv.bench.workers import CannotJudge

HELP = "May this change be merged, as far as cost goes?"
STATUS = "Exit status: 0 pass, 1 regression, 2 usage or bad input, 3 cannot judge."


def add_arguments(parser: argparse.ArgumentParser, cases: Path | None = None) -> None:
    """The arguments of the gate; ``cases`` is the file if none is given."""
    default = "" if cases is None else f" (default: {cases.name} of this project)"
    parser.epilog = STATUS
    parser.add_argument(
        "--cases",
        metavar="FILE",
        type=Path,
        default=cases,
        required=cases is None,
        help=f"Python file with a tuple CASES{default}",
    )
    parser.add_argument(
        "--base",
        metavar="REV",
        help="compare times with this revision (default: with the recorded ratios to plain"
        " counterparts)",
    )
    parser.add_argument("--cases-only", metavar="NAME,...", help="judge these cases alone")
    parser.add_argument(
        "--gone",
        metavar="NAME",
        action="append",
        default=[],
        help="a case of the base that was removed or changed on purpose; may be repeated",
    )
    parser.add_argument(
        "--accept", action="store_true", help="commit to the present exact figures, judge nothing"
    )
    parser.add_argument(
        "--record", action="store_true", help="record this machine's ratios, judge nothing"
    )
    layer = parser.add_mutually_exclusive_group()
    layer.add_argument("--exact-only", action="store_true", help="time nothing")
    layer.add_argument("--timing-only", action="store_true", help="compare no exact figures")
    parser.add_argument(
        "--allow-dirty", action="store_true", help="judge a working tree that is not committed"
    )
    parser.add_argument(
        "--allow-new", action="store_true", help="pass though the base has none of the cases"
    )
    parser.add_argument(
        "--minutes",
        metavar="M",
        type=float,
        default=3.5,
        help="after which no further case is timed (default: 3.5)",
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all that was found")
    parser.add_argument(
        "--markdown", metavar="FILE", type=Path, help="write a summary for a pull request"
    )


def run(options: argparse.Namespace, command: str | None = None) -> int:
    """Do what was asked for; returns the exit status.

    Raises:
        ValueError: What was asked for makes no sense.
    """
    if options.accept or options.record:
        return _make(options)
    files = writable(options.json), writable(options.markdown)
    report = run_gate(
        options.cases,
        base=options.base,
        names=None if options.cases_only is None else [options.cases_only],
        gone=options.gone,
        exact=not options.timing_only,
        timing=not options.exact_only,
        allow_dirty=options.allow_dirty,
        allow_new=options.allow_new,
        minutes=options.minutes,
        command=command,
        say=_say,
    )
    _say(report.text())
    report.write(*files)
    return report.exit_status


def _make(options: argparse.Namespace) -> int:
    if options.cases_only is not None:
        raise ValueError("--accept and --record are for all cases: leave --cases-only out")
    try:
        if options.accept:
            _say(f"written: {accept(options.cases, say=_say)}")
        if options.record:
            _say(f"written: {record(options.cases, say=_say)}")
    except CannotJudge as error:
        _say(str(error))
        return CANNOT_JUDGE
    return PASSED


def _say(line: str) -> None:
    print(line, flush=True)
