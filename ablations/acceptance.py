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
    accepted = store.strata().get(here, {}).get("same_as")
    if accepted is None:
        return here, dict(environment)
    return accepted["stratum"], accepted["environment"]


def accept_source(
    store: Store,
    cells: Mapping[str, Cell],
    blocks: Iterable[int],
    environment: Mapping[str, Any],
    replay: Callable[[Job], Record],
) -> bool:
    """Train one recorded trial of each arm again; if all bytes agree, join the old stratum.

    Raises:
        ValueError: Nothing is recorded in another stratum, or that one differs in more than
            the source.
    """
    here, recorded = digest(environment), {}
    for block in blocks:
        found = [r for cell in cells.values() for r in store.find(cell.trial(block))]
        holder = owner(found)
        if holder is None or holder == here:
            continue
        for label, cell in cells.items():
            for record in found:
                if record.trial == cell.trial(block) and record.stratum == holder:
                    recorded.setdefault(Job(label, block), record)
    strata = {record.stratum: record.environment for record in recorded.values()}
    if not strata:
        raise ValueError("--accept-source: no block here belongs to another stratum")
    for stratum, there in strata.items():
        more = sorted(k for k in {*there, *environment} if there.get(k) != environment.get(k))
        if more != ["sources"]:
            raise ValueError(f"--accept-source: stratum {stratum} differs in {', '.join(more)}")
    if len(strata) > 1:
        raise ValueError(f"--accept-source: the blocks belong to strata {', '.join(strata)}")
    mine = {digest(cell.configuration) for cell in cells.values()}
    others = [r for r in store.records() if r.stratum in strata and r.cell not in mine]
    if others:  # acceptance holds for the whole folder, and these cannot be trained again here
        raise ValueError(
            f"--accept-source: stratum {others[0].stratum} also holds {len(others)} trials that "
            f"are not this study's, for instance {others[0].trial}; allowed: a results folder of "
            "this study alone, or --anew"
        )
    agree = True
    for label in cells:
        job = next((job for job in recorded if job.label == label), None)
        if job is None:
            continue
        old, new = recorded[job], replay(job)
        differ = [n for n in _DECIDED_BY_TRAINING if getattr(old, n) != getattr(new, n)]
        agree &= not differ
        verdict = f"DIFFERENT in {', '.join(differ)}" if differ else "equal"
        print(f"accept-source: {label} block {job.block} trained again: {verdict}", file=sys.stderr)
    if agree:
        [(stratum, there)] = strata.items()
        same = {"stratum": stratum, "environment": there}
        store.save_stratum(here, {"environment": dict(environment), "same_as": same})
    return agree
