"""The average of the weights: its formula, and what is scored by it."""

import dataclasses
import io

import pytest
import torch
from torch import nn

from overconv.training.ema import Average
from overconv.training.evaluation import evaluate
from overconv.training.loop import train
from overconv.training.recipe import Recipe
from overconv.training.streams import seeded

RECIPE = Recipe(epochs=2, batch_size=45, lr=0.05, num_validation=40, ema=0.6)


def network():
    with seeded(0, "init"):
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(144, 3),
        )


@pytest.mark.parametrize("decay", [0.1, 0.5, 0.97])
def test_it_is_its_formula(decay):
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2, bias=False)).double()
    average = Average(model, decay)
    weights = [[p.detach().clone() for p in model.parameters()]]
    for _ in range(5):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        average.update()
        weights.append([p.detach().clone() for p in model.parameters()])
    for index, found in enumerate(average.values):
        # in one sum: d^5 w_0 + (1 - d) (d^4 w_1 + ... + w_5)
        expected = decay**5 * weights[0][index] + (1 - decay) * sum(
            decay ** (5 - step) * weights[step][index] for step in range(1, 6)
        )
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_within_it_is_the_model_and_after_it_was():
    model = nn.BatchNorm1d(3)
    average = Average(model, 0.5)
    with torch.no_grad():
        model.weight.mul_(3)
        model.running_mean.fill_(7)
    average.update()
    own = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(KeyError), average.applied():
        assert model.weight.tolist() == [2.0] * 3
        assert model.running_mean.tolist() == [7.0] * 3
        raise KeyError
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())
    assert average.values[0].tolist() == [2.0] * 3
    average.apply()
    model.weight.data.zero_()
    assert average.values[0].tolist() == [2.0] * 3, "the model took copies"


class Memory:
    """Keeps every state."""

    def __init__(self):
        self.kept = []

    def newest(self):
        return None

    def save(self, packed):
        content = io.BytesIO()
        torch.save(packed, content)
        content.seek(0)
        self.kept.append(torch.load(content, weights_only=True))

    def due(self, step):
        return True


def scored(dataset, kept, recipe, part):
    """Loss and answers of a network with the averages and buffers of a kept state."""
    model = network()
    model.load_state_dict(kept["model"])
    for parameter, value in zip(model.parameters(), kept["average"], strict=True):
        parameter.data.copy_(value)
    inputs = dataset.inputs(recipe, 0, "cpu")
    return evaluate(model, getattr(inputs, part)()), model.state_dict()


def test_it_is_what_a_training_scores(dataset):
    memory, model = Memory(), network()
    result = train(model, dataset, RECIPE, block=0, checkpoints=memory)
    for epoch, kept in enumerate((memory.kept[2], memory.kept[5])):
        assert (kept["epoch"], kept["step"]) == (epoch + 1, 3 * (epoch + 1))
        (loss, correct), _ = scored(dataset, kept, RECIPE, "validation")
        assert result.curves["validation_loss"][epoch] == loss
        assert result.curves["validation_accuracy"][epoch] == correct.double().mean()
    (loss, correct), average = scored(dataset, memory.kept[-1], RECIPE, "test")
    assert result.metrics["test_loss"] == loss
    assert result.correct.tolist() == correct.tolist()
    found = model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in average.items())
    weights = memory.kept[-1]["model"]
    assert not torch.equal(found["4.weight"], weights["4.weight"]), "it ends as the average"


def test_each_step_is_taken_in(dataset):
    memory = Memory()
    train(network(), dataset, RECIPE, block=0, checkpoints=memory)
    expected = [p.detach().double() for p in network().parameters()]
    names = [name for name, _ in network().named_parameters()]
    for kept in memory.kept:
        expected = [
            0.6 * a + 0.4 * kept["model"][name].double()
            for name, a in zip(names, expected, strict=True)
        ]
        for found, value in zip(kept["average"], expected, strict=True):
            torch.testing.assert_close(found.double(), value, rtol=1e-5, atol=1e-7)


def test_it_does_not_act_on_the_training(dataset):
    with_it = train(network(), dataset, RECIPE, block=0)
    without = train(network(), dataset, dataclasses.replace(RECIPE, ema=0.0), block=0)
    for name in ("train_loss", "train_accuracy", "grad_norm"):
        assert with_it.curves[name] == without.curves[name]
    assert with_it.curves["validation_loss"] != without.curves["validation_loss"]
    assert with_it.metrics["test_loss"] != without.metrics["test_loss"]
