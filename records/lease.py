"""Who is at a trial: claims with a heartbeat, so that launchers share a folder and none waits.

A trial in a stratum is claimed by generations, ``claims/<generation>.json``. Generation g + 1 is
published by a link that replaces nothing, so that of several takers exactly one wins; it may be
taken once generation g was released or its holder is dead:

- its process is gone, which is seen at once on the same machine, boot and namespace;
- or ``claims/<generation>.beat``, which the holder rewrites every sixth of the lease with a higher
  count, has not changed for a lease by the onlooker's own clock. No two clocks are compared, and
  none that can be set is read.

A holder that was only paused finds the newer generation at its next beat, and ``lost()`` is true:
it leaves the trial. What it does until then is harmless, for a record is published by a link that
replaces nothing, and two runs of a trial give the same bytes: a lease saves work, it does not keep
records right. No claim is removed before the record is out, so generations only grow; whoever wins
one looks for the record once more, so a trial that was finished meanwhile is not trained again.
Once the record is out, claims and checkpoints are removed by whoever comes by.

A holder that hangs but whose heart beats keeps its claim: `status` shows that it gets no further.
"""

import contextlib
import functools
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field

from records.canonical import canonical, plain
from records.files import (
    numbered,
    numbered_path,
    overwrite,
    publish_once,
    read_file,
    remove_folder,
)
from records.process import Process
from records.store import Store
from records.value import Moment, VersionedValue, parse_object

LONGEST = 24 * 3600.0
BEATS = 6  # in a lease: several may be late before anybody takes the holder for dead


class Claimed(VersionedValue):
    """The content of a claim.

    Args:
        schema_version: Of this class.
        process: Who holds it.
        started: In seconds since 1970; for people alone.
        lease: The time without a heartbeat, in seconds, that the holder asks for.
        released: Whether it is free for the next.
    """

    schema_version: int = 1
    process: Process
    started: Moment
    lease: Annotated[float, Field(gt=0, le=LONGEST)]
    released: bool = False


class Watcher:
    """What one process has seen of heartbeats, and for how long: it takes several looks to tell."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._seen: dict[Path, tuple[bytes | None, float]] = {}

    def silence(self, path: Path, root: Path) -> float:
        """For how many seconds the heartbeat ``path`` has certainly not changed."""
        before = self._clock()
        beat = _read(path, root)
        if path not in self._seen or self._seen[path][0] != beat:
            # The first look ends after it was read, and the last begins before: whoever is stopped
            # in between takes no holder for silent.
            self._seen[path] = (beat, self._clock())
            return 0.0
        return before - self._seen[path][1]


@functools.cache
def seen_here() -> Watcher:
    """What this process has seen of heartbeats."""
    return Watcher()


class Holder:
    """Another one's claim on a trial."""

    def __init__(self, store: Store, folder: Path, generation: int, lease: float, watcher: Watcher):
        self._root, self._folder, self._watcher = store.root, folder, watcher
        self._lease, self.generation = lease, generation
        self.beat = folder / f"{generation}.beat"
        self.claimed = self._read()

    def describe(self) -> str:
        """Who holds the trial since when and how far it is, in one line."""
        if self.claimed is None:
            return f"{self._folder / f'{self.generation}.json'}, which cannot be read"
        process = self.claimed.process
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.claimed.started))
        notes = "".join(f", {key} {value}" for key, value in sorted(self.progress().items()))
        return printable(f"{process.host} process {process.pid}, since {since}{notes}")

    def progress(self) -> dict[str, Any]:
        """What the holder noted last (:meth:`Claim.note`)."""
        content = _read(self.beat, self._root)
        with contextlib.suppress(ValueError, RecursionError):
            found = parse_object(content or b"").get("notes")
            return found if isinstance(found, dict) else {}
        return {}

    def is_dead(self) -> bool:
        """Whether the claim holds no more: released, removed, or of a dead holder. Looks anew."""
        self.claimed = self._read() or self.claimed
        if self.claimed is not None:
            gone = self.claimed.process.is_gone()
            if self.claimed.released or gone:
                return True
        if not os.path.lexists(self._folder / f"{self.generation}.json"):
            return True
        # A holder with a longer lease beats more slowly.
        lease = max(self._lease, 0 if self.claimed is None else self.claimed.lease)
        return self._watcher.silence(self.beat, self._root) >= lease

    def _read(self) -> Claimed | None:
        content = _read(self._folder / f"{self.generation}.json", self._root)
        with contextlib.suppress(ValueError, RecursionError):
            return Claimed.from_bytes(content or b"")
        return None  # no writer of ours left it; its heartbeat decides


