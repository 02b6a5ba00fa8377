"""Which trials are left to run here: derived from the results folder, there is no other state."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ablations.trial import Cell
from records.blocks import owner
from records.record import Record
from records.store import Store


@dataclass(frozen=True)
class Job:
    """A trial to run: the cell of ``label`` in ``block``."""

    label: str
    block: int


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """``elsewhere``: blocks that belong to another stratum, by block; they are not run here."""

    todo: list[Job]
    done: list[Job]
    elsewhere: dict[int, str]


def schedule(
    store: Store,
    cells: Mapping[str, Cell],
    blocks: Iterable[int],
    stratum: str,
    *,
    labels: Iterable[str] | None = None,
    anew: bool = False,
) -> Schedule:
    """What ``store`` lacks: block by block, so that an interrupted run holds complete pairs.

    A block belongs to one stratum, as :func:`records.blocks.owner` says; ``anew`` runs it in
    this one all the same, whole. ``labels`` limits what is run, not what a block is.
    """
    wanted = list(cells) if labels is None else list(labels)
    found = Schedule(todo=[], done=[], elsewhere={})
    for block in blocks:
        records = [r for cell in cells.values() for r in store.find(cell.trial(block))]
        holder = owner(records)
        if holder not in (None, stratum) and not anew:
            found.elsewhere[block] = holder
            continue
        have = {record.trial for record in records if record.stratum == stratum}
        for label in wanted:
            finished = cells[label].trial(block) in have
            (found.done if finished else found.todo).append(Job(label, block))
    return found


def differences(here: Mapping, records: Iterable[Record], stratum: str) -> list[str]:
    """Which facts of ``stratum`` differ from ``here``, as ``name (there, here)``."""
    for record in records:
        if record.stratum == stratum:
            there = record.environment
            names = sorted(n for n in {*here, *there} if here.get(n) != there.get(n))
            # Hashes would say nothing to people.
            opaque = {n for n in names if n in ("sources", "probe")}
            return [
                n if n in opaque else f"{n} ({there.get(n)}, here {here.get(n)})" for n in names
            ]
    return []
