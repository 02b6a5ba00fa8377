"""Whether a results folder is what it says it is, and what else is to be known of it."""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from records.blocks import owner
from records.canonical import digest
from records.files import read_file
from records.record import Record
from records.standing import progress
from records.store import Store, first_difference
from records.strata import Accepted
from records.value import parse_object

__all__ = ["faults", "progress", "remarks"]

Found = TypeVar("Found")

_NAME = r"[A-Za-z0-9_-]+"
# What a results folder may hold; everything else is somebody else's.
_LAYOUT = re.compile(
    rf"studies/[A-Za-z0-9_.-]+\.json|strata/{_NAME}\.json|benchmark\.jsonl|report/.*"
    rf"|trials/{_NAME}/{_NAME}/(record\.json|record\.conflict-{_NAME}\.json"
    r"|claims/[0-9]+\.(json|beat)|checkpoints/[0-9]+\.checkpoint|failures/[0-9]+\.json)"
)


def faults(store: Store) -> Iterator[str]:
    """What is wrong in ``store``, a line each: nothing if every file is what its name says.

    Every hash is computed again: of records, plans, strata, and of what contradicts a record.
    """
    for path in store.paths():
        yield from _checked(path, lambda path: _record_faults(store, path))
    for path in sorted(store.root.glob("trials/*/*/record.conflict-*.json")):
        yield from _checked(path, lambda path: _conflict_faults(store, path))
    for path in sorted(store.root.glob("trials/*/*/failures/")):
        yield from _checked(path, lambda path: _failure_faults(store, path))
    for path in store.plan_paths():
        yield from _checked(path, lambda path: _plan_faults(store, path))
    for path in sorted(store.root.glob("strata/*.json")):
        yield from _checked(path, lambda path: _stratum_faults(store, path))
    yield from _contradictions(store)
    for path in _all_paths(store.root):
        if path.is_symlink():
            yield f"{path}: is a symbolic link; allowed: plain files and folders"


def remarks(store: Store) -> Iterator[str]:
    """What is no fault and yet to be known: other strata, unused records, files left or foreign.

    Records and plans that cannot be read are passed over: they are faults.
    """
    for path in _all_paths(store.root):
        name = path.relative_to(store.root).as_posix()
        if path.name.startswith(".") and path.name.endswith(".tmp"):
            yield f"{path}: being written, or left by a process that died"
        elif not path.is_symlink() and not path.is_dir() and not _LAYOUT.fullmatch(name):
            yield f"{path}: foreign: no file of a results folder"
    for trial, stratum in sorted((p.parent.parent.name, p.parent.name) for p in store.paths()):
        folders = store.claims_path(trial, stratum), store.checkpoints_path(trial, stratum)
        for folder in folders:
            if folder.is_dir():
                yield f"{folder}: left beside a record; the next run removes it"
    yield from _strata_remarks(store)


def _checked(path: Path, check: Callable[[Path], Iterator[str]]) -> Iterator[str]:
    try:
        found = list(check(path))
    except OSError as error:
        yield f"{path}: cannot be read: {error.strerror}"
    except RecursionError:
        yield f"{path}: is nested too deep"
    except ValueError as error:
        text = str(error)
        yield text if text.startswith(str(path)) else f"{path}: {text}"
    else:
        yield from found


def _record_faults(store: Store, path: Path) -> Iterator[str]:
    record = Record.from_bytes(read_file(path, store.root))
    yield from _identity_faults(path, record)


def _identity_faults(path: Path, record: Record) -> Iterator[str]:
    if (record.trial, record.stratum) != (path.parent.parent.name, path.parent.name):
        yield f"{path}: is the record of {record.trial}/{record.stratum}"
    if digest(record.configuration) != record.trial:
        yield f"{path}: trial {record.trial} is not the hash of its configuration"
    if digest(record.environment) != record.stratum:
        yield f"{path}: stratum {record.stratum} is not the hash of its environment"


