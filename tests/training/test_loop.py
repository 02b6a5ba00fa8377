"""The loop: repeatable to the bit, blind to the model's random draws, honest at the end."""

import dataclasses
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from overconv.training import inputs, loop
from overconv.training.augmentation import Feed, Normalization
from overconv.training.conditions import Conditions
from overconv.training.data import Dataset
from overconv.training.inputs import Batch
from overconv.training.loop import train, train_step
from overconv.training.memory_inputs import MemoryInputs
from overconv.training.recipe import Recipe
from overconv.training.state import TrainState, grad_norm
from overconv.training.streams import seeded, stream

RECIPE = Recipe(epochs=2, batch_size=32, lr=0.05, crop_padding=1, flip=True, num_validation=40)


def network(dropout: float = 0.0) -> nn.Module:
    with seeded(0, "init"):
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(144, 3),
        )


class Listener(nn.Module):
    """Passes on, and keeps what it was given while training."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner, self.heard = inner, []

    def forward(self, x):
        if self.training:
            self.heard.append(x.detach().clone())
        return self.inner(x)


def rows(images: torch.Tensor) -> list[bytes]:
    return [image.numpy().tobytes() for image in images]


def heard(dataset: Dataset, **changes) -> list[bytes]:
    """What reaches a network in training, example by example."""
    listener = Listener(network())
    train(listener, dataset, dataclasses.replace(RECIPE, **changes), block=0)
    return rows(torch.cat(listener.heard))


def same(first, second) -> bool:
    return (
        first.metrics == second.metrics
        and first.curves == second.curves
        and np.array_equal(first.correct, second.correct)
    )


def test_the_same_training_gives_the_same_bits(dataset):
    torch.manual_seed(1)
    first = train(network(0.3), dataset, RECIPE, block=0)
    torch.manual_seed(2)
    assert same(train(network(0.3), dataset, RECIPE, block=0), first)
    assert not same(train(network(0.3), dataset, RECIPE, block=1), first)


def test_what_reaches_the_network_does_not_depend_on_it(dataset):
    small, large = Listener(network()), Listener(nn.Sequential(network(0.5), nn.Linear(3, 3)))
    train(small, dataset, RECIPE, block=0)
    train(large, dataset, RECIPE, block=0)
    assert len(small.heard) == 2 * (140 // 32)
    assert all(torch.equal(a, b) for a, b in zip(small.heard, large.heard, strict=True))


def test_an_epoch_sees_each_example_once(dataset):
    recipe = dataclasses.replace(RECIPE, crop_padding=0, flip=False, batch_size=35)
    listener = Listener(network())
    train(listener, dataset, recipe, block=0)
    expected = Normalization.of(dataset.images_train).apply(dataset.split(0, RECIPE).train.images)
    for epoch in (listener.heard[:4], listener.heard[4:]):
        assert sorted(rows(torch.cat(epoch))) == sorted(rows(expected))
    assert not torch.equal(torch.cat(listener.heard[:4]), torch.cat(listener.heard[4:]))


def test_an_order_shared_with_initialisation_would_be_seen(dataset, monkeypatch):
    """The planted defect: one generator for all, which a larger network has moved further."""

    def heard_after(num_initial_values: int) -> list[bytes]:
        shared = stream(0, "everything")
        shared.standard_normal(num_initial_values)
        monkeypatch.setattr(inputs, "stream", lambda *key: shared)
        return heard(dataset)

    assert heard_after(500) == heard_after(500)
    assert heard_after(500) != heard_after(600)


def test_what_an_example_becomes_does_not_depend_on_its_batch(dataset):
    assert heard(dataset, batch_size=35) == heard(dataset, batch_size=70)


def test_augmentation_drawn_by_place_would_be_seen(dataset, monkeypatch):
    """The planted defect: a table of draws for the places in a batch, not for the examples."""
    genuine = Feed.batches

    def planted(self, places, draws, size):
        numbers = torch.zeros_like(self.split.numbers)
        numbers[places] = torch.arange(len(places)) % size
        self.split = dataclasses.replace(self.split, numbers=numbers)
        return genuine(self, places, draws, size)

    monkeypatch.setattr(Feed, "batches", planted)
    assert heard(dataset, batch_size=35) != heard(dataset, batch_size=70)


def test_each_epoch_augments_anew(dataset):
    """With one batch an epoch, of all examples, the same draws would give the same set again."""
    seen = heard(dataset, batch_size=140)
    assert sorted(seen[:140]) != sorted(seen[140:])


class Constant(nn.Module):
    """Ones in the place of the images, so that what is behind shows its dropout's mask."""

    def forward(self, x):
        return torch.ones(len(x), 36)


