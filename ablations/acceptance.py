"""Going on in the old stratum after a change of source that should not matter, if it does not."""

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ablations.schedule import Job
from ablations.trial import Cell
from records.blocks import owner
from records.record import Record, digest
from records.store import Store

_DECIDED_BY_TRAINING = ("configuration", "outcome", "metrics", "curves", "costs", "correct")


def resolve_stratum(store: Store, environment: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Stratum and its description: this one's, or that of the stratum it was shown to equal."""
    here = digest(environment)
    accepted = store.accepted().get(here)
    if accepted is None:
        return here, dict(environment)
    return accepted.stratum, accepted.environment


def accept_source(
    store: Store,
    cells: Mapping[str, Cell],
    blocks: Iterable[int],
    environment: Mapping[str, Any],
    replay: Callable[[Job], Record],
) -> bool:
    """Join the old stratum if all bytes agree; what is recorded in this one joins with it.

    One recorded trial of each arm is trained again, and what both strata have is compared as it
    is. Where this stratum was accepted before, there is nothing to do.

    Raises:
        ValueError: Nothing is recorded in another stratum, or that one differs in more than
            the source.
    """
    here = digest(environment)
    if here in store.accepted():
        print("accept-source: accepted already", file=sys.stderr)
        return True
    recorded = _recorded_elsewhere(store, cells, blocks, here)
    stratum, there = _one_stratum(recorded.values(), environment)
    _check_alone(store, cells, stratum)
    agree = True
    for label in cells:
        job = next((job for job in recorded if job.label == label), None)
        if job is not None:
            agree &= _is_equal(f"{label} block {job.block}", recorded[job], replay(job))
    for old, new in _recorded_twice(store, stratum, here):
        agree &= _is_equal(f"trial {old.trial}, recorded in both strata", old, new)
    if agree:
        same = {"stratum": stratum, "environment": there}
        store.save_stratum(here, {"environment": dict(environment), "same_as": same})
    return agree


def _recorded_elsewhere(
    store: Store, cells: Mapping[str, Cell], blocks: Iterable[int], here: str
) -> dict[Job, Record]:
    """The records of the blocks that belong to another stratum, in that one."""
    recorded: dict[Job, Record] = {}
    for block in blocks:
        found = [r for cell in cells.values() for r in store.find(cell.trial(block))]
        holder = owner(found)
        if holder is None or holder == here:
            continue
        for label, cell in cells.items():
            for record in found:
                if record.trial == cell.trial(block) and record.stratum == holder:
                    recorded.setdefault(Job(label, block), record)
    return recorded


def _one_stratum(
    records: Iterable[Record], environment: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """The stratum of ``records`` and its description: it differs from here in its source alone."""
    strata = {record.stratum: record.environment for record in records}
    if not strata:
        raise ValueError("--accept-source: no block here belongs to another stratum")
    for stratum, there in strata.items():
        more = sorted(k for k in {*there, *environment} if there.get(k) != environment.get(k))
        if more != ["sources"]:
            raise ValueError(f"--accept-source: stratum {stratum} differs in {', '.join(more)}")
    if len(strata) > 1:
        raise ValueError(f"--accept-source: the blocks belong to strata {', '.join(strata)}")
    [found] = strata.items()
    return found


def _check_alone(store: Store, cells: Mapping[str, Cell], stratum: str) -> None:
    """Refuse what would hold for trials that cannot be trained again here."""
    mine = {digest(cell.configuration) for cell in cells.values()}
    others = [r for r in store.records() if r.stratum == stratum and r.cell not in mine]
    if others:
        raise ValueError(
            f"--accept-source: stratum {stratum} also holds {len(others)} trials that "
            f"are not this study's, for instance {others[0].trial}; allowed: a results folder of "
            "this study alone, or --anew"
        )


def _recorded_twice(store: Store, old: str, new: str) -> list[tuple[Record, Record]]:
    """Trials that were recorded in both strata: evidence that costs nothing."""
    found: dict[str, dict[str, Record]] = {}
    for record in store.records():
        found.setdefault(record.trial, {})[record.stratum] = record
    return [(both[old], both[new]) for both in found.values() if {old, new} <= both.keys()]


def _is_equal(what: str, old: Record, new: Record) -> bool:
    differ = [n for n in _DECIDED_BY_TRAINING if getattr(old, n) != getattr(new, n)]
    verdict = f"DIFFERENT in {', '.join(differ)}" if differ else "equal"
    print(f"accept-source: {what} trained again: {verdict}", file=sys.stderr)
    return not differ
