"""Figures of speed, from the log of :mod:`records.benchmark`: against accuracy, work, image size.

A figure shows times of one machine and situation. Of several measurements of the same thing the
last one counts.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from analysis.drawing import MARKS, PALETTE, SOFT, draw
from analysis.figures import StudyFigure
from analysis.frames import Frames
from analysis.statistics import Estimate
from analysis.summary import summarise
from records.benchmark import Measurement, arm_key

# What a situation is made of, but for the size of the image.
SITUATION = ("mode", "state", "step", "batch", "dtype", "memory_format", "device", "threads")

Times = pd.DataFrame  # as benchmark_frame() makes it; reports name it so, and know no pandas


def benchmark_frame(measurements: Sequence[Measurement]) -> Times:
    """A row a measurement that has a time, the last of each thing in each situation.

    Columns: kind, name, arm (its key), subject, key (of the machine), image, those of
    ``SITUATION``; parameters, macs; minimum, median, p90 in seconds; ratio, low, high (time over
    the plain reference's); unstable (the reason, or empty).
    """
    rows = [
        {
            "kind": m.kind,
            "name": m.name,
            "arm": arm_key(m.arm),
            "subject": ", ".join(f"{key} {value}" for key, value in m.subject.items()),
            "key": m.key,
            "image": m.situation["image"],
            **{name: m.situation[name] for name in SITUATION},
            "parameters": m.costs.get("parameters"),
            "macs": m.costs.get("macs"),
            **{name: m.seconds[name] for name in ("minimum", "median", "p90")},
            "ratio": m.ratio["estimate"],
            "low": m.ratio["low"],
            "high": m.ratio["high"],
            "unstable": m.run.get("unstable", ""),
        }
        for m in sorted(measurements, key=lambda m: m.taken)
        if m.outcome == "measured"
    ]
    frame = pd.DataFrame(rows)
    if frame.empty:
        return frame
    same = ["kind", "name", "arm", "subject", "key", "image", *SITUATION]
    return frame.drop_duplicates(same, keep="last").reset_index(drop=True)


def comparable(frame: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows apart by machine, subject and situation: those of a part may stand in one figure."""
    if frame.empty:
        return []
    return [part for _, part in frame.groupby(["kind", "key", "subject", *SITUATION], sort=False)]


def accuracies(frames: Frames, measure: str = "test_accuracy") -> dict[str, tuple[str, Estimate]]:
    """Label and mean accuracy of each arm of a study that has one, by the key of the arm."""
    found = {}
    for s in summarise(frames, measure):
        if s.value is not None:
            found[arm_key(frames.plan.arms[s.label]["arm"])] = (s.label, s.value)
    return found


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


def cost_by_image(frame: pd.DataFrame) -> StudyFigure | None:
    """Time over that of the plain one against the side of the image, a line a name.

    ``frame`` is one part of :func:`comparable`. Where two lines cross is marked: there the better
    form changes. None if nothing has two sizes.
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
        figure, axes = _figure(narrow)
        draw_by_image(axes, lines, marks, ncols=1 if narrow else 3)
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


def latency_macs(frame: pd.DataFrame) -> StudyFigure | None:
    """Least time against multiply-accumulates of an image, a dot a name and size.

    ``frame`` is one part of :func:`comparable`.
    """
    shown = frame[frame["macs"].notna()]
    if shown.empty:
        return None

    def make(narrow: bool) -> Figure:
        figure, axes = _figure(narrow)
        points = shown.assign(x=shown["macs"], y=1e3 * shown["minimum"])
        draw_points(axes, points, 1 if narrow else 3)
        axes.set_yscale("log")
        _plain_ticks(axes.yaxis)
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


def latency_accuracy(
    frame: pd.DataFrame, found: Mapping[str, tuple[str, Estimate]]
) -> StudyFigure | None:
    """Accuracy of the arms of a study against the time that their layers take in a network.

    Args:
        frame: One part of :func:`comparable`, of networks.
        found: What :func:`accuracies` gives. Arms are joined by layer and place.
    """
    rows = frame[frame["arm"].isin(list(found)) & (frame["kind"] == "network")]
    if rows.empty:
        return None
    labels = [found[arm][0] for arm in rows["arm"]]
    ends = {
        name: [_percent(getattr(found[arm][1], end)) for arm in rows["arm"]]
        for name, end in (("y", "mean"), ("y_low", "low"), ("y_high", "high"))
    }
    points = rows.assign(name=labels, x=rows["ratio"], **ends)
    plain = next((value.mean for label, value in found.values() if label == "plain"), None)

    def make(narrow: bool) -> Figure:
        figure, axes = _figure(narrow)
        axes.axvline(1, color=SOFT, linewidth=0.8, zorder=1)
        if plain is not None:
            axes.axhline(100 * plain, color=SOFT, linewidth=0.8, ls=(0, (3, 2)), zorder=1)
        for row in points.itertuples():
            axes.plot([row.low, row.high], [row.y, row.y], color=SOFT, lw=0.9, zorder=2)
            axes.plot([row.x, row.x], [row.y_low, row.y_high], color=SOFT, lw=0.9, zorder=2)
        draw_points(axes, points, 1 if narrow else 3)
        axes.set_xlabel("time / plain network, log scale")
        axes.set_ylabel("test accuracy, %")
        return figure

    return StudyFigure(
        name="latency-accuracy",
        title="Accuracy against time",
        caption=f"Time over that of the plain network ({_described(rows)}), with its 98 % interval;"
        " mean accuracy over the blocks, with its 95 % interval. Dashed: the plain network's.",
        drawing=draw(make),
        numbers=points[["name", "x", "low", "high", "y", "y_low", "y_high"]].to_numpy().tolist(),
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
    for (name, rows), (colour, mark) in zip(lines.items(), _looks(list(lines)), strict=True):
        axes.plot(
            rows["image"], rows["ratio"], marker=mark, ms=4, lw=1.2, color=colour, label=name,
            zorder=3,
        )  # fmt: skip
        for row in rows.itertuples():
            axes.plot([row.image] * 2, [row.low, row.high], color=colour, lw=2.2, alpha=0.4)
    for _, _, x, y in marks:
        axes.plot([x], [y], "o", ms=8, mfc="none", mec=SOFT, mew=1.0, zorder=4)
    axes.set_xscale("log")
    axes.set_yscale("log")
    sides = sorted({side for rows in lines.values() for side in rows["image"]})
    axes.set_xticks(sides, [f"{side:g}" for side in sides])
    axes.xaxis.set_minor_locator(NullLocator())
    _plain_ticks(axes.yaxis)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=ncols, borderaxespad=0.2)


def draw_points(axes: Axes, points: pd.DataFrame, ncols: int = 3) -> None:
    """Dots at columns ``x`` (on a logarithmic axis) and ``y``, a colour and a label a ``name``."""
    names = list(dict.fromkeys(points["name"]))
    for name, (colour, mark) in zip(names, _looks(names), strict=True):
        own = points[points["name"] == name]
        axes.plot(
            own["x"], own["y"], mark, ms=5, color=colour, mec="white", mew=0.7, label=name, zorder=3
        )
    axes.set_xscale("log")
    _plain_ticks(axes.xaxis)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=ncols, borderaxespad=0.2)


def _marks(lines: Mapping[str, pd.DataFrame]) -> list[tuple[str, str, float, float]]:
    """Two names, and the size and the ratio at which they cross."""
    names, found = list(lines), []
    for index, one in enumerate(names):
        for two in names[index + 1 :]:
            both = lines[one].merge(lines[two], on="image", suffixes=("", "_two"))
            sizes = both["image"].to_numpy(float)
            for x in crossings(sizes, both["ratio"].to_numpy(), both["ratio_two"].to_numpy()):
                y = np.exp(np.interp(np.log(x), np.log(sizes), np.log(both["ratio"])))
                found.append((one, two, x, float(y)))
    return found


def shape_words(frame: pd.DataFrame) -> str:
    """The shape, or the network, that the rows of one part of :func:`comparable` share."""
    return subject_words(str(frame["subject"].iloc[0]))


def subject_words(subject: str) -> str:
    """
    >>> subject_words("groups 1, in_channels 64, kernel_size 3, out_channels 32, stride 1")
    '64 to 32, 3 x 3'
    >>> subject_words("name resnet18")
    'resnet18'
    """
    parts = dict(item.split(" ", 1) for item in subject.split(", ") if " " in item)
    if not {"in_channels", "out_channels", "kernel_size"} <= parts.keys():
        return ", ".join(parts.values()) or subject
    side = parts["kernel_size"]
    words = f"{parts['in_channels']} to {parts['out_channels']}, {side} x {side}"
    words += f", {parts['groups']} groups" if parts.get("groups", "1") != "1" else ""
    return words + (f", stride {parts['stride']}" if parts.get("stride", "1") != "1" else "")


def _percent(value: float | None) -> float:
    return math.nan if value is None else 100 * value


def _described(frame: pd.DataFrame) -> str:
    row = frame.iloc[0]
    said = [f"{row[name]}" for name in ("mode", "state", "step")]
    threads = "1 thread" if row["threads"] == 1 else f"{row['threads']} threads"
    return ", ".join([row["subject"], *said, f"batch {row['batch']}", row["device"], threads])


def _looks(names: Sequence[str]) -> list[tuple[str, str]]:
    """A colour and a mark a name: the mark tells it in grey."""
    return [
        (PALETTE[1 + index % (len(PALETTE) - 1)], MARKS[index % len(MARKS)])
        for index in range(len(names))
    ]


def _plain_ticks(axis) -> None:
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1.0,) if high > 100 * low else (1.0, 2.0, 5.0)))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))


def _short(value: float) -> str:
    """
    >>> [_short(value) for value in (0.05, 1.0, 20.0, 5e4, 2e6, 1e9)]
    ['0.05', '1', '20', '50 k', '2 M', '1 G']
    """
    for unit, name in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if value >= unit:
            return f"{value / (1e3 if name == ' k' else unit):g}{name}"
    return f"{value:g}"


def _figure(narrow: bool) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(3.5, 2.9) if narrow else (7.2, 3.2), layout="constrained")
    return figure, figure.subplots()
