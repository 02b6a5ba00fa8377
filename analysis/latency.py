"""Figures of speed: time against accuracy, work, image size.

A figure shows times of one machine and situation: one part of
:func:`analysis.measurements.comparable`.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from analysis.axes import draw_front, log_ticks, short_count
from analysis.drawing import SOFT, draw, look
from analysis.figures import StudyFigure
from analysis.frames import Frames
from analysis.measurements import Times, shape_words
from analysis.statistics import Estimate
from analysis.summary import summarise
from records.benchmark import arm_key


def accuracies(frames: Frames) -> dict[str, tuple[str, Estimate]]:
    """By label, key and mean accuracy of each arm that differs from the baseline in layers alone.

    A widened network is another one than that in which layers were timed. See :func:`ratios`.
    """
    arms, plain = frames.plan.arms, _options(frames.plan.arms[frames.plan.baseline])
    return {
        s.label: (arm_key(arms[s.label].get("arm") or {}), s.value)
        for s in summarise(frames)
        if s.value is not None and _options(arms[s.label]) == plain
    }


def ratios(frame: Times, keys: Iterable[str]) -> dict[str, tuple[float, float, float]]:
    """Time over the plain network's, and its interval, by the key of an arm; 1 of an arm without
    a layer. ``frame`` is one part of :func:`analysis.measurements.comparable`."""
    found = {
        str(row["arm"]): (float(row["ratio"]), float(row["low"]), float(row["high"]))
        for row in frame[frame["kind"] == "network"].to_dict("records")
    }
    plain = {key: (1.0, 1.0, 1.0) for key in keys if json.loads(key)["layer"] is None}
    return found | plain


def _options(arm: Mapping[str, Any]) -> Any:
    return (arm.get("network") or {}).get("options")


def crossings(sizes: Sequence[float], one: Sequence[float], other: Sequence[float]) -> list[float]:
    """Sizes at which two costs are equal, between measured ones on logarithmic scales.

    >>> [round(size, 3) for size in crossings([1, 4, 16], [1, 4, 16], [16, 4.0001, 1])]
    [4.0]
    """
    x, gap = np.log(np.asarray(sizes, float)), np.log(np.asarray(one) / np.asarray(other))
    found = [float(np.exp(x[i])) for i in range(len(x)) if gap[i] == 0]
    for i in range(len(x) - 1):
        if gap[i] * gap[i + 1] < 0:
            found.append(float(np.exp(x[i] + (x[i + 1] - x[i]) * gap[i] / (gap[i] - gap[i + 1]))))
    return sorted(found)


def cost_by_image(frame: Times) -> StudyFigure | None:
    """Time over that of the plain one against the side of the image, a line a name.

    ``frame`` is one part of :func:`analysis.measurements.comparable`. Where two lines cross is
    marked: there the better form changes. None if nothing has two sizes.
    """
    lines = {
        str(name): rows.sort_values("image")
        for name, rows in frame.groupby("name", sort=False)
        if rows["image"].nunique() > 1
    }
    if not lines:
        return None
    marks = _marks(lines)

    def make(narrow: bool) -> Figure:
        figure, axes = _figure(narrow, len(lines))
        draw_by_image(axes, lines, marks, ncols=1 if narrow else COLUMNS)
        axes.set_xlabel("side of the image, log scale")
        axes.set_ylabel("time / plain, log scale")
        return figure

    where = "".join(f" {one} and {two} cross at a side of {x:.0f}." for one, two, x, _ in marks)
    return StudyFigure(
        name="cost-by-image",
        title=f"Cost against image size: {shape_words(frame)}",
        caption=f"Time over that of the plain one ({_described(frame)}); bars: 98 % intervals."
        f"{where or ' No two lines cross.'}",
        drawing=draw(make),
        numbers={
            name: rows[["image", "ratio", "low", "high"]].to_numpy().tolist()
            for name, rows in lines.items()
        },
    )


def latency_macs(frame: Times) -> StudyFigure | None:
    """Least time against multiply-accumulates of an image, a dot a name and size.

    ``frame`` is one part of :func:`analysis.measurements.comparable`.
    """
    shown = frame[frame["macs"].notna()]
    if shown["name"].nunique() < 2:  # nothing to set it beside
        return None

    def make(narrow: bool) -> Figure:
        figure, axes = _figure(narrow, shown["name"].nunique())
        points = shown.assign(x=shown["macs"], y=1e3 * shown["minimum"])
        draw_points(axes, points, 1 if narrow else COLUMNS)
        axes.set_yscale("log")
        log_ticks(axes.yaxis)
        axes.set_xlabel("MACs of an image, log scale")
        axes.set_ylabel("ms of a call, log scale")
        return figure

    return StudyFigure(
        name="latency-macs",
        title=f"Time against work: {shape_words(frame)}",
        caption=f"Least time of a call ({_described(shown)}).",
        drawing=draw(make),
        numbers=shown[["name", "image", "macs", "minimum"]].to_numpy().tolist(),
    )


def latency_accuracy(frame: Times, found: Mapping[str, tuple[str, Estimate]]) -> StudyFigure | None:
    """Accuracy of the arms of a study against the time that their layers take in a network.

    Args:
        frame: One part of :func:`analysis.measurements.comparable`, of networks.
        found: What :func:`accuracies` gives. Arms are joined by layer and place.
    """
    if not (frame["kind"] == "network").any():
        return None
    times = ratios(frame, [key for key, _ in found.values()])
    rows = [
        (label, *times[key], *(_percent(x) for x in (value.mean, value.low, value.high)))
        for label, (key, value) in found.items()
        if key in times
    ]
    points = pd.DataFrame(rows, columns=["name", "x", "low", "high", "y", "y_low", "y_high"])
    if (points["x"] == 1).all():  # the plain one alone
        return None
    where = shape_words(frame)

    def make(narrow: bool) -> Figure:
        figure, axes = _figure(narrow, points["name"].nunique())
        for x, low, high, y, y_low, y_high in points.drop(columns="name").to_numpy(float):
            axes.plot([low, high], [y, y], color=SOFT, lw=0.9, zorder=2)
            axes.plot([x, x], [y_low, y_high], color=SOFT, lw=0.9, zorder=2)
        draw_front(axes, points["x"].tolist(), points["y"].tolist())
        draw_points(axes, points, 1 if narrow else COLUMNS)
        axes.set_xlabel("time / plain network, log scale")
        axes.set_ylabel("test accuracy, %")
        return figure

    return StudyFigure(
        name="latency-accuracy",
        title=f"Accuracy against time in {where}",
        caption=f"Time over that of the plain network ({_described(frame)}), with its 98 % "
        "interval; mean accuracy of the study over the blocks, with its 95 % interval. "
        "Stepped line: what no other arm beats in as little time, by the means.",
        drawing=draw(make, narrow=False),  # the page has points that answer
        numbers=points.to_numpy().tolist(),
    )


# Axes in, axes out.


def draw_by_image(
    axes: Axes,
    lines: Mapping[str, pd.DataFrame],
    marks: Sequence[tuple[str, str, float, float]] = (),
    ncols: int = 3,
) -> None:
    """A line a name with its intervals; a hollow mark where two cross."""
    axes.axhline(1, color=SOFT, linewidth=0.8, zorder=1)
    for (name, rows), (colour, mark) in zip(
        lines.items(), map(look, range(len(lines))), strict=True
    ):
        axes.plot(
            rows["image"], rows["ratio"], marker=mark, ms=4, lw=1.2, color=colour, label=name,
            zorder=3,
        )  # fmt: skip
        for image, low, high in rows[["image", "low", "high"]].to_numpy(float):
            axes.plot([image, image], [low, high], color=colour, lw=2.2, alpha=0.4)
    for _, _, x, y in marks:
        axes.plot([x], [y], "o", ms=8, mfc="none", mec=SOFT, mew=1.0, zorder=4)
    axes.set_xscale("log")
    axes.set_yscale("log")
    sides = sorted({side for rows in lines.values() for side in rows["image"]})
    axes.set_xticks(sides, [f"{side:g}" for side in sides])
    axes.xaxis.set_minor_locator(NullLocator())
    log_ticks(axes.yaxis)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=ncols, borderaxespad=0.2)


def draw_points(axes: Axes, points: pd.DataFrame, ncols: int = 3) -> None:
    """Dots at columns ``x`` (on a logarithmic axis) and ``y``, a colour and a label a ``name``."""
    names = list(dict.fromkeys(points["name"]))
    for index, name in enumerate(names):
        colour, mark = look(index)
        own = points[points["name"] == name]
        axes.plot(
            own["x"], own["y"], mark, ms=5, color=colour, mec="white", mew=0.7, label=name, zorder=3
        )
    axes.set_xscale("log")
    log_ticks(axes.xaxis, short_count)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=ncols, borderaxespad=0.2)


def _marks(lines: Mapping[str, pd.DataFrame]) -> list[tuple[str, str, float, float]]:
    """Two names, and the size and the ratio at which they cross."""
    names, found = list(lines), []
    for index, one in enumerate(names):
        for two in names[index + 1 :]:
            both = lines[one].merge(lines[two], on="image", suffixes=("", "_two"))
            sizes = both["image"].astype(float).tolist()
            for x in crossings(sizes, both["ratio"].tolist(), both["ratio_two"].tolist()):
                y = np.exp(np.interp(np.log(x), np.log(sizes), np.log(both["ratio"])))
                found.append((one, two, x, float(y)))
    return found


def _percent(value: float | None) -> float:
    return math.nan if value is None else 100 * value


def _described(frame: Times) -> str:
    row = frame.iloc[0]
    said = [f"{row[name]}" for name in ("mode", "state", "step")]
    threads = "1 thread" if row["threads"] == 1 else f"{row['threads']} threads"
    return ", ".join([row["subject"], *said, f"batch {row['batch']}", row["device"], threads])


COLUMNS, LINE = 3, 0.17  # of a legend above the axes: in a wide figure, and inches a line


def _figure(narrow: bool, names: int = 0) -> tuple[Figure, Axes]:
    """A figure with room for a legend of ``names`` above what it would be without."""
    lines = math.ceil(names / (1 if narrow else COLUMNS))
    wide, high = (3.5, 2.6) if narrow else (7.2, 3.0)
    figure = Figure(figsize=(wide, high + LINE * lines), layout="constrained")
    return figure, figure.subplots()
