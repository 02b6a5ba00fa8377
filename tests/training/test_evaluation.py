"""Evaluation: every example counts, once."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from overconv.training.evaluation import accuracy, evaluate


@pytest.fixture
def examples():
    return torch.randn(70, 4), torch.randint(3, (70,))


def counts_every_example(examples, batches) -> bool:
    """Whether loss and answers are those of all examples, computed at once."""
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 3)).train()
    loss, correct = evaluate(model, batches)
    assert not model.training
    logits = model(examples[0])
    expected = F.cross_entropy(logits, examples[1]).item()
    right = logits.argmax(1) == examples[1]
    return torch.equal(correct, right) and math.isclose(loss, expected, rel_tol=1e-5)


def split(examples, size):
    return list(zip(*(part.split(size) for part in examples), strict=True))


@pytest.mark.parametrize("size", [1, 32, 35, 70, 500])  # of 70: with and without a rest
def test_every_example_is_evaluated(size, examples):
    assert counts_every_example(examples, iter(split(examples, size)))


def test_a_last_batch_left_out_would_be_seen(examples):
    assert not counts_every_example(examples, split(examples, 32)[:-1])


def test_a_batch_counted_as_much_as_another_would_be_seen(examples):
    """The planted defect: the mean of the batches' means, of which the last has fewer examples."""
    model = nn.Linear(4, 3)
    means = [F.cross_entropy(model(x), y).item() for x, y in split(examples, 32)]
    loss, _ = evaluate(model, split(examples, 32))
    assert not math.isclose(loss, sum(means) / 3, rel_tol=1e-5)


def test_nothing_is_kept_for_a_backward_pass(examples):
    class Watched(nn.Linear):
        def forward(self, x):
            watched.append(torch.is_grad_enabled())
            return super().forward(x)

    watched = []
    evaluate(Watched(4, 3), split(examples, 35))
    assert watched == [False, False]


def test_of_nothing_there_is_no_figure():
    loss, correct = evaluate(nn.Identity(), [])
    assert math.isnan(loss)
    assert correct.dtype == torch.bool
    assert math.isnan(accuracy(correct))
