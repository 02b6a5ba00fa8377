"""Verdicts: every word, what is waited for, what leaves, and defects that change a word."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from analysis import verdicts as module
from analysis.statistics import estimate, paired_differences
from analysis.verdicts import judge, verdicts
from records.claim import Claim, Contrast

LABELS = ("plain", "gated-1", "gated-2", "linear-2")  # parameters: 19,562; 23,910; 27,962; 22,700


def claim(*contrasts, **changes):
    fields = {"name": "C", "wording": "?", "direction": "greater", "margin": 0.003}
    pairs = [Contrast(arm=arm, against=against) for arm, against in contrasts]
    return Claim(**{**fields, "contrasts": pairs, **changes})


def accuracies(n=10, seed=0, noise=0.002, **means):
    """Blocks that move together, arms around ``means`` above 0.85."""
    draw = np.random.default_rng(seed)
    shared = 0.85 + 0.01 * draw.standard_normal(n)
    return {
        label: (shared + means.get(label.replace("-", "_"), 0) + noise * draw.standard_normal(n))
        .round(6)
        .tolist()
        for label in LABELS
    }


@pytest.fixture
def judged(frames_of):
    def make(values, *claims, **changes):
        frames = frames_of(values, claims=list(claims), **changes)
        return verdicts(frames) if len(claims) > 1 else verdicts(frames)[0]

    return make


PAIR = ("gated-1", "plain")


@pytest.mark.parametrize(
    ("effect", "direction", "word"),
    [
        (0.01, "greater", "supported"),
        (-0.01, "greater", "contradicted"),
        (-0.01, "less", "supported"),
        (0.01, "less", "contradicted"),
        (0.0, "greater", "equivalent"),
        (0.01, "different", "in words"),
    ],
)
def test_each_word_has_its_effect(judged, effect, direction, word):
    found = judged(accuracies(gated_1=effect, noise=0.001), claim(PAIR, direction=direction))
    assert found.word == word
    assert f"{found.parts[0].arm} against plain" in found.sentence
    if direction == "different":
        assert found.parts[0].word == "greater"


def test_the_numbers_behind_a_verdict_are_those_of_the_records(judged):
    values = accuracies(gated_1=0.01)
    found = judged(values, claim(PAIR))
    [part] = found.parts
    differences = np.subtract(values["gated-1"], values["plain"])
    assert part.joint.mean == pytest.approx(differences.mean())
    assert part.joint.spread == pytest.approx(differences.std(ddof=1))
    assert part.p == 2 / 2**10, "all ten blocks agree"
    assert (found.look, found.num_cells, found.num_wanted, found.error) == (10, 20, 20, 0.05)
    confidences = [i.confidence for i in (part.joint, part.narrow, part.alone)]
    assert confidences == pytest.approx([0.95, 0.90, 0.95])
    shared = judged(values, claim(PAIR), looks=[10, 15], name="shared").parts[0]
    assert (shared.joint.confidence, shared.narrow.confidence) == pytest.approx((0.975, 0.95))
    assert f"+{100 * differences.mean():.2f} points" in found.sentence
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.word = "contradicted"


def test_what_is_open_says_what_would_have_been_found_and_what_it_needs(judged):
    found = judged(accuracies(gated_1=0.002, noise=0.008), claim(PAIR))
    [part] = found.parts
    assert found.word == part.word == "inconclusive"
    width, spread = part.joint.half_width, part.joint.spread
    assert 1.0 * spread == pytest.approx(part.smallest_effect, rel=0.01), "ten pairs find 1.0 SD"
    n = 10 + part.more_blocks
    widths = [stats.t.ppf(0.975, m - 1) * spread / m**0.5 for m in (10, n - 1, n)]
    assert widths[0] == pytest.approx(width) and widths[2] <= 0.003 / 2 < widths[1]
    assert "would have been found, four times in five" in found.sentence
    assert "more blocks are needed" in found.sentence


def test_cells_are_waited_for(judged):
    values = accuracies(gated_1=0.01)
    values["gated-1"] = values["gated-1"][:7]
    found = judged(values, claim(PAIR))
    assert (found.word, found.num_cells, found.num_wanted) == ("no verdict", 17, 20)
    assert found.sentence == "C: no verdict yet: 17 of 20 trials are there."


def test_arms_that_a_claim_does_not_name_are_not_waited_for(judged):
    values = accuracies(gated_1=0.01)
    values["linear-2"] = []
    assert judged(values, claim(PAIR)).word == "supported"


def test_nothing_recorded_is_no_data(judged):
    found = judged(dict.fromkeys(LABELS, []), claim(PAIR))
    assert (found.word, found.sentence) == ("no data", "C: no data: not run.")


def test_fewer_than_six_blocks_decide_nothing(judged):
    found = judged(accuracies(n=5, gated_1=0.1), claim(PAIR), looks=[5])
    assert found.word == "no verdict"
    assert "5 blocks cannot reach 5 %" in found.sentence
    shared = judged(accuracies(n=6, gated_1=0.1), claim(PAIR), looks=[6, 10], name="shared")
    assert "6 blocks cannot reach 2.5 %" in shared.sentence


def test_blocks_behind_the_last_look_are_left_out(judged):
    values = accuracies(n=12, gated_1=0.01)
    values["gated-1"][10:] = [0.1, 0.1]
    found = judged(values, claim(PAIR))
    assert (found.word, found.look, found.num_later) == ("supported", 10, 2)
    assert "2 blocks came after this look" in found.sentence


def test_the_first_look_that_decides_stands(judged):
    values = accuracies(n=10, gated_1=0.02)
    values["gated-1"][8:] = [0.5, 0.5]
    found = judged(values, claim(PAIR), looks=[8, 10])
    assert (found.word, found.look) == ("supported", 8)


def test_an_arm_with_a_diverged_trial_leaves_and_the_others_stay(judged):
    values = accuracies(gated_1=0.01, gated_2=0.01)
    values["gated-2"][3] = None
    both = claim(PAIR, ("gated-2", "plain"))
    found = judged(values, both)
    assert [part.word for part in found.parts] == ["supported", "inconclusive"]
    assert found.word == "inconclusive"
    assert found.parts[1].note == "1 of 10 trials of gated-2 diverged"
    whole = judged(accuracies(gated_1=0.01, gated_2=0.01), both, name="whole")
    kept = found.parts[0].joint
    assert kept.n == 10 and kept.family == whole.parts[0].joint.family, "it was declared"


def test_a_diverged_baseline_gives_no_verdict(judged):
    values = accuracies(gated_1=0.01)
    values["plain"][0] = None
    found = judged(values, claim(PAIR))
    assert found.word == "no verdict" and "1 of 10 trials of plain diverged" in found.sentence


def test_planted_dropping_the_diverged_trial_is_caught(judged, monkeypatch):
    """Without it the arm would be supported: which trials go is what was to be judged."""
    values = accuracies(gated_1=0.01)
    values["gated-1"][3] = None
    assert judged(values, claim(PAIR)).word == "inconclusive"
    monkeypatch.setattr(module, "_missing", lambda frames, values, labels: {})
    whole = module.claimed_values

    def filled(frames, claim, labels):
        table = whole(frames, claim, labels)
        return table.fillna(table.mean())

    monkeypatch.setattr(module, "claimed_values", filled)
    assert judged(values, claim(PAIR), name="dropped").word == "supported"


def test_swapped_labels_and_permuted_blocks_change_the_verdict(judged):
    values = accuracies(gated_1=0.006, noise=0.0005)
    assert judged(values, claim(PAIR)).word == "supported"
    swapped = values | {"plain": values["gated-1"], "gated-1": values["plain"]}
    assert judged(swapped, claim(PAIR), name="swapped").word == "contradicted"
    permuted = values | {"gated-1": values["gated-1"][3:] + values["gated-1"][:3]}
    assert judged(permuted, claim(PAIR), name="permuted").word == "inconclusive"


def test_interval_and_test_must_agree(judged, monkeypatch):
    values = accuracies(gated_1=0.01)
    monkeypatch.setattr(module, "max_t", lambda d: type("T", (), {"p": (0.2,) * d.shape[1]}))
    found = judged(values, claim(PAIR))
    assert found.word == "inconclusive"
    assert "the interval excludes zero and the exact test does not (p = 0.2)" in found.sentence


def test_the_exact_test_alone_is_not_enough(judged):
    values = accuracies(n=6, noise=0)
    draw = [0.0005, 0.0004, 0.02, 0.0003, 0.0006, 0.03]  # all of one sign, and far apart
    values["gated-1"] = np.add(values["plain"], draw).tolist()
    found = judged(values, claim(PAIR), looks=[6])
    assert found.word == "inconclusive" and found.parts[0].p == 2 / 64
    assert "the exact test excludes zero" in found.sentence


def test_a_difference_below_the_margin_says_so(judged):
    found = judged(accuracies(gated_1=0.001, noise=0.0002), claim(PAIR))
    assert found.word == "supported" and "smaller than the declared margin" in found.sentence


def test_equal_differences_have_no_noise(judged):
    values = accuracies()
    values["gated-1"] = np.add(values["plain"], 0.1).tolist()
    found = judged(values, claim(PAIR))
    assert found.word == "inconclusive" and "no noise to judge by" in found.sentence


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
