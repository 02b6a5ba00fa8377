"""Sums of costs, and the rule by which a layer's backward pass follows from its forward pass."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from overconv.crosscheck import CountersDisagree, cross_check
from overconv.operators.base import OverConv2d
from overconv.operators.macs import Macs, is_frozen

IMAGE = (9, 8)


def test_macs_add_up():
    total = Macs(1, 2, 3, 4, 5) + Macs(gate=10, shared=20)
    assert total == Macs(11, 2, 3, 4, 25)
    assert total.total == 45
    assert total - Macs(1, 1, 1, 1, 1) == Macs(10, 1, 2, 3, 24)
    assert 3 * Macs(1, 2, 3, 4, 5) == Macs(3, 6, 9, 12, 15)
    assert total.per_image(10) == 20 + 2.5


def test_frozen_is_all_or_nothing():
    layer = nn.Conv2d(3, 4, 1)
    assert not is_frozen(layer, True)
    assert not is_frozen(layer, False)
    layer.requires_grad_(False)
    assert is_frozen(layer, False)
    with pytest.raises(ValueError, match="of a Conv2d whose 'weight' is frozen"):
        is_frozen(layer, True)
    layer.weight.requires_grad_(True)
    for input_gradient in (True, False):
        with pytest.raises(ValueError, match="of a Conv2d whose 'bias' is frozen"):
            is_frozen(layer, input_gradient)
    assert not is_frozen(nn.ReLU(), False)


class Newcomer(OverConv2d):
    """A convolution, then a fixed depthwise factor, then a gate."""

    def __init__(self, *arguments, gate=nn.Linear):
        super().__init__(*arguments)
        self.weight = nn.Parameter(torch.randn(self.out_channels, self.in_channels, 3, 3))
        self.gate = gate(self.in_channels, self.out_channels)

    def forward(self, x):
        y, fixed = F.conv2d(x, self.weight), x.new_ones(self.out_channels, 1, 1, 1)
        y = F.conv2d(y, fixed, groups=self.out_channels)
        return y * self.gate(x.mean((2, 3)))[:, :, None, None]

    def macs(self, image):
        pixels, outputs = math.prod(image), math.prod(self.output_size(image))
        return Macs(
            gate=self.gate.weight.numel(),
            convolution=(self.weight.numel() + self.out_channels) * outputs,
            other=self.in_channels * pixels + self.out_channels * outputs,
        )


class Gate(nn.Linear):
    def macs_on_pooled(self):
        return self.weight.numel()


class Said(Newcomer):
    """The same, with what the general rule cannot know."""

    def __init__(self, *arguments):
        super().__init__(*arguments, gate=Gate)

    def macs_on_constants(self, image):
        return Macs(convolution=self.out_channels * math.prod(self.output_size(image)))

    def macs_on_input(self, image):
        return super().macs_on_input(image) - self.macs_on_constants(image)


def test_a_newcomer_that_says_what_needs_no_gradient_is_counted_in_full():
    layer = Said(4, 6, 3)
    for gradient in (True, False):
        cross_check(layer, torch.zeros(2, 4, *IMAGE, requires_grad=gradient), backward=True)
    fixed, kernel, gate = 6 * 42, 4 * 6 * 9 * 42, 24
    other = 4 * 72 + 6 * 42
    forward = Macs(gate=gate, convolution=fixed + kernel, other=other)
    assert layer.macs(IMAGE) == forward
    assert layer.macs_backward(IMAGE) == 2 * forward - Macs(convolution=fixed)
    first = layer.macs_backward(IMAGE, input_gradient=False)
    assert first == Macs(gate=gate, convolution=fixed + kernel, other=2 * other)


def test_one_that_does_not_is_found_out():
    with pytest.raises(CountersDisagree, match="backward pass, batch 2"):
        cross_check(Newcomer(4, 6, 3), torch.zeros(2, 4, *IMAGE, requires_grad=True), backward=True)


def test_a_gate_that_does_not_say_what_it_costs_is_named():
    with pytest.raises(ValueError, match="its gate, a Linear, has no method macs_on_pooled"):
        Newcomer(4, 6, 3).macs_backward(IMAGE, input_gradient=False)
    assert Newcomer(4, 6, 3).macs_backward(IMAGE) == 2 * Newcomer(4, 6, 3).macs(IMAGE)


def test_a_frozen_layer_costs_nothing():
    layer = Said(4, 6, 3).requires_grad_(False)
    assert layer.macs_backward(IMAGE, input_gradient=False) == Macs()
    with pytest.raises(ValueError, match="of a Said whose 'weight' is frozen"):
        layer.macs_backward(IMAGE)
