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
from analysis.history import cost_history, draw_history
from analysis.measured import bounds, ratio_table, speed_table
from analysis.measured import cost_verdicts as judged_costs
from analysis.measurements import group_ratios, latest, measurement_frame, repeated
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


def cost_verdicts(measurements):
    return judged_costs(latest(measurement_frame(measurements)))


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


def test_the_compact_form_is_told_beside_the_expanding_one_of_its_case():
    """Ratio of medians; each interval has half of its case's share of 5 %."""
    slow, fast = 2 + np.linspace(-0.1, 0.1, 40), 1.6 + np.linspace(-0.1, 0.1, 40)

    def forms(compact, expanding, image):
        named = {"compact": compact, "expanding": expanding}
        return [
            measured("MDConv2d", times, image=image, options={"form": form})
            for form, times in named.items()
        ]

    alone = measured("MDConv2d", slow, image=11, options={"form": "compact"})
    rows = [PLAIN, *forms(slow, fast, 7), *forms(fast, slow, 9), alone]
    verdict = cost_verdicts(rows)["C3"]
    first, second, third = (r.other for r in verdict.ratios)
    low, high = bounds(slow, 1 - 0.05 / 6)
    least, most = bounds(fast, 1 - 0.05 / 6)
    assert first == pytest.approx((2 / 1.6, low / most, high / least))
    assert second == pytest.approx((1.6 / 2, least / high, most / low))
    assert third is None, "nothing to set it beside"
    assert verdict.sentence.endswith("slower in 1, faster in 1 of 2.")
    table = ratio_table(verdict)
    assert [row["other"] for row in table.rows] == ["1.25", "0.80", "-"]
    assert table.data[2]["other_low"] is None


def word(*measurements):
    return cost_verdicts([PLAIN, *measurements])["C4"].word


def test_a_layer_that_costs_nothing_more():
    assert word(measured("MAConv2d", CLOSE)) == "supported"
    assert word(measured("MAConv2d", CLOSE, costs=(11, 100))) == "contradicted", "by count"
    assert word(measured("MAConv2d", 1.2 * CLOSE)) == "contradicted", "by time"
    assert word(measured("MAConv2d", CLOSE + 0.04)) == "inconclusive"
    assert word(measured("MAConv2d", CLOSE[:3])) == "inconclusive", "too few for any bound"


def test_counts_are_held_against_those_of_the_plain_one_timed_beside():
    """As `python -m benchmark` records them: the plain one has no measurement of its own."""

    def beside(**costs):
        return {"run": FIELDS["run"] | {"reference": {"name": "Conv2d", "costs": costs}}}

    def judge(**costs):
        return cost_verdicts([measured("MAConv2d", CLOSE, **beside(**costs))])

    assert judge(parameters=10, macs=100)["C4"].word == "supported"
    assert judge(parameters=10, macs=99)["C4"].word == "contradicted"
    assert "MACs deployed 100 against 99" in judge(parameters=10, macs=99)["C4"].sentence
    assert "C4" not in judge(parameters=10), "a count that is not there judges nothing"


def test_counts_that_differ_in_one_shape_are_not_made_up_for_by_another():
    """One MAC more here and one less there: the sums are equal, and nothing else is."""
    shapes = [(7, 101), (14, 99)]
    rows = [measured("MAConv2d", CLOSE, costs=(10, macs), image=side) for side, macs in shapes]
    plain = [measured(None, [1.0] * 12, image=side) for side, _ in shapes]
    found = cost_verdicts([*plain, *rows])["C4"]
    assert found.word == "contradicted"
    assert "MACs deployed 101 against 100 (4 to 8, 3 x 3, image 7)" in found.sentence


def test_a_shape_that_several_machines_measured_is_counted_once():
    machines = [{"key": key, "fingerprint": {"cpu": key}} for key in ("one", "other")]
    rows = [measured("MAConv2d", CLOSE, **machine) for machine in machines]
    rows += [measured("MAConv2d", CLOSE, image=14)]
    plain = [measured(None, [1.0] * 12, image=side) for side in (7, 14)]
    found = cost_verdicts([*plain, *rows])["C4"]
    assert "MACs deployed 200 against 200;" in found.sentence
    cases = [r.case for r in found.ratios]
    assert cases[0].endswith("image 7, cpu, batch 1, one") and cases[1].endswith("batch 1, other")


def test_cases_are_told_apart_by_what_differs():
    situations = [SITUATION | {"threads": threads} for threads in (1, 2)]
    rows = [measured("MAConv2d", CLOSE, situation=situation) for situation in situations]
    found = cost_verdicts([PLAIN, *rows])["C4"]
    assert [r.case.rpartition(", ")[2] for r in found.ratios] == ["1 threads", "2 threads"]
    twins = [measured("MAConv2d", CLOSE, key=key) for key in ("0a", "0b")]
    found = cost_verdicts([PLAIN, *twins])["C4"]
    assert [r.case.rpartition(", ")[2] for r in found.ratios] == ["machine 0a", "machine 0b"]
    assert cost_verdicts([PLAIN, twins[0]])["C4"].ratios[0].case.endswith("batch 1")


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
    [part] = repeated(measurement_frame([*series, other, once]))
    assert part["ratio"].tolist() == pytest.approx([1.0, 1.2]), "oldest first"
    assert all(a < b for a, b in pairwise(part["taken"]))
    axes = Figure().subplots()
    draw_history(axes, [part])
    assert axes.lines[-1].get_ydata() == pytest.approx([1.0, 1.2])
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert ticks == ["2001-09-09", "2001-09-11"]
    found = cost_history(measurement_frame([*series, other, once]))
    assert list(found.numbers) == ["MDConv2d depth=3"]
    assert cost_history(measurement_frame([other, once])) is None
    assert found.drawing == cost_history(measurement_frame([once, *series, other])).drawing


def test_the_table_of_times_has_units_and_cautions():
    rows = [PLAIN, measured("MDConv2d", [1.25] * 4, run={"unstable": "the clock fell"})]
    table = speed_table(latest(measurement_frame(rows)))
    assert [c.heading for c in table.columns][5:] == [
        "least time, ms",
        "time / plain",
        "98 % interval",
    ]
    assert table.rows[1]["minimum"] == "1,250" and table.rows[1]["ratio"] == "1.25"
    assert "CAUTION: 1 of 2" in table.footnotes[-1]