def test_each_step_drops_anew(dataset):
    listener = Listener(nn.Linear(36, 3))
    train(nn.Sequential(Constant(), nn.Dropout(0.5), listener), dataset, RECIPE, block=0)
    assert len(listener.heard) == 8
    assert len({mask.numpy().tobytes() for mask in listener.heard}) == 8


class Draws(nn.Module):
    def __init__(self, while_training: bool):
        super().__init__()
        self.while_training = while_training

    def forward(self, x):
        return F.dropout(x, 0.5, self.training == self.while_training)


@pytest.mark.parametrize("while_training", [True, False])
def test_a_draw_from_the_global_generator_is_refused(while_training, dataset):
    """The planted defect: dropout from torch's global state, in training or in evaluation."""
    model = nn.Sequential(Draws(while_training), network())
    with pytest.raises(RuntimeError, match="drew from a global generator"):
        train(model, dataset, dataclasses.replace(RECIPE, num_validation=0, epochs=1), block=0)


def test_a_dropout_that_is_not_keyed_would_be_seen(dataset, monkeypatch):
    """The planted defect: the network keeps its own dropout."""
    monkeypatch.setattr(loop, "key_dropout", lambda model, block, world: [])
    with pytest.raises(RuntimeError, match="drew from a global generator"):
        train(network(0.3), dataset, RECIPE, block=0)


def test_a_model_trained_before_is_keyed_for_the_new_block(dataset):
    model, other = network(0.3), network(0.3)
    train(model, dataset, RECIPE, block=0)
    model.load_state_dict(other.state_dict())
    assert same(train(model, dataset, RECIPE, block=1), train(other, dataset, RECIPE, block=1))


def test_threads_are_those_of_the_recipe(dataset):
    train(network(), dataset, dataclasses.replace(RECIPE, threads=2), block=0)
    assert torch.get_num_threads() == 2
    assert torch.are_deterministic_algorithms_enabled()


class DrawsElsewhere(nn.Module):
    def __init__(self, draw, training):
        super().__init__()
        self.draw, self.when = draw, training

    def forward(self, x):
        return x * (1 + 0 * self.draw()) if self.training is self.when else x


@pytest.mark.parametrize("draw", [np.random.rand, random.random, lambda: torch.rand(1)])
@pytest.mark.parametrize("training", [True, False])
def test_no_global_generator_is_drawn_from_in_any_mode(draw, training, dataset):
    model = nn.Sequential(DrawsElsewhere(draw, training), network())
    with pytest.raises(RuntimeError, match="drew from a global generator"):
        train(model, dataset, dataclasses.replace(RECIPE, epochs=1), block=0)


def test_a_divergence_in_the_last_step_is_one(dataset):
    recipe = Recipe(epochs=1, batch_size=180, lr=1e38)
    result = train(network(), dataset, recipe, block=0)
    assert result.outcome == "diverged"
    assert result.diverged_at == {"epoch": 0, "step": 1}
    assert {len(curve) for curve in result.curves.values()} == {1}


