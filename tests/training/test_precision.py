"""Mixed precision: the loop against the same written out, and its scale against its rule."""

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from overconv.training.loop import train
from overconv.training.recipe import Recipe
from overconv.training.streams import seeded

RECIPE = Recipe(
    epochs=2, batch_size=20, lr=0.02, momentum=0.0, weight_decay=0.0, schedule="constant"
)
STEPS = 9  # an epoch: 180 examples
INITIAL, GROWTH = 2.0**17, 3


def network():
    with seeded(0, "init"):
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)
        )


class Types(nn.Module):
    """Passes on, and keeps the type of each input in training and in evaluation."""

    def __init__(self):
        super().__init__()
        self.heard = {True: set(), False: set()}

    def forward(self, x):
        self.heard[self.training].add(x.dtype)
        return x


def by_hand(dataset, dtype):
    """Plain gradient descent with the forward pass in ``dtype``; losses, norms, scales.

    The loss is multiplied by a scale that halves where a gradient is not finite, the step being
    left out, and doubles after ``GROWTH`` steps in a row that were taken.
    """
    model, inputs = network().train(), dataset.inputs(RECIPE, 0, "cpu")
    scaled = dtype == torch.float16
    scale, taken, norms, losses, scales = (INITIAL if scaled else 1.0), 0, [], [], []
    for epoch in range(RECIPE.epochs):
        for batch in inputs.epoch(epoch):
            with torch.autocast("cpu", dtype):
                logits = model(batch.images)
            loss = F.cross_entropy(logits.float(), batch.labels)
            gradients = torch.autograd.grad(loss * scale, list(model.parameters()))
            gradients = [gradient / scale for gradient in gradients]
            norms.append(torch.cat([g.flatten() for g in gradients]).norm().item())
            losses.append(loss.item())
            if all(gradient.isfinite().all() for gradient in gradients):
                taken += 1
                with torch.no_grad():
                    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                        parameter -= RECIPE.lr * gradient
                if scaled and taken == GROWTH:
                    scale, taken = scale * 2, 0
            else:
                scale, taken = scale / 2, 0
            scales.append(scale)
    return losses, norms, scales


@pytest.mark.parametrize("amp", ["bfloat16", "float16"])
def test_the_loop_is_its_definition(amp, dataset, monkeypatch):
    scaler = partial(torch.amp.GradScaler, init_scale=INITIAL, growth_interval=GROWTH)
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)
    losses, norms, scales = by_hand(dataset, getattr(torch, amp))
    recipe = dataclasses.replace(RECIPE, amp=amp)
    curves = train(network(), dataset, recipe, block=0).curves
    expected = np.array(losses).reshape(2, STEPS).mean(1)
    np.testing.assert_allclose(curves["train_loss"], expected, rtol=1e-5)
    looked_at = np.array(norms).reshape(2, STEPS)[:, [0, 8]]
    taken = np.where(np.isfinite(looked_at), looked_at, np.nan)
    np.testing.assert_allclose(curves["grad_norm"], np.nanmean(taken, 1), rtol=1e-4)
    if amp == "float16":
        assert np.isnan(taken).any(), "a step that is left out is among them"
        assert {-1, 1} <= set(np.sign(np.diff(scales)))


def test_precisions_differ(dataset):
    """Otherwise the test above would show nothing."""
    curves = [
        train(network(), dataset, dataclasses.replace(RECIPE, amp=amp), block=0).curves
        for amp in ("none", "bfloat16", "float16")
    ]
    assert len({curve["train_loss"][-1] for curve in curves}) == 3


@pytest.mark.parametrize(
    ("amp", "within"),
    [("none", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)],
)
def test_training_alone_is_in_lower_precision(amp, within, dataset):
    model = network()
    model.insert(1, types := Types())
    recipe = dataclasses.replace(RECIPE, amp=amp, num_validation=20)
    train(model, dataset, recipe, block=0)
    assert types.heard == {True: {within}, False: {torch.float32}}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_where_no_step_was_taken_there_is_no_norm(dataset, monkeypatch):
    scaler = partial(torch.amp.GradScaler, init_scale=2.0**100)
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)
    recipe = dataclasses.replace(RECIPE, amp="float16", epochs=1)
    model = network()
    result = train(model, dataset, recipe, block=0)
    assert result.outcome == "finished", "the loss was finite throughout"
    assert np.isnan(result.curves["grad_norm"]).all()
    for found, start in zip(model.parameters(), network().parameters(), strict=True):
        assert torch.equal(found, start)
