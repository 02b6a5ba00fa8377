"""Figures of speed: what is drawn is what was measured."""

import math
import runpy
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from analysis.latency import (
    accuracies,
    cost_by_image,
    crossings,
    draw_by_image,
    draw_points,
    latency_accuracy,
    latency_macs,
)
from analysis.measurements import comparable, latest, measurement_frame
from records.benchmark import Measurement, arm_key

FIELDS = runpy.run_path(str(Path(__file__).parents[1] / "records" / "test_benchmark.py"))["FIELDS"]
SITUATION = {
    "mode": "inference",
    "state": "folded",
    "step": "forward",
    "batch": 1,
    "image": 7,
    "dtype": "float32",
    "memory_format": "contiguous",
    "device": "cpu",
    "threads": 1,
}


def benchmark_frame(measurements):
    return latest(measurement_frame(measurements))


def measured(name="a", ratio=1.5, image=7, **changes):
    situation = SITUATION | {"image": image} | changes.pop("situation", {})
    ratios = {"estimate": ratio, "low": 0.9 * ratio, "high": 1.1 * ratio, "groups": 2}
    return Measurement(
        **(FIELDS | {"name": name, "situation": situation, "ratio": ratios} | changes)
    )


def sweep(**lines):
    """Measurements of each name on images of 7, 14 and 28."""
    return benchmark_frame(
        [
            measured(name, ratio, image)
            for name, ratios in lines.items()
            for image, ratio in zip((7, 14, 28), ratios, strict=True)
        ]
    )


def test_a_frame_holds_the_last_of_each_thing():
    rows = [
        measured(ratio=2.0, taken=20.0),
        measured(ratio=1.0, taken=10.0),
        measured("b", taken=5.0),
        measured(situation={"batch": 8}),
        measured(key="another machine"),
        measured("b", ratio=3.0, taken=6.0),
    ]
    frame = benchmark_frame(rows)
    assert len(frame) == 4
    assert sorted(frame["ratio"]) == [1.5, 1.5, 2.0, 3.0]
    assert frame["minimum"].tolist() == [1.0] * 4 and frame["macs"].tolist() == [100] * 4
    assert benchmark_frame([]).empty and comparable(benchmark_frame([])) == []


def test_what_has_no_time_is_left_out():
    lost = Measurement(
        **(
            FIELDS
            | {"situation": SITUATION, "outcome": "out of memory", "samples": [], "reference": []}
            | {"seconds": {}, "ratio": {}, "costs": {}, "run": {}}
        )
    )
    assert len(benchmark_frame([lost, measured()])) == 1


def test_a_situation_that_lacks_a_word_is_named():
    situation = {name: value for name, value in SITUATION.items() if name != "threads"}
    broken = Measurement(**(FIELDS | {"situation": situation}))
    with pytest.raises(ValueError, match="MDConv2d depth=3: its situation lacks threads"):
        measurement_frame([broken])


def test_groups_without_samples_are_named():
    ratio = {"estimate": 1.0, "low": 0.9, "high": 1.1, "groups": 3}
    with pytest.raises(ValueError, match="MDConv2d depth=3: 3 groups of 2 samples"):
        measurement_frame([Measurement(**(FIELDS | {"situation": SITUATION, "ratio": ratio}))])


def test_machines_subjects_and_situations_are_kept_apart():
    frame = benchmark_frame(
        [
            measured(image=7),
            measured(image=14),
            measured("b"),
            measured(key="another"),
            measured(situation={"threads": 2}),
            measured(subject={"in_channels": 8}),
        ]
    )
    assert sorted(len(part) for part in comparable(frame)) == [1, 1, 1, 3]


# Crossings.


@pytest.mark.parametrize("where", [8.0, 10.0, 14.0, 25.0])
def test_power_laws_cross_where_they_are_equal(where):
    """Exact on logarithmic scales: ``(x / where)^p`` is 1 at ``where`` for every p."""
    sizes = [7, 14, 28]
    one, other = ([(x / where) ** p for x in sizes] for p in (0.7, -1.3))
    assert crossings(sizes, one, other) == pytest.approx([where])


def test_lines_that_do_not_cross_have_no_crossing():
    assert crossings([7, 14], [1.0, 2.0], [1.1, 2.1]) == []
    assert len(crossings([7, 14, 28], [1, 3, 1], [2, 2, 2])) == 2


# Figures.


