"""The parts of the report: a study each, and what was measured of speed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from analysis.factors import effects_table, interaction_figure
from analysis.figures import StudyFigure, study_figures
from analysis.frames import Frames
from analysis.history import cost_history
from analysis.latency import (
    Times,
    accuracies,
    benchmark_frame,
    comparable,
    cost_by_image,
    latency_accuracy,
    latency_macs,
)
from analysis.looks import FEWEST_BLOCKS
from analysis.measured import speed_table
from analysis.table import Table
from analysis.tables import study_table, verdict_table
from records.benchmark import Measurement
from records.plan import Plan
from reports import origin
from reports.charts import charts


@dataclass(frozen=True, kw_only=True)
class Section:
    """A study on the page.

    ``chart``: numbers of the interactive charts. ``effects``: of a grid. ``claims``: its verdicts.
    """

    stem: str
    plan: Plan
    dataset: str
    num_blocks: int
    num_trials: int
    table: Table
    claims: Table | None
    effects: Table | None
    figures: list[StudyFigure]
    chart: dict[str, Any]
    setting: origin.Setting
    origin: origin.Facts
    cautions: list[str]

    @property
    def tables(self) -> list[tuple[str, Table]]:
        """All its tables, with what their files are called after the stem."""
        named = [("", self.table), (".claims", self.claims), (".effects", self.effects)]
        return [(name, table) for name, table in named if table is not None]


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What was measured of speed, on the page."""

    table: Table
    figures: list[StudyFigure]
    origin: origin.Facts


def study_section(frames: Frames, stem: str, times: Times) -> Section:
    """The section of a study.

    Args:
        times: Of :func:`analysis.latency.benchmark_frame`; networks with its arms are joined to it.
    """
    plan, setting = frames.plan, origin.setting(frames.plan)
    networks = _networks(frames, times)
    figures = study_figures(frames)
    if plan.factors and (interaction := interaction_figure(frames)):
        figures.append(interaction)
    if networks is not None and (latency := latency_accuracy(networks, accuracies(frames))):
        figures.append(latency)
    return Section(
        stem=stem,
        plan=plan,
        dataset=origin.dataset(plan),
        num_blocks=len(frames.blocks),
        num_trials=len(frames.records),
        table=study_table(frames),
        claims=verdict_table(frames) if plan.claims else None,
        effects=effects_table(frames),
        figures=figures,
        chart=charts(frames, dict(setting.arms), networks),
        setting=setting,
        origin=origin.origin(frames),
        cautions=_cautions(frames),
    )


def speed_section(measurements: Sequence[Measurement]) -> Speed | None:
    """The section of all measurements; None if there is none that has a time."""
    frame = benchmark_frame(measurements)
    if frame.empty:
        return None
    figures = []
    for part in comparable(frame):
        figures += [f for f in (cost_by_image(part), latency_macs(part)) if f is not None]
    history = cost_history(measurements)
    return Speed(
        table=speed_table(frame),
        figures=_numbered([*figures, *([history] if history else [])]),
        origin=origin.measured(measurements),
    )


def _numbered(figures: list[StudyFigure]) -> list[StudyFigure]:
    """``figures`` under names of their own."""
    names: dict[str, int] = {}
    found = []
    for figure in figures:
        names[figure.name] = number = names.get(figure.name, 0) + 1
        name = figure.name if number == 1 else f"{figure.name}-{number}"
        found.append(
            StudyFigure(
                name=name,
                title=figure.title,
                caption=figure.caption,
                drawing=figure.drawing,
                numbers=figure.numbers,
            )
        )
    return found


def _networks(frames: Frames, times: Times) -> Times | None:
    """The part of ``times`` that holds most of the study's arms, ready for inference."""
    if times.empty:
        return None
    arms = set(accuracies(frames))
    parts = [
        part
        for part in comparable(times[times["kind"] == "network"])
        if part["mode"].iloc[0] == "inference" and part["arm"].isin(list(arms)).any()
    ]
    return max(parts, key=lambda part: part["arm"].isin(list(arms)).sum(), default=None)


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
