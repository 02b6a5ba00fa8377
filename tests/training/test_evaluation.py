"""Evaluation: every example counts, once."""

import builtins
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from overconv.training import evaluation
from overconv.training.augmentation import Normalization
from overconv.training.data import Dataset
from overconv.training.evaluation import accuracy, evaluate


def counts_every_example(dataset: Dataset) -> bool:
    """Whether loss and answers are those of the whole test set, computed at once."""
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(36, 3)).train()
    normalization = Normalization.of(dataset)
    loss, correct = evaluate(model, dataset.split(0, 0).test, normalization)
    assert not model.training
    logits = model(normalization.apply(dataset.images_test))
    expected = F.cross_entropy(logits, dataset.labels_test).item()
    right = logits.argmax(1) == dataset.labels_test
    return torch.equal(correct, right) and math.isclose(loss, expected, rel_tol=1e-5)


@pytest.mark.parametrize("size", [1, 32, 35, 70, 500])  # of 70: with and without a rest
def test_every_example_is_evaluated(size, dataset, monkeypatch):
    monkeypatch.setattr(evaluation, "EVALUATION_BATCH", size)
    assert counts_every_example(dataset)


def test_a_last_batch_left_out_would_be_seen(dataset, monkeypatch):
    """The planted defect: only batches that are full."""
    monkeypatch.setattr(evaluation, "EVALUATION_BATCH", 32)
    full = lambda start, stop, step: builtins.range(start, stop - step + 1, step)  # noqa: E731
    monkeypatch.setattr(evaluation, "range", full, raising=False)
    assert not counts_every_example(dataset)


def test_of_nothing_there_is_no_figure(dataset):
    loss, correct = evaluate(
        nn.Identity(), dataset.split(0, 0).validation, Normalization.of(dataset)
    )
    assert math.isnan(loss)
    assert math.isnan(accuracy(correct))
