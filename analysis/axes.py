"""Axes in, axes out: each function draws numbers that are ready on axes that are there."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from analysis.drawing import FAINT, INK, SOFT, ZONE
from analysis.numbers import count
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
    fewest: int = 2,
) -> None:
    """Accuracy in percent against a cost: filled in training, hollow where less is deployed.

    Every block is a small dot, the interval of their mean a bar; labels stand in a column beside
    the axes, in the order of height. ``cost``: "parameters" or "macs", which are exact counts.
    ``fewest``: blocks that an interval is drawn of.
    """
    marks = []
    for s in summaries:
        if s.value is None or f"{cost}_training" not in s.costs:
            continue
        colour, height = colours[s.label], 100 * s.value.mean
        trained = s.costs[f"{cost}_training"]
        deployed = s.costs.get(f"{cost}_deployed", trained)
        if s.value.low is not None and s.value.high is not None and s.value.n >= fewest:
            ends = [100 * s.value.low, 100 * s.value.high]
            axes.plot([trained, trained], ends, color=colour, lw=1.0, alpha=0.8, zorder=2)
        dots = points.get(s.label, [])
        axes.plot([trained] * len(dots), dots, "o", ms=2.2, color=colour, alpha=0.5, mew=0)
        if deployed != trained:
            axes.plot([deployed, trained], [height, height], color=colour, lw=0.9, zorder=2.5)
            axes.plot([deployed], [height], "o", ms=5, mfc="white", mec=colour, mew=1.1, zorder=3)
        axes.plot([trained], [height], "o", ms=5.5, color=colour, mec="white", mew=0.7, zorder=3)
        marks.append((trained, height, s.label, colour))
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=_steps(axes.get_xlim())))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short_count(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.06, y=0.06)
    _label_beside(axes, marks)


def draw_convergence(
    axes: Axes,
    curves: pd.DataFrame,
    colour: str,
    against: pd.DataFrame | None = None,
    band: pd.DataFrame | None = None,
) -> None:
    """Curves of one arm: every block a thin line, their mean a thick one.

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
    for block in curves:
        axes.plot(curves[block], color=colour, lw=0.6, alpha=0.5)
    axes.plot(mean_curve(curves), color=colour, lw=1.4)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))


def mean_curve(curves: pd.DataFrame) -> pd.Series:
    """Mean over the blocks (columns); where a block has ended it ends too, for a mean of those
    that are left would be one of other trials."""
    return curves.mean(axis=1, skipna=False)


def _label_beside(axes: Axes, marks: Sequence[tuple[float, float, str, str]]) -> None:
    """Labels in a column right of ``axes``, none over another, each tied to its mark."""
    marks = sorted(marks, key=lambda mark: (-mark[1], mark[2]))
    low, high = axes.get_ylim()
    wanted = [(high - height) / (high - low) for _, height, _, _ in marks]  # from the top, 0 to 1
    step = min(0.075, 1 / max(1, len(marks) - 1))
    places = spread_apart(wanted, step)
    for (x, y, label, colour), place in zip(marks, places, strict=True):
        axes.annotate(
            label,
            xy=(x, y),
            xytext=(1.04, 1 - place),
            textcoords="axes fraction",
            va="center",
            fontsize=7,
            color=colour,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-", "color": FAINT, "lw": 0.5, "shrinkA": 1, "shrinkB": 3,
                "relpos": (0, 0.5),
            },
        )  # fmt: skip


def spread_apart(wanted: Sequence[float], step: float) -> list[float]:
    """Increasing places nearest to ``wanted`` (increasing, 0 to 1), at least ``step`` apart.

    Least squares under the distances, by pooling neighbours; then moved into 0 to 1.

    >>> [round(place, 3) for place in spread_apart([0.5, 0.5, 0.9], 0.2)]
    [0.4, 0.6, 0.9]
    """
    pools: list[tuple[float, int]] = []  # mean of (wanted - index * step), number
    for index, place in enumerate(wanted):
        pools.append((place - index * step, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (a, m), (b, n) = pools[-2:]
            pools[-2:] = [((a * m + b * n) / (m + n), m + n)]
    bases = np.repeat([mean for mean, _ in pools], [n for _, n in pools])
    places = np.clip(bases, 0, 1 - step * (len(wanted) - 1)) + step * np.arange(len(wanted))
    return places.tolist()


def _steps(limits: tuple[float, float]) -> tuple[float, ...]:
    """Multiples of a power of ten that mark a logarithmic axis between ``limits``."""
    decades = np.log10(limits[1] / limits[0])
    if decades > 2.5:
        return (1.0,)
    if decades > 0.9:
        return (1.0, 2.0, 5.0)
    return (1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if decades > 0.45 else tuple(np.arange(1.0, 10.0, 0.5))


def _short_count(value: float) -> str:
    return count(value) if value >= 1e6 else f"{value / 1e3:g} k" if value >= 1e3 else f"{value:g}"
