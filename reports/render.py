"""From a results folder to the bytes of the report: tables, figures, one page, a manifest."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.drawing import versions
from analysis.figures import StudyFigure
from analysis.frames import study_frames
from analysis.latency import benchmark_frame
from analysis.measured import cost_verdicts
from analysis.table import Table
from analysis.tables import agenda_table
from records.benchmark import Measurement, read
from records.canonical import digest
from records.plan import Plan
from records.store import Store
from reports import origin
from reports.claims import ClaimView, claim_views
from reports.page import GENERATOR as GENERATOR
from reports.page import page
from reports.page import without_drawings as without_drawings
from reports.sections import Section, Speed, speed_section, study_section

PAGE, MANIFEST, LOG = "index.html", "manifest.json", "benchmark.jsonl"


@dataclass(frozen=True)
class Report:
    """``files``: bytes by path below the folder of the report. ``tables``: for the terminal."""

    files: dict[str, bytes]
    tables: list[Table]


def render(store: Store) -> Report:
    """The report on all plans and measurements of ``store``, from its records alone.

    Raises:
        ValueError: There is no plan, or a file cannot be read; the message names it.
    """
    plans = store.plans()
    if not plans:
        raise ValueError(
            f"no plan in {str(store.root)!r}; `python -m ablations run` makes one, and records"
        )
    measurements = _measurements(Path(store.root) / LOG)
    frames = [study_frames(plan, store) for plan in plans]
    studies = dict(zip(_stems(plans), frames, strict=True))
    times, speed = benchmark_frame(measurements), speed_section(measurements)
    begun = {stem: f for stem, f in studies.items() if f.records}
    sections = [study_section(f, stem, times) for stem, f in begun.items()]
    sections.sort(key=lambda s: (s.plan.name, -s.num_trials, s.stem))
    costs = cost_verdicts(measurements)
    views = claim_views(studies, costs)
    claims = agenda_table(frames, costs)
    files: dict[str, bytes] = dict(_table_files("claims", claims))
    for name, table in _tables(sections, views, speed):
        files |= dict(_table_files(name, table))
    figures = dict(_figures(sections, views, speed))
    for name, figure in figures.items():
        files[f"figures/{name}.svg"] = figure.drawing.wide
        files[f"figures/{name}.png"] = figure.drawing.png
    waiting = [f.plan for f in frames if not f.records]
    files[PAGE] = page(views=views, sections=sections, speed=speed, waiting=waiting, claims=claims)
    files[MANIFEST] = _manifest(files, figures)
    return Report(files, [claims, *(section.table for section in sections)])


def _measurements(path: Path) -> list[Measurement]:
    return read(path) if path.is_file() else []


def _stems(plans: list[Plan]) -> list[str]:
    """Names of the files of each plan: short, and with its hash where that is not enough."""
    short = [
        ".".join(re.sub(r"\W+", "_", part) for part in (p.name, p.preset, origin.dataset(p)))
        for p in plans
    ]
    counts = Counter(short)
    return [s if counts[s] == 1 else f"{s}.{p.hash}" for s, p in zip(short, plans, strict=True)]


def _tables(
    sections: Sequence[Section], views: Sequence[ClaimView], speed: Speed | None
) -> Iterator[tuple[str, Table]]:
    for section in sections:
        yield from ((f"{section.stem}{name}", table) for name, table in section.tables)
    for judged in (judged for view in views for judged in view.judged):
        if judged.table is not None:
            yield judged.stem, judged.table
    if speed is not None:
        yield "benchmark", speed.table


def _figures(
    sections: Sequence[Section], views: Sequence[ClaimView], speed: Speed | None
) -> Iterator[tuple[str, StudyFigure]]:
    for section in sections:
        yield from ((f"{section.stem}.{figure.name}", figure) for figure in section.figures)
    for judged in (judged for view in views for judged in view.judged):
        yield from ((f"{judged.section}.{figure.name}", figure) for figure in judged.figures)
    if speed is not None:
        yield from ((f"benchmark.{figure.name}", figure) for figure in speed.figures)


def _table_files(name: str, table: Table) -> Iterator[tuple[str, bytes]]:
    yield f"tables/{name}.csv", table.to_csv().encode()
    yield f"tables/{name}.md", table.to_markdown().encode()
    yield f"tables/{name}.tex", table.to_latex().encode()


def _manifest(files: dict[str, bytes], figures: dict[str, StudyFigure]) -> bytes:
    manifest = {
        "versions": versions(),
        "numbers": {name: digest(_rounded(figure.numbers)) for name, figure in figures.items()},
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    return (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()


def _rounded(value: Any) -> Any:
    """``value`` without the digits that another version of numpy may add up differently."""
    match value:
        case float():
            return f"{value:.9g}"
        case dict():
            return {key: _rounded(item) for key, item in value.items()}
        case list() | tuple():
            return [_rounded(item) for item in value]
    return value
