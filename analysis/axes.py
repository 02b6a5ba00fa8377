"""Axes in, axes out: each function draws numbers that are ready on axes that are there."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from analysis.drawing import FAINT, INK, SOFT, ZONE
from analysis.labels import label_marks
from analysis.summary import ArmSummary


def draw_differences(
    axes: Axes,
    summaries: Sequence[ArmSummary],
    points: Mapping[str, Sequence[float]],
    colours: Mapping[str, str],
    margin: float | None = None,
) -> None:
    """A row an arm: the paired differences (dots), their mean, and its interval, in points.

    ``margin``: the smallest difference that matters; shaded to both sides of zero.
    """
    if margin:
        axes.axvspan(-margin, margin, color=ZONE, linewidth=0, zorder=0)
    axes.axvline(0, color=SOFT, linewidth=0.8, zorder=1)
    for row, s in enumerate(summaries):
        colour = colours[s.label]
        dots = points.get(s.label, [])
        axes.plot(dots, [row + 0.24] * len(dots), "o", ms=2.4, color=colour, alpha=0.45, mew=0)
        found = s.difference and s.difference.estimate
        if not found:
            why = s.difference.why if s.difference else ""
            axes.text(0, row, f"  {why}", va="center", fontsize=6.5, color=SOFT, style="italic")
            continue
        if found.low is not None and found.high is not None:
            ends = [100 * found.low, 100 * found.high]
            axes.plot(ends, [row, row], color=colour, linewidth=2.0, solid_capstyle="butt")
        axes.plot([100 * found.mean], [row], "D", ms=4.2, color=colour, mec="white", mew=0.7)
    axes.set_yticks(range(len(summaries)), [s.label for s in summaries])
    axes.set_ylim(len(summaries) - 0.45, -0.6)
    axes.tick_params(axis="y", labelcolor=INK, labelsize=7.5)
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))


def draw_costs(
    axes: Axes,
    summaries: Sequence[ArmSummary],
    points: Mapping[str, Sequence[float]],
    colours: Mapping[str, str],
    cost: str = "parameters",
) -> None:
    """Accuracy in percent against a cost: filled in training, hollow deployed, where they differ.

    Every block is a small dot, the interval of their mean a bar; a stepped line joins what nothing
    else beats at as little deployed, by its mean; names stand beside the marks. ``cost``:
    "parameters" or "macs", which are exact counts.
    """
    marks: list[tuple[float, float, str, str]] = []
    ends: list[tuple[float, float]] = []
    lines: list[tuple[float, float, float, float]] = []
    for s in summaries:
        if s.value is None or f"{cost}_training" not in s.costs:
            continue
        colour, height = colours[s.label], 100 * s.value.mean
        trained = s.costs[f"{cost}_training"]
        deployed = s.costs.get(f"{cost}_deployed", trained)
        if s.value.low is not None and s.value.high is not None:
            bar = [100 * s.value.low, 100 * s.value.high]
            lines.append((trained, bar[0], trained, bar[1]))
            axes.plot([trained, trained], bar, color=colour, lw=1.0, alpha=0.8, zorder=2)
        dots = points.get(s.label, [])
        axes.plot([trained] * len(dots), dots, "o", ms=2.2, color=colour, alpha=0.5, mew=0)
        if deployed != trained:
            lines.append((deployed, height, trained, height))
            axes.plot([deployed, trained], [height, height], color=colour, lw=0.9, zorder=2.5)
            axes.plot([deployed], [height], "o", ms=5, mfc="white", mec=colour, mew=1.1, zorder=3)
        axes.plot([trained], [height], "o", ms=5.5, color=colour, mec="white", mew=0.7, zorder=3)
        marks.append((trained, height, s.label, colour))
        ends.append((deployed, height))
    lines += draw_front(axes, [cost for cost, _ in ends], [value for _, value in ends])
    axes.set_xscale("log")
    axes.margins(x=0.06, y=0.06)
    log_ticks(axes.xaxis, short_count)
    assert isinstance(axes.figure, Figure)
    axes.figure.draw_without_rendering()  # names are placed where marks will be
    label_marks(axes, marks, lines, ends)


def front(costs: Sequence[float], values: Sequence[float]) -> list[int]:
    """Places of what nothing else beats, by cost: nothing that costs no more has a higher value.

    Of several at one cost and value the first.

    >>> front([3, 1, 2, 3], [0.9, 0.5, 0.4, 0.8])
    [1, 0]
    """
    found: list[int] = []
    for index in sorted(range(len(costs)), key=lambda i: (costs[i], -values[i], i)):
        if not found or values[index] > values[found[-1]]:
            found.append(index)
    return found


def draw_front(
    axes: Axes, costs: Sequence[float], values: Sequence[float]
) -> list[tuple[float, float, float, float]]:
    """A stepped line through :func:`front`; returns its pieces, x and y of both ends."""
    steps = [(costs[i], values[i]) for i in front(costs, values)]
    axes.plot(
        [x for x, _ in steps], [y for _, y in steps],
        drawstyle="steps-post", color=FAINT, lw=0.9, zorder=1.5,
    )  # fmt: skip
    return [
        piece
        for (x, y), (next_x, next_y) in pairwise(steps)
        for piece in ((x, y, next_x, y), (next_x, y, next_x, next_y))
    ]


FEW_BLOCKS = 6  # whose curves can be told apart


def draw_convergence(
    axes: Axes,
    curves: pd.DataFrame,
    colour: str,
    against: pd.DataFrame | None = None,
    band: pd.DataFrame | None = None,
) -> None:
    """Curves of one arm: every block a thin line, their mean a thick one.

    More blocks than ``FEW_BLOCKS`` would be a tangle: shaded from lowest to highest instead.

    Args:
        curves, against: Values in the unit to draw, a row an epoch, a column a block; of
            ``against`` the mean alone is drawn, dashed.
        band: Columns epoch, low, high: the interval of the mean, shaded.
    """
    if band is not None:
        known = band.dropna()
        axes.fill_between(
            known["epoch"], known["low"], known["high"], color=colour, alpha=0.18, lw=0, zorder=1
        )
    if against is not None:
        axes.plot(mean_curve(against), color=SOFT, lw=1.0, ls=(0, (3, 2)))
    if len(curves.columns) > FEW_BLOCKS:
        low, high = curves.min(axis=1), curves.max(axis=1)
        axes.fill_between(curves.index, low, high, color=colour, alpha=0.10, lw=0, zorder=0.9)
    else:
        for block in curves:
            axes.plot(curves[block], color=colour, lw=0.6, alpha=0.5)
    axes.plot(mean_curve(curves), color=colour, lw=1.4)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))


def mean_curve(curves: pd.DataFrame) -> pd.Series:
    """Mean over the blocks (columns); where a block has ended it ends too, for a mean of those
    that are left would be one of other trials."""
    return curves.mean(axis=1, skipna=False)


def log_ticks(axis: Axis, words: Callable[[float], str] = "{:g}".format) -> None:
    """Round marks on a logarithmic axis, at least a few of them however short it is."""
    low, high = axis.get_view_interval()
    decades = np.log10(high / low)
    if decades < 0.5:
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    else:
        subs: tuple[float, ...] = (1.0,) if decades > 2.5 else (1.0, 2.0, 5.0)
        subs = subs if decades > 0.9 else (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
        axis.set_major_locator(LogLocator(subs=subs))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: words(value)))
    axis.set_minor_formatter(NullFormatter())


def short_count(value: float) -> str:
    """
    >>> [short_count(value) for value in (0.05, 1.0, 20.0, 5e4, 2.5e6, 1e9)]
    ['0.05', '1', '20', '50 k', '2.5 M', '1 G']
    """
    for unit, name in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"
