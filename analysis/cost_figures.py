"""The figure of a claim about cost: the ratio of times in each case, with its intervals."""

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.agenda import CostVerdict
from analysis.axes import log_ticks
from analysis.drawing import INK, PALETTE, SOFT, ZONE, draw
from analysis.figures import StudyFigure, panels


def ratio_figure(verdict: CostVerdict) -> StudyFigure | None:
    """A row a case: time over the plain one's; None without cases."""
    claim = verdict.claim
    if not verdict.ratios:
        return None

    def make(narrow: bool) -> Figure:
        figure, [axes] = panels(narrow, 0.6 + 0.21 * len(verdict.ratios))
        draw_ratios(axes, verdict, narrow)
        axes.set_xlabel(f"time / {claim.against}, log scale")
        return figure

    judges = ", which judges the case" if claim.margin else ""
    zone = f" Shaded: within {100 * claim.margin:g} % of one." if claim.margin else ""
    return StudyFigure(
        name=f"{claim.name}.ratios",
        title=f"{claim.name}: time of {claim.layer} over that of {claim.against}",
        caption=f"Diamond: median ratio. Thick: its 90 % interval{judges}. "
        f"Ticks: 95 % of all cases together.{zone}",
        drawing=draw(make),
        numbers=[[r.case, r.low, r.value, r.high] for r in verdict.ratios],
    )


def draw_ratios(axes: Axes, verdict: CostVerdict, narrow: bool = False) -> None:
    """A row a case on a logarithmic axis; an interval without an end has no bar."""
    margin = verdict.claim.margin
    if margin:
        axes.axvspan(1 - margin, 1 + margin, color=ZONE, linewidth=0, zorder=0)
    axes.axvline(1, color=SOFT, linewidth=0.8, zorder=1)
    for row, ratio in enumerate(verdict.ratios):
        if math.isfinite(ratio.low) and math.isfinite(ratio.high):
            ends = [ratio.low, ratio.high]
            axes.plot(ends, [row, row], color=PALETTE[1], lw=2.2, solid_capstyle="butt")
        joint = [end for end in (ratio.joint_low, ratio.joint_high) if math.isfinite(end)]
        axes.plot(joint, [row] * len(joint), "|", ms=7, color=INK, mew=0.8)
        axes.plot([ratio.value], [row], "D", ms=3.8, color=PALETTE[1], mec="white", mew=0.7)
    names = [r.case.partition(", cpu")[0] if narrow else r.case for r in verdict.ratios]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.grid(axis="y", visible=False)
    axes.set_xscale("log")
    log_ticks(axes.xaxis)
