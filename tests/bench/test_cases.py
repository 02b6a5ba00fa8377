"""Cases: what may be one, equal modules and inputs, equal work in each call, outputs compared."""

import copy

import pytest
import torch
from torch import nn

from benchmark.variants import Variant, randomise, variants
from overconv.bench.cases import (
    Case,
    WrongOutput,
    by_kernels,
    check_output,
    checked,
    inputs,
    make,
    prepared,
)
from overconv.operators.dyconv import DyConv2d
from overconv.operators.mdconv import MDConv2d
from overconv.operators.repvgg import RepVGGConv2d
from overconv.operators.se import SEConv2d
from overconv.operators.weightnet import WeightNetConv2d


def case(**changed):
    given = {"name": "a", "build": lambda: nn.Conv2d(3, 4, 3), "shape": (2, 3, 5, 6)}
    return Case(**{**given, **changed})


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"name": ""}, "name='': letters, digits"),
        ({"name": "a b"}, "name='a b'"),
        ({"name": "/a"}, "name='/a'"),
        ({"name": "a/"}, "name='a/'"),
        ({"name": "a\n"}, r"name='a\\n'"),
        ({"name": 3}, "name=3"),
        ({"build": nn.Conv2d(1, 1, 1).weight}, "build of case 'a' must be callable"),
        ({"plain": "conv"}, "plain of case 'a' must be callable or None, got 'conv'"),
        ({"expected": torch.zeros(1)}, "expected of case 'a' must be callable or None"),
        ({"step": "forward"}, "step of case 'a' must be one of .*'inference', 'training'"),
        ({"shape": ()}, "shape of case 'a'"),
        ({"shape": (1, 3, 0, 4)}, r"positive integers, got \(1, 3, 0, 4\)"),
        ({"shape": (1.0, 3)}, "shape of case 'a'"),
        ({"shape": (True, 3)}, "shape of case 'a'"),
        ({"shape": [1, 3, 4, 4]}, r"must be a tuple of positive integers, got \[1, 3, 4, 4\]"),
        ({"limit": 1.0}, "limit of case 'a' must be above 1 and finite, got 1.0"),
        ({"limit": float("nan")}, "limit of case 'a'"),
        ({"limit": float("inf")}, "limit of case 'a' must be above 1 and finite, got inf"),
        ({"tolerance": 0.0}, "tolerance of case 'a' must lie between 0 and 1, got 0.0"),
        ({"tolerance": 1.0}, "tolerance of case 'a' must lie between 0 and 1, got 1.0"),
    ],
)
def test_a_wrong_case_is_named(changed, words):
    with pytest.raises(ValueError, match=words):
        case(**changed)


@pytest.mark.parametrize("name", ["a", "mdconv,depth=3/small/batch=8", "A.1_b-c+d", "0"])
def test_names_that_are_allowed(name):
    assert case(name=name).name == name


def test_a_list_of_cases_is_checked():
    one, other = case(), case(name="b")
    assert checked([one, other]) == (one, other)
    with pytest.raises(ValueError, match="there are no cases"):
        checked([])
    with pytest.raises(ValueError, match="two cases have the name 'b'"):
        checked([other, one, case(name="b")])
    with pytest.raises(ValueError, match="must be an overconv.bench.cases.Case, got 'a'"):
        checked([one, "a"])


def test_modules_and_inputs_are_equal_each_time_and_the_generator_is_left_alone():
    here = case(plain=lambda: nn.Conv2d(3, 4, 1))
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    one, x = make(here), inputs(here)
    torch.rand(1)
    other, y = make(here), inputs(here)
    torch.manual_seed(7)
    plain = make(here, plain=True)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(one.weight, other.weight) and torch.equal(x, y)
    assert plain.weight.shape == (4, 3, 1, 1) and x.shape == here.shape
    assert abs(float(inputs(case(shape=(64, 64))).std()) - 1) < 0.05


def test_the_mode_is_that_of_the_step():
    for step in ("inference", "training"):
        here = case(step=step, build=lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Dropout()))
        module = make(here)
        assert all(part.training == (step == "training") for part in module.modules())
        assert inputs(here).requires_grad == (step == "training")


def test_what_is_no_module_is_named():
    with pytest.raises(ValueError, match="case 'a' builds no torch.nn.Module but 3"):
        make(case(build=lambda: 3))


def test_inference_records_no_gradients():
    here = case()
    y = prepared(here, make(here), inputs(here))()
    assert y.is_inference() and y.shape == (2, 4, 3, 4)


def test_training_reaches_the_input_and_every_parameter_and_leaves_nothing_behind():
    here = case(step="training", build=lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.PReLU(4)))
    module, x = make(here), inputs(here)
    step = prepared(here, module, x)
    first, second = step(), step()
    (module(x) ** 2).mean().backward()
    expected = [x.grad, *(p.grad for p in module.parameters())]
    assert len(first) == len(expected) == 4
    for one, two, three in zip(first, second, expected, strict=True):
        assert torch.equal(one, two) and torch.allclose(one, three)
    assert all(p.grad is None for p in make(here).parameters())


