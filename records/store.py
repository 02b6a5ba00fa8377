"""A results folder: records that are published once and never replaced, plans, strata.

studies/<name>.<hash>.json                      a plan
trials/<trial>/<stratum>/record.json            a record
trials/<trial>/<stratum>/record.conflict-*.json what a second run gave instead
trials/<trial>/<stratum>/claims/                who is at it (:mod:`records.lease`)
trials/<trial>/<stratum>/checkpoints/           how far it is; both go once the record is out
trials/<trial>/<stratum>/failures/              why it failed (:mod:`records.failures`)
strata/<stratum>.json                           what else is known of a stratum
"""

import itertools
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from records import failures, probe
from records.canonical import canonical, digest
from records.failures import Failure
from records.files import publish_once, read_file
from records.plan import Plan
from records.record import Record
from records.strata import Accepted, followed, joined
from records.value import parse_object

Content = TypeVar("Content")


class NondeterminismError(ValueError):
    """Two runs of one trial in one stratum gave different bytes."""


class Store:
    """The results folder ``root``. A folder that is not there reads as an empty one."""

    def __init__(self, root: Path | str):
        self.root = Path(root)

    def check_writable(self) -> None:
        """Try what publishing needs, so that no trial is trained for a folder that cannot keep it.

        Raises:
            ValueError: ``root`` cannot be made or written, or its file system lacks something that
                is asked of it (:mod:`records.probe`).
        """
        try:
            probe.check(self.root)
        except OSError as error:
            raise ValueError(
                f"results folder {str(self.root)!r} cannot be written: {error.strerror}"
            ) from None
        except ValueError as error:
            raise ValueError(f"results folder {str(self.root)!r}: {error}") from None

    def folder(self, trial: str, stratum: str) -> Path:
        """Where all of ``trial`` in ``stratum`` is.

        Raises:
            ValueError: One of them is no name; names become parts of paths.
        """
        return self.root / "trials" / _name("trial", trial) / _name("stratum", stratum)

    def claims_path(self, trial: str, stratum: str) -> Path:
        """The folder of who is at ``trial`` in ``stratum``."""
        return self.folder(trial, stratum) / "claims"

    def checkpoints_path(self, trial: str, stratum: str) -> Path:
        """The folder of how far ``trial`` is in ``stratum``."""
        return self.folder(trial, stratum) / "checkpoints"

    def has(self, trial: str, stratum: str) -> bool:
        """Whether ``trial`` has a record in ``stratum``, readable or not."""
        return os.path.lexists(self._path(trial, stratum))

    def note_failure(self, trial: str, stratum: str, text: str) -> Path | None:
        """Keep the traceback of a trial that failed; None if it cannot be kept (disk full)."""
        return failures.note(self.folder(trial, stratum) / "failures", self.root, text)

    def failures(self, trial: str, stratum: str) -> list[Failure]:
        """How ``trial`` failed in ``stratum``, the newest last."""
        return failures.read(self.folder(trial, stratum) / "failures", self.root)

    def publish(self, record: Record) -> Literal["new", "equal"]:
        """Keep ``record``, unless its trial has one in its stratum that says the same.

        Raises:
            NondeterminismError: It has one that says something else, ``times`` apart. That one
                stays, and ``record`` is kept beside it.
            ValueError: It has one that cannot be read; nothing is changed.
            OSError: It cannot be written, for instance to a full disk; nothing is changed.
        """
        path = self._path(record.trial, record.stratum)
        if publish_once(path, record.to_bytes(), self.root):
            return "new"
        held = self._read(path, Record.from_bytes)
        if held.compared() == record.compared():
            return "equal"
        name = f"record.conflict-{digest(record.compared().decode())}.json"
        publish_once(path.with_name(name), record.to_bytes(), self.root)
        before, now = json.loads(held.compared()), json.loads(record.compared())
        raise NondeterminismError(
            f"{path}: a second run of this trial in this stratum differs in "
            f"{first_difference(before, now)}; it is kept beside it as {name}"
        )

    def get(self, trial: str, stratum: str) -> Record | None:
        """The record of ``trial`` in ``stratum``, if there is one."""
        path = self._path(trial, stratum)
        return self._read_record(path) if os.path.lexists(path) else None

    def find(self, trial: str) -> list[Record]:
        """The records of ``trial``, one a stratum; accepted ones joined (:mod:`records.strata`)."""
        paths = sorted((self.root / "trials" / _name("trial", trial)).glob("*/record.json"))
        return joined(map(self._read_record, paths), self.accepted()) if paths else []

    def paths(self) -> list[Path]:
        """The files of all records, in order."""
        return sorted(self.root.glob("trials/*/*/record.json"))

    def records(self) -> Iterator[Record]:
        """All records, in the order of trials and strata, accepted strata joined.

        Raises:
            ValueError: A file cannot be read, is cut short or of a newer schema, or is another
                trial's; the message names it.
        """
        accepted = self.accepted()
        for _, same in itertools.groupby(self.published(), key=lambda record: record.trial):
            yield from joined(same, accepted)

    def published(self) -> Iterator[Record]:
        """All records as they were published, each of the stratum that it was trained in.

        Raises:
            ValueError: As :meth:`records`.
        """
        return map(self._read_record, self.paths())

    def conflicts(self, record: Record) -> list[Path]:
        """Files of runs of the trial of ``record`` in its stratum that gave other bytes."""
        strata = [record.stratum]
        strata += [one for one, other in self.accepted().items() if other.stratum == record.stratum]
        folders = (self.folder(record.trial, stratum) for stratum in strata)
        return sorted(path for f in folders for path in f.glob("record.conflict-*.json"))

    def save_plan(self, plan: Plan) -> Path:
        """Keep ``plan``; returns its file."""
        path = self.root / "studies" / plan.filename
        if not publish_once(path, plan.to_bytes(), self.root):
            self.read_plan(path)
        return path

    def plan_paths(self) -> list[Path]:
        """The files of all plans, in order."""
        return sorted(self.root.glob("studies/*.json"))

    def read_plan(self, path: Path) -> Plan:
        """The plan in the file ``path``.

        Raises:
            ValueError: It cannot be read, is cut short or of a newer schema; names the file.
        """
        return self._read(path, Plan.from_bytes)

    def plans(self) -> list[Plan]:
        """All plans, by name and hash."""
        return [self.read_plan(path) for path in self.plan_paths()]

    def save_stratum(self, stratum: str, description: Mapping[str, Any]) -> None:
        """Keep what is known of ``stratum``.

        Raises:
            ValueError: Something else is kept of it already.
        """
        path = self.root / "strata" / f"{_name('stratum', stratum)}.json"
        content = canonical(description).encode() + b"\n"
        if not publish_once(path, content, self.root) and self._read(path, bytes) != content:
            raise ValueError(f"{path} says something else of stratum {stratum} already")

    def strata(self) -> dict[str, dict[str, Any]]:
        """What is known of the strata that something was kept of, by stratum."""
        paths = sorted(self.root.glob("strata/*.json"))
        return {path.stem: self._read(path, parse_object) for path in paths}

    def accepted(self) -> dict[str, Accepted]:
        """What each stratum was shown to equal, of those that were.

        Raises:
            ValueError: A file cannot be read, or says nothing of the kind; the message names it.
        """
        paths = sorted(self.root.glob("strata/*.json"))
        return followed({p.stem: self._read(p, Accepted.from_description) for p in paths})

    def _path(self, trial: str, stratum: str) -> Path:
        return self.folder(trial, stratum) / "record.json"

    def _read_record(self, path: Path) -> Record:
        record = self._read(path, Record.from_bytes)
        if (record.trial, record.stratum) != (path.parent.parent.name, path.parent.name):
            raise ValueError(f"{path}: is the record of {record.trial}/{record.stratum}")
        return record

    def _read(self, path: Path, parse: Callable[[bytes], Content]) -> Content:
        try:
            return parse(read_file(path, self.root))
        except OSError as error:
            raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
        except RecursionError:
            raise ValueError(f"{path}: is nested too deep") from None
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


def first_difference(before: Any, now: Any, path: str = "") -> str:
    """Where two JSON values differ first, keys in their order, as ``path: before, now``.

    >>> first_difference({"a": [1, 2], "b": 0}, {"a": [1, 3], "b": 1})
    'a[1]: 2, now 3'
    """
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            where = f"{path}.{key}" if path else key
            if key not in before or key not in now:
                return f"{where}: {'only now' if key in now else 'not now'}"
            if before[key] != now[key]:
                return first_difference(before[key], now[key], where)
    if isinstance(before, list) and isinstance(now, list):
        for index, (one, other) in enumerate(zip(before, now, strict=False)):
            if one != other:
                return first_difference(one, other, f"{path}[{index}]")
        return f"{path}: {len(before)} values, now {len(now)}"
    return f"{path}: {_short(before)}, now {_short(now)}"


def _short(value: Any) -> str:
    text = canonical(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _name(what: str, text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", text):
        raise ValueError(f"{what} {text!r} is no name; allowed: letters, digits, '_' and '-'")
    return text
