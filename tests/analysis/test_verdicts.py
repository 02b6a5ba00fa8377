"""Verdicts: every word, what is waited for, what leaves, and defects that change a word."""

import dataclasses
import runpy
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from analysis import verdicts as module

JUDGING = runpy.run_path(str(Path(__file__).with_name("judging.py")))
claim, accuracies, LABELS = (JUDGING[name] for name in ("claim", "accuracies", "LABELS"))
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
    assert part.joint.models[2].variance == pytest.approx(differences.var(ddof=1))
    assert part.p == 2 / 2**10, "all ten blocks agree"
    assert (found.look, found.num_cells, found.num_wanted, found.error) == (10, 20, 20, 0.05)
    found_of = [(i.confidence, i.tails) for i in (part.joint, part.narrow, part.alone)]
    assert found_of == [(0.95, 2), (0.95, 1), (0.95, 2)]
    oracle = stats.t.interval(0.90, 9, differences.mean(), stats.sem(differences))
    assert (part.narrow.low, part.narrow.high) == pytest.approx(oracle), "two one-sided tests"
    shared = judged(values, claim(PAIR), looks=[10, 15], name="shared").parts[0]
    assert (shared.joint.confidence, shared.narrow.confidence) == pytest.approx((0.975, 0.975))
    assert f"+{100 * differences.mean():.2f} points" in found.sentence
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.word = "contradicted"


def test_what_is_open_says_what_would_have_been_found_and_what_it_needs(judged):
    found = judged(accuracies(gated_1=0.002, noise=0.008), claim(PAIR))
    [part] = found.parts
    assert found.word == part.word == "inconclusive"
    width, spread = part.joint.half_width, part.joint.models[2].variance ** 0.5
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
    assert found.num_blocks == 7
    assert found.sentence == "C: no verdict yet: 17 of 20 trials are there."


def test_a_claim_that_leads_to_a_target_waits_for_the_baseline_too(judged):
    """The target is the baseline's; its blocks count, though no contrast names it."""
    values = accuracies()
    values["plain"] = values["plain"][:4]
    late = claim(("gated-1", "gated-2"), measure="epochs_to_target", target=0.9, direction="less")
    found = judged(values, late)
    assert (found.num_blocks, found.num_cells, found.num_wanted) == (4, 24, 30)


def test_an_open_claim_says_when_it_is_looked_at_next(judged):
    found = judged(accuracies(gated_1=-0.003, noise=0.008), claim(PAIR), looks=[8, 12])
    assert (found.word, found.look, found.next_look) == ("inconclusive", 8, 12)
    assert "The next declared look is at 12 blocks." in found.sentence
    sure = judged(accuracies(gated_1=0.02), claim(PAIR), looks=[8, 12], name="sure")
    assert (sure.word, sure.next_look) == ("supported", None) and "next" not in sure.sentence


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
    monkeypatch.setattr(module, "max_t", lambda d: (0.2,) * d.shape[1])
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
    assert "points (" not in found.sentence, "an interval without width would be read as certain"
