"""What the programs that disturb a cluster share: their options, and what a folder shows."""

import argparse
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from running import Run

PATIENCE = 600.0


def parser(text: str) -> argparse.ArgumentParser:
    """Options of a program that is described by ``text``."""
    found = argparse.ArgumentParser(description=text.splitlines()[0])
    found.add_argument("--study", type=Path, default=Path(__file__).with_name("long_study.py"))
    found.add_argument("--model", default="mobilenetv2")
    found.add_argument("--blocks", type=int, default=1, help="of each arm")
    found.add_argument("--every", type=int, default=10, help="steps between checkpoints")
    found.add_argument("--folder", type=Path, help="where results are put meanwhile")
    found.add_argument("--reference", type=Path, help="undisturbed results, kept between calls")
    found.add_argument("--into", type=Path, help="the figures as JSON; the run's output beside it")
    return found


def undisturbed(options: argparse.Namespace, folder: Path) -> Path:
    """The results folder of a run in one process, run as far as it lacks anything."""
    results = options.reference or folder / "reference"
    run = Run(options, results)
    run.start()
    try:
        if run.finish() != 0:
            raise SystemExit(run.log.read_text())
    finally:
        run.send(signal.SIGKILL)
    return results


def claims(results: Path) -> list[dict[str, Any]]:
    """The newest claim on each trial that has no record, unless it was released."""
    found = []
    for folder in results.glob("trials/*/*/claims"):
        newest = max(map(int, (path.stem for path in folder.glob("[0-9]*.json"))), default=0)
        try:
            claim = json.loads((folder / f"{newest}.json").read_text())
        except FileNotFoundError:  # a record has come out since
            continue
        if not claim["released"] and not (folder.parent / "record.json").exists():
            found.append(claim)
    return found


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for what takes some minutes at most."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited in vain for {what}")
        time.sleep(0.2)
