"""Timing: what a sample holds, by a scripted clock. No speed is asserted."""

import random
from types import SimpleNamespace

import pytest

from overconv import timing
from overconv.timing import interleaved, sample


class Clock:
    """Time that passes only when something is called; a share of it is spent on others."""

    def __init__(self) -> None:
        self.now, self.running, self.switches = 100.0, 7.0, 3

    def spend(self, seconds: float, waiting: float = 0.0) -> None:
        self.now += seconds + waiting
        self.running += seconds
        self.switches += bool(waiting)


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(
        timing,
        "time",
        SimpleNamespace(perf_counter=lambda: made.now, thread_time=lambda: made.running),
    )
    monkeypatch.setattr(timing, "_switches", lambda: made.switches)
    return made


def test_a_sample_is_the_mean_of_its_calls(clock):
    script = iter([(1.0, 0.0), (2.0, 0.5), (3.0, 0.0), (6.0, 3.5)])
    found = sample(lambda: clock.spend(*next(script)), 4)
    assert (found.wall, found.cpu, found.switches) == (4.0, 3.0, 2)


def test_this_thread_is_what_is_counted():
    """By the real clocks: the counts of a thread that does nothing are small, never negative."""
    found = sample(lambda: None, 10)
    assert found.wall >= 0 and found.cpu >= 0 and found.switches >= 0


def test_what_cannot_be_timed_is_refused():
    with pytest.raises(ValueError, match="calls must be at least 1, got 0"):
        sample(lambda: None, 0)
    with pytest.raises(ValueError, match="rounds and calls must be at least 1, got 0 and 1"):
        interleaved({"a": lambda: None}, rounds=0)
    with pytest.raises(ValueError, match="rounds and calls must be at least 1, got 1 and 0"):
        interleaved({"a": lambda: None}, rounds=1, calls=0)


def test_alternatives_alternate_and_warm_up(clock):
    calls = []

    def call(name, seconds):
        calls.append(name)
        first = calls.count(name) <= 2 * 2  # in the rounds of the warm-up
        clock.spend(9.0 if first else seconds)

    alternatives = {"a": lambda: call("a", 1.0), "b": lambda: call("b", 2.0)}
    found = interleaved(alternatives, rounds=20, warmup=2, calls=2)
    assert found == {"a": [1.0] * 20, "b": [2.0] * 20}
    rounds = [calls[start : start + 4] for start in range(0, len(calls), 4)]
    assert {tuple(r) for r in rounds} == {("a", "a", "b", "b"), ("b", "b", "a", "a")}


def test_rounds_end_with_the_time_but_not_before_the_fifth(clock):
    alternatives = {"a": lambda: clock.spend(1.0)}
    assert len(interleaved(alternatives, rounds=99, warmup=0, seconds=0.5)["a"]) == 5
    assert len(interleaved(alternatives, rounds=99, warmup=0, seconds=9.5)["a"]) == 10
    assert len(interleaved(alternatives, rounds=3, warmup=0, seconds=9.5)["a"]) == 3


def test_the_global_generator_is_left_alone(clock):
    random.seed(5)
    expected = random.random()
    random.seed(5)
    interleaved({"a": lambda: clock.spend(1.0), "b": lambda: clock.spend(1.0)}, rounds=3)
    assert random.random() == expected
