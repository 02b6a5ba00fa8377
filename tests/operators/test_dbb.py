"""DBBConv2d: the definition, its border, folding, conversion."""

import copy
from itertools import cycle, product

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from overconv.crosscheck import cross_check
from overconv.operators.dbb import DBBConv2d

CHANNELS = {
    "ungrouped": (3, 4, 1),
    "grouped": (4, 6, 2),
    "depthwise": (4, 4, 4),
    "multiplied": (2, 4, 2),  # a channel a group, but twice as many outputs
}
KERNELS = [1, 3, 5, 2, (2, 3), (3, 1)]


def images(channels, batch=2):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(batch, channels, 10, 9, generator=generator, dtype=torch.float64)


def geometries(channels, kernel):
    """The arguments of a convolution: every stride, dilation and padding mode; paddings, biases."""
    in_channels, out_channels, groups = CHANNELS[channels]
    modes = ["zeros", "reflect", "replicate", "circular"]
    paddings = cycle([0, (2, 1), "same", 1, (0, 3), "valid", "same"])
    biases = cycle([True, False, True])
    for stride, dilation, mode in product([1, (2, 1)], [1, (1, 2)], modes):
        padding = next(paddings)
        if padding == "same" and stride != 1:
            padding = (1, 2)
        arguments = (in_channels, out_channels, kernel, stride, padding, dilation, groups)
        yield *arguments, next(biases), mode


def bordered(oracle, layer, x, norm):
    """``x``, which ``norm`` gave, padded: by zeros' image under the running statistics, or by mode.

    To be called when the layer has run in ``train()``, so that the statistics include the batch.
    """
    left, right, top, bottom = amounts = oracle.amounts(layer)
    if layer.padding_mode != "zeros" or norm is None:
        return oracle.padded(x, amounts, layer.padding_mode)
    channels = []
    for channel, values in enumerate(x.unbind(1)):
        mean, variance = norm.running_mean[channel].clone(), norm.running_var[channel].clone()
        zero = norm.bias[channel] - mean * norm.weight[channel] / (variance + norm.eps).sqrt()
        batch, high, wide = values.shape
        canvas = zero.expand(batch, high + top + bottom, wide + left + right).clone()
        canvas[:, top : top + high, left : left + wide] = values
        channels.append(canvas)
    return torch.stack(channels, 1)


