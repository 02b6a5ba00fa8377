"""The figures of one claim: its differences with their intervals, and the blocks behind them."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.convergence import claimed_values
from analysis.drawing import INK, PALETTE, SOFT, ZONE, draw
from analysis.figures import StudyFigure, panels, small_panels
from analysis.frames import Frames
from analysis.numbers import axis_words, scale_of, unit_of
from analysis.verdict import Part, Verdict
from records.claim import Contrast

COLOURS = {"supported": PALETTE[3], "contradicted": PALETTE[2], "equivalent": PALETTE[1]}
UNDECIDED = PALETTE[0]


def claim_figures(frames: Frames, verdict: Verdict) -> list[StudyFigure]:
    """The figures that the records allow: none where nothing can be paired."""
    claim, scale = verdict.claim, scale_of(verdict.claim.measure)
    labels = list(dict.fromkeys(x for c in claim.contrasts for x in (c.against, c.arm)))
    values = scale * claimed_values(frames, claim, labels).sort_index()
    if verdict.look is not None:
        values = values.loc[values.index < verdict.look]
    points = {c: (values[c.arm] - values[c.against]).dropna().tolist() for c in claim.contrasts}
    if not any(points.values()):
        return []
    return [_forest(verdict, points), _slopes(verdict, values)]


def _forest(verdict: Verdict, points: Mapping[Contrast, list[float]]) -> StudyFigure:
    claim, scale = verdict.claim, scale_of(verdict.claim.measure)
    parts = verdict.parts or tuple(
        Part(arm=c.arm, against=c.against, word="no verdict") for c in claim.contrasts
    )
    unit, measure = unit_of(claim.measure), claim.measure.replace("_", " ")
    peers = claim.combine == "peers"

    def make(narrow: bool) -> Figure:
        row = 0.44 if narrow else 0.3
        figure, [axes] = panels(narrow, 0.6 + row * len(parts))
        draw_forest(axes, parts, list(points.values()), verdict, narrow)
        name = f"difference in {measure}" if narrow else f"{measure}: first arm minus second"
        axes.set_xlabel(f"{name},{unit}" if unit else name)
        return figure

    if verdict.look is None:
        caption = (
            "Dots: the blocks so far; diamond: their mean. No interval is shown before the declared"
            " look, for it would be read as a verdict."
        )
    else:
        thick = f"{100 * (1 - verdict.error):.3g} % interval, " + (
            "of each contrast by itself, as every one must hold" if peers else "of all together"
        )
        thin = (
            "of all together"
            if peers
            else f"bounds of equivalence, which err with {100 * verdict.error:.3g} % together at "
            "most; both must lie in the shaded zone"
        )
        caption = (
            f"Diamond: mean over {verdict.look} blocks. Thick: {thick}. Ticks: {thin}. "
            "Dots: the blocks."
        )
    if claim.margin:
        caption += f" Shaded: less than the declared margin of {scale * claim.margin:g}{unit}."
    return StudyFigure(
        name=f"{claim.name}.forest",
        title=f"{claim.name}: differences",
        caption=caption,
        drawing=draw(make),
        numbers=[
            [list(values) for values in points.values()],
            [_numbers(verdict, part) for part in parts],
            claim.margin,
        ],
    )


def _slopes(verdict: Verdict, values: pd.DataFrame) -> StudyFigure:
    claim = verdict.claim
    pairs = {c: values[[c.against, c.arm]].dropna() for c in claim.contrasts}
    pairs = {c: pair for c, pair in pairs.items() if len(pair)}

    def make(narrow: bool) -> Figure:
        figure, found = small_panels(
            len(pairs), min(len(pairs), 2 if narrow else 4), (1.35, 0.3), (0.5, 0.25, 0.06),
            wide=3.5 if narrow else 7.2, sharex=False,
        )  # fmt: skip
        for (contrast, pair), axes in zip(pairs.items(), found, strict=True):
            draw_slopes(axes, contrast, pair.to_numpy())
        figure.supylabel(axis_words(claim.measure), x=0.004, fontsize=8, color=SOFT)
        return figure

    return StudyFigure(
        name=f"{claim.name}.slopes",
        title=f"{claim.name}: block by block",
        caption="A line a block, which both arms share. Solid: the right-hand arm is higher; "
        "dashed: it is lower. Thick: the mean. All panels have the same axis.",
        drawing=draw(make),
        numbers=[[c.arm, c.against, pair.to_numpy().tolist()] for c, pair in pairs.items()],
    )


def draw_forest(
    axes: Axes,
    parts: Sequence[Part],
    points: Sequence[Sequence[float]],
    verdict: Verdict,
    narrow: bool = False,
) -> None:
    """A row a contrast: blocks (dots), mean, deciding interval (thick), the other one (ticks)."""
    scale, margin = scale_of(verdict.claim.measure), verdict.claim.margin
    if margin:
        axes.axvspan(-scale * margin, scale * margin, color=ZONE, linewidth=0, zorder=0)
    axes.axvline(0, color=SOFT, linewidth=0.8, zorder=1)
    for row, (part, dots) in enumerate(zip(parts, points, strict=True)):
        colour = COLOURS.get(part.word, UNDECIDED)
        axes.plot(dots, [row + 0.26] * len(dots), "o", ms=2.4, color=colour, alpha=0.55, mew=0)
        found = verdict.deciding(part)
        other = part.joint if verdict.claim.combine == "peers" else part.narrow
        if found and other:
            ends = [scale * found.low, scale * found.high]
            axes.plot(ends, [row, row], color=colour, linewidth=2.2, solid_capstyle="butt")
            axes.plot(
                [scale * other.low, scale * other.high], [row, row], "|", ms=8, color=INK, mew=0.8
            )
        mean = scale * found.mean if found else float(np.mean(dots)) if len(dots) else None
        if mean is not None:
            axes.plot([mean], [row], "D", ms=4.4, color=colour, mec="white", mew=0.7)
        said = part.note if not found and part.note else part.word
        axes.annotate(
            said, (1, row), xycoords=("axes fraction", "data"), xytext=(4, 0),
            textcoords="offset points", va="center", fontsize=7, color=INK, annotation_clip=False,
        )  # fmt: skip
    joint = "\n- " if narrow else " - "
    names = [f"{part.arm}{joint}{part.against}" for part in parts]
    axes.set_yticks(range(len(parts)), names)
    axes.set_ylim(len(parts) - 0.45, -0.55)
    axes.tick_params(axis="y", labelcolor=INK, labelsize=7.5)
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_locator(MaxNLocator(4 if narrow else 7, steps=[1, 2, 5, 10]))


def draw_slopes(axes: Axes, contrast: Contrast, pair: np.ndarray) -> None:
    """A line a block from ``against`` to ``arm``; ``pair``: their values, a row a block."""
    for before, after in pair:
        rises = after >= before
        axes.plot(
            [0, 1], [before, after], marker="o", ms=2.5, lw=0.9,
            ls="-" if rises else (0, (3, 2)), color=PALETTE[1] if rises else PALETTE[2], alpha=0.75,
        )  # fmt: skip
    axes.plot([0, 1], pair.mean(axis=0), "-", color=INK, lw=2.0, zorder=3)
    axes.set_xlim(-0.25, 1.25)
    axes.set_xticks([0, 1], ["", ""])
    # Some 26 characters of size 7 fit below a panel.
    size = 7 * min(1, 26 / len(contrast.against + contrast.arm))
    for corner, name in enumerate((contrast.against, contrast.arm)):
        axes.annotate(  # in the corners: long names stay below their own panel
            name, (corner, 0), xycoords="axes fraction", xytext=(0, -4),
            textcoords="offset points", ha=("left", "right")[corner], va="top", fontsize=size,
            color=INK, annotation_clip=False,
        )  # fmt: skip
    axes.grid(axis="x", visible=False)
    axes.yaxis.set_major_locator(MaxNLocator(5))


def _numbers(verdict: Verdict, part: Part) -> list[object]:
    found = verdict.deciding(part)
    return [part.word, *([found.low, found.mean, found.high] if found else [])]
