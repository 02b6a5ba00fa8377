"""Processes that die at each call of the system; a script, for the tests of what is published.

    python killed.py ROOT OPERATION

runs OPERATION in a process that is killed at its first call, then in one that is killed at its
second, and so on until one comes to its end. After each, this process does what a launcher does
that is started again: it claims the trial, and publishes it. Prints a line of JSON a death.
"""

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from records import files
from records.lease import Claim, Claimed, claim, sweep
from records.process import Process
from records.record import Record, digest
from records.store import Store

CONFIGURATION: dict[str, Any] = {"arm": {"layer": None}, "block": 0}
ENVIRONMENT = {"threads": 1}
RECORD = Record(
    trial=digest(CONFIGURATION),
    stratum=digest(ENVIRONMENT),
    configuration=CONFIGURATION,
    outcome="finished",
    metrics={"test_accuracy": 0.5},
    curves={"train_loss": [1.0] * 100},
    costs={},
    correct=None,
    environment=ENVIRONMENT,
    times={"finished": 1.0},
)
TRIAL = RECORD.trial, RECORD.stratum


def main(root: Path, operation: str) -> None:
    number, died = 0, True
    while died:
        store = Store(root / f"{operation}{number}")
        OPERATIONS[operation][0](store)
        died = in_a_process_that_dies(number, lambda s=store: OPERATIONS[operation][1](s))
        print(json.dumps({"died": died, "number": number, **went_on(store)}), flush=True)
        number += 1


def in_a_process_that_dies(number: int, act: Callable[[], None]) -> bool:
    """Whether a process that does ``act`` was killed at its call ``number``, or came to its end."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            die_at(number)
            act()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "the process failed instead of dying"
    return False


def die_at(number: int) -> None:
    """Be killed before the call ``number``; a write is cut in its middle."""
    made, call = [0], files.call

    def deadly(function, *given, **named):
        if made[0] == number:
            if function is os.write:
                os.write(given[0], given[1][: len(given[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        made[0] += 1
        return call(function, *given, **named)

    files.call = deadly


def went_on(store: Store) -> dict[str, Any]:
    """What a launcher finds that is started afterwards, and what is left once it is through."""
    before = [record.to_bytes() == RECORD.to_bytes() for record in store.records()]
    swept = sweep(store)
    found = claim(store, *TRIAL)
    took = isinstance(found, Claim)
    if took:
        with found:
            published = store.publish(RECORD)
    left = sorted(p.name for p in store.folder(*TRIAL).iterdir())
    return {
        "records_before": before,
        "took": took,
        "generation": found.generation if took else None,
        "published": published if took else None,
        "records": [record.to_bytes() == RECORD.to_bytes() for record in store.records()],
        "swept": swept,
        "left": left,
    }


def nothing(store: Store) -> None:
    pass


def dead_claim(store: Store) -> None:
    folder = store.claims_path(*TRIAL)
    folder.mkdir(parents=True)
    dead = Process.current().model_copy(update={"pid": 2**22})
    content = Claimed(process=dead, started=0.0, lease=60.0).to_bytes()
    (folder / "1.json").write_bytes(content)
    (folder / "1.beat").write_bytes(b"{}")


def take(store: Store) -> Claim:
    """Claim the trial, without the thread that would make calls at times of its own."""
    Claim._beat = lambda self: None
    found = claim(store, *TRIAL)
    assert isinstance(found, Claim)
    return found


def with_checkpoints(store: Store) -> None:
    folder = store.checkpoints_path(*TRIAL)
    folder.mkdir(parents=True)
    for step in (5, 10):
        (folder / f"{step}.checkpoint").write_bytes(b"x")


def beat(store: Store) -> None:
    mine = take(store)
    mine._beat_once()
    mine._beat_once()


def finish(store: Store) -> None:
    with take(store):
        store.publish(RECORD)


def fail(store: Store) -> None:
    with contextlib.suppress(RuntimeError), take(store):
        assert store.note_failure(*TRIAL, "Traceback") is not None
        raise RuntimeError


OPERATIONS: dict[str, tuple[Callable[[Store], Any], Callable[[Store], Any]]] = {
    "claim": (nothing, take),
    "claim after the dead": (dead_claim, take),
    "beat": (nothing, beat),
    "release": (nothing, lambda store: take(store).release()),
    "publish": (nothing, lambda store: store.publish(RECORD)),
    "finish": (with_checkpoints, finish),
    "fail": (nothing, fail),
}

if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
