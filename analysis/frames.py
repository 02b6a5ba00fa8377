"""What was recorded for a plan, as tidy tables: one row a trial, one row a point of a curve."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from records.blocks import owner
from records.plan import Plan
from records.record import Record
from records.store import Store


@dataclass(frozen=True, kw_only=True)
class Frames:
    """The trials of a plan, each block from one stratum.

    ``cells``   a row a trial: label, block, stratum, trial, outcome, then metrics and costs
    ``curves``  a row a point: label, block, measure, epoch (from 1), value
    ``records`` the records behind ``cells``, in its order
    ``strays``  records of these arms that are not used: their block belongs to another stratum
    ``disputed`` trials of ``cells`` of which a second run gave other bytes
    """

    plan: Plan
    cells: pd.DataFrame
    curves: pd.DataFrame
    records: tuple[Record, ...]
    strays: tuple[Record, ...]
    disputed: tuple[str, ...]

    @property
    def blocks(self) -> list[int]:
        """Blocks of which anything is recorded."""
        return sorted(self.cells["block"].unique().tolist())

    @property
    def whole_blocks(self) -> list[int]:
        """Blocks of which the trials of all arms are recorded, diverged ones too."""
        counts = self.cells.groupby("block")["label"].nunique()
        return [int(block) for block in counts[counts == len(self.plan.arms)].index]

    def by_block(self, label: str, measure: str) -> pd.Series:
        """``measure`` of the arm ``label``, by block; NaN where a trial has none."""
        rows = self._rows.get(label, self.cells[:0])
        values = rows[measure] if measure in rows else pd.Series(float("nan"), index=rows.index)
        return pd.Series(values.to_numpy(float), index=pd.Index(rows["block"], name="block"))

    def num_diverged(self, label: str) -> int:
        """How many trials of the arm ``label`` diverged."""
        return int((self._rows.get(label, self.cells[:0])["outcome"] == "diverged").sum())

    def records_of(self, label: str) -> list[Record]:
        """The records of the arm ``label``, by block."""
        return self._records.get(label, [])

    @cached_property
    def _records(self) -> dict[str, list[Record]]:
        found: dict[str, list[Record]] = defaultdict(list)
        for label, record in zip(self.cells["label"], self.records, strict=True):
            found[label].append(record)
        return found

    @cached_property
    def _rows(self) -> dict[str, pd.DataFrame]:
        return {str(label): rows for label, rows in self.cells.groupby("label", sort=False)}


def study_frames(plan: Plan, store: Store, records: Sequence[Record] | None = None) -> Frames:
    """The trials of ``plan`` that ``store`` holds; ``records``: all of its, where they are read.

    A block is the trials that share a split, a start and an order of data; its trials are
    compared with each other, so all come from one stratum, the block's owner, and what another
    stratum recorded of the block is left out.

    Raises:
        ValueError: A record cannot be read; the message names its file.
    """
    labels: dict[str, list[str]] = defaultdict(list)
    for label in plan.arms:
        labels[plan.cell_id(label)].append(label)
    blocks: dict[int, list[Record]] = defaultdict(list)
    for record in store.records() if records is None else records:
        if record.cell in labels:
            blocks[record.configuration["block"]].append(record)
    used: list[tuple[str, Record]] = []
    strays: list[Record] = []
    for _, found in sorted(blocks.items()):
        stratum = owner(found)
        for record in found:
            if record.stratum == stratum:
                used += [(label, record) for label in labels[record.cell]]
            else:
                strays.append(record)
    order = {label: index for index, label in enumerate(plan.arms)}
    used.sort(key=lambda pair: (order[pair[0]], pair[1].configuration["block"]))
    return Frames(
        plan=plan,
        cells=_cells(used),
        curves=_curves(used),
        records=tuple(record for _, record in used),
        strays=tuple(strays),
        disputed=tuple(sorted({r.trial for _, r in used if store.conflicts(r)})),
    )


def _cells(used: list[tuple[str, Record]]) -> pd.DataFrame:
    leading = ["label", "block", "stratum", "trial", "outcome"]
    rows = [
        {
            "label": label,
            "block": record.configuration["block"],
            "stratum": record.stratum,
            "trial": record.trial,
            "outcome": record.outcome,
            **record.metrics,
            **record.costs,
        }
        for label, record in used
    ]
    return pd.DataFrame(rows, columns=None if rows else leading)


def _curves(used: list[tuple[str, Record]]) -> pd.DataFrame:
    rows = [
        (label, record.configuration["block"], measure, epoch, value)
        for label, record in used
        for measure, values in record.curves.items()
        for epoch, value in enumerate(values, start=1)
    ]
    frame = pd.DataFrame(rows, columns=["label", "block", "measure", "epoch", "value"])
    return frame.astype({"value": float})
