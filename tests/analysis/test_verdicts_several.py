"""Verdicts of several contrasts: all, peers, parts, a trend, an order; and other measures."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from analysis.maxt import max_t
from analysis.statistics import estimate, paired_differences
from analysis.summary import summarise
from analysis.verdicts import judge

JUDGING = runpy.run_path(str(Path(__file__).with_name("judging.py")))
claim, accuracies, LABELS = (JUDGING[name] for name in ("claim", "accuracies", "LABELS"))
PAIR = ("gated-1", "plain")
PAIRS = claim(("gated-1", "plain"), ("gated-2", "linear-2"))


@pytest.mark.parametrize(
    ("effects", "word"),
    [
        ({"gated_1": 0.01, "gated_2": 0.01}, "supported"),
        ({"gated_1": 0.01, "gated_2": -0.01}, "contradicted"),
        ({"gated_1": 0.01, "gated_2": 0.0}, "inconclusive"),
        ({}, "equivalent"),
    ],
)
def test_all_pairs_must_hold_and_one_contradicts(judged, effects, word):
    found = judged(accuracies(noise=0.001, **effects), PAIRS)
    assert found.word == word


def test_parameters_must_be_fewer_by_exact_count(judged):
    values = accuracies(linear_2=0.01, gated_1=0.01, plain=0.0)
    fewer = {"fewer": "parameters_training"}
    held = judged(values, claim(("linear-2", "gated-2"), **fewer))
    assert held.word == "supported" and held.parts[0].costs == (22_700, 27_962)
    broken = judged(values, claim(("gated-1", "plain"), **fewer), name="broken")
    assert broken.word == "contradicted"
    assert "parameters training are not fewer: 23,910 against 19,562" in broken.sentence


def test_of_two_strata_the_count_of_the_later_record_counts(frames_of, made):
    """As the table of arms has it: both tell of one arm by the same rule."""
    fewer = claim(("linear-2", "gated-2"), fewer="parameters_training")
    frames = frames_of(accuracies(linear_2=0.01), claims=[fewer])
    records = []
    for record in frames.records:
        block = record.configuration["block"]
        if record.cell == frames.plan.cell_id("linear-2"):
            # Block 0 was finished last, and counted anew.
            late = {"finished": 1e10 if block == 0 else 1.0}
            costs = record.costs | {"parameters_training": 99_999 if block == 0 else 22_700}
            record = record.model_copy(update={"costs": costs, "times": record.times | late})
        records.append(record)
    object.__setattr__(frames, "records", tuple(records))
    [row] = [s for s in summarise(frames) if s.label == "linear-2"]
    [part] = judge(frames, fewer).parts
    assert part.costs[0] == row.costs["parameters_training"] == 99_999


def test_p_is_adjusted_for_all_contrasts_of_the_claim(judged):
    values = accuracies(gated_1=0.001, gated_2=0.0015, noise=0.003, seed=3)
    found = judged(values, claim(("gated-1", "plain"), ("gated-2", "plain")))
    table = np.array([values["gated-1"], values["gated-2"]]) - values["plain"]
    assert [part.p for part in found.parts] == pytest.approx(max_t(table.T))
    alone = [max_t(row[:, None])[0] for row in table]
    assert [part.p_alone for part in found.parts] == pytest.approx(alone)
    assert alone[0] < 0.05 < found.parts[0].p, "by itself it would be told"


PEERS = [("gated-1", "plain"), ("gated-1", "gated-2"), ("gated-1", "linear-2")]


def test_peers_are_beaten_one_by_one_and_contradicted_together(judged):
    """Means chosen between the two bounds: alone it is told, of three together it is not."""
    values = accuracies(gated_1=0.0042, noise=0.002, seed=4)
    alone, together = judged(
        values, claim(*PEERS, combine="peers"), claim(*PEERS, name="D"), name="between"
    )
    assert alone.word == "supported" and together.word == "inconclusive"
    turned = accuracies(gated_1=-0.01, noise=0.002, seed=4)
    beaten = judged(turned, claim(*PEERS, combine="peers"), name="turned")
    assert beaten.word == "contradicted"
    assert all(p.alone.half_width < p.joint.half_width for p in beaten.parts)
    less = {label: [-x for x in values_of] for label, values_of in values.items()}
    hardly = judged(less, claim(*PEERS, combine="peers"), name="hardly")
    open_ = [part for part in hardly.parts if part.word == "inconclusive"]
    assert open_ and all(part.alone.high < 0 < part.joint.high for part in open_)
    assert all("by itself it is contradicted, by the intervals of all" in p.note for p in open_)


def test_parts_have_a_verdict_each(judged):
    found = judged(accuracies(gated_1=0.01, noise=0.001), claim(*PAIRS_AND_NULL, combine="parts"))
    assert found.word == "in parts"
    assert "1 supported, 1 equivalent" in found.sentence


PAIRS_AND_NULL = [("gated-1", "plain"), ("gated-2", "linear-2")]


def test_a_trend_is_told_step_by_step(judged):
    steps = claim(("gated-1", "plain"), ("gated-2", "gated-1"), direction="trend")
    rising = judged(accuracies(gated_1=0.01, gated_2=0.02), steps)
    assert "from plain to gated-2 it rises at every step." in rising.sentence
    turning = judged(accuracies(gated_1=0.01, gated_2=0.0), steps, name="turning")
    assert "rises in 1 and falls in 1 of 2 steps" in turning.sentence


def test_an_order_is_told_from_the_largest(judged):
    found = judged(
        accuracies(gated_1=0.01, gated_2=0.02), claim(*[(a, "plain") for a in LABELS[1:]],
                                                       direction="different")
    )  # fmt: skip
    text = found.sentence
    assert text.index("gated-2 against") < text.index("gated-1 against") < text.index("linear-2 a")
    assert "in no order that is known" in text


def test_convergence_is_judged_by_the_area_under_the_curve(frames_of):
    of_area = claim(PAIR, measure="mean_validation_accuracy", margin=0.02)
    frames = frames_of(accuracies(gated_1=0.05), claims=[of_area])
    found = judge(frames, of_area)
    rows = frames.curves[frames.curves["measure"] == "validation_accuracy"]
    means = rows.groupby(["label", "block"])["value"].mean()
    oracle = estimate(paired_differences(means["gated-1"], means["plain"]))
    assert found.word == "supported"
    assert found.parts[0].joint.mean == pytest.approx(oracle.mean)
    assert (found.parts[0].joint.low, found.parts[0].joint.high) == pytest.approx(
        (oracle.low, oracle.high)
    ), "of a single contrast it is the paired t interval"


def test_a_measure_that_was_not_recorded_is_told(judged):
    late = claim(PAIR, measure="seconds_to_target", target=0.9, direction="less")
    found = judged(accuracies(), late)
    assert found.word == "no verdict"
    assert "10 of 10 trials of plain recorded no value" in found.sentence