def _conflict_faults(store: Store, path: Path) -> Iterator[str]:
    yield f"{path}: a second run of this trial gave other bytes"
    record = Record.from_bytes(read_file(path, store.root))
    yield from _identity_faults(path, record)
    if path.name != f"record.conflict-{digest(record.compared().decode())}.json":
        yield f"{path}: is not named by the hash of what it holds"


def _failure_faults(store: Store, path: Path) -> Iterator[str]:
    store.failures(path.parent.parent.name, path.parent.name)
    yield from ()


def _plan_faults(store: Store, path: Path) -> Iterator[str]:
    plan = store.read_plan(path)
    if path.name != plan.filename:
        yield f"{path}: is the plan {plan.name}.{plan.hash}"


def _stratum_faults(store: Store, path: Path) -> Iterator[str]:
    content = read_file(path, store.root)
    Accepted.from_description(content)
    described = parse_object(content).get("environment")
    if described is not None and digest(described) != path.stem:
        yield f"{path}: stratum {path.stem} is not the hash of its environment"


def _contradictions(store: Store) -> Iterator[str]:
    """Trials that strata which are said to be equal recorded differently."""
    accepted = _known(store.accepted) or {}
    held: dict[tuple[str, str], tuple[Path, Record]] = {}
    for path, record in _readable(store):
        same = accepted.get(record.stratum)
        key = (record.trial, record.stratum if same is None else same.stratum)
        if key not in held:
            held[key] = (path, record)
            continue
        other, before = held[key]
        differ = first_difference(_result(before), _result(record))
        if _result(before) != _result(record):
            yield f"{path}: differs from {other}, whose stratum was accepted as equal, in {differ}"


def _result(record: Record) -> dict[str, Any]:
    plain = record.plain()
    return {key: plain[key] for key in ("outcome", "metrics", "curves", "costs", "correct")}


def _strata_remarks(store: Store) -> Iterator[str]:
    records = _known(lambda: list(store.records()))
    plans = _known(store.plans)
    if records is None or plans is None:
        return
    wanted: set[str] = set()
    for plan in plans:
        cells = {digest(configuration) for configuration in plan.arms.values()}
        wanted |= cells
        blocks: dict[int, list[Record]] = defaultdict(list)
        for record in records:
            if record.cell in cells:
                blocks[record.configuration["block"]].append(record)
        owners: dict[str, list[int]] = defaultdict(list)
        for block, held in sorted(blocks.items()):
            stratum = owner(held)
            owners[str(stratum)].append(block)
            for record in held:
                if record.stratum != stratum:
                    yield (
                        f"{plan.name}: record {record.trial}/{record.stratum} is not used: "
                        f"block {block} belongs to stratum {stratum}"
                        f"{_difference(record, held, stratum)}"
                    )
        if len(owners) > 1:
            parts = (f"{stratum}: blocks {blocks}" for stratum, blocks in owners.items())
            yield f"{plan.name}: blocks of several strata, {'; '.join(parts)}"
    strays = [record for record in records if record.cell not in wanted]
    for record in strays:
        yield f"record {record.trial}/{record.stratum}: no plan here asks for it"


def _difference(record: Record, held: list[Record], stratum: str | None) -> str:
    there = next(other.environment for other in held if other.stratum == stratum)
    here = record.environment
    names = sorted(name for name in {*here, *there} if here.get(name) != there.get(name))
    return f", which differs in {', '.join(names)}"


def _readable(store: Store) -> Iterator[tuple[Path, Record]]:
    for path in store.paths():
        try:
            yield path, Record.from_bytes(read_file(path, store.root))
        except (OSError, ValueError, RecursionError):
            continue  # a fault of its own


def _known(read: Callable[[], Found]) -> Found | None:
    try:
        return read()
    except (OSError, ValueError, RecursionError):
        return None  # a fault of its own


def _all_paths(root: Path) -> Iterator[Path]:
    """Everything below ``root``, in order; no link is followed."""
    for folder, folders, files in os.walk(root):
        folders.sort()
        links = [name for name in folders if Path(folder, name).is_symlink()]
        yield from (Path(folder, name) for name in sorted([*files, *links]))
