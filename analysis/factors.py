"""A study whose arms form a grid: its interaction plot, and the table of its effects."""

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy import stats

from analysis.convergence import values_of
from analysis.drawing import INK, SOFT, draw, look
from analysis.factorial import Effect, factorial
from analysis.figures import StudyFigure, panels
from analysis.frames import Frames
from analysis.numbers import axis_words, decimals, scale_of, signed, unit_of
from analysis.statistics import CONFIDENCE, FEWEST_FOR_INTERVAL
from analysis.summary import MEASURE, diverged_arms, heading
from analysis.table import Column, Table
from records.grid import grid

STYLES = ("-", (0, (4, 2)), (0, (1, 1.5)), (0, (4, 1.5, 1, 1.5)))


def cell_means(frames: Frames, measure: str = MEASURE) -> pd.DataFrame:
    """Mean of each arm of the grid and its interval within blocks, over the blocks that have all.

    Nothing if a trial of one of them diverged: without the blocks in which it did, the arm would be
    flattered. Columns: the factors, then ``arm, n, mean, low, high``. The interval is Student's of
    the values less their block's mean, times ``sqrt(a / (a - 1))`` for the mean that a arms share:
    what blocks have in common moves all arms alike, and is no part of how far they are apart.

    Source: D. Cousineau (2005), corrected by R. D. Morey (2008), Tutorials in Quantitative Methods
    for Psychology 4(2), 61-64.
    """
    factors, cells = frames.plan.factors, grid(frames.plan.factors)
    if diverged_arms(frames, cells.values()):
        return pd.DataFrame()
    values = pd.DataFrame({arm: values_of(frames, arm, measure) for arm in cells.values()})
    table = values.loc[:, values.notna().any()].dropna()
    n, num_arms = table.shape
    inside = table.sub(table.mean(axis=1), axis=0)
    scale = math.sqrt(num_arms / (num_arms - 1)) if num_arms > 1 else math.nan
    factor = math.nan
    if n >= FEWEST_FOR_INTERVAL:
        factor = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * scale / math.sqrt(n)
    rows = [
        dict(zip(factors, place, strict=True))
        | {
            "arm": arm,
            "n": n,
            "mean": float(table[arm].mean()),
            "low": float(table[arm].mean() - factor * inside[arm].std(ddof=1)),
            "high": float(table[arm].mean() + factor * inside[arm].std(ddof=1)),
        }
        for place, arm in cells.items()
        if arm in table and n
    ]
    return pd.DataFrame(rows)


