"""Mixup: a share a batch, of Beta, and mixtures of neighbours."""

import math

import numpy as np
import pytest
import torch

from overconv.training.mixup import draw_share, mix


def test_rows_are_mixed_with_the_ones_before_them():
    """By the formula, value by value."""
    images, labels = torch.randn(4, 2, 3, 3), torch.tensor([2, 0, 1, 1])
    mixed, targets = mix(images, labels, 0.3, num_classes=3)
    for row in range(3):
        for channel, y, x in np.ndindex(2, 3, 3):
            expected = 0.3 * images[row + 1, channel, y, x] + 0.7 * images[row, channel, y, x]
            assert mixed[row, channel, y, x].item() == pytest.approx(expected.item(), abs=1e-6)
    expected = [[0.3, 0.0, 0.7], [0.7, 0.3, 0.0], [0.0, 1.0, 0.0]]
    torch.testing.assert_close(targets, torch.tensor(expected))


def test_it_is_written_where_it_is_told():
    images, room = torch.randn(4, 1, 2, 2), torch.empty(3, 1, 2, 2)
    mixed, _ = mix(images, torch.tensor([0, 1, 0, 1]), 0.9, 2, out=room)
    assert mixed.data_ptr() == room.data_ptr()
    torch.testing.assert_close(room, 0.9 * images[1:] + 0.1 * images[:-1])


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_shares_are_of_beta_and_of_their_step(alpha):
    shares = np.array([draw_share(alpha, 1, 2, step) for step in range(3000)])
    assert 0 <= shares.min() < shares.max() <= 1
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    deviation = math.sqrt(1 / (4 * (2 * alpha + 1)))  # of Beta(alpha, alpha)
    assert shares.std() == pytest.approx(deviation, rel=0.05)
    assert draw_share(alpha, 1, 2, 7) == shares[7]
    assert len({*shares[:9], draw_share(alpha, 2, 2, 0), draw_share(alpha, 1, 3, 0)}) == 11
