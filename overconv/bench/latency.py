"""Latency of alternatives against a reference: warmed up, interleaved, every sample kept.

What is measured is a ratio. The alternatives and their reference are timed in turn, in an order
drawn anew in each round, so that all of them meet the same disturbances.
"""

import gc
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from overconv.bench.devices import Call, Device
from overconv.bench.statistics import GROUP, Ratio, ratio
from overconv.timing import Sample

LEAST_ROUNDS = 2 * GROUP  # a ratio with an interval needs them
ENOUGH_ROUNDS = 8 * GROUP  # the interval of fewer groups is too narrow to stop for
# Windows of a warm-up: how long each at least, how far two may be apart, how long all at most.
_WINDOW_SECONDS, _WINDOW_CALLS, _AGREE, _WARMUP_SECONDS = 0.01, 3, 0.1, 2.0
_BEYOND = 5  # a quantile is told if that many samples lie beyond it
_UNSTABLE = 0.25  # of the interquartile range, relative to the median


class Throttled(Exception):
    """The device was slowed down for so long that too few samples are left."""


@dataclass(frozen=True)
class Alternative:
    """Something that can be timed.

    Attributes:
        call: What is timed; without arguments, its output is dropped.
        check: Raises :class:`overconv.bench.cases.WrongOutput` if ``call`` computes something
            else than it should; None: nothing is compared.
    """

    call: Call
    check: Callable[[], None] | None = None


@dataclass(frozen=True)
class Summary:
    """Seconds of a call, from its samples.

    Attributes:
        minimum, p20, median: Of the samples.
        p90: None where fewer than five samples lie beyond it.
        samples: Their number.
        preempted: How many of them something else has interrupted.
        unstable: Why the figures should not be trusted; empty if nothing speaks against them.
    """

    minimum: float
    p20: float
    median: float
    p90: float | None
    samples: int
    preempted: int
    unstable: str


@dataclass(frozen=True)
class Series:
    """All that was measured of one alternative.

    Attributes:
        first_call: Seconds of the very first call: compiling, tuning and setting up are in it.
        warmup_calls: How many calls were made before timing, the first one included.
        settled: Whether two successive windows of the warm-up agreed.
        calls: Calls in a sample.
        samples: One a round, in their order.
    """

    first_call: float
    warmup_calls: int
    settled: bool
    calls: int
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class Measured:
    """A measurement.

    Attributes:
        reference: Name of the alternative to which ratios are taken.
        series: By the name of the alternative.
        seconds: How long the timed part took.
        dropped: How many rounds do not count, since the device was throttled,
        throttled: and why.
        unmet: Which criterion was not met when time was up; empty if the precision was reached.
        before, after: State of the device.
    """

    reference: str
    series: dict[str, Series]
    seconds: float
    dropped: int
    throttled: str
    unmet: str
    before: dict[str, Any]
    after: dict[str, Any]
    device: Device

    def ratio(self, name: str) -> Ratio:
        """Time of an alternative over that of the reference."""
        return ratio(_walls(self.series[name]), _walls(self.series[self.reference]))

    def summary(self, name: str) -> Summary:
        """Seconds of an alternative."""
        return summarise(self.series[name], self.device)


