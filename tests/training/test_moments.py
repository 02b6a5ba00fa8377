"""Batch norm over ranks: its formulas against torch's own, for one rank and for some made up."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from overconv.training.moments import (
    MeanOverRanks,
    batch_norm,
    pooled_moments,
    synchronised_class,
)
from overconv.training.world import ALONE, World


def statistics(channels: int, **more) -> tuple[Tensor, Tensor]:
    return torch.linspace(-1, 1, channels, **more), torch.linspace(0.5, 2, channels, **more)


@pytest.mark.parametrize("shape", [(5, 3), (4, 3, 2), (4, 3, 2, 5), (2, 3, 2, 2, 2)])
@pytest.mark.parametrize("affine", [True, False])
def test_of_one_rank_it_is_that_of_torch(shape, affine):
    x = torch.randn(shape, dtype=torch.float64) * 3 + 2
    weight, bias = torch.randn(2, 3, dtype=torch.float64) if affine else (None, None)
    target = torch.randn(shape, dtype=torch.float64)
    found, expected = [], []
    for norm, results in ((lambda *a: batch_norm(ALONE, *a), found), (F.batch_norm, expected)):
        inputs = [None if v is None else v.clone().requires_grad_() for v in (x, weight, bias)]
        running = statistics(3, dtype=torch.float64)
        y = norm(inputs[0], *running, *inputs[1:], True, 0.3, 0.01)
        (y * target).sum().backward()
        results += [y, *running, *(v.grad for v in inputs if v is not None)]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_the_gradient_is_that_of_the_formula():
    x = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    weight, bias = torch.randn(2, 2, dtype=torch.float64).requires_grad_().unbind()
    assert torch.autograd.gradcheck(
        lambda x, *affine: batch_norm(ALONE, x, None, None, *affine, True), (x, weight, bias)
    )
    assert torch.autograd.gradcheck(lambda value: MeanOverRanks.apply(value, ALONE), (x,))


def test_what_needs_no_gradient_gets_none():
    weight, bias = torch.randn(2, 2, dtype=torch.float64)
    x = torch.randn(4, 2, dtype=torch.float64)
    batch_norm(ALONE, x, None, None, weight, bias.requires_grad_(), True).sum().backward()
    assert x.grad is None
    assert weight.grad is None
    assert bias.grad.tolist() == [4, 4]


def test_moments_of_parts_are_those_of_the_whole():
    parts = torch.randn(3, 2, 10, dtype=torch.float64) * 2 + torch.arange(3)[:, None, None]
    told = torch.stack((parts.mean(2), parts.var(2, correction=0)), 1)
    world = SimpleNamespace(stack=lambda value: told)
    mean, variance = pooled_moments(world, told[1, 0], told[1, 1])
    whole = parts.transpose(0, 1).flatten(1)
    torch.testing.assert_close(mean, whole.mean(1))
    torch.testing.assert_close(variance, whole.var(1, correction=0))


def test_a_large_mean_does_not_drown_the_variance():
    """The planted defect, E[x^2] - E[x]^2, is off by more than the variance itself."""
    x = torch.randn(8, 2, 20, 20) + 3000
    var = torch.zeros(2)
    batch_norm(ALONE, x, torch.zeros(2), var, training=True, momentum=1.0)
    expected = x.double().var((0, 2, 3))
    torch.testing.assert_close(var.double(), expected, rtol=1e-4, atol=0)
    planted = x.square().mean((0, 2, 3)) - x.mean((0, 2, 3)).square()
    assert ((planted - expected).abs() > 0.1 * expected).all()


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_moments_of_half_precision_are_single(kind):
    x = (torch.randn(16, 2, 8, 8) + 20).to(kind).requires_grad_()
    running = torch.zeros(2), torch.zeros(2)
    weight, target = torch.tensor([0.7, 1.3]), torch.randn(x.shape).to(kind)
    y = batch_norm(ALONE, x, *running, weight, torch.zeros(2), True, 1.0)
    y.backward(target)
    assert y.dtype == x.grad.dtype == kind
    single = x.detach().float().requires_grad_()
    F.batch_norm(single, None, None, weight, torch.zeros(2), True).backward(target.float())
    torch.testing.assert_close(x.grad.float(), single.grad, rtol=0.01, atol=0.02)
    torch.testing.assert_close(running[0], x.detach().float().mean((0, 2, 3)))
    torch.testing.assert_close(running[1], x.detach().float().var((0, 2, 3)))


def test_the_memory_format_stays():
    x = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last).requires_grad_()
    y = batch_norm(ALONE, x, None, None, training=True)
    y.backward(torch.randn_like(y))
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert x.grad.is_contiguous(memory_format=torch.channels_last)


def test_only_what_takes_statistics_of_the_batch_has_a_class():
    world = World(0, 2)
    assert synchronised_class(nn.Conv2d, world) is None
    assert synchronised_class(nn.LayerNorm, world) is None
    assert synchronised_class(nn.GroupNorm, world) is None
    assert issubclass(synchronised_class(nn.BatchNorm1d, world), nn.BatchNorm1d)


@pytest.mark.gpu
def test_on_cuda_it_is_that_of_torch():
    x = torch.randn(8, 3, 5, 5, device="cuda")
    weight, bias = torch.randn(2, 3, device="cuda")
    running = [value.cuda() for value in statistics(3)]
    again = [value.clone() for value in running]
    y = batch_norm(ALONE, x, *running, weight, bias, True)
    torch.testing.assert_close(y, F.batch_norm(x, *again, weight, bias, True))
    torch.testing.assert_close(running, again)
