"""From a results folder to the bytes of the report: tables, figures, one page, a manifest."""

import hashlib
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from analysis.agenda import all_verdicts
from analysis.drawing import versions
from analysis.figures import StudyFigure
from analysis.frames import Frames, study_frames
from analysis.measured import cost_verdicts
from analysis.summary import dataset, num_test
from analysis.table import Table
from analysis.verdict import Verdict
from analysis.verdict_tables import agenda_table
from analysis.verdicts import verdicts
from records.benchmark import Measurement, read
from records.canonical import digest
from records.plan import Plan
from records.store import Store
from reports.claims import ClaimView, claim_views
from reports.page import page
from reports.readme import texts
from reports.sections import Section, Speed, speed_section, study_section

PAGE, MANIFEST, LOG = "index.html", "manifest.json", "benchmark.jsonl"


@dataclass(frozen=True)
class Report:
    """``files``: bytes by path below the folder of the report. ``tables``: for the terminal.

    ``readme``: what README.md says of it, by place.
    """

    files: dict[str, bytes]
    tables: list[Table]
    readme: dict[str, str]


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
    records = list(store.records())  # which studies share
    found = [study_frames(plan, store, records) for plan in plans]
    studies = dict(sorted(zip(_stems(plans), found, strict=True), key=_rank))
    frames = list(studies.values())
    speed = speed_section(_measurements(Path(store.root) / LOG))
    judged = {stem: verdicts(f) for stem, f in studies.items()}
    sections = _sections(
        [(f, stem, judged[stem], speed) for stem, f in studies.items() if f.records]
    )
    entries = all_verdicts(
        chain.from_iterable(judged.values()), {} if speed is None else cost_verdicts(speed.times)
    )
    views, claims = claim_views(entries, studies), agenda_table(entries, plans)
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
    tables = [claims, *(section.table for section in sections)]
    return Report(files, tables, texts(views, sections))


def _sections(
    studies: Sequence[tuple[Frames, str, Sequence[Verdict], Speed | None]],
) -> list[Section]:
    """The section of each study. They share nothing, and to draw them is most of the work: where
    processes can be forked, each core draws some of them."""
    cores = min(len(studies), os.cpu_count() or 1)
    if cores < 2 or sys.platform != "linux":
        return [study_section(*study) for study in studies]
    # The largest first, so that no core is left alone with it.
    order = sorted(range(len(studies)), key=lambda i: len(studies[i][0].curves), reverse=True)
    with ProcessPoolExecutor(cores, mp_context=get_context("fork")) as pool:
        begun = {i: pool.submit(study_section, *studies[i]) for i in order}
        return [begun[i].result() for i in range(len(studies))]


def _rank(study: tuple[str, Frames]) -> tuple[str, int, int, str]:
    """Of several settings of a study the one first that tells most: by its test set, by trials."""
    stem, frames = study
    return frames.plan.name, -num_test(frames.plan), -len(frames.records), stem


def _measurements(path: Path) -> list[Measurement]:
    return read(path) if path.is_file() else []


def _stems(plans: list[Plan]) -> list[str]:
    """Names of the files of each plan: short, and with its hash where that is not enough."""
    short = [
        ".".join(re.sub(r"\W+", "_", part) for part in (p.name, p.preset, dataset(p)))
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
        yield from judged.tables
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
