"""How what a thing costs has moved: the measurements of each, in the order they were taken."""

import datetime
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.drawing import INK, SOFT, draw, look
from analysis.figures import StudyFigure, panels
from analysis.measurements import Times, repeated, subject_words


def cost_history(frame: Times) -> StudyFigure | None:
    """Time over the plain reference's, day by day, a panel a name; None if nothing was repeated.

    So that a slower day moves both, it is the ratio that is drawn. ``frame`` is that of
    :func:`analysis.measurements.measurement_frame`.
    """
    series: dict[str, list[Times]] = {}
    for part in repeated(frame):
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


def draw_history(axes: Axes, parts: Sequence[Times]) -> None:
    """A line a part, over its dates."""
    axes.axhline(1, color=SOFT, linewidth=0.8, zorder=1)
    for index, part in enumerate(parts):
        colour, mark = look(index)
        for taken, low, high in part[["taken", "low", "high"]].to_numpy(float):
            axes.plot([taken, taken], [low, high], color=colour, lw=1.8, alpha=0.45)
        axes.plot(
            part["taken"], part["ratio"], marker=mark, ms=4, lw=1.0, color=colour,
            mec="white", mew=0.6, label=_words(part),
        )  # fmt: skip
    times = [float(time) for part in parts for time in part["taken"]]
    ends = [min(times), max(times)]
    axes.set_xticks(
        ends, [datetime.datetime.fromtimestamp(t, datetime.UTC).date().isoformat() for t in ends]
    )
    axes.tick_params(axis="x", labelcolor=INK, labelbottom=True)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.legend(fontsize=6.5, loc="best")


def _words(part: Times) -> str:
    row = part.iloc[0]
    shape = f"{subject_words(str(row['subject']))}, image {row['image']}"
    return f"{shape}, {row['mode']}, {row['step']}, batch {row['batch']}, {row['machine']}"
