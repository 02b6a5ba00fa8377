"""Timing alternatives against each other: interleaved, in random order, every sample kept.

On a shared machine an absolute time says little and a median of it may be off by a factor of two.
Alternatives that are timed in turn meet the same disturbances, and the minimum of many short
samples is what the machine does when it is left alone. So figures are ratios of minima.
"""

import random
import time
from collections.abc import Callable, Mapping
from functools import partial

import torch


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
    device = torch.device(device)
    cuda = device.type == "cuda"
    synchronise = partial(torch.cuda.synchronize, device) if cuda else _nothing
    order = random.Random(0)
    samples: dict[str, list[float]] = {name: [] for name in alternatives}
    deadline = None if seconds is None else time.perf_counter() + seconds
    for round_ in range(warmup + rounds):
        for name in order.sample(list(alternatives), len(alternatives)):
            call = alternatives[name]
            synchronise()
            start = time.perf_counter()
            for _ in range(calls):
                call()
            synchronise()
            passed = (time.perf_counter() - start) / calls
            if round_ >= warmup:
                samples[name].append(passed)
        if deadline is not None and round_ >= warmup + 4 and time.perf_counter() > deadline:
            break
    return samples


def _nothing() -> None:
    pass
