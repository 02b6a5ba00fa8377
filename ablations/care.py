"""`ablations status`, `verify` and `export`: what a results folder has, and what it is worth."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from records.audit import faults, remarks
from records.lease import printable
from records.standing import progress
from records.store import Store

FORMATS = ("store", "jsonl", "csv", "parquet", "mlflow")


def status(options: argparse.Namespace) -> int:
    """Say how far each plan is, and what runs, died or failed; returns the exit status."""
    for line in progress(_store(options)):
        print(line)
    return 0


def verify(options: argparse.Namespace) -> int:
    """Check every file against its name and hash; returns 1 if one is not what it says."""
    store = _store(options)
    for remark in remarks(store):
        print(printable(remark))
    found = list(faults(store))
    for fault in found:
        print(printable(fault), file=sys.stderr)
    print(f"{len(store.paths())} records, {len(found)} faults")
    return 1 if found else 0


def export(options: argparse.Namespace) -> int:
    """Copy plans and records elsewhere; returns the exit status."""
    store = _store(options)
    # What contradicts a record is not copied with it, so it is said.
    conflicts = sorted(store.root.glob("trials/*/*/record.conflict-*.json"))
    for path in conflicts:
        text = f"{path}: a second run of this trial gave other bytes; left behind"
        print(printable(text), file=sys.stderr)
    for line in _exported(store, options.format, options.to):
        print(printable(line))
    return 0


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of :func:`export`, besides the results folder."""
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="store",
        help="store: a results folder that can be committed (default); jsonl: a record a line; "
        "csv, parquet: a row a trial of each study; mlflow: runs of a tracking server",
    )
    parser.add_argument(
        "--to",
        metavar="PLACE",
        help="folder (store; default: reports/data), file (jsonl, csv, parquet; default: "
        "records.<format>), or tracking URI (mlflow; default: MLFLOW_TRACKING_URI, or "
        "sqlite:///mlflow.db)",
    )


def _exported(store: Store, form: str, place: str | None) -> Iterator[str]:
    # Here, since they load pandas and MLflow, for which a worker has no use.
    if form == "mlflow":
        from ablations.mlflow_export import export_runs

        return export_runs(store, place)
    from ablations.export import export_to

    return export_to(store, form, place)


def _store(options: argparse.Namespace) -> Store:
    if not Path(options.results).is_dir():
        raise ValueError(f"no results folder {options.results!r}")
    return Store(options.results)
