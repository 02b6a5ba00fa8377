"""Where the trials of the plans stand: recorded, being trained, left by the dead, failed, to do."""

import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from records.blocks import owner
from records.lease import Holder, look, printable
from records.plan import Plan
from records.record import Record, digest
from records.store import Store

State = Literal["done", "diverged", "running", "dead", "failed", "begun", "to do"]
STATES: tuple[State, ...] = ("done", "diverged", "running", "dead", "failed", "begun", "to do")
# Blocks in which the trials of folders without a record are looked for: a plan names no number.
MOST_BLOCKS = 1000


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a trial of a plan stands.

    ``done``, ``diverged``: recorded. ``running``: claimed. ``dead``: its holder is. ``failed``: its
    last attempt did. ``begun``: stopped in order. ``stratum``: where, None of a trial to do;
    ``detail``: who, how far, since when, or why, for people.
    """

    label: str
    block: int
    trial: str
    state: State
    stratum: str | None = None
    detail: str = ""

    def line(self) -> str:
        """All of it for people."""
        detail = f": {self.detail}" if self.detail else ""
        return printable(f"{self.state:7} {self.label} block {self.block}{detail}")


def standings(store: Store) -> list[tuple[Plan, list[Standing]]]:
    """Where each trial of each plan of ``store`` stands, in the blocks that were begun.

    Raises:
        ValueError: A plan, a record or a failure cannot be read; the message names its file.
    """
    plans, records = store.plans(), list(store.records())
    unfinished = _unfinished(store)
    begun = _blocks_of(plans, set(unfinished))
    found = []
    for plan, blocks in zip(plans, begun, strict=True):
        by_block = _by_block(plan, records, blocks)
        standing = [
            _standing(store, plan, label, block, held, unfinished)
            for block, held in sorted(by_block.items())
            for label in plan.arms
        ]
        found.append((plan, standing))
    return found


def progress(store: Store) -> Iterator[str]:
    """Lines that say how far each plan of ``store`` is.

    Raises:
        ValueError: As :func:`standings`.
    """
    found = standings(store)
    if not found:
        yield f"no plan in {store.root}"
    for plan, trials in found:
        counts = Counter(trial.state for trial in trials)
        blocks = sorted({trial.block for trial in trials})
        yield (
            f"{plan.name} ({printable(plan.preset)}, {plan.hash}): "
            f"{len(plan.arms)} arms, {len(blocks)} blocks"
            + "".join(f", {counts[state]} {state}" for state in STATES if counts[state])
        )
        for block in blocks:
            yield f"    {_block_line(block, [t for t in trials if t.block == block])}"
        for trial in trials:
            if trial.state in ("running", "dead", "failed", "begun"):
                yield f"    {trial.line()}"
    others = set(_unfinished(store)) - {trial.trial for _, trials in found for trial in trials}
    if others:
        yield f"{len(others)} unfinished trials of no plan here, for instance {min(others)}"


def _block_line(block: int, trials: list[Standing]) -> str:
    held = [trial for trial in trials if trial.state in ("done", "diverged")]
    diverged = sum(trial.state == "diverged" for trial in held)
    lacking = [trial.label for trial in trials if trial not in held]
    strata = sorted({str(trial.stratum) for trial in held})
    return printable(
        f"block {block}: {len(held)} of {len(trials)} trials"
        + (f", stratum {', '.join(strata)}" if strata else "")
        + (f", {diverged} diverged" if diverged else "")
        + (f", lacks {', '.join(lacking)}" if lacking else "")
    )


def _by_block(plan: Plan, records: list[Record], begun: set[int]) -> dict[int, dict[str, Record]]:
    """The records that count in each block of ``plan``, by trial."""
    wanted = {digest(configuration) for configuration in plan.arms.values()}
    blocks: dict[int, list[Record]] = {block: [] for block in begun}
    for record in records:
        if record.cell in wanted:
            blocks.setdefault(record.configuration["block"], []).append(record)
    counted = {}
    for block, held in blocks.items():
        stratum = owner(held)
        counted[block] = {r.trial: r for r in held if r.stratum == stratum}
    return counted


def _unfinished(store: Store) -> dict[str, list[str]]:
    """Strata in which a trial was begun and not recorded, by trial."""
    found: dict[str, list[str]] = defaultdict(list)
    for folder in sorted(store.root.glob("trials/*/*/")):
        kinds = ("claims", "checkpoints", "failures")
        is_begun = any((folder / kind).is_dir() for kind in kinds)
        if is_begun and not os.path.lexists(folder / "record.json"):
            found[folder.parent.name].append(folder.name)
    return found


def _blocks_of(plans: Sequence[Plan], trials: set[str]) -> list[set[int]]:
    """Blocks in which each plan asks for one of ``trials``; an identity says no block by itself."""
    found: list[set[int]] = [set() for _ in plans]
    missing = set(trials)
    for block in range(MOST_BLOCKS):
        if not missing:
            break
        for plan, blocks in zip(plans, found, strict=True):
            wanted = {plan.trial_id(label, block) for label in plan.arms}
            if wanted & trials:
                blocks.add(block)
                missing -= wanted
    return found


def _standing(
    store: Store,
    plan: Plan,
    label: str,
    block: int,
    held: dict[str, Record],
    unfinished: dict[str, list[str]],
) -> Standing:
    trial = plan.trial_id(label, block)
    record = held.get(trial)
    if record is not None:
        state: State = "done" if record.outcome == "finished" else "diverged"
        return Standing(label=label, block=block, trial=trial, state=state, stratum=record.stratum)
    options = [
        Standing(label=label, block=block, trial=trial, state=state, stratum=stratum, detail=detail)
        for stratum in unfinished.get(trial, [])
        for state, detail in [_attempt(store, trial, stratum)]
    ]
    nothing = Standing(label=label, block=block, trial=trial, state="to do")
    return min([*options, nothing], key=lambda standing: STATES.index(standing.state))


def _attempt(store: Store, trial: str, stratum: str) -> tuple[State, str]:
    """How the last attempt at a trial without a record stands, and what is to be said of it."""
    holder, failures = look(store, trial, stratum), store.failures(trial, stratum)
    released = holder is None or (holder.claimed is not None and holder.claimed.released)
    if holder is not None and not released and not holder.is_dead():
        return "running", holder.describe() + _silence(holder)
    started = holder.claimed.started if holder is not None and holder.claimed is not None else 0.0
    # Why its process died may be known, too: to the launcher that gave it up.
    if failures and failures[-1].time >= started:
        path = store.folder(trial, stratum) / "failures" / f"{len(failures)}.json"
        times = "" if len(failures) == 1 else f", {len(failures)} times"
        return "failed", f"{failures[-1].reason[:200]} ({path}{times})"
    if holder is not None and not released:
        return "dead", f"{holder.describe()}; running again takes it up"
    return "begun", "stopped in order; running again goes on"


def _silence(holder: Holder) -> str:
    """A remark if a holder has not been heard of for longer than its lease.

    For people alone: it compares the clock of this machine with that of the file system.
    """
    try:
        seconds = time.time() - Path(holder.beat).stat().st_mtime
    except OSError:
        return ""
    if holder.claimed is None or seconds < holder.claimed.lease:
        return ""
    return f"; no sign of life for {seconds:.0f} s, so it may be dead"
