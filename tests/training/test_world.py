"""Who of how many a process is; what the ranks tell each other is tested in test_distributed.py."""

import pytest
import torch

from overconv.training.world import ALONE, World


@pytest.mark.parametrize(("rank", "size"), [(2, 2), (-1, 2), (0, 0)])
def test_a_rank_is_one_of_the_ranks(rank, size):
    with pytest.raises(ValueError, match=f"rank={rank}; allowed: from 0 to {size - 1}"):
        World(rank, size)


def test_rows_of_a_batch_are_equally_many():
    batch = list(range(6))
    assert [batch[World(rank, 3).rows(6)] for rank in range(3)] == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(ValueError, match="a batch of 7 does not divide by 3 ranks"):
        World(1, 3).rows(7)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 100])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_shares_hold_each_once_in_order(n, size):
    shares = [list(range(n))[World(rank, size).share(n)] for rank in range(size)]
    assert sum(shares, []) == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_alone_gives_back_what_it_is_given():
    value = torch.randn(3, 2, requires_grad=True)
    assert ALONE.mean(value) is value
    assert ALONE.gather(value) is value
    assert torch.equal(ALONE.stack(value), value[None])
    assert ALONE.any(True) is True
    assert ALONE.any(False) is False
