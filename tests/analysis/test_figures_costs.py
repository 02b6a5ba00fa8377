"""Claims about cost from the log of measurements, and how costs have moved."""

import math
import runpy
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from analysis.agenda import AGENDA
from analysis.cost_figures import draw_ratios, ratio_figure
from analysis.history import cost_history, draw_history, history_frame, repeated
from analysis.latency import benchmark_frame
from analysis.measured import bounds, cost_verdicts, group_ratios, ratio_table, speed_table
from records.benchmark import Measurement

FIELDS = runpy.run_path(str(Path(__file__).parents[1] / "records" / "test_benchmark.py"))["FIELDS"]
SUBJECT = {"in_channels": 4, "out_channels": 8, "kernel_size": 3, "groups": 1, "stride": 1}
SITUATION = {
    "mode": "inference", "state": "folded", "step": "forward", "batch": 1, "image": 7,
    "dtype": "float32", "memory_format": "contiguous", "device": "cpu", "threads": 1,
}  # fmt: skip


def measured(layer: str | None, times, costs=(10, 100), image=7, **changes):
    """``times``: of the layer; the plain one always takes 1 s. Groups of two samples."""
    times = np.repeat(times, 2)
    options = changes.pop("options", {})
    described = layer and {"class": f"overconv.{layer}", "options": options}
    ratio = {"estimate": float(np.median(times)), "low": 0.9, "high": 1.1}
    fields = {
        "arm": {"layer": described, "where": "all"},
        "subject": SUBJECT,
        "situation": SITUATION | {"image": image},
        "costs": dict(zip(("parameters", "macs"), costs, strict=True)),
        "samples": [(float(t), 0.5, 0) for t in times],
        "reference": [(1.0, 0.5, 0)] * len(times),
        "ratio": {**ratio, "groups": len(times) / 2},
        "seconds": FIELDS["seconds"] | {"minimum": float(min(times))},
    }
    return Measurement(**(FIELDS | fields | changes))


PLAIN = measured(None, [1.0] * 12)
CLOSE = 1 + np.linspace(-0.02, 0.02, 12)


def test_bounds_of_a_median_hold_their_confidence():
    values = np.arange(1.0, 11.0)
    # P(Bin(10, 1/2) <= 1) = 11 / 1024 and P(<= 2) = 56 / 1024: k = 2 at 5 %, k = 1 at 1 %
    assert bounds(values, 0.90) == (2.0, 9.0)
    assert bounds(values, 0.98) == (1.0, 10.0)
    assert bounds(values, 0.999) == (-math.inf, math.inf)


def test_ratios_of_groups_are_of_their_least_times():
    m = measured("MAConv2d", [1.0, 2.0])
    m = m.model_copy(update={"samples": [(1.5, 1, 0), (1.2, 1, 0), (3.0, 1, 0), (2.0, 1, 0)]})
    assert group_ratios(m).tolist() == [1.2, 2.0]


def word(*measurements):
    return cost_verdicts([PLAIN, *measurements])["C4"].word


def test_a_layer_that_costs_nothing_more():
    assert word(measured("MAConv2d", CLOSE)) == "supported"
    assert word(measured("MAConv2d", CLOSE, costs=(11, 100))) == "contradicted", "by count"
    assert word(measured("MAConv2d", 1.2 * CLOSE)) == "contradicted", "by time"
    assert word(measured("MAConv2d", CLOSE + 0.04)) == "inconclusive"
    assert word(measured("MAConv2d", CLOSE[:3])) == "inconclusive", "too few for any bound"


def test_the_last_measurement_of_a_case_counts():
    slow = measured("MAConv2d", 1.2 * CLOSE, taken=1.0)
    fast = measured("MAConv2d", CLOSE, taken=2.0)
    assert word(slow, fast) == word(fast, slow) == "supported"


def test_what_is_no_inference_or_has_no_plain_one_says_nothing():
    training = measured("MAConv2d", CLOSE, situation=SITUATION | {"mode": "training"})
    unfolded = measured("MAConv2d", CLOSE, situation=SITUATION | {"state": "eval"})
    assert "C4" not in cost_verdicts([PLAIN, training, unfolded])
    assert "C4" not in cost_verdicts([measured("MAConv2d", CLOSE)]), "no counts to compare with"
    assert "C3" not in cost_verdicts([measured("MDConv2d", CLOSE, options={"form": "expanding"})])


def compact(*times):
    return cost_verdicts(
        [
            measured("MDConv2d", time * CLOSE, image=side, options={"form": "compact"})
            for side, time in zip((7, 14), times, strict=True)
        ]
    )["C3"]


def test_the_compact_form_is_a_number():
    verdict = compact(1.5, 2.5)
    assert verdict.word == "a number" and verdict.claim in AGENDA
    assert [r.value for r in verdict.ratios] == pytest.approx([1.5, 2.5])
    assert ratio_table(verdict).rows[0]["ratio"] == "1.50"
    axes = Figure().subplots()
    draw_ratios(axes, verdict)
    bars = [line.get_xdata().tolist() for line in axes.lines if line.get_linewidth() == 2.2]
    assert bars == [pytest.approx([r.low, r.high]) for r in verdict.ratios]
    assert ratio_figure(verdict).drawing == ratio_figure(compact(1.5, 2.5)).drawing


def test_a_bound_that_is_not_there_is_not_drawn():
    few = measured("MDConv2d", CLOSE[:3], options={"form": "compact"})
    verdict = cost_verdicts([few])["C3"]
    axes = Figure().subplots()
    draw_ratios(axes, verdict)
    assert not [line for line in axes.lines if line.get_linewidth() == 2.2]
    assert ratio_table(verdict).rows[0]["interval"] == "too few samples"


def test_a_history_is_of_one_thing_on_one_machine():
    series = [measured("MDConv2d", [1.0 + day / 10] * 2, taken=1e9 + 86400 * day) for day in (2, 0)]
    other = measured("MDConv2d", [3.0] * 2, taken=1e9, key="another machine")
    once = measured("MDConv2d", [4.0] * 2, taken=1e9, name="once")
    [part] = repeated(history_frame([*series, other, once]))
    assert part["ratio"].tolist() == pytest.approx([1.0, 1.2]), "oldest first"
    assert all(a < b for a, b in pairwise(part["taken"]))
    axes = Figure().subplots()
    draw_history(axes, [part])
    assert axes.lines[-1].get_ydata() == pytest.approx([1.0, 1.2])
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert ticks == ["2001-09-09", "2001-09-11"]
    found = cost_history([*series, other, once])
    assert list(found.numbers) == ["MDConv2d depth=3"] and cost_history([other, once]) is None
    assert found.drawing == cost_history([once, *series, other]).drawing


def test_the_table_of_times_has_units_and_cautions():
    rows = [PLAIN, measured("MDConv2d", [1.25] * 4, run={"unstable": "the clock fell"})]
    table = speed_table(benchmark_frame(rows))
    assert [c.heading for c in table.columns][5:] == [
        "least time, ms",
        "time / plain",
        "98 % interval",
    ]
    assert table.rows[1]["minimum"] == "1,250" and table.rows[1]["ratio"] == "1.25"
    assert "CAUTION: 1 of 2" in table.footnotes[-1]
