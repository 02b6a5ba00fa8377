"""Streams: keyed, apart from one another, and the only source of randomness in a training."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from overconv.training.streams import KeyedDropout, key_dropout, no_global_draws, seeded, stream
from overconv.training.world import ALONE, World


def draws(*key) -> list[float]:
    return stream(*key).random(4).tolist()


def test_a_stream_is_a_function_of_its_key():
    assert draws(3, "order", 7) == draws(3, "order", 7)
    keys = [(3, "order", 7), (3, "order", 8), (4, "order", 7), (3, "split", 7), (3, "order", "7")]
    assert len({tuple(draws(*key)) for key in keys}) == len(keys)


def test_parts_of_a_key_do_not_run_together():
    assert draws(1, "a", "bc") != draws(1, "ab", "c")
    assert draws(1, "a", 1, 2) != draws(1, "a", 12)


def test_a_stream_is_the_same_in_another_process():
    code = (
        "from overconv.training.streams import stream\n"
        "print(stream(3, 'order', 7).random(4).tolist())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == str(draws(3, "order", 7))


def test_streams_of_blocks_are_uncorrelated():
    values = np.stack([stream(block, "order", 0).random(20_000) for block in range(8)])
    correlation = np.corrcoef(values) - np.eye(8)
    assert np.abs(correlation).max() < 5 / np.sqrt(20_000)


def test_seeded_restores_the_global_generator():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with seeded(0, "init"):
        inside = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    with seeded(0, "init"):
        assert torch.equal(torch.rand(3), inside)
    with seeded(0, "init", "other"):
        assert not torch.equal(torch.rand(3), inside)


def test_a_draw_from_the_global_generator_is_noticed():
    with no_global_draws("cpu"):
        stream(0, "order", 0).permutation(5)
        with seeded(0, "init"):
            torch.rand(3)
    noticed = pytest.raises(RuntimeError, match="drew from a global generator")
    with noticed, no_global_draws("cpu"):
        torch.rand(3)


@pytest.mark.gpu
def test_seeded_leaves_other_devices_alone():
    before = torch.cuda.get_rng_state()
    with seeded(0, "init"):
        torch.rand(3)
    assert torch.equal(torch.cuda.get_rng_state(), before)


class Net(nn.Module):
    def __init__(self, first: nn.Module, second: nn.Module):
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x):
        return self.second(self.first(x))


def keyed(p: float = 0.5, block: int = 0) -> tuple[Net, list[KeyedDropout]]:
    net = Net(nn.Dropout(p), nn.Dropout(p))
    return net, key_dropout(net, block)


def test_dropout_follows_block_name_and_step_and_not_the_global_state():
    x = torch.ones(8, 64)

    def mask(block=0, step=0, seed=0):
        net, modules = keyed(block=block)
        for module in modules:
            module.step = step
        torch.manual_seed(seed)
        return net.first(x)

    assert torch.equal(mask(seed=1), mask(seed=2))
    assert not torch.equal(mask(step=0), mask(step=1))
    assert not torch.equal(mask(block=0), mask(block=1))
    net, _ = keyed()
    assert not torch.equal(net.first(x), net.second(x))


def test_dropout_keeps_the_expectation_and_the_share():
    net = Net(nn.Dropout(0.25), nn.Identity())
    key_dropout(net, block=3)
    y = net(torch.ones(200, 500))
    assert y.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert (y == 0).double().mean().item() == pytest.approx(0.25, abs=0.01)


def test_dropout_of_channels_drops_whole_channels():
    net = Net(nn.Dropout2d(0.5), nn.Identity())
    key_dropout(net, block=0)
    y = net(torch.ones(6, 10, 3, 3))
    assert torch.equal(y, y[:, :, :1, :1].expand_as(y))
    assert 0 < (y == 0).sum() < y.numel()


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_dropout_at_its_ends(p):
    net = Net(nn.Dropout(p), nn.Identity())
    key_dropout(net, block=0)
    assert torch.equal(net(torch.ones(3, 4)), torch.full((3, 4), 1.0 - p))


def test_dropout_is_the_identity_in_evaluation():
    net, _ = keyed()
    x = torch.randn(4, 5)
    assert torch.equal(net.eval()(x), x)


def test_a_shared_dropout_draws_anew_at_each_place():
    shared = nn.Dropout(0.5)
    net = Net(shared, shared)
    [module] = key_dropout(net, block=0)
    assert net.first is net.second is module
    x = torch.ones(4, 100)
    assert not torch.equal(module(x), module(x))


@pytest.mark.parametrize("kind", [nn.Dropout, nn.Dropout2d])
@pytest.mark.parametrize("size", [2, 3])
def test_ranks_drop_their_rows_of_the_whole_batch(size, kind):
    x = torch.ones(6, 5, 3, 2)

    def dropped(world: World, rows: torch.Tensor) -> torch.Tensor:
        net = Net(kind(0.5), kind(0.5))
        for module in key_dropout(net, block=1, world=world):
            module.step = 4
        return net(rows)

    whole = dropped(ALONE, x)
    worlds = [World(rank, size) for rank in range(size)]
    parts = [dropped(world, x[world.rows(6)]) for world in worlds]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(parts[0], parts[1])


def test_a_later_training_may_have_other_ranks():
    net, _ = keyed()
    assert {module.world for module in key_dropout(net, 0, World(1, 2))} == {World(1, 2)}
    assert {module.world for module in key_dropout(net, 0)} == {ALONE}


def test_a_second_training_is_keyed_for_its_own_block():
    x = torch.ones(4, 100)
    net, _ = keyed(block=0)
    net.first(x)
    [first, second] = key_dropout(net, block=1)
    assert (net.first, net.second) == (first, second)
    assert torch.equal(net.first(x), keyed(block=1)[0].first(x))


def test_a_network_that_is_a_dropout_is_refused():
    with pytest.raises(ValueError, match="itself a dropout"):
        key_dropout(nn.Dropout(), block=0)


@pytest.mark.parametrize("kind", [nn.AlphaDropout, nn.FeatureAlphaDropout])
def test_an_unknown_dropout_is_refused_by_name(kind):
    net = Net(kind(), nn.Dropout())
    with pytest.raises(ValueError, match=f"'first' is a {kind.__name__}; allowed: Dropout"):
        key_dropout(net, block=0)
    assert type(net.second) is nn.Dropout, "left as it was"
