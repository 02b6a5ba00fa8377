"""Kill a run of long trials again and again, start it again each time, and compare its records.

Instants are drawn: after a random time, mostly counted from when a trial is at work; at a random
event while a checkpoint is written; or while a record is published. Victims are drawn too: all
processes (a machine that dies), one worker, or the launcher alone. At the end every record must
equal that of the run that nobody disturbed.

    python tests/faults/kill_trials.py --kills 60 --into kills.json
"""

import argparse
import contextlib
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cluster import claims
from running import ROOT, Run
from watching import CREATED, Watch

sys.path.insert(0, str(ROOT))

from records.record import Record
from records.store import Store

MOMENTS = {"instant": 0.6, "checkpoint": 0.22, "publication": 0.18}
VICTIMS = {"all": 0.5, "worker": 0.3, "launcher": 0.2}
STARTING = 0.15  # of the instants may fall while processes start, which takes a busy machine long
LAUNCHES = 5  # that a run may need after the last kill: a worker may have died twice in one trial


def wait_for(moment: str, run: Run, watch: Watch, span: float, draws: random.Random) -> bool:
    """Until ``moment``, or ``span`` seconds; whether the launcher was still running then."""
    if moment == "instant":
        if draws.random() >= STARTING:
            begun = time.monotonic()
            while not _at_work(run) and run.ended() is None and time.monotonic() < begun + 4 * span:
                time.sleep(0.1)
        until = time.monotonic() + draws.uniform(0, span)
        while time.monotonic() < until and run.ended() is None:
            time.sleep(0.01)
        return run.ended() is None
    sought = ".checkpoint" if moment == "checkpoint" else "record.json"
    skipped = draws.randrange(40) if moment == "checkpoint" else 0
    for event in _until_end(run, watch, 4 * span):
        if sought not in event.path.name or (event.kind != CREATED and not skipped):
            continue
        if skipped:
            skipped -= 1
            continue
        if moment == "publication":  # from the first byte to the last file that is cleared away
            steps = draws.randrange(10)
            for _, _ in zip(range(steps), watch.events(0.2), strict=False):
                pass
        time.sleep(draws.uniform(0, 0.002))
        return run.ended() is None
    return run.ended() is None


def _at_work(run: Run) -> bool:
    mine = set(run.processes())
    return any(claim["process"]["pid"] in mine for claim in claims(run.results))


def _until_end(run: Run, watch: Watch, seconds: float) -> Iterator[Any]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and run.ended() is None:
        yield from watch.events(0.5)


def caught_in(results: Path, since: float) -> str:
    """What a kill interrupted, from what it left: of several trials, the latest stage.

    ``since``: when what was killed had been started; what others left before tells nothing.
    """
    stages = ["nothing: starting, or between trials"]
    for folder in results.glob("trials/*/*"):
        names = set(_changed(folder, since))
        begun = any(name.endswith(".checkpoint") for name in names)
        if any(name.startswith(".record.json") for name in names):
            stages.append("publication")
        elif "record.json" in names:
            if begun:
                stages.append("publication")  # out, but not cleared away yet
        elif any(".checkpoint" in name and name.endswith(".tmp") for name in names):
            stages.append("checkpoint")
        elif begun or (names and any(folder.glob("checkpoints/*.checkpoint"))):
            stages.append("training, after a checkpoint")
        elif names:
            stages.append("training, before the first checkpoint")
    order = (
        "publication", "checkpoint", "training, after a checkpoint",
        "training, before the first checkpoint", stages[0],
    )  # fmt: skip
    return min(stages, key=order.index)


def _changed(folder: Path, since: float) -> Iterator[str]:
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # by those that were not killed
            if path.lstat().st_mtime >= since:
                yield path.name


def kill_and_restart(
    options: argparse.Namespace, folder: Path, span: float, draws: random.Random
) -> tuple[list[dict[str, str]], list[Run]]:
    """All kills, and the runs, each until it was done: a new one when the trials run out."""
    kills: list[dict[str, str]] = []
    runs: list[Run] = []
    more = ("--checkpoint-every", str(options.every), "--lease", str(options.lease))
    since = 0.0

    def start(run: Run) -> None:
        nonlocal since
        since = time.time()
        run.start("--workers", str(draws.choice(options.workers)))

    try:
        while len(kills) < options.kills:
            results = folder / f"killed-{len(runs)}"
            results.mkdir()
            run = Run(options, results, *more)
            runs.append(run)
            watch = Watch(results)
            start(run)
            while len(kills) < options.kills:
                if run.ended() is not None:
                    if run.finish() == 0:
                        break
                    start(run)
                moment = _draw(MOMENTS, draws)
                if not wait_for(moment, run, watch, span, draws):
                    continue
                victim = run.kill(_draw(VICTIMS, draws), draws)
                kills.append(
                    {"moment": moment, "victim": victim, "caught": caught_in(results, since)}
                )
                print(f"kill {len(kills)}: {kills[-1]}", file=sys.stderr, flush=True)
                if victim != "worker":
                    start(run)
            watch.close()
            for _ in range(LAUNCHES):
                if run.finish() == 0:
                    break
                start(run)
            run.finish()
    finally:
        for run in runs:
            run.send(signal.SIGKILL)
    return kills, runs