def defined(oracle, layer, x):
    """The formula, branch by branch."""
    geometry = (layer.stride, layer.dilation)
    per_group = layer.in_channels // layer.groups
    depthwise = layer.in_channels == layer.out_channels == layer.groups
    image = oracle.padded(x, oracle.amounts(layer), layer.padding_mode)
    square = layer.branches["square"]
    y = oracle.normalised(
        oracle.convolved(image, square.weight, *geometry, layer.groups), square.norm
    )
    if not depthwise:
        point = layer.branches["point"]
        kernel = torch.zeros_like(square.weight)
        rows, columns = layer.kernel_size
        kernel[:, :, (rows - 1) // 2, (columns - 1) // 2] = point.weight[:, :, 0, 0]
        features = oracle.convolved(image, kernel, *geometry, layer.groups)
        y = y + oracle.normalised(features, point.norm)
    kernel = layer.inner.weight
    if layer.middle_channels == layer.in_channels:
        passing = torch.zeros_like(kernel)
        for channel in range(layer.in_channels):
            passing[channel, channel % per_group] = 1
        kernel = kernel + passing
    features = oracle.normalised(oracle.convolved(x, kernel, groups=layer.groups), layer.inner.norm)
    features = bordered(oracle, layer, features, layer.inner.norm)
    features = oracle.convolved(features, layer.outer.weight, *geometry, layer.groups)
    y = y + oracle.normalised(features, layer.outer.norm)
    features = x
    if not depthwise:
        features = oracle.convolved(x, layer.mixed.weight, groups=layer.groups)
        features = oracle.normalised(features, layer.mixed.norm)
    features = bordered(oracle, layer, features, None if depthwise else layer.mixed.norm)
    taps = square.weight[0, 0].numel()
    average = torch.full_like(square.weight[:, :1], 1 / taps)
    features = oracle.convolved(features, average, *geometry, layer.out_channels)
    y = y + oracle.normalised(features, layer.averaged)
    return y if layer.bias is None else y + layer.bias[:, None, None]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_it_equals_the_definition_and_converts(kernel, channels, oracle):
    in_channels, groups = CHANNELS[channels][0], CHANNELS[channels][2]
    x, middles = images(in_channels), cycle([None, 3 * groups, None, groups, in_channels])
    for number, arguments in enumerate(geometries(channels, kernel)):
        middle = next(middles)
        layer = oracle.randomise(DBBConv2d(*arguments, middle_channels=middle), seed=number)
        for mode in (True, False):
            layer.train(mode)
            ours = oracle.gradients(layer, layer, x)
            expected = oracle.gradients(layer, lambda x, layer=layer: defined(oracle, layer, x), x)
            what = f"DBBConv2d = loops, {'train()' if mode else 'eval()'}, outputs and gradients"
            oracle.compare(what, ours, expected, 1e-9)  # some gradients are sums to zero
        folded = layer.to_inference()
        assert type(folded) is nn.Conv2d
        oracle.compare("DBBConv2d.to_inference = eval()", folded(x), expected[0])

        conv = nn.Conv2d(*arguments, dtype=torch.float64).train(number % 2 == 0)
        start = DBBConv2d.from_conv2d(conv, middle_channels=middle)
        assert start.training == conv.training
        oracle.compare("DBBConv2d.from_conv2d, eval()", start.eval()(x), conv(x))
        oracle.compare("DBBConv2d.from_conv2d, folded", start.to_inference()(x), conv(x))


def test_it_has_the_parameters_of_the_paper():
    def count(*arguments, **options):
        layer = DBBConv2d(*arguments, bias=False, **options)
        return sum(p.numel() for p in layer.parameters())

    assert count(64, 64, 3) == 86_784 == (2 * 9 + 3) * 64**2 + 12 * 64
    # depthwise: no pointwise branch, twice the channels inside, three norms of 64 and one of 128
    assert count(64, 64, 3, groups=64) == 9 * 64 + (128 + 9 * 128) + 2 * (3 * 64 + 128)
    # C = O + M: (K L + 2) O I/G + M I/G + K L O M/G + 10 O + 2 M
    assert count(4, 6, (2, 3), groups=2, middle_channels=8) == (8 * 6 * 2) + 16 + 6 * 24 + 60 + 16


def test_the_inner_kernel_starts_as_the_identity():
    for layer in (DBBConv2d(4, 6, 3, groups=2), DBBConv2d.from_conv2d(nn.Conv2d(4, 6, 3))):
        assert not layer.inner.weight.any()
    for layer in (DBBConv2d(4, 4, 3, groups=4), DBBConv2d(4, 6, 3, middle_channels=5)):
        assert layer.inner.weight.all()  # another width has no identity


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("mode", ["zeros", "circular"])
def test_macs_equal_a_count_of_a_run(mode, channels, train):
    in_channels, out_channels, groups = CHANNELS[channels]
    geometry = (in_channels, out_channels, (3, 5), (2, 1), 1, 2, groups, True, mode)
    layer, x = DBBConv2d(*geometry).train(train), images(in_channels).float()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        y = layer(x)
    macs = layer.macs(x.shape[2:])
    assert counter.get_total_flops() == 2 * (len(x) * macs.convolution + macs.shared)
    assert macs.shared == (layer.outer.weight.numel() / 15 if mode == "zeros" else 0)
    # additions, and factors where a pointwise kernel has one input: inner and outer ones
    additions = 2 if channels == "depthwise" else 3
    inside = {"depthwise": 2 * in_channels, "multiplied": in_channels + out_channels}
    outside = {"multiplied": out_channels}
    factors = inside.get(channels, 0) * 90 + outside.get(channels, 0) * y[0, 0].numel()
    assert macs.other == y[0].numel() * additions + factors
    assert macs.total == macs.convolution + macs.other + macs.shared


@pytest.mark.parametrize("gradient", [True, False])
@pytest.mark.parametrize("groups", [2, 4])
def test_an_outer_kernel_of_single_factors_is_convolved_by(groups, gradient):
    """Unlike the factors of other branches, which are multiplied by."""
    layer = DBBConv2d(4, 4, 1, groups=groups, middle_channels=groups)
    cross_check(layer, torch.zeros(2, 4, 9, 8, requires_grad=gradient), backward=True)


def test_the_border_is_padded_by_the_image_of_zero(oracle):
    """Zeros there would be wrong at the border alone: what a fold that forgets it gets."""
    layer = oracle.randomise(DBBConv2d(3, 4, 3, padding=1)).eval()
    x = images(3)
    y = layer(x)
    with torch.no_grad():
        layer.inner.norm.bias.copy_(  # now zero is mapped to zero
            layer.inner.norm.running_mean
            * layer.inner.norm.weight
            / (layer.inner.norm.running_var + layer.inner.norm.eps).sqrt()
        )
    shifted = layer(x)
    difference = (y - shifted).flatten(2)
    torch.testing.assert_close(difference, difference[:, :, :1].expand_as(difference))
    assert difference.abs().max() > 0.1


def test_inner_norms_see_no_padding(oracle):
    """The image alone, whatever the padding and its mode."""
    x = images(3)
    for padding, mode in product([0, 1, "same"], ["zeros", "circular"]):
        layer = DBBConv2d(3, 4, 3, padding=padding, padding_mode=mode)
        oracle.randomise(layer)
        before = layer.mixed.norm.running_mean.clone()
        features = oracle.convolved(x, layer.mixed.weight)
        expected = 0.9 * before + 0.1 * features.mean((0, 2, 3))
        layer(x)
        oracle.compare("DBBConv2d running mean", layer.mixed.norm.running_mean, expected)


def test_two_forward_passes_before_a_backward_pass(oracle):
    """The statistics that the first one padded by have moved by then."""
    layer, x = oracle.randomise(DBBConv2d(3, 4, 3, padding=1)), images(3)
    first = layer(x)
    weight = layer.inner.norm.weight
    expected = torch.autograd.grad(first.square().sum(), weight, retain_graph=True)[0]
    layer(x + 1)
    again = torch.autograd.grad(first.square().sum(), weight)[0]
    oracle.compare("DBBConv2d, a backward pass later", again, expected)


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("groups", [1, 4])
def test_gradients_equal_finite_differences(groups, mode, oracle):
    """The border included; in ``train()`` with statistics that stay where they are."""
    layer = oracle.randomise(DBBConv2d(4, 4, 3, padding=1, groups=groups)).train(mode)
    for norm in (module for module in layer.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.momentum = 0.0
    names = [name for name, _ in layer.named_parameters()]

    def run(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    x = images(4)[:, :, :4, :3].clone().requires_grad_()
    assert torch.autograd.gradcheck(run, (x, *layer.parameters()), fast_mode=True)


@pytest.mark.slow
@pytest.mark.parametrize("groups", [1, 4])
def test_compiled_steps_equal_steps(groups, oracle):
    """A compiled backward pass must not read the statistics, which have moved by then."""
    layer = oracle.randomise(DBBConv2d(4, 4, 3, padding=1, groups=groups))
    compiled = torch.compile(copy.deepcopy(layer), fullgraph=True)
    for step in range(2):
        y, ours = oracle.gradients(compiled, compiled, images(4) + step)
        expected, theirs = oracle.gradients(layer, layer, images(4) + step)
        ours = {name.removeprefix("_orig_mod."): gradient for name, gradient in ours.items()}
        oracle.compare("DBBConv2d, compiled step", (y, ours), (expected, theirs), 1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"middle_channels": 0}, "middle_channels must be at least 1, got 0"),
        ({"middle_channels": 3, "groups": 2}, "middle_channels=3 does not split into groups=2"),
        ({"middle_channels": 4.0}, "middle_channels must be an integer, got 4.0"),
        ({"padding": "same", "stride": 2}, "padding='same' needs stride 1"),
        ({"groups": 4}, "out_channels=6 does not split into groups=4"),
    ],
)
def test_rejects(options, message):
    with pytest.raises(ValueError, match=message):
        DBBConv2d(4, 6, 3, **options)
