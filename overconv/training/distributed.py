"""Several processes train one network as if one saw the whole batch.

Each sees its rows of the global batch, all the same number, and keeps the network whole::

    with joined(recipe.ranks, device) as world:
        key_dropout(model, block, world)
        synchronise(model, world)
        for each step:
            loss = the mean over this rank's rows
            loss.backward()
            reduce_gradients(model, world)  # before gradients are unscaled, measured or applied
            optimizer.step()
        synchronise(model, ALONE)  # a plain network again

What each computes of its own loss is its part of the gradient of the sum over ranks, also where a
statistic of the batch lets one rank's images act on another's loss: hence the mean over ranks.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import SyncBatchNorm, _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.modules.lazy import LazyModuleMixin

from overconv.training.moments import Synchronised, set_class, synchronised_class
from overconv.training.world import ALONE, World


@contextmanager
def joined(ranks: int, device: str | torch.device = "cpu") -> Iterator[World]:
    """Within: this process is one of ``ranks`` that ``torchrun`` started together.

    They talk by gloo, and by nccl about what is on a GPU. With ``device="cuda"`` each makes the
    GPU of its local rank the current one.

    Raises:
        ValueError: ``torchrun`` started another number of processes, or this one is not its; the
            device is one GPU for all, or there are fewer GPUs than processes on this machine.
    """
    started = os.environ.get("WORLD_SIZE", "1")
    if started != str(ranks):
        raise ValueError(
            f"ranks={ranks}, but this is one of WORLD_SIZE={started} processes; start it by"
            f" 'torchrun --standalone --nproc-per-node={ranks}'"
        )
    if ranks == 1:
        yield ALONE
        return
    device = torch.device(device)
    if device.type == "cuda":
        _take_gpu(device)
    # what lies on the CPU, such as a flag, goes by gloo in either case
    dist.init_process_group("gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl")
    try:
        yield World(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def _take_gpu(device: torch.device) -> None:
    found, local = torch.cuda.device_count(), int(os.environ["LOCAL_RANK"])
    if device.index is not None:
        raise ValueError(f"device='{device}' for several processes; allowed: 'cpu', 'cuda'")
    if local >= found:
        raise ValueError(
            f"device='cuda' for process {local} of this machine, where torch finds {found} CUDA"
            " devices: each process needs one of its own"
        )
    torch.cuda.set_device(local)


def synchronise(model: nn.Module, world: World) -> None:
    """From here on ``model`` takes its batch statistics over all ranks while it trains, in place.

    Concerns batch norms of any class that is derived from torch's, and modules that take a mean
    over the batch by a method ``batch_mean``; see
    :func:`overconv.training.moments.synchronised_class`. Names in ``state_dict``, ``eval()``,
    exports and copies, which are plain, stay as they are. ``synchronise(model, ALONE)`` takes it
    back.

    Raises:
        ValueError: A module has statistics of the batch that cannot be shared; the message names
            it. ``model`` is as it was then.
    """
    if world.size > 1:
        for name, module in model.named_modules():
            if reason := _why_unable(module):
                raise ValueError(f"{name!r}, a {type(module).__name__}, {reason}")
    for module in model.modules():
        if isinstance(module, Synchronised):
            set_class(module, module.plain)
        shared = synchronised_class(type(module), world)
        if world.size > 1 and shared is not None:
            set_class(module, shared)


def _why_unable(module: nn.Module) -> str:
    """Why the batch statistics of a module cannot be taken over all ranks; or nothing."""
    if isinstance(module, SyncBatchNorm):
        return "exchanges its moments by itself, on CUDA alone; allowed: BatchNorm2d and its kind"
    if isinstance(module, LazyModuleMixin):
        return "gets its class in the first call; run the model once before"
    if isinstance(module, _InstanceNorm) and module.track_running_stats:
        return "keeps running statistics of each process's images; allowed: without them"
    if isinstance(module, _BatchNorm) and module.running_mean is None:
        return "normalises by the batch in eval() too; allowed: with running statistics"
    return ""


@torch.no_grad()
def reduce_gradients(model: nn.Module, world: World) -> None:
    """The gradients of ``model`` become their means over all ranks, by one exchange.

    Where some ranks have none, theirs count as zero; where no rank has one, there is none.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if world.size == 1 or not parameters:
        return
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    present = torch.tensor([float(p.grad is not None) for p in parameters])
    flat = torch.cat([*(g.flatten() for g in gradients), present.to(gradients[0])])
    *means, present = world.mean(flat).split([*map(torch.numel, gradients), len(parameters)])
    for index, (parameter, gradient, mean) in enumerate(
        zip(parameters, gradients, means, strict=True)
    ):
        # asked only of those that miss here, since it waits for the device
        if parameter.grad is not None or present[index]:
            parameter.grad = gradient.copy_(mean.view_as(gradient))