class Claim:
    """This process's claim on a trial, with a heartbeat until it is released."""

    def __init__(
        self, store: Store, trial: str, stratum: str, generation: int, claimed: Claimed,
        warn: Callable[[str], None],
    ):  # fmt: skip
        self._store, self.trial, self.stratum = store, trial, stratum
        self._folder = store.claims_path(trial, stratum)
        self.generation, self._claimed, self._warn = generation, claimed, warn
        self._count = 0
        self._warned: set[str] = set()
        self._notes: dict[str, Any] = {}
        self._lost, self._ended, self._released = threading.Event(), threading.Event(), False
        self._thread = threading.Thread(target=self._beat, name=f"lease {trial}", daemon=True)
        self._thread.start()

    def lost(self) -> bool:
        """Whether another one has taken the trial, or finished it: then leave it."""
        return self._lost.is_set()

    def note(self, **notes: Any) -> None:
        """Say how far the trial is, in plain values; `status` shows it from the next beat on."""
        self._notes = {**self._notes, **plain(notes)}

    def release(self) -> None:
        """Leave the trial to others; where its record is out, remove claims and checkpoints."""
        if self._released:
            return
        self._released = True
        self._ended.set()
        self._thread.join(self._claimed.lease)  # a network file system may hold it up
        try:
            if not self._store.has(self.trial, self.stratum):
                released = Claimed(**{**self._claimed.plain(), "released": True})
                overwrite(self._folder / f"{self.generation}.json", released.to_bytes())
        except FileNotFoundError:
            pass  # removed by another one, who saw the record
        except OSError as error:
            self._complain("cannot be released", error)
        if self._store.has(self.trial, self.stratum):
            tidy(self._store, self.trial, self.stratum)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _beat(self) -> None:
        while not self._ended.is_set() and not self._lost.is_set():
            self._beat_once()
            self._ended.wait(self._claimed.lease / BEATS)

    def _beat_once(self) -> None:
        self._count += 1
        # No two holders beat alike, not even in folders of one name.
        beat = {"count": self._count, "notes": self._notes, "of": self._claimed.plain()}
        content = canonical(beat) + "\n"
        try:
            found = numbered(self._folder)
            if self.generation not in found or max(found) > self.generation:
                self._lost.set()
                return
            overwrite(self._folder / f"{self.generation}.beat", content.encode())
        except FileNotFoundError:  # removed together with its folder
            self._lost.set()
        except OSError as error:
            self._complain("has no heartbeat, and may be taken by another launcher", error)

    def _complain(self, what: str, error: OSError) -> None:
        if what not in self._warned:  # once each, not at each beat
            self._warned.add(what)
            self._warn(f"claim on {self.trial}/{self.stratum} {what}: {error.strerror}")


def claim(
    store: Store,
    trial: str,
    stratum: str,
    lease: float = 60.0,
    *,
    watcher: Watcher | None = None,
    warn: Callable[[str], None] | None = None,
) -> Claim | Holder | None:
    """This process's claim on ``trial`` in ``stratum``, or who holds it; None: it is recorded.

    Args:
        store: The results folder.
        trial, stratum: What is claimed.
        lease: Seconds without a heartbeat after which a holder counts as dead.
        watcher: What has been seen of heartbeats before; default: all that this process has seen.
        warn: Told, once each, what of the claim cannot be written. Default: standard error.

    Raises:
        ValueError: ``lease`` is out of range; the claims of the trial are no folder of files, or
            somebody has put one there that none can follow.
        OSError: The claim cannot be written.
    """
    if not 0 < lease <= LONGEST:
        raise ValueError(f"lease={lease}; allowed: more than 0, up to {LONGEST:.0f} seconds")
    for _ in range(100):
        if store.has(trial, stratum):
            return None
        holder = look(store, trial, stratum, lease, watcher)
        if holder is not None and not holder.is_dead():
            return holder
        generation = 1 if holder is None else holder.generation + 1
        path = numbered_path(store.claims_path(trial, stratum), generation)
        claimed = Claimed(process=Process.current(), started=time.time(), lease=lease)
        try:
            won = publish_once(path, claimed.to_bytes(), store.root)
        except FileNotFoundError:  # the folder was removed in between, so there is a record
            continue
        if not won:
            return Holder(store, path.parent, generation, lease, watcher or seen_here())
        mine = Claim(store, trial, stratum, generation, claimed, warn or _say)
        if not store.has(trial, stratum):
            return mine
        mine.release()
    raise FileNotFoundError(f"{store.claims_path(trial, stratum)} vanishes again and again")


def look(
    store: Store, trial: str, stratum: str, lease: float = 60.0, watcher: Watcher | None = None
) -> Holder | None:
    """Who claimed ``trial`` in ``stratum`` last, dead or alive; None: nobody. Changes nothing."""
    folder = store.claims_path(trial, stratum)
    generation = max(numbered(folder), default=0)
    return Holder(store, folder, generation, lease, watcher or seen_here()) if generation else None


def tidy(store: Store, trial: str, stratum: str) -> bool:
    """Remove claims and checkpoints of a trial that has a record; returns whether they are gone."""
    assert store.has(trial, stratum), "what is not recorded may still be needed"
    folders = store.claims_path(trial, stratum), store.checkpoints_path(trial, stratum)
    return all([remove_folder(folder, store.root) for folder in folders])


def sweep(store: Store) -> int:
    """:func:`tidy` what processes that died left behind; returns of how many trials."""
    found = {
        (path.parent.parent.name, path.parent.name)
        for kind in ("claims", "checkpoints")
        for path in store.root.glob(f"trials/*/*/{kind}")
    }
    return sum(tidy(store, *names) for names in found if store.has(*names))


def printable(text: str) -> str:
    """``text`` without what would move a terminal's cursor."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _read(path: Path, root: Path) -> bytes | None:
    try:
        return read_file(path, root)
    except (OSError, ValueError):
        return None


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
