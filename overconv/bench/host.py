"""The machine that the gate runs on, and what it may do to the gate."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from overconv.bench.devices import fingerprint, fingerprint_key


def quiet_core(seconds: float = 0.2) -> int | None:
    """The core, of those that this process may use, that has the most idle time now.

    None where the system cannot bind a process to a core.
    """
    if not hasattr(os, "sched_setaffinity"):
        return None
    usable = sorted(os.sched_getaffinity(0))
    before = _idle()
    if len(usable) > 1 and before:
        time.sleep(seconds)
        after = _idle()
        return max(usable, key=lambda core: (after.get(core, 0) - before.get(core, 0), core))
    return usable[-1]


def _idle() -> dict[int, int]:
    """Ticks that each core was idle, from /proc/stat; empty where there is none."""
    try:
        lines = Path("/proc/stat").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    rows = [line.split() for line in lines if line.startswith("cpu") and line[3:4].isdecimal()]
    return {int(row[0][3:]): int(row[4]) for row in rows}


def machine(core: int | None) -> dict[str, Any]:
    """Fingerprint of a process with one thread, its key, and what else is good to know."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found, key = fingerprint(), fingerprint_key()
    finally:
        torch.set_num_threads(threads)
    load = os.getloadavg() if hasattr(os, "getloadavg") else ()
    return {"key": key, "fingerprint": found, "core": core, "load": [round(x, 2) for x in load]}


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as an exception does, so that it cleans up behind itself.

    Raises:
        SystemExit: With 128 and the signal's number. Outside of the main thread nothing is changed.
    """

    def stop(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {}
    try:
        for number in numbers:
            before[number] = signal.signal(number, stop)
    except ValueError:  # another thread than the main one
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
