import random
from functools import partial

import pytest

from overconv.bench.judging import (
    GROUP,
    LOOKS,
    RETAKES,
    bound_level,
    combined,
    decided,
    judge,
    uninterrupted,
)
from overconv.bench.statistics import Ratio
from overconv.timing import Sample

LEVEL = bound_level(25)


def judged(scripted, true, seed, *, spread=0.01, limit=1.05, **more):
    sides = [
        scripted("head", {"a": true * 2e-4}, seed=seed, spread=spread),
        scripted("base", {"a": 2e-4}, seed=seed, spread=spread),
    ]
    for side in sides:
        side.prepare("case", "a")
    takes = (partial(side.sample, "case") for side in sides)
    order = random.Random(seed)
    return judge(*takes, (10, 10), limit=limit, level=LEVEL, order=order, **more)


@pytest.mark.parametrize(
    ("true", "outcome"), [(0.7, "pass"), (1.0, "pass"), (1.02, "pass"), (1.1, "fail"), (2, "fail")]
)
def test_equal_work_passes_and_ten_per_cent_more_fails(scripted, true, outcome):
    found = [judged(scripted, true, seed) for seed in range(50)]
    assert {j.outcome for j in found} == {outcome}
    assert all(abs(j.wall.estimate / true - 1) < 0.02 for j in found)
    assert all(j.groups in LOOKS and j.groups >= 20 for j in found)  # fewer have no bounds


def test_five_per_cent_is_told_from_none_but_falls_on_either_side(scripted):
    found = [judged(scripted, 1.05, seed) for seed in range(50)]
    assert all(1.03 < j.wall.estimate < 1.07 for j in found)


def test_a_limit_of_its_own_decides_for_a_case(scripted):
    assert judged(scripted, 1.1, 0, limit=1.2).outcome == "pass"
    assert judged(scripted, 1.04, 0, limit=1.02).outcome == "fail"


def test_what_spreads_too_far_stays_unclear_after_all_groups(scripted):
    found = judged(scripted, 1.0, 0, spread=2.0)
    assert (found.outcome, found.groups) == ("unclear", LOOKS[-1])


def test_a_ratio_may_be_expected(scripted):
    assert judged(scripted, 3.0, 0, expected=(3.0, 3.0)).outcome == "pass"
    assert judged(scripted, 3.3, 0, expected=(3.0, 3.0)).outcome == "fail"
    # Three times the wall time, but not three times the processor's: not what was recorded.
    assert judged(scripted, 3.0, 0, expected=(3.0, 2.0)).outcome == "unclear"


@pytest.mark.parametrize(
    ("low", "estimate", "high", "outcome"),
    [
        (1.031, 1.051, 1.2, "fail"),
        (1.029, 1.051, 1.2, "unclear"),
        (1.031, 1.049, 1.2, "unclear"),
        (1.031, 1.049, 1.079, "pass"),
        (0.5, 1.0, 1.079, "pass"),
        (0.5, 1.0, 1.081, "unclear"),
        (1.031, 1.06, 1.079, "fail"),  # both zones: fail is tried first
    ],
)
def test_the_zones_of_the_rule(low, estimate, high, outcome):
    here, still = Ratio(estimate, low, high, 20), Ratio(1.0, 0.99, 1.01, 20)
    assert decided(here, here, 1.05) == outcome
    if outcome == "fail":  # by one clock alone is not enough
        assert decided(here, still, 1.05) in ("pass", "unclear")
        assert decided(still, here, 1.05) == decided(here, still, 1.05)
    if outcome == "unclear":
        assert decided(here, still, 1.05) == decided(still, here, 1.05) == "unclear"


@pytest.mark.parametrize("low", [0.995, 1.0])
def test_what_may_be_no_slower_does_not_fail_however_tight_the_limit(low):
    assert decided(Ratio(1.02, low, 1.05, 20), Ratio(1.02, low, 1.05, 20), 1.01) == "unclear"
    assert decided(Ratio(1.02, 1.001, 1.05, 20), Ratio(1.02, 1.001, 1.05, 20), 1.01) == "fail"


def test_work_is_compared_as_the_time_of_all_calls(scripted):
    one, other = (scripted(role, {}) for role in ("head", "base"))
    takes = (partial(side.sample, "fixed") for side in (one, other))
    found = judge(*takes, (11, 10), limit=1.05, level=LEVEL, order=random.Random(0))
    assert found.outcome == "fail"
    assert found.wall.estimate == pytest.approx(1.1, abs=0.01)
    assert found.milliseconds == pytest.approx(11 * 0.2, rel=0.01)


def test_the_two_sides_take_turns_in_random_order():
    calls = []

    def take(side, number):
        calls.append(side)
        return Sample(1.0, 1.0, 0)

    order = random.Random(0)
    judge(partial(take, 0), partial(take, 1), (1, 1), limit=2, level=0.9, order=order, looks=(10,))
    pairs = [tuple(calls[i : i + 2]) for i in range(0, len(calls), 2)]
    assert len(pairs) == 10 * GROUP
    assert set(pairs) == {(0, 1), (1, 0)}


def test_an_interrupted_sample_is_taken_again_but_not_for_ever():
    scripts = iter([Sample(9.0, 1.0, 3), Sample(1.0, 1.0, 0)])
    assert uninterrupted(lambda calls: next(scripts), 2) == (Sample(1.0, 1.0, 0), 20.0)
    taken = []

    def never(calls):
        taken.append(calls)
        return Sample(9.0, float(len(taken)), 1)

    assert uninterrupted(never, 1)[0].cpu == 1 + RETAKES == len(taken)


def test_interruptions_that_are_seen_leave_half_the_groups_to_take(scripted):
    """Seven of eight samples interrupted: only those that can be told apart are of use."""

    def sides(seen):
        for role in ("head", "base"):
            worker = scripted(role, {"a": 2e-4}, seen=seen)
            worker.draw.random = lambda draw=worker.draw.random: draw() * 4 / 7
            worker.prepare("case", "a")
            yield partial(worker.sample, "case")

    options = {"limit": 1.05, "level": LEVEL, "order": random.Random(0)}
    assert judge(*sides(True), (10, 10), **options).outcome == "pass"
    assert judge(*sides(False), (10, 10), **options).outcome == "unclear"


def test_a_case_that_takes_too_long_is_left():
    draw = random.Random(0)

    def slow(calls):
        return Sample(draw.uniform(1, 3), draw.uniform(1, 3), 0)

    found = judge(slow, slow, (1, 1), limit=1.05, level=LEVEL, order=random.Random(0))
    assert found.outcome == "unclear"
    assert found.groups == LOOKS[0]


@pytest.mark.parametrize("cases", [1, 25])
def test_the_bounds_of_a_run_share_one_error(cases):
    assert (1 - bound_level(cases)) * cases * len(LOOKS) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        ("P", "pass"),
        ("FF", "fail"),
        ("F", None),
        ("U", None),
        ("UP", "pass"),
        ("UU", "unclear"),
        ("FP", None),
        ("FPP", "pass"),
        ("FPF", "fail"),
        ("FU", None),
        ("FUP", "unclear"),
        ("UFF", "fail"),
        ("UF", None),
    ],
)
def test_a_slow_down_has_to_show_in_two_pairs_of_processes(outcomes, verdict):
    words = {"P": "pass", "F": "fail", "U": "unclear"}
    assert combined([words[letter] for letter in outcomes]) == verdict
