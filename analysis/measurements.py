"""The log of measurements as a table, and which of its rows may stand side by side."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from records.benchmark import Measurement, arm_key

# What a situation is made of, but for the size of the image.
SITUATION = ("mode", "state", "step", "batch", "dtype", "memory_format", "device", "threads")
COUNTS = ("parameters", "macs")
THING = ("kind", "name", "arm", "subject", "key", "image", *SITUATION)

Times = pd.DataFrame  # as measurement_frame() makes it; reports name it so, and know no pandas


def measurement_frame(measurements: Sequence[Measurement]) -> Times:
    """A row a measurement that has a time, oldest first.

    ``THING``    what was measured, where: arm is its key, subject its shape or network, key the
                 digest of the machine
    ``layer``    name of the class, ``"Conv2d"`` for the plain one; ``form``: of a dynamic layer
    ``machine``  for people
    ``costs``    columns parameters, macs; None if they were not counted
    ``seconds``  columns minimum, median, p90
    ``ratio``    over the plain reference's, measured beside it; low, high: its 98 % interval
    ``groups``   the ratio in each group of consecutive samples (:func:`group_ratios`)
    ``unstable`` what speaks against it, or empty; ``taken``: seconds since 1970

    Raises:
        ValueError: A situation lacks what all need, or samples are fewer than their groups; the
            message names the measurement.
    """
    ordered = sorted(measurements, key=lambda m: m.taken)
    return pd.DataFrame([_row(m) for m in ordered if m.outcome == "measured"])


def latest(frame: Times) -> Times:
    """Of several measurements of one thing in one situation the last."""
    if frame.empty:
        return frame
    return frame.drop_duplicates(list(THING), keep="last").reset_index(drop=True)


def comparable(frame: Times) -> list[Times]:
    """The rows apart by machine, subject and situation: those of a part may stand in one figure."""
    if frame.empty:
        return []
    return [part for _, part in frame.groupby(["kind", "key", "subject", *SITUATION], sort=False)]


def repeated(frame: Times) -> list[Times]:
    """What was measured at two moments or more, a part a thing, situation and machine."""
    if frame.empty:
        return []
    parts = [part for _, part in frame.groupby(list(THING), sort=False)]
    return [part for part in parts if part["taken"].nunique() > 1]


def group_ratios(measurement: Measurement) -> np.ndarray:
    """Least time over the reference's least time, in each group of consecutive samples.

    Raises:
        ValueError: There are fewer samples than groups.
    """
    groups, number = int(measurement.ratio["groups"] or 1), len(measurement.samples)
    if number < groups:
        raise ValueError(f"measurement of {measurement.name}: {groups} groups of {number} samples")
    size = number // groups
    ours, theirs = (
        np.array([row[0] for row in rows][: groups * size]).reshape(groups, size).min(axis=1)
        for rows in (measurement.samples, measurement.reference)
    )
    return ours / theirs


def shape_words(frame: Times) -> str:
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


def _beside(m: Measurement) -> dict[str, Any]:
    """Counts of the plain one that was timed beside it; none of older measurements."""
    return (m.run.get("reference") or {}).get("costs") or {}


def _row(m: Measurement) -> dict[str, Any]:
    if lacking := [name for name in ("image", *SITUATION) if name not in m.situation]:
        raise ValueError(f"measurement of {m.name}: its situation lacks {', '.join(lacking)}")
    layer = m.arm.get("layer") or {"class": "Conv2d"}
    return {
        "kind": m.kind,
        "name": m.name,
        "arm": arm_key(m.arm),
        "layer": str(layer["class"]).rpartition(".")[2],
        "form": layer.get("options", {}).get("form", ""),
        "subject": ", ".join(f"{key} {value}" for key, value in sorted(m.subject.items())),
        "key": m.key,
        "machine": str(m.fingerprint.get("cpu", m.key)),
        "image": m.situation["image"],
        **{name: m.situation[name] for name in SITUATION},
        **{name: m.costs.get(name) for name in COUNTS},
        **{f"beside_{name}": _beside(m).get(name) for name in COUNTS},
        **{name: m.seconds[name] for name in ("minimum", "median", "p90")},
        "ratio": m.ratio["estimate"],
        "low": m.ratio["low"],
        "high": m.ratio["high"],
        "groups": tuple(group_ratios(m).tolist()),
        "unstable": m.run.get("unstable", ""),
        "taken": m.taken,
    }