def interaction_figure(frames: Frames, measure: str = MEASURE) -> StudyFigure | None:
    """A panel a combination of the third and later factors, a line a level of the second, the
    first along the axis. None if the study is no grid, or :func:`cell_means` has nothing; why, the
    table of effects says."""
    factors = frames.plan.factors
    means = cell_means(frames, measure) if len(factors) > 1 else pd.DataFrame()
    if means.empty:
        return None
    scale = scale_of(measure)
    along, lines, *rest = list(factors)
    combinations = list(product(*(factors[name] for name in rest)))
    shown = means.assign(**{name: scale * means[name] for name in ("mean", "low", "high")})

    def make(narrow: bool) -> Figure:
        columns = min(len(combinations), 2 if narrow else 4)
        height = 1.9 * -(-len(combinations) // columns) + 0.5
        figure, found = panels(narrow, height, len(combinations), columns)
        for place, axes in zip(combinations, found, strict=True):
            rows = shown
            for name, level in zip(rest, place, strict=True):
                rows = rows[rows[name] == level]
            draw_interaction(axes, rows, along, list(factors[along]), lines, list(factors[lines]))
            axes.set_title(", ".join(f"{n}: {x}" for n, x in zip(rest, place, strict=True)))
        handles, labels = found[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, title=lines, loc="outside upper left", ncols=2 if narrow else 4
        )
        figure.supxlabel(along, fontsize=8, color=SOFT)
        figure.supylabel(axis_words(measure), fontsize=8, color=SOFT)
        return figure

    n = int(means["n"].iloc[0])
    return StudyFigure(
        name="interaction",
        title=f"{' x '.join(factors)}",
        caption=f"Mean over the {n} blocks that have all arms, with its 95 % interval within "
        "blocks: what blocks have in common is out of it. Lines that are not parallel interact.",
        drawing=draw(make),
        numbers=shown.to_numpy().tolist(),
    )


def draw_interaction(
    axes: Axes, rows: pd.DataFrame, along: str, levels: Sequence[str], lines: str, of: Sequence[str]
) -> None:
    """A line a level of ``lines``, over the levels of ``along``; a little aside of each other."""
    for index, level in enumerate(of):
        own = rows[rows[lines] == level].set_index(along)
        own = own.loc[[name for name in levels if name in own.index]]
        aside = 0.07 * (index - (len(of) - 1) / 2)
        places = [levels.index(name) + aside for name in own.index]
        colour, mark = look(index)
        for x, low, high in zip(places, own["low"], own["high"], strict=True):
            if not np.isnan(low):
                axes.plot([x, x], [low, high], color=colour, lw=1.0)
        axes.plot(
            places, own["mean"], marker=mark, ms=4.5, lw=1.3, color=colour,
            ls=STYLES[index % len(STYLES)], mec="white", mew=0.6, label=level,
        )  # fmt: skip
    axes.set_xticks(range(len(levels)), levels)
    axes.set_xlim(-0.4, len(levels) - 0.6)
    axes.tick_params(axis="x", labelcolor=INK)
    axes.grid(axis="x", visible=False)
    axes.yaxis.set_major_locator(MaxNLocator(5))


def effects_table(frames: Frames, measure: str = MEASURE) -> Table | None:
    """Main effects and two-way interactions of a grid; None if the study is none."""
    found = factorial(frames, measure)
    if found is None:
        return None
    effects = [*found.main, *found.interactions]
    scale, unit = scale_of(measure), unit_of(measure).strip()
    digits = decimals([e.interval.half_width for e in effects], scale)
    columns = (
        Column("effect", "effect", is_text=True),
        Column("against", "against", is_text=True),
        Column("value", "difference", unit=unit),
        Column("interval", "95 % interval", unit=unit),
    )
    first = {name: next(iter(levels)) for name, levels in frames.plan.factors.items()}
    rows = tuple(_effect_row(effect, first, scale, digits) for effect in effects)
    data = tuple(
        {
            "factor": e.factor,
            "level": e.level,
            "of": e.of,
            "of_level": e.of_level,
            "blocks": e.interval.n,
            "difference": scale * e.interval.mean,
            "low": scale * e.interval.low,
            "high": scale * e.interval.high,
            "unit": unit or "as measured",
        }
        for e in effects
    )
    note = (
        f"No effects: {found.why}."
        if found.why
        else f"Over {found.n} blocks. Main effects: mean of all arms at a level, to that at the "
        "first. Interactions: how much larger that is at another factor's level. The intervals of "
        "the main effects hold together, and so do those of the interactions; no verdicts."
    )
    return Table(
        title=f"{heading(frames.plan)}: effects on {measure.replace('_', ' ')}",
        columns=columns,
        rows=rows,
        data=data,
        footnotes=(note,),
    )


def _effect_row(e: Effect, first: dict[str, str], scale: float, digits: int) -> dict[str, str]:
    low, mean, high = (
        signed(scale * x, digits) for x in (e.interval.low, e.interval.mean, e.interval.high)
    )
    at = f" at {e.of} {e.of_level}" if e.of else ""
    against = f", more than at {e.of} {first[e.of]}" if e.of else ""
    return {
        "effect": f"{e.factor} {e.level}{at}",
        "against": f"{e.factor} {first[e.factor]}{against}",
        "value": mean,
        "interval": f"{low} to {high}",
    }
