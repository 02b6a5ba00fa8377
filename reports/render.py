"""From a results folder to the bytes of the report: tables, figures, one page, a manifest."""

import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from analysis.drawing import versions
from analysis.figures import StudyFigure, study_figures
from analysis.frames import Frames, study_frames
from analysis.summary import ArmSummary, summarise
from analysis.table import Table
from analysis.tables import contrast_table, study_table
from records.canonical import digest
from records.claim import Claim
from records.plan import Plan
from records.store import Store
from reports import origin
from reports.markup import inline, minus, results_first

PAGE, MANIFEST = "index.html", "manifest.json"
GENERATOR = "python -m reports build"
FEWEST_BLOCKS = 6  # with fewer, no exact test of paired signs can reach 5 %


@dataclass(frozen=True, kw_only=True)
class Section:
    """A study on the page."""

    stem: str
    plan: Plan
    dataset: str
    num_blocks: int
    num_trials: int
    table: Table
    summaries: list[ArmSummary]
    figures: list[StudyFigure]
    claims: list[tuple[Claim, Table]]
    setting: origin.Setting
    origin: origin.Facts
    cautions: list[str]


@dataclass(frozen=True)
class Report:
    """``files``: bytes by path below the folder of the report. ``tables``: for the terminal."""

    files: dict[str, bytes]
    tables: list[Table]


def render(store: Store) -> Report:
    """The report on all plans of ``store``, from its records alone.

    Raises:
        ValueError: There is no plan, or a file cannot be read; the message names it.
    """
    plans = store.plans()
    if not plans:
        raise ValueError(
            f"no plan in {str(store.root)!r}; `python -m ablations run` makes one, and records"
        )
    frames = [study_frames(plan, store) for plan in plans]
    stems = _stems(plans)
    begun = [(f, s) for f, s in zip(frames, stems, strict=True) if f.records]
    sections = [_section(f, stem) for f, stem in begun]
    sections.sort(key=lambda s: (s.plan.name, -s.num_trials, s.stem))
    waiting = [f.plan for f in frames if not f.records]
    files: dict[str, bytes] = {}
    for section in sections:
        files |= _files_of(section)
    files[PAGE] = _page(sections, waiting)
    files[MANIFEST] = _manifest(files, sections)
    return Report(files, [section.table for section in sections])


def without_drawings(page: bytes) -> bytes:
    """``page`` without its drawings, whose bytes depend on versions of packages."""
    return re.sub(rb"<svg.*?</svg>", b"", page, flags=re.DOTALL)


def _stems(plans: list[Plan]) -> list[str]:
    """Names of the files of each plan: short, and with its hash where that is not enough."""
    short = [
        ".".join(re.sub(r"\W+", "_", part) for part in (p.name, p.preset, origin.dataset(p)))
        for p in plans
    ]
    counts = Counter(short)
    return [s if counts[s] == 1 else f"{s}.{p.hash}" for s, p in zip(short, plans, strict=True)]


def _section(frames: Frames, stem: str) -> Section:
    plan = frames.plan
    return Section(
        stem=stem,
        plan=plan,
        dataset=origin.dataset(plan),
        num_blocks=len(frames.blocks),
        num_trials=len(frames.records),
        table=study_table(frames),
        summaries=summarise(frames),
        figures=study_figures(frames),
        claims=[(claim, contrast_table(frames, claim.name)) for claim in plan.claims],
        setting=origin.setting(plan),
        origin=origin.origin(frames),
        cautions=_cautions(frames),
    )


def _cautions(frames: Frames) -> list[str]:
    cautions = []
    if len(frames.blocks) < FEWEST_BLOCKS:
        cautions.append(
            f"{len(frames.blocks)} block{'s' * (len(frames.blocks) != 1)}: fewer than "
            f"{FEWEST_BLOCKS} cannot decide anything. Read this as a trial run."
        )
    if lines := origin.missing(frames):
        cautions.append(f"Still to run: {'; '.join(lines)}.")
    if frames.disputed:
        cautions.append(
            f"{len(frames.disputed)} trials gave other bytes when they were repeated: "
            f"{', '.join(frames.disputed)}. Something in them is not deterministic."
        )
    return cautions


def _files_of(section: Section) -> dict[str, bytes]:
    files = {}
    for name, table in [("", section.table)] + [(f".{c.name}", t) for c, t in section.claims]:
        stem = f"tables/{section.stem}{re.sub(r'[^.a-zA-Z0-9_-]+', '_', name)}"
        files[f"{stem}.csv"] = table.to_csv().encode()
        files[f"{stem}.md"] = table.to_markdown().encode()
    for figure in section.figures:
        stem = f"figures/{section.stem}.{figure.name}"
        files[f"{stem}.svg"] = figure.drawing.wide
        files[f"{stem}.png"] = figure.drawing.png
    return files


def _page(sections: list[Section], waiting: list[Plan]) -> bytes:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(inline=inline, minus=minus, results_first=results_first)
    page = environment.get_template("page.html.j2")
    return page.render(sections=sections, waiting=waiting, generator=GENERATOR).encode()


def _manifest(files: dict[str, bytes], sections: list[Section]) -> bytes:
    manifest = {
        "versions": versions(),
        "numbers": {
            f"{section.stem}.{figure.name}": digest(_rounded(figure.numbers))
            for section in sections
            for figure in section.figures
        },
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
