"""Timing alternatives against each other: interleaved, in random order, every sample kept.

On a shared machine an absolute time says little and a median of it may be off by a factor of two.
Alternatives that are timed in turn meet the same disturbances, and the minimum of many short
samples is what the machine does when it is left alone. So figures are ratios of minima.
"""

import random
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch

if sys.platform != "win32":  # which has no such module
    import resource


@dataclass(frozen=True)
class Sample:
    """Time of one call, the mean over the calls of a sample.

    Attributes:
        wall: Seconds that passed.
        cpu: Seconds that this thread was running.
        switches: How often this thread was made to wait, during the whole sample; 0 where the
            system does not count that for a thread.
    """

    wall: float
    cpu: float
    switches: int


def sample(call: Callable[[], object], calls: int, device: torch.device | str = "cpu") -> Sample:
    """Time ``calls`` calls in a row; on a GPU until all of their work is done.

    Raises:
        ValueError: ``calls`` is below 1.
    """
    if calls < 1:
        raise ValueError(f"calls must be at least 1, got {calls}")
    synchronise = _synchroniser(device)
    synchronise()
    switches, cpu, start = _switches(), time.thread_time(), time.perf_counter()
    for _ in range(calls):
        call()
    synchronise()
    wall, cpu = time.perf_counter() - start, time.thread_time() - cpu
    return Sample(wall / calls, cpu / calls, _switches() - switches)


def interleaved(
    alternatives: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 50,
    warmup: int = 3,
    calls: int = 1,
    seconds: float | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, list[float]]:
    """Seconds of one call of each alternative, ``rounds`` samples each.

    Args:
        alternatives: What to time, by name; called without arguments, outputs are dropped.
        rounds: Samples of each. Each round times all, in an order drawn anew.
        warmup: Rounds before that are not kept.
        calls: Calls in a sample, of which the mean is kept.
        seconds: Stop after so much time, if at least five rounds are done.
        device: Where the work is done: on a GPU each sample ends when that has.

    Raises:
        ValueError: ``rounds`` or ``calls`` is below 1.
    """
    if rounds < 1 or calls < 1:
        raise ValueError(f"rounds and calls must be at least 1, got {rounds} and {calls}")
    order = random.Random(0)
    samples: dict[str, list[float]] = {name: [] for name in alternatives}
    deadline = None if seconds is None else time.perf_counter() + seconds
    for round_ in range(warmup + rounds):
        for name in order.sample(list(alternatives), len(alternatives)):
            passed = sample(alternatives[name], calls, device).wall
            if round_ >= warmup:
                samples[name].append(passed)
        if deadline is not None and round_ >= warmup + 4 and time.perf_counter() > deadline:
            break
    return samples


def _synchroniser(device: torch.device | str) -> Callable[[], None]:
    """Waits until the device has done all that it was given."""
    device = torch.device(device)
    return partial(torch.cuda.synchronize, device) if device.type == "cuda" else _nothing


def _nothing() -> None:
    pass


def _switches() -> int:
    if sys.platform == "win32" or not hasattr(resource, "RUSAGE_THREAD"):
        return 0
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw
