"""Start four launchers at once on one folder, kill two of them, and see what was trained twice.

Every checkpoint is seen as it is written. A trial that is trained once, or taken up where it was
left, writes that of each step once; what is written twice was trained twice.

    python tests/faults/share_trials.py --into shared.json
"""

import argparse
import json
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from running import ROOT, Run
from watching import MOVED_IN, Watch

sys.path.insert(0, str(ROOT))

from records.store import Store

FINISHED = re.compile(r"^\[\d+/\d+\] (\S+ block \d+): [0-9.]+ % validation accuracy", re.MULTILINE)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="shared-", dir=options.folder) as name:
        folder = Path(name)
        results = folder / "results"
        results.mkdir()
        more = ("--checkpoint-every", str(options.every), "--lease", str(options.lease))
        runs = [
            Run(options, results, *more, log=folder / f"{number}.log")
            for number in range(options.launchers)
        ]
        try:
            alive, held, written = run_and_kill(runs, options)
            statuses = [run.finish() for run in alive]
        finally:
            for run in runs:
                run.send(signal.SIGKILL)
        records = list(Store(results).records())
        logs = {run.log.name: run.log.read_text() for run in runs}
        finished = Counter(found for text in logs.values() for found in FINISHED.findall(text))
        report = {
            "launchers": options.launchers,
            "killed": options.launchers - len(alive),
            "exit_statuses_of_the_others": statuses,
            "trials": options.trials,
            "records": len(records),
            "conflicts": len(list(results.glob("trials/*/*/record.conflict-*"))),
            "trials_that_the_killed_held": held,
            "checkpoints_written": written.total(),
            "checkpoints_written_twice": sum(count > 1 for count in written.values()),
            "trained_to_the_end": finished.total(),
            "trained_to_the_end_twice": sum(count > 1 for count in finished.values()),
            "by_launcher": {name: len(FINISHED.findall(text)) for name, text in logs.items()},
            "taken_up_from_a_checkpoint": sum(bool(r.times.get("resumed")) for r in records),
            "seconds": time.monotonic() - started,
        }
    text = json.dumps(report, indent=2)
    print(text)
    if options.into is not None:
        options.into.write_text(text + "\n")
        options.into.with_suffix(".log").write_text("".join(logs.values()))
    twice = report["checkpoints_written_twice"] or report["trained_to_the_end_twice"]
    wrong = twice or report["conflicts"] or len(records) != options.trials
    return 1 if wrong or any(statuses) or len(alive) != options.launchers - options.kills else 0


def run_and_kill(
    runs: list[Run], options: argparse.Namespace
) -> tuple[list[Run], int, Counter[Path]]:
    """Start all and kill some, each after a random number of checkpoints.

    Returns who lives, how many trials the killed ones were at, and the checkpoints written.
    """
    draws, results = random.Random(options.seed), runs[0].results
    watch, written, held, alive = Watch(results), Counter[Path](), 0, list(runs)
    due = sorted(draws.sample(range(*options.between), options.kills))
    for run in runs:
        run.start()
    while any(run.ended() is None for run in alive):
        for event in watch.events(0.2):
            if event.kind == MOVED_IN and event.path.suffix == ".checkpoint":
                written[event.path] += 1
        # Who waits for the others is killed too, but not instead of one that is at a trial.
        busy = [run for run in alive if run.ended() is None and _held_by(run, results)]
        if due and written.total() >= due[0] and busy:
            due.pop(0)
            victim = draws.choice(busy)
            alive.remove(victim)
            victim.send(signal.SIGSTOP)
            held += len(_held_by(victim, results))
            victim.kill("all", draws)
    return alive, held, written


def _held_by(run: Run, results: Path) -> list[Path]:
    """Claims of the processes of ``run`` that are neither released nor followed by another."""
    mine, found = set(run.processes()), []
    for folder in results.glob("trials/*/*/claims"):
        if (folder.parent / "record.json").exists():
            continue
        numbers = [int(path.stem) for path in folder.glob("[0-9]*.json")]
        path = folder / f"{max(numbers, default=0)}.json"
        try:
            claim = json.loads(path.read_text())
        except FileNotFoundError:  # a record has come out since
            continue
        if claim["process"]["pid"] in mine and not claim["released"]:
            found.append(path)
    return found


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--launchers", type=int, default=4)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument(
        "--between", type=int, nargs=2, default=(5, 80), help="checkpoints until a kill"
    )
    parser.add_argument("--every", type=int, default=20, help="steps between checkpoints")
    parser.add_argument("--blocks", type=int, default=2, help="of each arm")
    parser.add_argument("--trials", type=int, default=8, help="that come of it")
    parser.add_argument("--seed", type=int, default=0, help="of instants and victims")
    parser.add_argument("--lease", type=float, default=60.0, help="seconds")
    parser.add_argument("--study", type=Path, default=Path(__file__).with_name("long_study.py"))
    parser.add_argument("--model", default="mobilenetv2")
    parser.add_argument("--folder", type=Path, help="where results are put meanwhile")
    parser.add_argument("--into", type=Path, help="the figures as JSON")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leaving, it ends what it started
    sys.exit(main())