def by_hand(dataset: Dataset, recipe: Recipe) -> nn.Module:
    """The same training without the loop: plain SGD with momentum, written out in float32."""
    model, splits = network(), dataset.split(0, recipe)
    normalization = Normalization.of(dataset.images_train)
    velocity = {}
    step = 0
    for epoch in range(recipe.epochs):
        order = stream(0, "order", epoch).permutation(len(splits.train))
        for index in range(len(order) // recipe.batch_size):
            chosen = order[index * recipe.batch_size : (index + 1) * recipe.batch_size]
            x = normalization.apply(splits.train.images[chosen])
            model.train().zero_grad()
            F.cross_entropy(model(x), splits.train.labels[chosen]).backward()
            rate = recipe.rate(step, len(order) // recipe.batch_size)
            with torch.no_grad():
                for name, p in model.named_parameters():
                    g = p.grad + (recipe.weight_decay * p if p.dim() > 1 else 0)
                    velocity[name] = g + recipe.momentum * velocity.get(name, torch.zeros_like(g))
                    p -= rate * (g + recipe.momentum * velocity[name])
            step += 1
    return model


def test_the_loop_is_its_definition(dataset):
    recipe = dataclasses.replace(RECIPE, crop_padding=0, flip=False)
    model = network()
    result = train(model, dataset, recipe, block=0)
    expected = by_hand(dataset, recipe).eval()
    for found, wanted in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    x = Normalization.of(dataset.images_train).apply(dataset.images_test)
    right = (expected(x).argmax(1) == dataset.labels_test).double().mean().item()
    assert result.metrics["test_accuracy"] == pytest.approx(right, abs=0.03)


def test_curves_and_metrics(dataset):
    told = []
    result = train(
        network(), dataset, RECIPE, block=0, on_epoch=lambda e, values: told.append((e, values))
    )
    assert {len(curve) for curve in result.curves.values()} == {2}
    assert [epoch for epoch, _ in told] == [0, 1]
    assert told[1][1]["train_loss"] == result.metrics["train_loss"]
    assert result.metrics["test_accuracy"] == result.correct.mean()
    assert result.curves["lr"][1] < result.curves["lr"][0]
    assert len(result.correct) == 70
    assert result.curves["validation_accuracy"][-1] == result.metrics["validation_accuracy"]


def test_the_norm_is_of_all_gradients_together():
    model = network()
    model(torch.randn(4, 1, 6, 6)).square().sum().backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
    torch.testing.assert_close(grad_norm(model), expected)


@pytest.mark.parametrize("nesterov", [True, False])
def test_the_norm_is_taken_before_the_step(nesterov, dataset, monkeypatch):
    """With torch's multi-tensor kernels, the default on CUDA, SGD changes gradients in place."""
    recipe = dataclasses.replace(RECIPE, nesterov=nesterov)
    expected = train(network(), dataset, recipe, block=0).curves["grad_norm"]
    genuine = Recipe.build_optimizer

    def multi_tensor(self, model):
        optimizer = genuine(self, model)
        for group in optimizer.param_groups:
            group["foreach"] = True
        return optimizer

    monkeypatch.setattr(Recipe, "build_optimizer", multi_tensor)
    found = train(network(), dataset, recipe, block=0).curves["grad_norm"]
    assert found == pytest.approx(expected, rel=1e-4)


def test_the_test_set_is_scored_once_at_the_end(dataset, monkeypatch):
    scored = []
    genuine = loop.evaluate

    def spy(model, batches, world):
        batches = list(batches)
        scored.append(sum(len(labels) for _, labels in batches))
        return genuine(model, batches, world)

    monkeypatch.setattr(loop, "evaluate", spy)
    train(network(), dataset, RECIPE, block=0)
    assert scored == [40, 40, 70]


@pytest.mark.parametrize("lr", [1e30, 1e38])
def test_divergence_is_an_outcome(lr, dataset):
    result = train(network(), dataset, dataclasses.replace(RECIPE, lr=lr), block=0)
    assert result.outcome == "diverged"
    assert result.correct is None
    assert set(result.metrics.values()) == {None}
    assert result.diverged_at["epoch"] == 0
    assert result.diverged_at["step"] >= 1
    assert {len(values) for values in (*result.curves.values(), *result.seconds.values())} == {1}


def test_divergence_in_the_very_last_step_is_seen(dataset):
    """No training loss follows on it, and the classes of NaNs would pass for an accuracy."""
    recipe = dataclasses.replace(
        RECIPE, epochs=1, batch_size=140, lr=1e38, num_validation=40, schedule="constant"
    )
    result = train(network(), dataset, recipe, block=0)
    assert np.isfinite(result.curves["train_loss"]).all()
    assert result.outcome == "diverged"
    assert result.diverged_at == {"epoch": 0, "step": 1}
    assert result.correct is None


class Recorder:
    def __init__(self):
        self.heard = []

    def apply(self, model, progress):
        self.heard.append(progress)


def test_schedules_hear_the_progress(dataset):
    recorder = Recorder()
    train(network(), dataset, dataclasses.replace(RECIPE, schedules=(recorder,)), block=0)
    assert recorder.heard == [0, 0.125, 0.25, 0.375, 0.5, 0.5, 0.625, 0.75, 0.875, 1.0]


def test_a_batch_larger_than_the_data_is_refused(dataset):
    with pytest.raises(ValueError, match="batch_size=200 is more than the 140 training examples"):
        train(network(), dataset, dataclasses.replace(RECIPE, batch_size=200), block=0)


def test_without_validation_there_is_no_validation_figure(dataset):
    result = train(network(), dataset, dataclasses.replace(RECIPE, num_validation=0), block=0)
    assert np.isnan(result.metrics["validation_accuracy"])
    assert result.outcome == "finished"


@dataclasses.dataclass
class OneStep:
    """Inputs of which only the number of steps is asked."""

    steps: int = 1


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_loss_of_mixed_labels_is_its_formula(dtype, smoothing):
    model = nn.Linear(4, 3).to(dtype)
    recipe = Recipe(epochs=1, label_smoothing=smoothing, mixup=0.4)
    images, labels = torch.randn(5, 4, dtype=dtype), torch.tensor([2, 0, 1, 1, 0])
    targets = torch.rand(5, 3).softmax(1)
    logits = model(images).detach()
    state = TrainState.start(model, recipe, steps=1)
    train_step(state, Conditions(recipe, OneStep()), Batch(images, labels, targets))
    smoothed = targets * (1 - smoothing) + smoothing / 3
    expected = -(smoothed * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(state.tally.losses[0], expected.float())
    assert state.tally.hits[0] == (logits.argmax(1) == labels).sum()


def test_a_label_is_its_own_probability():
    """Targets that are all of one class give the loss and gradients of labels."""
    recipe = Recipe(epochs=1, label_smoothing=0.1)
    images, labels = torch.randn(5, 4), torch.tensor([2, 0, 1, 1, 0])
    found = []
    for targets in (labels, F.one_hot(labels, 3).float()):
        torch.manual_seed(0)
        model = nn.Linear(4, 3)
        state = TrainState.start(model, recipe, steps=1)
        train_step(state, Conditions(recipe, OneStep()), Batch(images, labels, targets))
        found.append((state.tally.losses, *model.parameters()))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_model_and_images_lie_in_memory_as_the_recipe_says(channels_last, mixup, dataset):
    colour = dataclasses.replace(
        dataset,
        images_train=dataset.images_train.repeat(1, 3, 1, 1),
        images_test=dataset.images_test.repeat(1, 3, 1, 1),
    )
    lies = set()

    class Watched(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(64, 3)

        def forward(self, x):
            for tensor in (x, self.conv.weight):
                last = tensor.is_contiguous(memory_format=torch.channels_last)
                lies.add((self.training, last, tensor.is_contiguous()))
            return self.head(self.conv(x).flatten(1))

    recipe = dataclasses.replace(RECIPE, channels_last=channels_last, mixup=mixup)
    train(Watched(), colour, recipe, block=0)
    assert lies == {
        (True, channels_last, not channels_last),
        (False, channels_last, not channels_last),
    }


@pytest.mark.gpu
def test_on_cuda_the_same_training_gives_the_same_bits(dataset):
    first = train(network(0.3).cuda(), dataset, RECIPE, block=0, device="cuda")
    again = train(network(0.3).cuda(), dataset, RECIPE, block=0, device="cuda")
    assert same(again, first)


@pytest.mark.gpu
def test_on_cuda_the_same_examples_reach_the_network(dataset):
    here, there = Listener(network()), Listener(network().cuda())
    train(here, dataset, RECIPE, block=0)
    train(there, dataset, RECIPE, block=0, device="cuda")
    assert all(torch.equal(a, b.cpu()) for a, b in zip(here.heard, there.heard, strict=True))


@pytest.mark.gpu
def test_on_cuda_no_step_waits_for_the_device(dataset, monkeypatch):
    genuine = MemoryInputs.epoch

    def watched(self, epoch, first_step=0):
        try:
            for batch in genuine(self, epoch, first_step):
                yield batch  # the first finds the draws on their way
                torch.cuda.set_sync_debug_mode("error")
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(MemoryInputs, "epoch", watched)
    model = network(0.3).cuda()
    assert train(model, dataset, RECIPE, block=0, device="cuda").outcome == "finished"
