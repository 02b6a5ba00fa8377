"""The figures of a claim: the interval that decides is the one that is drawn."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from analysis.claim_figures import claim_figures, draw_forest, draw_slopes
from analysis.verdicts import judge
from records.claim import Claim, Contrast

PAIRS = [("gated-2", "plain"), ("gated-2", "gated-1")]


def claim(**changes) -> Claim:
    fields = {
        "name": "C6",
        "wording": "it is better",
        "direction": "greater",
        "contrasts": [Contrast(arm=arm, against=against) for arm, against in PAIRS],
        "margin": 0.003,
    }
    return Claim(**{**fields, **changes})


@pytest.fixture
def judged(frames_of, made):
    """Frames and verdict of seven arms over ten blocks, judged at ``looks``."""

    def make(looks=(10,), **changes):
        frames = frames_of(made.realistic(10), claims=[claim(**changes)], looks=list(looks))
        return frames, judge(frames, frames.plan.claims[0])

    return make


def drawn(verdict, points):
    axes = Figure().subplots()
    draw_forest(axes, verdict.parts, points, verdict)
    return axes


def test_the_deciding_interval_is_the_thick_one(judged):
    _, verdict = judged()
    axes = drawn(verdict, [[1.0], [2.0]])
    bars = [line for line in axes.lines if line.get_linewidth() == 2.2]
    for part, bar in zip(verdict.parts, bars, strict=True):
        assert bar.get_xdata() == pytest.approx([100 * part.joint.low, 100 * part.joint.high])
    ticks = [line for line in axes.lines if line.get_marker() == "|"]
    for part, tick in zip(verdict.parts, ticks, strict=True):
        assert tick.get_xdata() == pytest.approx([100 * part.narrow.low, 100 * part.narrow.high])
    [zone] = axes.patches
    assert (zone.get_x(), zone.get_width()) == pytest.approx((-0.3, 0.6))
    assert [text.get_text() for text in axes.texts] == [part.word for part in verdict.parts]


def test_where_every_peer_must_be_beaten_each_stands_alone(judged):
    _, verdict = judged(combine="peers")
    bars = [line for line in drawn(verdict, [[], []]).lines if line.get_linewidth() == 2.2]
    for part, bar in zip(verdict.parts, bars, strict=True):
        assert bar.get_xdata() == pytest.approx([100 * part.alone.low, 100 * part.alone.high])
        assert part.alone.half_width < part.joint.half_width, "or this test sees no difference"


def test_before_the_look_there_are_blocks_and_no_interval(judged):
    frames, verdict = judged(looks=(12,))
    assert verdict.look is None
    [forest, slopes] = claim_figures(frames, verdict)
    assert "No interval is shown" in forest.caption
    assert forest.numbers[1] == [["no verdict"], ["no verdict"]]
    assert [len(points) for points in forest.numbers[0]] == [10, 10]
    assert len(slopes.numbers) == 2


def test_what_came_after_the_look_is_not_drawn(judged):
    frames, verdict = judged(looks=(6,))
    [forest, slopes] = claim_figures(frames, verdict)
    assert [len(points) for points in forest.numbers[0]] == [6, 6]
    by_block = frames.by_block("gated-2", "test_accuracy")
    assert [pair[1] for pair in slopes.numbers[0][2]] == pytest.approx(100 * by_block[:6].values)
    expected = 100 * (by_block - frames.by_block("plain", "test_accuracy"))[:6].to_numpy()
    assert forest.numbers[0][0] == pytest.approx(expected)


def test_a_slope_a_block_and_their_mean():
    axes = Figure().subplots()
    pair = np.array([[1.0, 2.0], [4.0, 3.0], [1.0, 4.0]])
    draw_slopes(axes, Contrast(arm="b", against="a"), pair)
    *blocks, mean = axes.lines
    assert [line.get_ydata().tolist() for line in blocks] == pair.tolist()
    assert mean.get_ydata() == pytest.approx([2, 3])
    assert [line.get_linestyle() for line in blocks] == ["-", "--", "-"], "told apart in grey"
    assert [note.get_text() for note in axes.texts] == ["a", "b"]


def test_nothing_paired_is_no_figure(frames_of):
    frames = frames_of({"plain": [], "gated-1": [], "gated-2": [0.8]}, claims=[claim()], looks=[10])
    assert claim_figures(frames, judge(frames, frames.plan.claims[0])) == []
