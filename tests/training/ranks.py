"""Trains networks as one of several processes, and alone, for ``test_distributed.py``.

Not a test file: ``ranks.py FILE 2:some,layers 3:some`` runs it, for these parts by two processes
and for those by three. The first of them writes, for each case, how far what all together made of
some batches is from what one process made of the same.
"""

import multiprocessing
import os
import socket
import sys
from contextlib import nullcontext
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from ranks_cases import DOUBLE, Build, Case, every_variant, layers, some
from ranks_defects import defects
from torch import Tensor

from overconv.training.distributed import joined, reduce_gradients, synchronise
from overconv.training.streams import key_dropout
from overconv.training.world import ALONE, World

STEPS = 3


def difference(case: Case, world: World) -> dict[str, Any]:
    """How far the ranks are from one process, and whether they have the same bits."""
    values = trained(case, world)
    same = world.stack(values)
    if world.rank > 0:
        return {}
    expected = alone(case.build, case.shape)
    furthest = float(((values - expected).abs() / expected.abs().clamp_min(1)).max())
    return {"difference": furthest, "same bits": bool((same == same[0]).all())}


@cache
def alone(build: Build, shape: tuple[int, ...]) -> Tensor:
    return trained(Case(build, shape), ALONE)


def trained(case: Case, world: World) -> Tensor:
    """Losses, hits and gradients of each step, and the state after the last, in one row."""
    torch.manual_seed(1)
    model = case.build().train()
    dropouts = key_dropout(model, block=3, world=world)
    synchronise(model, world)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, nesterov=True)
    generator = torch.Generator().manual_seed(0)
    seen: list[Tensor] = []
    with case.defect(model, world) or nullcontext():
        for step in range(STEPS):
            images = torch.randn(case.shape, generator=generator, **DOUBLE) + 0.5 * step
            labels = torch.randint(3, case.shape[:1], generator=generator)
            for dropout in dropouts:
                dropout.step, dropout.calls = step, 0
            rows = world.rows(len(images))
            logits = model(images[rows])
            loss = F.cross_entropy(logits, labels[rows])
            model.zero_grad()
            loss.backward()
            reduce_gradients(model, world)
            optimizer.step()
            hits = (logits.argmax(1) == labels[rows]).double().mean()
            seen += [world.mean(loss.detach()), world.mean(hits)]
            seen += [p.grad for p in model.parameters() if p.grad is not None]
    return torch.cat([value.flatten().double() for value in (*seen, *model.state_dict().values())])


# What ranks tell each other.


def exchanges(world: World) -> dict[str, Any]:
    """What each method of ``world`` gives on this rank, whose own values tell who it is."""
    rank = world.rank
    rows = torch.arange(2 * rank, dtype=torch.int64)[:, None].expand(-1, 3) + 10 * rank
    leaf = torch.full((2,), float(rank), dtype=torch.float64, requires_grad=True)
    return {
        "mean": world.mean(leaf),
        "stack": world.stack(torch.tensor([[True, False], [rank > 0, rank > 1]])),
        "scalar": world.stack(torch.tensor(rank, dtype=torch.bfloat16)),
        "transposed": world.stack(torch.arange(6.0).view(2, 3).t() + rank),
        "gather": world.gather(rows),
        "none": world.gather(torch.zeros(0, 2)),
        "bools": world.gather(torch.arange(rank + 1) % 2 == 0),
        "world": (rank, world.size),
        "any": [world.any(rank == asked) for asked in range(-1, world.size)],
    }


def work(path: str, parts: list[str]) -> None:
    makers = {"some": some, "layers": layers, "all": every_variant, "defects": defects}
    ranks, found = int(os.environ["WORLD_SIZE"]), {}
    with joined(ranks) as world:
        for part in parts:
            told = makers[part](ranks)
            found[part] = {name: difference(case, world) for name, case in told}
        torch.save(found | {"exchanges": exchanges(world)}, f"{path}.{ranks}.{world.rank}")


def fork(ranks: int, *arguments: Any) -> None:
    """Do the work as torchrun would start it, but with all modules loaded once."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    os.environ |= {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = []
    for rank in range(ranks):
        os.environ["RANK"] = str(rank)
        processes.append(multiprocessing.get_context("fork").Process(target=work, args=arguments))
        processes[-1].start()
    for process in processes:
        process.join()
    if failed := [process.exitcode for process in processes if process.exitcode]:
        sys.exit(f"of {ranks} ranks, {len(failed)} failed")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for request in sys.argv[2:]:
        ranks, _, parts = request.partition(":")
        fork(int(ranks), sys.argv[1], parts.split(","))
