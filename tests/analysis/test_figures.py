"""Figures: what is drawn is what was recorded, and equal records give equal bytes."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from analysis.axes import draw_convergence, draw_costs, draw_differences, front
from analysis.figures import colours_of, study_figures
from analysis.labels import Box, places
from analysis.summary import summarise

ROOT = Path(__file__).parents[2]
HASHES = """
import hashlib, sys
from analysis.figures import study_figures
from analysis.frames import study_frames
from records.store import Store
store = Store(sys.argv[1])
for figure in study_figures(study_frames(store.plans()[0], store)):
    for content in (figure.drawing.wide, figure.drawing.narrow, figure.drawing.png):
        print(hashlib.sha256(content or b"").hexdigest())
"""


def hashes(figures) -> list[str]:
    return [
        hashlib.sha256(content or b"").hexdigest()
        for f in figures
        for content in (f.drawing.wide, f.drawing.narrow, f.drawing.png)
    ]


def test_equal_records_give_equal_bytes_in_every_process(frames_of, tmp_path, monkeypatch):
    frames = frames_of({"plain": [0.8, 0.7], "linear-2": [0.9, 0.8]})
    here = hashes(study_figures(frames))
    # A user's own settings must not reach the report.
    monkeypatch.setitem(matplotlib.rcParams, "axes.labelpad", 30.0)
    assert hashes(study_figures(frames)) == here
    (tmp_path / "matplotlibrc").write_text("axes.labelpad: 30\nfont.size: 30\nsvg.hashsalt: x\n")
    for seed in ("1", "2"):
        environment = {"PYTHONHASHSEED": seed, "MATPLOTLIBRC": str(tmp_path / "matplotlibrc")}
        printed = subprocess.run(
            [sys.executable, "-c", HASHES, tmp_path],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert printed.split() == here


def test_other_records_give_other_bytes(frames_of):
    accuracies = {"plain": [0.8, 0.7], "gated-1": [0.9, 0.8]}
    one = study_figures(frames_of(accuracies))
    accuracies["gated-1"][1] += 0.01
    other = study_figures(frames_of(accuracies, name="other"))
    assert [figure.name for figure in one] == [figure.name for figure in other]
    for before, after in zip(one, other, strict=True):
        assert before.drawing.wide != after.drawing.wide, before.name
        assert before.drawing.png != after.drawing.png, before.name


def test_an_svg_needs_no_font_and_tells_no_date(frames_of, made):
    for figure in study_figures(frames_of(made.realistic(3))):
        text = figure.drawing.wide.decode()
        assert "<text" not in text and "dc:date" not in text and "Matplotlib v" not in text
        assert not re.search(r"(href|src)=\"http", text)
        assert figure.drawing.png.startswith(b"\x89PNG") and b"Software" not in figure.drawing.png


def test_curves_are_drawn_in_percent_one_line_a_block(frames_of, made):
    frames = frames_of({"plain": [0.8, 0.7], "gated-1": [0.9, 0.85]})
    [convergence] = [f for f in study_figures(frames) if f.name == "convergence"]
    recorded = [r.curves["validation_accuracy"] for r in frames.records[:2]]
    assert np.allclose(convergence.numbers["plain"], 100 * np.array(recorded))
    rows = frames.curves.query("label == 'plain' and measure == 'validation_accuracy'")
    curves = rows.pivot(index="epoch", columns="block", values="value")
    axes = Figure().subplots()
    draw_convergence(axes, curves, "black")
    thin, mean = axes.lines[:-1], axes.lines[-1]
    assert [line.get_ydata().tolist() for line in thin] == recorded
    assert np.allclose(mean.get_ydata(), np.mean(recorded, axis=0))
    assert mean.get_xdata().tolist() == list(range(1, 9))


def test_a_mean_ends_where_a_block_diverged(frames_of):
    frames = frames_of({"plain": [0.8, 0.8], "gated-1": [0.9, None]})
    rows = frames.curves.query("label == 'gated-1' and measure == 'validation_accuracy'")
    axes = Figure().subplots()
    draw_convergence(axes, rows.pivot(index="epoch", columns="block", values="value"), "black")
    assert np.isfinite(axes.lines[-1].get_ydata()).sum() == 2
    [convergence] = [f for f in study_figures(frames) if f.name == "convergence"]
    assert "diverged ends there" in convergence.caption


def test_differences_are_drawn_at_their_interval(frames_of):
    frames = frames_of({"plain": [0.80, 0.82, 0.87], "gated-1": [0.83, 0.84, 0.88]})
    summaries = summarise(frames)[1:]
    axes = Figure().subplots()
    draw_differences(axes, summaries, {"gated-1": [3, 2, 1]}, {"gated-1": "black"}, margin=0.3)
    zero, dots, bar, mean = axes.lines
    assert dots.get_xdata().tolist() == [3, 2, 1]
    assert bar.get_xdata() == pytest.approx([2 - 2.484138, 2 + 2.484138], abs=1e-6)
    assert mean.get_xdata() == pytest.approx([2])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["gated-1"]
    [zone] = axes.patches
    assert (zone.get_x(), zone.get_width()) == pytest.approx((-0.3, 0.6))


def test_of_two_blocks_no_interval_is_drawn(frames_of):
    """It would be 9 standard deviations wide to each side, and hide the rest."""
    frames = frames_of({"plain": [0.80, 0.82], "gated-1": [0.83, 0.84]})
    axes = Figure().subplots()
    draw_differences(axes, summarise(frames)[1:], {"gated-1": [3, 2]}, {"gated-1": "k"})
    zero, dots, mean = axes.lines
    assert mean.get_xdata() == pytest.approx([2.5])


def test_costs_show_trained_and_deployed_parameters(frames_of):
    frames = frames_of({"plain": [0.8, 0.8], "linear-2": [0.9, 0.8]})
    summaries = summarise(frames)
    axes = Figure().subplots()
    draw_costs(axes, summaries, {}, colours_of(summaries))
    marks = [(line.get_xdata().tolist(), line.get_ydata().tolist()) for line in axes.lines]
    assert ([19_562, 22_700], pytest.approx([85, 85])) in marks
    assert {text.get_text() for text in axes.texts} == {"plain", "linear-2"}
    assert axes.get_xscale() == "log"


def test_an_arm_without_an_estimate_says_why(frames_of):
    frames = frames_of({"plain": [0.8, 0.7], "gated-1": [0.9, None], "gated-2": [0.9, 0.8]})
    axes = Figure().subplots()
    arms = summarise(frames)[1:]
    draw_differences(axes, arms, {}, dict.fromkeys(("gated-1", "gated-2"), "black"))
    assert [text.get_text().strip() for text in axes.texts] == ["1 of 2 trials of gated-1 diverged"]


CURVES = ["convergence", "convergence-loss"]  # no norm of gradients is recorded


@pytest.mark.parametrize(
    ("accuracies", "names"),
    [
        ({"plain": [], "gated-1": []}, []),
        ({"plain": [None], "gated-1": [None]}, CURVES),
        ({"plain": [0.8]}, ["costs", "macs", *CURVES]),
        ({"plain": [0.8], "gated-1": [0.9]}, ["differences", "costs", "macs", *CURVES]),
    ],
)
def test_a_figure_that_would_be_empty_is_not_made(accuracies, names, frames_of):
    assert [figure.name for figure in study_figures(frames_of(accuracies))] == names


def test_colours_tell_layer_classes_apart(frames_of, made):
    colours = colours_of(summarise(frames_of({**made.realistic(1), "mine": [0.5]})))
    assert colours["plain"] == colours["wide-2"]
    assert colours["gated-1"] == colours["linear-3"]
    assert len({colours["plain"], colours["gated-1"], colours["mine"]}) == 3


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 20)), min_size=1, max_size=8, unique=True)
)
def test_names_stay_inside_and_do_not_cover_each_other(cells):
    """Marks on a grid on which every name has room."""
    marks = [(30.0 + 60 * x, 20.0 + 30 * y) for x, y in cells]
    inside = Box(0, 0, 2500, 660)
    found = places(marks, ["a name"] * len(marks), inside)
    boxes = [box for *_, box in found]
    assert all(one.shared(two) == 0 for i, one in enumerate(boxes) for two in boxes[:i])
    assert all(box.shared(inside) == pytest.approx(box.area) for box in boxes)
    assert found == places(marks, ["a name"] * len(marks), inside)


def test_a_name_keeps_off_what_is_taken():
    """Right of it is the usual place; a bar there sends it to the left."""
    [(across, _, _)] = places([(100, 100)], ["name"], Box(0, 0, 200, 200))
    assert across > 0
    [(across, _, box)] = places([(100, 100)], ["name"], Box(0, 0, 200, 200), [Box(99, 0, 150, 200)])
    assert across < 0 and box.x1 < 100


@pytest.mark.parametrize("seed", range(5))
def test_the_front_is_what_nothing_beats(seed):
    draw = np.random.default_rng(seed)
    costs, values = draw.integers(0, 6, 12).tolist(), draw.integers(0, 6, 12).tolist()
    found = front(costs, values)
    beaten = {
        i
        for i in range(12)
        for j in range(12)
        if costs[j] <= costs[i]
        and values[j] >= values[i]
        and (costs[j], -values[j], j) < (costs[i], -values[i], i)
    }
    assert sorted(found) == sorted(set(range(12)) - beaten)
    assert [costs[i] for i in found] == sorted(costs[i] for i in found)


def test_a_front_is_drawn_through_what_is_deployed(frames_of):
    """linear-2 is deployed as small as plain, and better: it hides plain and wide-2."""
    frames = frames_of({"plain": [0.8, 0.8], "linear-2": [0.9, 0.8], "gated-2": [0.9, 0.9]})
    summaries = summarise(frames)
    axes = Figure().subplots()
    draw_costs(axes, summaries, {}, colours_of(summaries))
    [steps] = [line for line in axes.lines if line.get_drawstyle() == "steps-post"]
    assert steps.get_xdata().tolist() == [19_562, 27_962]
    assert steps.get_ydata().tolist() == pytest.approx([85, 90])