def test_frozen_and_unused_parameters_do_not_disturb_training():
    class Partly(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)
            self.used.bias.requires_grad_(False)

        def forward(self, x):
            return self.used(x)

    here = case(step="training", build=Partly)
    image, weight, *unused = prepared(here, make(here), inputs(here))()
    assert image.shape == here.shape and weight.shape == (2, 3, 1, 1) and unused == [None, None]


# Outputs.


def test_a_right_output_passes_and_the_mode_stays():
    here = case(
        step="training",
        expected=lambda module, x: nn.functional.conv2d(x, module.weight, module.bias),
    )
    module = make(here)
    check_output(here, module, inputs(here))
    assert module.training
    check_output(case(), make(case()), inputs(case()))  # nothing to compare with


class Scaled(nn.Conv2d):
    """A convolution whose outputs are off by a factor."""

    def __init__(self, factor):
        super().__init__(3, 4, 1)
        self.factor = factor

    def forward(self, x):
        return super().forward(x) * self.factor


def convolved(module, x):
    return nn.functional.conv2d(x, module.weight, module.bias)


@pytest.mark.parametrize("factor", [1.01, -1.0, float("nan"), float("inf")])
def test_a_wrong_output_is_told(factor):
    here = case(build=lambda: Scaled(factor), expected=convolved, step="training")
    module = make(here)
    with pytest.raises(WrongOutput, match="a puts out something else than it should: off by"):
        check_output(here, module, inputs(here))
    assert module.training
    with pytest.raises(WrongOutput, match="a, called again, puts out something else"):
        check_output(here, module, inputs(here), again=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_wrong_with_nothing_to_compare_with(value):
    here = case(build=lambda: Scaled(value))
    with pytest.raises(WrongOutput, match="a puts out values that are not finite"):
        check_output(here, make(here), inputs(here))
    # an infinite value must not make all others pass
    here = case(expected=lambda module, x: module(x) * value)
    with pytest.raises(WrongOutput, match="what a is expected to put out is not finite"):
        check_output(here, make(here), inputs(here))
    check_output(case(build=lambda: nn.LSTM(4, 4)), nn.LSTM(4, 4), torch.zeros(2, 3, 4))  # a tuple


def test_the_tolerance_is_relative_to_the_largest_value():
    def off(module, x):
        y = module(x)
        return y + 1e-3 * y.abs().max()

    module = make(case())
    check_output(case(expected=off, tolerance=1.1e-3), module, inputs(case()))
    with pytest.raises(WrongOutput, match="tolerance 0.0009"):
        check_output(case(expected=off, tolerance=0.9e-3), module, inputs(case()))


def test_another_shape_is_told_even_where_it_would_broadcast():
    here = case(expected=lambda module, x: module(x)[:1])
    with pytest.raises(WrongOutput, match=r"shape \(2, 4, 3, 4\), not \(1, 4, 3, 4\)"):
        check_output(here, make(here), inputs(here))


def test_outputs_are_compared_in_eval():
    here = case(
        step="training",
        build=lambda: nn.Sequential(nn.BatchNorm2d(3)),
        expected=lambda module, x: x / (1 + 1e-5) ** 0.5,
    )
    check_output(here, make(here), inputs(here))


# By kernels.

LAYERS = (MDConv2d, DyConv2d, SEConv2d, WeightNetConv2d, RepVGGConv2d)


@pytest.mark.parametrize(
    "variant", [v for v in variants() if v.layer in LAYERS and not v.options], ids=str
)
def test_kernels_give_the_output_in_every_geometry(variant):
    layer = variant.build(dtype=torch.float64).eval()
    x = variant.images(dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(by_kernels(layer, x), layer(x))


@pytest.mark.parametrize("layer", [MDConv2d, DyConv2d])
def test_kernels_tell_a_layer_that_convolves_every_sample_by_the_first_ones_kernel(layer):
    class Shared(layer):
        def forward(self, x):
            kernels, bias = self.kernels(x[:1])
            return nn.functional.conv2d(x, kernels[0], bias.flatten())

    right = case(build=lambda: randomise(layer(3, 4, 3)), expected=by_kernels)
    check_output(right, make(right), inputs(right))
    wrong = case(build=lambda: randomise(Shared(3, 4, 3)), expected=by_kernels)
    with pytest.raises(WrongOutput):
        check_output(wrong, make(wrong), inputs(wrong))


def test_kernels_are_for_layers_of_this_library():
    with pytest.raises(ValueError, match="Conv2d is none: give the case an expected of its own"):
        by_kernels(nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 5, 5))


def test_kernels_of_a_bias_that_follows_the_sample():
    """DyConv mixes biases too; a bias of the first sample for all would be wrong."""
    layer = Variant(DyConv2d).build(dtype=torch.float64).eval()
    x = Variant(DyConv2d).images(dtype=torch.float64)
    _, bias = layer.kernels(x)
    assert bias.shape == (3, 6) and not torch.equal(bias[0], bias[1])
    other = copy.deepcopy(layer)
    other.kernels = lambda x: (layer.kernels(x)[0], bias[:1])
    assert not torch.allclose(by_kernels(other, x), layer(x))