def _draw(weights: dict[str, float], draws: random.Random) -> str:
    return draws.choices(list(weights), list(weights.values()))[0]


def compare(reference: Path, killed: Sequence[Path]) -> dict[str, Any]:
    """Records of ``killed`` folders against those of ``reference``, and what they tell."""
    wanted = {(r.trial, r.stratum): r for r in Store(reference).records()}
    counts = {"records": 0, "lost": 0, "doubled": 0, "different": 0}
    resumed: list[list[int]] = []
    left = []
    for folder in killed:
        store = Store(folder)
        found: dict[tuple[str, str], Record] = {(r.trial, r.stratum): r for r in store.records()}
        counts["records"] += len(found)
        counts["lost"] += len(wanted.keys() - found.keys())
        counts["doubled"] += len(found.keys() - wanted.keys())
        counts["doubled"] += len(list(folder.glob("trials/*/*/record.conflict-*")))
        for key, record in found.items():
            if key in wanted and record.compared() != wanted[key].compared():
                counts["different"] += 1
            resumed.append(record.times.get("resumed", []))
        left += [
            str(path.relative_to(folder))
            for path in folder.glob("trials/**/*")
            if path.is_file() and path.name != "record.json"
        ]
    return {
        **counts,
        "trials_resumed_from_the_middle": sum(any(steps) for steps in resumed),
        "times_resumed": sum(map(len, resumed)),
        "steps_resumed_at": sorted(step for steps in resumed for step in steps),
        "files_left_over": left,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    draws, started = random.Random(options.seed), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kills-", dir=options.folder) as name:
        folder = Path(name)
        reference = options.reference or folder / "reference"
        undisturbed = Run(options, reference)
        undisturbed.start()  # runs what the reference lacks
        try:
            status = undisturbed.finish()
        finally:
            undisturbed.send(signal.SIGKILL)
        if status != 0:
            print(undisturbed.log.read_text(), file=sys.stderr)
            return 1
        seconds = sorted(record.times["seconds"] for record in Store(reference).records())
        kills, runs = kill_and_restart(options, folder, options.span * seconds[-1], draws)
        report = {
            "kills": len(kills),
            "seed": options.seed,
            "workers": options.workers,
            "trials": len(seconds) * len(runs),
            "seconds_a_trial": [seconds[0], seconds[-1]],
            **compare(reference, [run.results for run in runs]),
            "kills_by_moment": _count(kills, "moment"),
            "kills_by_victim": _count(kills, "victim"),
            "kills_by_what_was_caught": _count(kills, "caught"),
            "last_statuses": [run.ended() for run in runs],
            "exit_statuses": dict(sum((run.statuses for run in runs), Counter())),
            "seconds": time.monotonic() - started,
        }
        logs = "".join(run.log.read_text() for run in runs)
    text = json.dumps(report, indent=2)
    print(text)
    if options.into is not None:
        options.into.write_text(text + "\n")
        options.into.with_suffix(".log").write_text(logs)
    wrong = [name for name in ("lost", "doubled", "different") if report[name]]
    return 1 if wrong or any(report["last_statuses"]) else 0


def _count(kills: list[dict[str, str]], name: str) -> dict[str, int]:
    return dict(Counter(kill[name] for kill in kills).most_common())


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[1, 1, 2], help="drawn from at each start"
    )
    parser.add_argument("--blocks", type=int, default=2, help="of each arm")
    parser.add_argument(
        "--span", type=float, default=1.0, help="longest time to a kill, in times of a trial"
    )
    parser.add_argument("--seed", type=int, default=0, help="of instants and victims")
    parser.add_argument("--every", type=int, default=10, help="steps between checkpoints")
    parser.add_argument("--lease", type=float, default=10.0, help="seconds")
    parser.add_argument("--study", type=Path, default=Path(__file__).with_name("long_study.py"))
    parser.add_argument("--model", default="mobilenetv2")
    parser.add_argument("--reference", type=Path, help="undisturbed results, kept between calls")
    parser.add_argument("--folder", type=Path, help="where results are put meanwhile")
    parser.add_argument("--into", type=Path, help="the figures as JSON; the runs' output beside it")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leaving, it ends what it started
    sys.exit(main())