def test_lines_are_drawn_at_their_ratios_and_crossings_marked():
    frame = sweep(expanding=[0.5, 1.0, 2.0], compact=[2.0, 1.5, 1.125])
    made = cost_by_image(frame)
    assert made.numbers["expanding"][0] == [7, 0.5, 0.45, pytest.approx(0.55)]
    (gap14, gap28) = math.log(1.0 / 1.5), math.log(2.0 / 1.125)
    expected = 14 * 2 ** (gap14 / (gap14 - gap28))
    assert f"expanding and compact cross at a side of {expected:.0f}." in made.caption
    axes = Figure().subplots()
    lines = {str(name): rows for name, rows in frame.groupby("name", sort=False)}
    draw_by_image(axes, lines, [("expanding", "compact", expected, 1.4)])
    drawn = {line.get_label(): line for line in axes.lines}
    assert drawn["expanding"].get_ydata().tolist() == [0.5, 1.0, 2.0]
    assert drawn["compact"].get_xdata().tolist() == [7, 14, 28]
    assert axes.lines[-1].get_xdata() == [expected]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["7", "14", "28"]


def test_a_caption_says_when_nothing_crosses():
    assert "No two lines cross" in cost_by_image(sweep(a=[1, 1, 1], b=[2, 2, 2])).caption


def test_one_size_makes_no_figure():
    assert cost_by_image(benchmark_frame([measured(image=7), measured("b", image=7)])) is None


def test_time_against_work():
    frame = benchmark_frame(
        [measured(), measured("b", costs={"parameters": 1, "macs": 400}), measured("c", costs={})]
    )
    made = latency_macs(frame)
    assert made.numbers == [["a", 7, 100.0, 1.0], ["b", 7, 400.0, 1.0]]
    assert "in_channels 4, inference, folded, forward, batch 1, cpu, 1 thread" in made.caption
    assert latency_macs(benchmark_frame([measured(costs={})])) is None
    axes = Figure().subplots()
    draw_points(axes, frame.assign(x=frame["macs"], y=frame["ratio"]))
    assert [line.get_xdata().tolist() for line in axes.lines[:2]] == [[100.0], [400.0]]
    assert axes.get_xscale() == "log"


def test_accuracies_are_joined_by_arm(frames_of):
    values = {"plain": [0.8, 0.75, 0.7], "gated-1": [0.9, 0.85, 0.8], "linear-2": [0.5, 0.6, 0.7]}
    frames = frames_of({**values, "wide-2": [0.9, 0.9, 0.9]})
    found = accuracies(frames)
    assert {label: value.mean for label, (_, value) in found.items()} == pytest.approx(
        {"plain": 0.75, "gated-1": 0.85, "linear-2": 0.6}
    ), "a widened network is not the one that was timed"
    arms = {label: frames.plan.arms[label]["arm"] for label in ("gated-1", "linear-2")}
    rows = [
        measured("one", 2.0, kind="network", arm=arms["gated-1"]),
        measured("two", 3.0, kind="network", arm=arms["linear-2"]),
        measured("unknown", 9.0, kind="network", arm={"layer": {"class": "x"}, "where": "all"}),
    ]
    made = latency_accuracy(benchmark_frame(rows), found)
    # t(0.975, 2) = 4.3027; the standard deviations of an arm are 5 and 10 points
    assert made.numbers == [
        ["plain", 1.0, 1.0, 1.0, *map(pytest.approx, (75, 75 - 12.42069, 75 + 12.42069))],
        ["gated-1", 2.0, *map(pytest.approx, (1.8, 2.2, 85, 85 - 12.42069, 85 + 12.42069))],
        ["linear-2", 3.0, *map(pytest.approx, (2.7, 3.3, 60, 60 - 24.84138, 60 + 24.84138))],
    ]
    operators = benchmark_frame([measured(arm=arms["gated-1"])])
    assert latency_accuracy(operators, found) is None  # a layer by itself has no accuracy
    assert latency_accuracy(benchmark_frame(rows[2:]), found) is None
    assert found["gated-1"][0] == arm_key(arms["gated-1"])


def test_equal_frames_give_equal_bytes():
    frame = sweep(a=[1, 2, 3], b=[3, 2, 1])
    for make in (cost_by_image, latency_macs):
        one, other = make(frame).drawing, make(frame.copy()).drawing
        assert (one.wide, one.narrow, one.png) == (other.wide, other.narrow, other.png)
        assert b"<text" not in one.wide
    moved = frame.assign(ratio=frame["ratio"] + np.where(frame["image"] == 7, 0.1, 0))
    assert cost_by_image(moved).drawing.wide != cost_by_image(frame).drawing.wide
