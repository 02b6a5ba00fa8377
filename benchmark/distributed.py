"""Layers under torch's DistributedDataParallel: two processes, started once for all of them."""

import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from benchmark.checks import Subject

PROCESSES = 2
STEPS = 2  # a parameter that was not reached is missed in the second


def differences(subjects: Sequence[Subject]) -> dict[str, str | float]:
    """For each what went wrong, or how far its gradients are from those of the whole batch.

    Each process sees its half of a batch. What is compared is the gradient that both processes
    hold, relative to the largest value, with that of one process that sees all.
    """
    with tempfile.TemporaryDirectory() as folder:
        meeting = Path(folder)
        mp.spawn(_work, (list(subjects), meeting), PROCESSES)
        return torch.load(meeting / "found", weights_only=True)


def _work(rank: int, subjects: Sequence[Subject], folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'meeting'}",
        rank=rank,
        world_size=PROCESSES,
        timeout=timedelta(seconds=60),
    )
    found: dict[str, str | float] = {}
    for subject in subjects:
        torch.manual_seed(0)
        try:
            found[str(subject)] = _difference(rank, subject)
        except (RuntimeError, ValueError) as error:
            found[str(subject)] = f"{type(error).__name__}: {error}"
    if rank == 0:
        torch.save(found, folder / "found")
    dist.destroy_process_group()


def _difference(rank: int, subject: Subject) -> float:
    double: dict[str, Any] = {"dtype": torch.float64}
    alone, module = subject.build(**double), subject.build(**double)
    distributed = DistributedDataParallel(module)
    x = subject.images(2 * PROCESSES, **double)
    worst = 0.0
    for _ in range(STEPS):
        whole = _gradients(alone, x, slice(None))
        mine = slice(2 * rank, 2 * rank + 2)
        # the processes average what one process sums
        half = [PROCESSES * gradient for gradient in _gradients(distributed, x, mine)]
        largest = max(float(gradient.abs().max()) for gradient in whole)
        errors = [float((a - b).abs().max()) for a, b in zip(half, whole, strict=True)]
        worst = max(worst, max(errors) / largest)
    return worst


def _gradients(module: torch.nn.Module, x: Tensor, part: slice) -> list[Tensor]:
    module.zero_grad()
    y = module(x[part])
    weights = torch.linspace(-1, 1, x.shape[0] * y[0].numel(), dtype=y.dtype)
    (y * weights.view(x.shape[0], *y.shape[1:])[part]).sum().backward()
    found = []
    for name, parameter in module.named_parameters():
        if parameter.grad is None:
            raise ValueError(f"{name} gets no gradient")
        found.append(parameter.grad.clone())
    return found
