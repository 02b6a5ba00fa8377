"""What a backward pass is charged where not all of a network trains, and of layers of strangers."""

import pytest
import torch
from torch import nn

from overconv.charges import Charges
from overconv.costs import count_cost, count_costs
from overconv.crosscheck import cross_check
from overconv.operators.macs import Macs
from overconv.operators.mdconv import MDConv2d

X = torch.zeros(2, 4, 9, 8)


def test_frozen_layers_cost_a_gradient_less():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.Linear(4, 2))
    x = torch.zeros(2, 3, 8, 8)
    first, second, last = 27 * 4 * 36, 36 * 5 * 16, 8 * 20
    backward = count_cost(model, x).macs_backward
    assert backward == Macs(convolution=first + 2 * second + 2 * last)
    model[0].requires_grad_(False)
    cross_check(model, x)
    assert count_cost(model, x).macs_backward == Macs(convolution=second + 2 * last)
    model[2].requires_grad_(False)
    cross_check(model, x)
    assert count_cost(model, x).macs_backward == Macs(convolution=last)
    assert count_cost(model, x, backward=False).macs_backward == Macs()


def test_a_layer_frozen_in_part_is_listed():
    model = nn.Sequential(nn.Conv2d(4, 4, 1), MDConv2d(4, 4, 3, padding=1))
    model[1].weights.requires_grad_(False)
    cost = count_costs(model, X).training
    assert "'weights.0' is frozen" in cost.uncounted["1"]
    assert set(cost.modules_backward) == {"0"}
    checked = cross_check(model, X, fvcore=False)
    assert "not compared" in checked.not_seen["formulas"]["backward pass"]
    model.requires_grad_(False)
    model[0].requires_grad_(True)
    model = nn.Sequential(model[1], model[0])
    assert count_costs(model, X).training.uncounted == {}
    cross_check(model, X, fvcore=False)


class Stranger(nn.Conv2d):
    """A 1 x 1 convolution that says what it costs, and nothing of its backward pass."""

    def forward(self, x):
        return super().forward(x) * 1.0

    def macs(self, image):
        return Macs(convolution=self.weight.numel() * image[0] * image[1])


class Spoken(Stranger):
    def macs_backward(self, image, input_gradient):
        return (1 + input_gradient) * self.macs(image)


def test_a_strangers_layer_without_a_backward_formula_is_twice_the_forward():
    cost = count_cost(nn.Sequential(nn.Conv2d(4, 4, 1), Stranger(4, 5, 1)), X)
    assert cost.modules["1"] == Macs(convolution=20 * 72)
    assert cost.modules_backward["1"] == Macs(convolution=40 * 72)


def test_where_its_input_needs_no_gradient_it_is_listed_unless_it_says():
    first = count_cost(Stranger(4, 5, 1), X)
    assert "macs_backward(image, input_gradient)" in first.uncounted[""]
    assert "a Stranger whose input needs no gradient" in first.uncounted[""]
    assert first.macs_backward == Macs()
    spoken = count_cost(Spoken(4, 5, 1), X)
    assert spoken.uncounted == {}
    assert spoken.macs_backward == Macs(convolution=20 * 72)


@pytest.mark.parametrize("behind", [False, True])
def test_a_strangers_frozen_layer_costs_nothing_or_is_listed(behind):
    layer = Stranger(4, 5, 1).requires_grad_(False)
    model = nn.Sequential(nn.Conv2d(4, 4, 1), layer) if behind else nn.Sequential(layer)
    cost = count_cost(model, X)
    if behind:  # a gradient passes through it
        assert "'weight' is frozen" in cost.uncounted["1"]
    else:
        assert cost.uncounted == {}
        assert cost.macs_backward == Macs()


def test_what_is_not_called_is_told_apart():
    model = nn.ModuleDict({"used": nn.Conv2d(4, 4, 1), "spare": nn.Conv2d(4, 4, 1)})
    charges = Charges(model, 2, "refuse", backward=True)
    model["used"](X)
    charges.remove()
    model["spare"](X)
    assert set(charges.forward) == set(charges.backward) == {"used"}
    assert charges.uncalled() == ["spare"]
