"""The figures of a study, from its records to their bytes and the words that go with them."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from analysis.axes import FEW_BLOCKS, draw_convergence, draw_costs, draw_differences
from analysis.convergence import bands
from analysis.drawing import PALETTE, SOFT, Drawing, draw
from analysis.frames import Frames
from analysis.numbers import axis_words, scale_of
from analysis.statistics import paired_differences
from analysis.summary import MEASURE, ArmSummary, summarise

CURVES = {  # name of the figure, and words
    "validation_accuracy": ("convergence", "validation accuracy"),
    "train_loss": ("convergence-loss", "training loss"),
    "grad_norm": ("convergence-gradients", "norm of the gradients"),
}
COLUMNS = 4  # of panels
MOST_WITH_BLOCKS = 10  # arms whose names find a place between the dots of their blocks


@dataclass(frozen=True, kw_only=True)
class StudyFigure:
    """A figure of a study, with the words that belong to it and the numbers that it shows."""

    name: str
    title: str
    caption: str
    drawing: Drawing
    numbers: object


def study_figures(frames: Frames) -> list[StudyFigure]:
    """All figures that the records of a study allow: none of those that would be empty."""
    summaries = summarise(frames)
    made = [
        _differences(frames, summaries),
        _costs(frames, summaries, "parameters"),
        _costs(frames, summaries, "macs"),
        *(_convergence(frames, measure, name) for measure, (name, _) in CURVES.items()),
    ]
    return [figure for figure in made if figure is not None]


def _differences(frames: Frames, summaries: Sequence[ArmSummary]) -> StudyFigure | None:
    shown = [s for s in summaries if s.difference and s.num_trials]
    if not any(s.difference and s.difference.estimate for s in shown):
        return None
    baseline = frames.by_block(frames.plan.baseline, MEASURE)
    points = {
        s.label: [100 * d for d in paired_differences(frames.by_block(s.label, MEASURE), baseline)]
        for s in shown
        if s.difference and s.difference.estimate
    }
    margins = {c.margin for c in frames.plan.claims if c.measure == MEASURE}
    margin = 100 * margins.pop() if len(margins) == 1 else None
    colours = colours_of(summaries)

    def make(narrow: bool) -> Figure:
        figure, [axes] = panels(narrow, rows=0.55 + 0.27 * len(shown))
        draw_differences(axes, shown, points, colours, margin)
        axes.set_xlabel(f"test accuracy minus that of {frames.plan.baseline}, points")
        return figure

    zone = f" Shaded: less than the declared margin of {margin:g} points." if margin else ""
    return StudyFigure(
        name="differences",
        title=f"Difference to {frames.plan.baseline}",
        caption="Diamond and bar: mean paired difference with its 95 % interval, each comparison "
        "on its own; of fewer than three blocks without. Dots: the single blocks."
        f"{zone}",
        drawing=draw(make),
        numbers=[points, {s.label: _ends(s) for s in shown}, margin],
    )


def _costs(frames: Frames, summaries: Sequence[ArmSummary], cost: str) -> StudyFigure | None:
    shown = [s for s in summaries if s.value and f"{cost}_training" in s.costs]
    if not shown:
        return None
    points = {s.label: (100 * frames.by_block(s.label, MEASURE)).tolist() for s in shown}
    many = len(shown) > MOST_WITH_BLOCKS
    colours = colours_of(summaries)
    layers = {s.layer: colours[s.label] for s in shown}
    words = {"parameters": "parameters", "macs": "MACs of an image"}[cost]

    def make(_: bool) -> Figure:
        figure, [axes] = panels(False, rows=4.6 if many else 3.4)
        draw_costs(axes, shown, {} if many else points, colours, cost)
        axes.set_xlabel(f"{words}, log scale")
        axes.set_ylabel("test accuracy, %")
        if len(layers) <= len(PALETTE):  # beyond, colours come again, and names tell them apart
            handles = [
                Line2D([], [], ls="", marker="o", ms=5, color=colour, label=layer)
                for layer, colour in layers.items()
            ]
            axes.legend(
                handles=handles,
                loc="lower left",
                bbox_to_anchor=(0, 1.0),
                ncols=len(layers),
                handletextpad=0.1,
                columnspacing=1.2,
                borderaxespad=0.2,
            )
        return figure

    return StudyFigure(
        name="costs" if cost == "parameters" else cost,
        title=f"Accuracy against {'parameters' if cost == 'parameters' else 'MACs'}",
        caption=f"Filled: {words}, while training; hollow, joined to it: deployed, where they "
        "differ. Large: mean over the blocks, with its 95 % interval where there are three or "
        "more; the blocks' common part is in it, so arms whose bars overlap may differ all the "
        f"same. {'' if many else 'Small: the single blocks. '}Stepped line: what no other arm "
        "beats at as few deployed, by the means. Counts are exact, and have no bar.",
        drawing=draw(make, narrow=False),  # the page has points that answer
        numbers=[points, {s.label: s.costs for s in shown}],
    )


def _convergence(frames: Frames, measure: str, name: str) -> StudyFigure | None:
    rows = frames.curves[frames.curves["measure"] == measure]
    rows = rows[rows["value"].notna()]
    labels = [label for label in frames.plan.arms if (rows["label"] == label).any()]
    if not labels:
        return None
    scale, words = scale_of(measure), CURVES[measure][1]
    wide = {
        label: scale
        * rows[rows["label"] == label].pivot(index="epoch", columns="block", values="value")
        for label in labels
    }
    baseline, colours = frames.plan.baseline, colours_of(summarise(frames))
    found = bands(frames, measure)
    found = found.assign(low=scale * found["low"], high=scale * found["high"])

    def make(_: bool) -> Figure:
        figure, drawn = small_panels(len(labels), COLUMNS, (0.95, 0.38), (0.55, 0.45, 0.22))
        for label, axes in zip(labels, drawn, strict=True):
            against = None if label == baseline else wide.get(baseline)
            band = found[found["label"] == label]
            draw_convergence(axes, wide[label], colours[label], against, band)
            axes.set_title(label)
        figure.supxlabel("epoch", fontsize=8, color=SOFT)
        figure.supylabel(axis_words(measure), fontsize=8, color=SOFT)
        return figure

    many = max(len(frame.columns) for frame in wide.values()) > FEW_BLOCKS
    blocks = "Faint: from the lowest block to the highest." if many else "Thin: every block."
    ended = ""
    if (frames.cells["outcome"] == "diverged").any():
        ended = " A block that diverged ends there, and the mean with it."
    return StudyFigure(
        name=name,
        title=f"Convergence: {words}",
        caption=f"{words[0].upper()}{words[1:]}, each epoch. {blocks} Thick: their mean; "
        "its 95 % interval, epoch by epoch, is shaded where there are three blocks or more. "
        f"Dashed: the mean of {baseline}. All panels have the same axes.{ended}",
        drawing=draw(make, narrow=False),  # the page has curves that answer
        numbers={label: frame.T.to_numpy().tolist() for label, frame in wide.items()},
    )


def colours_of(summaries: Sequence[ArmSummary]) -> dict[str, str]:
    """A colour an arm, the same for arms of one layer class; the plain convolution is grey."""
    layers = list(dict.fromkeys(["Conv2d", *(s.layer for s in summaries)]))
    colours = {
        layer: PALETTE[0] if index == 0 else PALETTE[1 + (index - 1) % (len(PALETTE) - 1)]
        for index, layer in enumerate(layers)
    }
    return {s.label: colours[s.layer] for s in summaries}


def panels(
    narrow: bool, rows: float, num_panels: int = 1, columns: int = 1, *, sharex: bool = True
) -> tuple[Figure, list[Axes]]:
    """A figure ``rows`` inches high, and its panels, whose axes are shared."""
    spaces = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0.02, hspace=0.02)
    figure = Figure(figsize=(3.5 if narrow else 7.2, rows), layout=spaces)
    num_rows = -(-num_panels // columns)
    grid = figure.subplots(num_rows, columns, sharex=sharex, sharey=True, squeeze=False)
    used, spare = grid.flat[:num_panels], grid.flat[num_panels:]
    for axes in spare:
        axes.remove()
    for axes in used[max(0, num_panels - columns) :]:  # the lowest of each column
        axes.tick_params(labelbottom=True)
    return figure, list(used)


def small_panels(
    num_panels: int,
    columns: int,
    size: tuple[float, float],
    edges: tuple[float, float, float],
    *,
    wide: float = 7.2,
    sharex: bool = True,
) -> tuple[Figure, list[Axes]]:
    """Panels at fixed places, whose axes are shared: of twenty they would take seconds to be found.

    All in inches.

    Args:
        size: Height of a panel, and of what is between two of them.
        edges: Left, lower and upper margin.
        wide: Of the figure.
    """
    num_rows, (tall, gap), (left, lower, upper) = -(-num_panels // columns), size, edges
    high = num_rows * tall + (num_rows - 1) * gap + lower + upper
    figure = Figure(figsize=(wide, high))
    grid = figure.subplots(num_rows, columns, sharex=sharex, sharey=True, squeeze=False)
    figure.subplots_adjust(
        left=left / wide, right=1 - 0.08 / wide, bottom=lower / high, top=1 - upper / high,
        wspace=0.08, hspace=gap / tall,
    )  # fmt: skip
    used = list(grid.flat[:num_panels])
    for axes in grid.flat[num_panels:]:
        axes.remove()
    for axes in used[max(0, num_panels - columns) :]:  # the lowest of each column
        axes.tick_params(labelbottom=True)
    return figure, used


def _ends(s: ArmSummary) -> list[float | None]:
    found = s.difference and s.difference.estimate
    return [found.mean, found.low, found.high] if found else []
