"""How what a thing costs has moved: the measurements of each, in the order they were taken."""

import datetime
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.drawing import INK, MARKS, PALETTE, SOFT, draw
from analysis.figures import StudyFigure, panels
from records.benchmark import Measurement, arm_key

SAME = ("kind", "name", "arm", "subject", "situation", "key")


def history_frame(measurements: Sequence[Measurement]) -> pd.DataFrame:
    """A row a measurement that has a time, oldest first; ``SAME`` say of what, and where.

    Further columns: taken (seconds since 1970), commit, minimum (seconds); ratio, low, high (over
    the plain reference's, measured beside it, so that a slower day moves both).
    """
    rows = [
        {
            "kind": m.kind,
            "name": m.name,
            "arm": arm_key(m.arm),
            "subject": _words(m.subject),
            "situation": _words(m.situation),
            "key": m.key,
            "taken": m.taken,
            "commit": str(m.environment.get("commit") or ""),
            "minimum": m.seconds["minimum"],
            **{name: m.ratio[at] for name, at in (("ratio", "estimate"), ("low", "low"))},
            "high": m.ratio["high"],
        }
        for m in sorted(measurements, key=lambda m: m.taken)
        if m.outcome == "measured"
    ]
    return pd.DataFrame(rows)


def repeated(frame: pd.DataFrame) -> list[pd.DataFrame]:
    """What was measured at two moments or more, a frame a thing, situation and machine."""
    if frame.empty:
        return []
    parts = [part for _, part in frame.groupby(list(SAME), sort=False)]
    return [part for part in parts if part["taken"].nunique() > 1]


def cost_history(measurements: Sequence[Measurement]) -> StudyFigure | None:
    """Time over the plain reference's, day by day, a panel a name; None if nothing was repeated."""
    series: dict[str, list[pd.DataFrame]] = {}
    for part in repeated(history_frame(measurements)):
        series.setdefault(str(part["name"].iloc[0]), []).append(part)
    if not series:
        return None

    def make(narrow: bool) -> Figure:
        columns = 1 if narrow else min(2, len(series))
        height = 1.7 * -(-len(series) // columns) + 0.3
        figure, found = panels(narrow, height, len(series), columns, sharex=False)
        for (name, parts), axes in zip(series.items(), found, strict=True):
            draw_history(axes, parts)
            axes.set_title(name)
        figure.supylabel("time / plain", fontsize=8, color=SOFT)
        return figure

    return StudyFigure(
        name="history",
        title="Cost over time",
        caption="Time over that of the plain reference, which was measured beside it; bars: 98 % "
        "intervals. A line a shape, situation and machine. Dates are UTC.",
        drawing=draw(make),
        numbers={
            name: [part[["taken", "ratio", "low", "high"]].to_numpy().tolist() for part in parts]
            for name, parts in series.items()
        },
    )


def draw_history(axes: Axes, parts: Sequence[pd.DataFrame]) -> None:
    """A line a part, over its dates."""
    axes.axhline(1, color=SOFT, linewidth=0.8, zorder=1)
    for index, part in enumerate(parts):
        colour = PALETTE[1 + index % (len(PALETTE) - 1)]
        dates = [datetime.datetime.fromtimestamp(t, datetime.UTC) for t in part["taken"]]
        for date, low, high in zip(dates, part["low"], part["high"], strict=True):
            axes.plot([date, date], [low, high], color=colour, lw=1.8, alpha=0.45)
        axes.plot(
            dates, part["ratio"], marker=MARKS[index % len(MARKS)], ms=4, lw=1.0, color=colour,
            mec="white", mew=0.6,
        )  # fmt: skip
    taken = sorted({time for part in parts for time in part["taken"]})
    ends = [datetime.datetime.fromtimestamp(t, datetime.UTC) for t in (taken[0], taken[-1])]
    axes.set_xticks(ends, [end.date().isoformat() for end in ends])
    axes.tick_params(axis="x", labelcolor=INK, labelbottom=True)
    axes.yaxis.set_major_locator(MaxNLocator(4))


def _words(values: dict) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())