def measure(
    alternatives: Mapping[str, Alternative],
    *,
    reference: str,
    device: Device,
    seconds: float = 2.0,
    precision: float = 0.01,
    seed: int = 0,
) -> Measured:
    """Time alternatives against one of them.

    Each is called once, and how long that takes is kept apart. Then all are checked, and nothing
    else is timed before all outputs are right. Each is warmed up until two successive windows
    agree. In each round every alternative gives a sample, in an order drawn anew. Python's garbage
    collection is off meanwhile.

    Args:
        alternatives: By name; at least two.
        reference: Name of the one that the others are compared with.
        device: Where they run.
        seconds: Time for all rounds together; at least eight rounds are made.
        precision: Stop before, after 32 rounds at the earliest, if the interval of each ratio is no
            wider than this to both sides, relative to the ratio.
        seed: Of the order.

    Raises:
        ValueError: An argument is out of its range.
        WrongOutput: An alternative computes something else than it should.
        Throttled: The device was throttled in all rounds, or all but a few.
    """
    if reference not in alternatives or len(alternatives) < 2:
        raise ValueError(
            f"alternatives must be at least two with reference={reference!r} among them, got"
            f" {', '.join(map(repr, alternatives)) or 'none'}"
        )
    for name, value in (("seconds", seconds), ("precision", precision)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be a positive number, got {value!r}")
    first = {name: device.once(each.call) for name, each in alternatives.items()}
    for each in alternatives.values():
        if each.check is not None:
            each.check()
    with _collected_before():
        warm = {name: _warm_up(each.call, device) for name, each in alternatives.items()}
        calls = {name: device.calls(warm[name].best) for name in alternatives}
        before, start = device.state(), device.clock()
        found = _rounds(alternatives, calls, reference, device, seconds, precision, seed)
        spent = device.clock() - start
    if found.kept < LEAST_ROUNDS:
        raise Throttled(
            f"{found.dropped} of {found.kept + found.dropped} rounds do not count, since"
            f" {device.name} was throttled ({found.throttled}); a ratio needs {LEAST_ROUNDS}"
        )
    series = {
        name: Series(
            first[name],
            1 + warm[name].calls,
            warm[name].settled,
            calls[name],
            tuple(found.samples[name]),
        )
        for name in alternatives
    }
    unmet = "" if found.width <= precision else (
        f"intervals of the ratios within {100 * precision:g} %: after {seconds:g} s the widest is"
        f" {100 * found.width:.2g} %"
    )  # fmt: skip
    return Measured(
        reference, series, spent, found.dropped, found.throttled, unmet, before, device.state(),
        device,
    )  # fmt: skip


@dataclass(frozen=True)
class _Warm:
    best: float
    calls: int
    settled: bool


def _warm_up(call: Call, device: Device) -> _Warm:
    """Windows of calls until the fastest calls of two successive ones agree."""
    calls, number, last = 0, _WINDOW_CALLS, math.inf
    deadline = device.clock() + _WARMUP_SECONDS
    while True:
        window = [found.wall for found in device.timed([(call, 1)] * number).samples]
        best, calls = min(window), calls + number
        if abs(best - last) <= _AGREE * min(best, last):
            return _Warm(best, calls, True)
        if device.clock() > deadline:
            return _Warm(best, calls, False)
        last = best
        wanted = math.ceil(_WINDOW_SECONDS / best) if best > 0 else _WINDOW_CALLS
        number = min(1000, max(_WINDOW_CALLS, wanted))


@dataclass(frozen=True)
class _Found:
    samples: dict[str, list[Sample]]
    kept: int
    dropped: int
    throttled: str
    width: float


def _rounds(
    alternatives: Mapping[str, Alternative],
    calls: Mapping[str, int],
    reference: str,
    device: Device,
    seconds: float,
    precision: float,
    seed: int,
) -> _Found:
    order, names = random.Random(seed), list(alternatives)
    samples: dict[str, list[Sample]] = {name: [] for name in names}
    kept, dropped, reasons, width, look = 0, 0, dict[str, None](), math.inf, ENOUGH_ROUNDS
    deadline = device.clock() + seconds
    while True:
        turns = [name for _ in range(device.rounds) for name in order.sample(names, len(names))]
        window = device.timed([(alternatives[name].call, calls[name]) for name in turns])
        if window.throttled:
            dropped += device.rounds
            reasons[window.throttled] = None
        else:
            kept += device.rounds
            for name, found in zip(turns, window.samples, strict=True):
                samples[name].append(found)
        over = device.clock() >= deadline
        if kept >= LEAST_ROUNDS and (over or kept >= look):
            width, look = _widest(samples, reference), math.ceil(1.3 * kept)
            if width <= precision and kept >= ENOUGH_ROUNDS:
                break
        if over and kept + dropped >= LEAST_ROUNDS and (kept >= LEAST_ROUNDS or dropped):
            break
    return _Found(samples, kept, dropped, "; ".join(reasons), width)


def _widest(samples: Mapping[str, Sequence[Sample]], reference: str) -> float:
    """Half the width of the widest interval, relative to its ratio."""
    against = [found.wall for found in samples[reference]]
    found = [
        ratio([s.wall for s in own], against) for name, own in samples.items() if name != reference
    ]
    return max((r.high - r.low) / 2 / r.estimate for r in found)


@contextmanager
def _collected_before() -> Iterator[None]:
    """Garbage collection off, after a last one; then as it was."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _walls(series: Series) -> list[float]:
    return [found.wall for found in series.samples]


def summarise(series: Series, device: Device) -> Summary:
    """Quantiles of the samples, and what speaks against them."""
    walls = np.array(_walls(series))
    low, p20, median, high, p90 = np.quantile(walls, [0.25, 0.2, 0.5, 0.75, 0.9])
    preempted = sum(map(device.preempted, series.samples))
    reasons = []
    if high - low > _UNSTABLE * median:
        reasons.append(f"interquartile range {(high - low) / median:.0%} of the median")
    if 2 * preempted > walls.size:
        reasons.append(f"{preempted} of {walls.size} samples interrupted")
    if not series.settled:
        reasons.append("still changing after the warm-up")
    return Summary(
        minimum=float(walls.min()),
        p20=float(p20),
        median=float(median),
        p90=float(p90) if 0.1 * walls.size >= _BEYOND else None,
        samples=int(walls.size),
        preempted=preempted,
        unstable="; ".join(reasons),
    )
