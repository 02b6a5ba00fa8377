"""The parts of the report: a study each, and what was measured of speed."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from analysis.factors import effects_table, interaction_figure
from analysis.figures import StudyFigure, study_figures
from analysis.frames import Frames
from analysis.history import cost_history
from analysis.latency import accuracies, cost_by_image, latency_accuracy, latency_macs
from analysis.looks import FEWEST_BLOCKS
from analysis.measured import speed_table
from analysis.measurements import Times, comparable, latest, measurement_frame
from analysis.noise_tables import design_table, noise_table
from analysis.summary import dataset
from analysis.table import Table
from analysis.tables import study_table
from analysis.training_table import training_table
from analysis.verdict import Verdict
from analysis.verdict_tables import verdict_table
from records.benchmark import Measurement
from records.plan import Plan
from reports import origin
from reports.charts import charts

IN_FILES_ALONE = ("convergence-loss", "convergence-gradients")


@dataclass(frozen=True, kw_only=True)
class Section:
    """A study on the page.

    ``brief``: network and epochs. ``num_blocks``: of which all trials are there; ``num_begun``: of
    which some are.
    ``chart``: numbers of the interactive charts. Tables: of its arms; ``claims``: its verdicts;
    ``training``: how they got there; ``effects``: of a grid; ``noise``: what the differences are
    made of; ``design``: what more blocks would find.
    """

    stem: str
    plan: Plan
    dataset: str
    brief: str
    num_blocks: int
    num_begun: int
    num_trials: int
    table: Table
    claims: Table | None
    training: Table | None
    effects: Table | None
    noise: Table | None
    design: Table | None
    figures: list[StudyFigure]
    chart: dict[str, Any]
    setting: origin.Setting
    origin: origin.Facts
    cautions: list[str]

    @property
    def page_figures(self) -> list[StudyFigure]:
        """The figures that the page holds. Losses and gradients are drawn in files alone: they are
        many bytes, and the page's chart shows them."""
        return [figure for figure in self.figures if figure.name not in IN_FILES_ALONE]

    @property
    def tables(self) -> list[tuple[str, Table]]:
        """All its tables, with what their files are called after the stem."""
        named = [("", self.table)]
        named += [
            (f".{name}", getattr(self, name))
            for name in ("claims", "training", "effects", "noise", "design")
        ]
        return [(name, table) for name, table in named if table is not None]


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What was measured of speed, on the page.

    ``times``: the last measurement of each thing, which studies are joined to.
    """

    times: Times
    table: Table
    figures: list[StudyFigure]
    origin: origin.Facts


def study_section(
    frames: Frames, stem: str, judged: Sequence[Verdict], speed: Speed | None
) -> Section:
    """The section of a study.

    Args:
        judged: Its verdicts.
        speed: Measured networks with its arms are joined to it.
    """
    plan, setting, whole = frames.plan, origin.setting(frames.plan), frames.whole_blocks
    networks = None if speed is None else _networks(frames, speed.times)
    figures = study_figures(frames)
    if plan.factors and (interaction := interaction_figure(frames)):
        figures.append(interaction)
    if networks is not None and (latency := latency_accuracy(networks, accuracies(frames))):
        figures.append(latency)
    return Section(
        stem=stem,
        plan=plan,
        dataset=dataset(plan),
        brief=origin.brief(plan),
        num_blocks=len(whole),
        num_begun=len(frames.blocks) - len(whole),
        num_trials=len(frames.records),
        table=study_table(frames),
        claims=verdict_table(plan, judged) if plan.claims else None,
        training=training_table(frames),
        effects=effects_table(frames),
        noise=noise_table(frames),
        design=design_table(frames),
        figures=figures,
        chart=charts(frames, dict(setting.arms), networks),
        setting=setting,
        origin=origin.origin(frames),
        cautions=_cautions(frames, judged),
    )


def speed_section(measurements: Sequence[Measurement]) -> Speed | None:
    """The section of all measurements; None if there is none that has a time."""
    frame = measurement_frame(measurements)
    if frame.empty:
        return None
    times, figures = latest(frame), []
    for part in comparable(times):
        figures += [f for f in (cost_by_image(part), latency_macs(part)) if f is not None]
    history = cost_history(frame)
    return Speed(
        times=times,
        table=speed_table(times),
        figures=_numbered([*figures, *([history] if history else [])]),
        origin=origin.measured(measurements),
    )


def _numbered(figures: list[StudyFigure]) -> list[StudyFigure]:
    """``figures`` under names of their own."""
    names: Counter[str] = Counter()
    found = []
    for figure in figures:
        names[figure.name] += 1
        number = names[figure.name]
        found.append(figure if number == 1 else replace(figure, name=f"{figure.name}-{number}"))
    return found


def _networks(frames: Frames, times: Times) -> Times | None:
    """The part of ``times`` that holds most of the study's arms, ready for inference."""
    arms = [key for key, _ in accuracies(frames).values()]
    parts = [
        part
        for part in comparable(times[times["kind"] == "network"])
        if part["mode"].iloc[0] == "inference" and part["arm"].isin(arms).any()
    ]
    return max(parts, key=lambda part: part["arm"].isin(arms).sum(), default=None)


def _cautions(frames: Frames, judged: Sequence[Verdict]) -> list[str]:
    cautions = []
    num_blocks = len(frames.whole_blocks)
    if num_blocks < FEWEST_BLOCKS:
        whole = f"{num_blocks} whole block{'s' * (num_blocks != 1)}: "
        if any(verdict.word != "no verdict" for verdict in judged):
            cautions.append(
                f"{whole}some arms are not done. A claim is judged by the blocks that have all the "
                "arms that it compares."
            )
        else:
            cautions.append(
                f"{whole}fewer than {FEWEST_BLOCKS} cannot decide anything. Read this as a trial "
                "run."
            )
    if lines := origin.missing(frames):
        cautions.append(f"Still to run: {'; '.join(lines)}.")
    if frames.disputed:
        cautions.append(
            f"{len(frames.disputed)} trials gave other bytes when they were repeated: "
            f"{', '.join(frames.disputed)}. Something in them is not deterministic."
        )
    return cautions
