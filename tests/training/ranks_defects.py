"""Defects that ``ranks.py`` plants on all ranks. Not a test file.

Those that patch are the genuine code with one thing wrong.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from unittest import mock

from ranks_cases import Case, Plant, around, layer, several_layers
from torch import Tensor, nn

from overconv.training import moments
from overconv.training.distributed import synchronise
from overconv.training.streams import KeyedDropout
from overconv.training.world import ALONE, World


def apart(name: str) -> Plant:
    """The module of this name keeps to the statistics of its own process."""
    return lambda model, world: synchronise(model.get_submodule(name), ALONE)


def patch(owner: object, name: str, value: object) -> Plant:
    return lambda model, world: mock.patch.object(owner, name, value)


def unsliced(model: nn.Module, world: World) -> None:
    for module in model.modules():
        if isinstance(module, KeyedDropout):
            module.world = ALONE


genuine_mean, genuine_norm = World.mean, moments.batch_norm
genuine_moments, genuine_backward = moments.pooled_moments, moments.NormOverRanks.backward


def summed(world: World, value: Tensor) -> Tensor:
    # of the gradients alone, and not of what is reported
    return genuine_mean(world, value) * (1 if value.dim() == 0 else world.size)


def average_variance(world: World, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    return genuine_mean(world, mean), genuine_mean(world, variance)


def own_mean(world: World, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    return mean, genuine_moments(world, mean, variance)[1]


def unbiased_by_own(world: World, x: Tensor, mean: Tensor, var: Tensor, *rest: Any, **more: Any):
    before, n = var.clone(), x.numel() // x.shape[1]
    y = genuine_norm(world, x, mean, var, *rest, **more)
    if more["training"]:
        kept = (1 - more["momentum"]) * before
        factor = (n / (n - 1)) * (world.size * n - 1) / (world.size * n)
        var.copy_(kept + (var - kept) * factor)
    return y


def backward_with(stack: Callable[[World, Tensor], Tensor]) -> Callable[..., object]:
    def backward(ctx: Any, *gradients: Tensor) -> object:
        with mock.patch.object(World, "stack", stack):
            return genuine_backward(ctx, *gradients)

    return staticmethod(backward)


def defects(ranks: int) -> Iterator[tuple[str, Case]]:
    whole = partial(Case, several_layers)
    norms, gates = moments.NormOverRanks, moments.MeanOverRanks
    for name, defect in {
        "gradients not reduced": patch(World, "mean", lambda world, value: value),
        "gradients summed": patch(World, "mean", summed),
        "dropout not sliced": unsliced,
        "variance from local means": patch(moments, "pooled_moments", average_variance),
        "mean not reduced": patch(moments, "pooled_moments", own_mean),
        "unbiased by the local number": patch(moments, "batch_norm", unbiased_by_own),
        "moments' gradients not reduced": patch(
            norms, "backward", backward_with(lambda world, value: value[None])
        ),
        "moments as constants": patch(
            norms, "backward", backward_with(lambda world, value: 0 * value[None])
        ),
        "gate's gradient not reduced": patch(
            gates, "backward", staticmethod(lambda ctx, gradient: (gradient / ranks, None))
        ),
        "gate's gradient summed": patch(
            gates, "backward", staticmethod(lambda ctx, g: (ctx.world.stack(g).sum(0), None))
        ),
    }.items():
        yield name, whole(defect=defect)
    for name in ("0.behind.0", "0.gate", "1.0", "2.gate", "4.gate", "6.inner.norm", "8.gate.norm"):
        yield f"{name} not synchronised", whole(defect=apart(name))
    for kind, name in (("OREPAConv2d", "batch_norm"), ("DCDConv2d", "mix_norm")):
        build = partial(around, layer(kind))
        yield f"{kind}.{name} not synchronised", Case(build, defect=apart(f"layer.{name}"))
    yield (
        "single values counted by each",
        Case(
            partial(around, layer("ODConv2d")),
            (ranks, 4, 1, 1),
            lambda model, world: mock.patch.object(
                type(model.layer.gate.norm), "num_values", lambda self, x: x.shape[0]
            ),
        ),
    )
