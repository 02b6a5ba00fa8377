"""`python -m analysis.selection DIR`: what pilots found on examples set aside, and no test.

A setting is chosen on validation examples alone. Records hold a test score all the same, as each
record does; this table does not read it, so that nobody can choose by it.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.frames import Frames, study_frames
from analysis.table import Column, Table
from records.store import Store

COLUMNS = (
    Column("arm", "arm", is_text=True),
    Column("n", "n", unit="blocks"),
    Column("validation", "validation accuracy", unit="%"),
    Column("difference", "less baseline", unit="points"),
    Column("train", "training accuracy", unit="%"),
    Column("note", "note", is_text=True),
)


def selection_table(frames: Frames) -> Table:
    """A row an arm: means over the blocks, of the last epoch.

    ``less baseline``: the mean paired difference and, from two blocks on, its standard error.
    """
    rows, data = [], []
    plan = frames.plan
    baseline = frames.by_block(plan.baseline, "validation_accuracy")
    for label in plan.arms:
        found = frames.by_block(label, "validation_accuracy").dropna()
        difference = (found - baseline).dropna()
        records = frames.records_of(label)
        trained = [r.curves["train_accuracy"][-1] for r in records if r.outcome == "finished"]
        diverged = frames.num_diverged(label)
        note = plan.notes.get(label, "")
        data.append(
            {
                "arm": label,
                "blocks": len(found),
                "diverged": diverged,
                "validation_accuracy": 100 * found.mean() if len(found) else None,
                "difference": 100 * difference.mean() if len(difference) else None,
                "standard_error": 100 * _standard_error(difference),
                "train_accuracy": 100 * float(np.mean(trained)) if trained else None,
            }
        )
        rows.append(
            {
                "arm": label,
                "n": str(len(found)),
                "validation": _number(data[-1]["validation_accuracy"]),
                "difference": "" if label == plan.baseline else _difference(data[-1]),
                "train": _number(data[-1]["train_accuracy"]),
                "note": "; ".join(filter(None, (note, f"{diverged} diverged" * bool(diverged)))),
            }
        )
    return Table(
        title=f"{plan.name}: {plan.question}",
        columns=COLUMNS,
        rows=tuple(rows),
        data=tuple(data),
        footnotes=(
            f"Blocks {', '.join(map(str, frames.blocks)) or 'none'}. Accuracies of the last epoch, "
            "means over the blocks, on examples set aside; no test score was read. Less baseline: "
            f"than `{plan.baseline}` in the same block, and its standard error.",
        ),
    )


def _standard_error(values: pd.Series) -> float:
    """Of the mean; NaN of a single value."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _difference(row: dict) -> str:
    if row["difference"] is None:
        return "-"
    error = row["standard_error"]
    return f"{row['difference']:+.2f}" + ("" if np.isnan(error) else f" ({error:.2f})")


def markdown(store: Store) -> str:
    """The tables of all studies of a results folder."""
    return "\n".join(table.to_markdown() for table in tables(store))


def tables(store: Store) -> list[Table]:
    """A table a plan."""
    return [selection_table(study_frames(plan, store)) for plan in store.plans()]


def filled(page: str, store: Store) -> str:
    """``page`` with the tables of each study between its marks ``<!-- pilot: NAME -->``.

    Raises:
        ValueError: A mark names no study of ``store``.
    """
    found: dict[str, list[str]] = {}
    for plan, table in zip(store.plans(), tables(store), strict=True):
        found.setdefault(plan.name, []).append(table.to_markdown())

    def table_of(match: re.Match[str]) -> str:
        name = match[1]
        if name not in found:
            raise ValueError(f"mark of {name!r}; studies with records: {', '.join(found)}")
        return f"<!-- pilot: {name} -->\n{''.join(found[name])}<!-- end of pilot -->"

    return re.sub(r"<!-- pilot: (\w+) -->\n.*?<!-- end of pilot -->", table_of, page, flags=re.S)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables as Markdown; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m analysis.selection", description=__doc__)
    parser.add_argument("results", metavar="DIR", help="results folder of pilots")
    parser.add_argument(
        "--page", metavar="FILE", help="write them between the marks of this page instead"
    )
    options = parser.parse_args(arguments)
    try:
        if not Path(options.results).is_dir():
            raise ValueError(f"no results folder {options.results!r}")
        store = Store(Path(options.results))
        if options.page is None:
            print(markdown(store), end="")
        else:
            page = Path(options.page)
            page.write_text(filled(page.read_text(encoding="utf-8"), store), encoding="utf-8")
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
