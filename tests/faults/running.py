"""Runs of a study that are there to be killed, and all processes that belong to them."""

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import uuid
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Run:
    """Launchers of one study on one folder, one after the other, and all that they started."""

    def __init__(
        self, options: argparse.Namespace, results: Path, *more: str, log: Path | None = None
    ):
        self.command = [
            sys.executable, "-m", "ablations", "run", str(options.study), "--preset", "smoke",
            "--model", options.model, "--seeds", str(options.blocks), "--results", str(results),
            *more,
        ]  # fmt: skip
        self.results, self.mark = results, f"KILL_TRIALS_RUN={uuid.uuid4().hex}"
        self.log = results.with_suffix(".log") if log is None else log
        self.launcher: subprocess.Popen[bytes] | None = None
        self.statuses: Counter[int] = Counter()

    def start(self, *more: str) -> None:
        """A launcher, with ``more`` options."""
        name, _, value = self.mark.partition("=")
        with self.log.open("ab") as log:
            self.launcher = subprocess.Popen(
                [*self.command, *more], cwd=ROOT, env={**os.environ, name: value},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def ended(self) -> int | None:
        """The launcher's exit status, once it has one."""
        assert self.launcher is not None
        if self.launcher.returncode is None and (status := self.launcher.poll()) is not None:
            self.statuses[status] += 1
        return self.launcher.returncode

    def finish(self) -> int:
        """Wait for the launcher; returns its exit status."""
        assert self.launcher is not None
        if self.launcher.returncode is None:
            self.statuses[self.launcher.wait()] += 1
        return self.launcher.returncode

    def processes(self) -> list[int]:
        """Every living process of this run, orphans too."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
            except OSError:  # it ended, or is not ours
                continue
        return found

    def send(self, number: signal.Signals) -> None:
        """A signal to every process."""
        for process in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)

    def kill(self, victim: str, draws: random.Random) -> str:
        """SIGKILL to ``victim``: "all", "launcher", or "worker" (one, all if there is none).

        Returns whom it hit.
        """
        assert self.launcher is not None
        everyone = self.processes()
        workers = [process for process in everyone if process != self.launcher.pid]
        if victim == "worker" and not workers:
            victim = "all"
        chosen = {"all": everyone, "launcher": [self.launcher.pid]}.get(victim)
        for process in [draws.choice(workers)] if chosen is None else chosen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        if victim != "worker":
            self.finish()
        return victim
