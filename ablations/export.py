"""Copies of what is recorded, as files that other tools read."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.frames import Frames, study_frames
from records.canonical import canonical
from records.files import replace_file
from records.plan import Plan
from records.store import Store


def export_to(store: Store, form: str, place: str | None) -> Iterator[str]:
    """Copy what ``store`` holds to ``place`` in a form of ``ablations.care``; yields lines to show.

    Raises:
        ValueError: Something cannot be read, or ``place`` is not what the form needs.
        OSError: It cannot be written.
    """
    forms: dict[str, Callable[[Store, str | None], Iterator[str]]] = {
        "store": _to_store,
        "jsonl": _to_jsonl,
        "csv": _to_csv,
        "parquet": _to_parquet,
    }
    return forms[form](store, place)


def _to_store(store: Store, place: str | None) -> Iterator[str]:
    """As a results folder: records as they were published, plans, and what is known of strata."""
    target = Store(place or "reports/data")
    if target.root.resolve() == store.root.resolve():
        raise ValueError(f"--to {str(target.root)!r} is the results folder; allowed: another one")
    target.check_writable()
    for plan in store.plans():
        target.save_plan(plan)
    for stratum, description in store.strata().items():
        target.save_stratum(stratum, description)
    counts = {"new": 0, "equal": 0}
    for record in store.published():
        counts[target.publish(record)] += 1
    yield f"{target.root}: {counts['new']} records new, {counts['equal']} there already"


def _to_jsonl(store: Store, place: str | None) -> Iterator[str]:
    """As one file, a record a line, by trial and stratum: what :mod:`records.record` reads."""
    path = _file(place, "records.jsonl")
    lines = [record.to_bytes() for record in store.published()]
    replace_file(path, b"".join(lines))
    yield f"{path}: {len(lines)} records"


def _to_csv(store: Store, place: str | None) -> Iterator[str]:
    def write(frame: pd.DataFrame) -> bytes:
        return frame.to_csv(index=False, lineterminator="\n").encode()

    return _to_tables(store, _file(place, "records.csv"), write)


def _to_parquet(store: Store, place: str | None) -> Iterator[str]:
    def write(frame: pd.DataFrame) -> bytes:
        content = io.BytesIO()
        try:
            frame.to_parquet(content, index=False, engine="pyarrow")
        except ImportError:
            raise ValueError("--format parquet needs pyarrow: pip install .[parquet]") from None
        return content.getvalue()

    return _to_tables(store, _file(place, "records.parquet"), write)


def _to_tables(store: Store, path: Path, write: Callable[[pd.DataFrame], bytes]) -> Iterator[str]:
    """As two tables: a row a trial of each study, and beside it a row a point of a curve."""
    frames = [study_frames(plan, store) for plan in store.plans()]
    curves = path.with_name(f"{path.stem}.curves{path.suffix}")
    for target, table in ((path, trials_table(frames)), (curves, curves_table(frames))):
        replace_file(target, write(table))
        yield f"{target}: {len(table)} rows"


def trials_table(frames: list[Frames]) -> pd.DataFrame:
    """A row a trial of each study; a trial that two studies share has two."""
    rows = [
        {
            **_study(found.plan),
            **{key: row[key] for key in ("label", "block", "trial", "stratum", "outcome")},
            **{f"configuration.{k}": v for k, v in flattened(record.configuration).items()},
            **{f"metrics.{k}": v for k, v in record.metrics.items()},
            **{f"costs.{k}": v for k, v in record.costs.items()},
            **{f"times.{k}": v for k, v in record.times.items()},
        }
        for found in frames
        for (_, row), record in zip(found.cells.iterrows(), found.records, strict=True)
    ]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return pd.DataFrame({key: _column([row.get(key) for row in rows]) for key in columns})


def curves_table(frames: list[Frames]) -> pd.DataFrame:
    """A row a point of a curve: study, arm, block, measure, epoch (from 1), value."""
    tables = [found.curves.assign(**_study(found.plan)) for found in frames]
    columns = ["study", "plan", "preset", "label", "block", "measure", "epoch", "value"]
    return pd.concat(tables)[columns] if tables else pd.DataFrame(columns=columns)


def flattened(value: dict[str, Any], depth: int = 2) -> dict[str, Any]:
    """``value`` with dots for the keys of its first ``depth`` levels; deeper ones stay values.

    >>> flattened({"recipe": {"lr": 0.1}, "arm": {"layer": {"class": "C"}}, "block": 0})
    {'recipe.lr': 0.1, 'arm.layer': {'class': 'C'}, 'block': 0}
    """
    found: dict[str, Any] = {}
    for key, held in value.items():
        if isinstance(held, dict) and depth > 1:
            found |= {f"{key}.{k}": v for k, v in flattened(held, depth - 1).items()}
        else:
            found[key] = held
    return found


def _study(plan: Plan) -> dict[str, str]:
    return {"study": plan.name, "plan": plan.hash, "preset": plan.preset}


def _column(values: list[Any]) -> pd.Series:
    """``values`` as a column of one type: what is neither numbers nor text becomes JSON."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int}:
        return pd.Series(values, dtype="Int64")
    if kinds == {bool}:
        return pd.Series(values, dtype="boolean")
    if kinds <= {int, float}:
        return pd.Series(values, dtype="float64")
    if kinds != {str}:
        values = [None if value is None else canonical(value) for value in values]
    return pd.Series(values, dtype="str")


def _file(place: str | None, default: str) -> Path:
    path = Path(place or default)
    if path.is_dir():
        raise ValueError(f"--to {str(path)!r} is a folder; allowed: a file")
    return path
