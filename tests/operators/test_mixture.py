"""CondConv2d and DyConv2d: the definition, an oracle, and a start that is not symmetric."""

from itertools import cycle, product

import pytest
import torch
from torch import nn

from overconv.operators.condconv import CondConv2d
from overconv.operators.dyconv import DyConv2d

LAYERS = [CondConv2d, DyConv2d]
CHANNELS = {"ungrouped": (3, 4, 1), "grouped": (4, 6, 2), "depthwise": (4, 4, 4)}


def images(channels=4, batch=3):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(batch, channels, 7, 6, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("kernel", [1, 3, 5, (2, 3)])
@pytest.mark.parametrize("layer_class", LAYERS)
def test_both_places_equal_the_definition(layer_class, kernel, channels, oracle):
    in_channels, out_channels, groups = CHANNELS[channels]
    x = images(in_channels)
    modes = ["zeros", "reflect", "replicate", "circular"]
    grid = product([1, (2, 1)], [1, 2], [0, (2, 1)], [True, False], modes)
    num_kernels = cycle([2, 5, 3])
    for number, (stride, dilation, padding, bias, mode) in enumerate(grid):
        kernels = next(num_kernels)
        if kernel == 5 and padding == 0:
            continue  # dilated, it is larger than the image
        padding = (4, 3) if kernel == 5 else padding
        arguments = (in_channels, out_channels, kernel, stride, padding, dilation, groups, bias)
        layer = layer_class(*arguments, mode, num_kernels=kernels)
        oracle.randomise(layer, seed=number)
        definition = oracle.gradients(layer, lambda x, layer=layer: oracle.mixture(layer, x), x)
        for on in ("weights", "features"):
            layer.on = on
            ours = oracle.gradients(layer, layer, x)
            name = layer_class.__name__
            oracle.compare(f"{name} = loops, outputs and gradients", ours, definition)
        deployed = layer.to_inference()
        assert (deployed.on, deployed.training) == ("weights", False)
        oracle.compare("to_inference = eval()", deployed(x), layer.eval()(x))

        conv = nn.Conv2d(*arguments, mode, dtype=torch.float64)
        for train, on in ((number % 2 == 0, "weights"), (number % 2 == 1, "features")):
            start = layer_class.from_conv2d(conv.train(train), num_kernels=kernels, on=on)
            assert start.training == train
            oracle.compare(f"{name}.from_conv2d", start(x), conv(x))


@pytest.mark.parametrize("on", ["weights", "features"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(
    "geometry", [{"kernel_size": 1}, {"kernel_size": 3, "padding": 1, "stride": 2, "dilation": 2}]
)
def test_condconv_equals_timm(geometry, groups, bias, on, oracle):
    timm_layers = pytest.importorskip("timm.layers")
    arguments = {"in_channels": 4, "out_channels": 8, "groups": groups, "bias": bias, **geometry}
    ours = oracle.randomise(CondConv2d(**arguments, num_kernels=5, on=on))
    theirs = timm_layers.CondConv2d(
        **{"padding": 0, **arguments}, num_experts=5, dtype=torch.float64
    )
    with torch.no_grad():
        theirs.weight.copy_(ours.weight.reshape(5, -1))
        if bias:
            theirs.bias.copy_(ours.bias)
    x = images()
    (routing,) = ours.gate(x)
    oracle.compare("CondConv2d = timm's", ours(x), theirs(x, routing.detach()))
    ours(x).square().sum().backward()
    theirs(x, routing.detach()).square().sum().backward()
    oracle.compare("CondConv2d = timm's", ours.weight.grad.reshape(5, -1), theirs.weight.grad)


def test_dyconv_has_the_parameters_of_the_paper():
    """Four kernels of 64 x 64 x 3 x 3 and an attention with 16 hidden units."""
    layer = DyConv2d(64, 64, 3, bias=False)
    kernels, attention = 4 * 36_864, (64 * 16 + 16) + (16 * 4 + 4)
    assert sum(p.numel() for p in layer.parameters()) == kernels + attention


def train_on_two_regimes(layer, steps=150):
    """Two kinds of images, each with a kernel of its own to be learnt; returns the last loss."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.randn(2, 4, 4, 3, 3, generator=generator, dtype=torch.float64) / 6
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.2, momentum=0.9)
    for _ in range(steps):
        x = torch.randn(16, 4, 6, 6, generator=generator, dtype=torch.float64)
        x[:8, 0] += 1
        x[8:, 0] -= 1
        pairs = zip(x.split(8), targets, strict=True)
        y = torch.cat([nn.functional.conv2d(half, target, padding=1) for half, target in pairs])
        loss = (layer(x) - y).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return float(loss.detach())


def differences(layer):
    """What parts each kernel from the mean of all."""
    kernels = layer.weight.detach().unflatten(0, (layer.num_kernels, -1))
    return kernels - kernels.mean(0)


@pytest.mark.parametrize("layer_class", LAYERS)
def test_parallel_kernels_drift_apart_and_gates_learn(layer_class):
    conv = nn.Conv2d(4, 4, 3, padding=1, dtype=torch.float64)
    layer = layer_class.from_conv2d(conv, num_kernels=4)
    start = differences(layer)
    loss = train_on_two_regimes(layer)
    assert (differences(layer) - start).abs().max() > 0.1
    gate = layer.gate.excite.weight.detach()
    assert (gate - gate.mean(0)).abs().max() > 0.1  # and not all rows in one direction
    assert loss < 0.5 * train_on_two_regimes(conv)  # one kernel cannot serve both regimes


@pytest.mark.parametrize("layer_class", LAYERS)
def test_a_symmetric_start_would_never_part(layer_class, monkeypatch):
    """The defect that the random differences prevent: without them training cannot part kernels."""
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    conv = nn.Conv2d(4, 4, 3, padding=1, dtype=torch.float64)
    layer = layer_class.from_conv2d(conv, num_kernels=4)
    loss = train_on_two_regimes(layer)
    assert differences(layer).abs().max() < 1e-12
    gate = layer.gate.excite.weight.detach()
    assert (gate - gate.mean(0)).abs().max() < 1e-12
    # softmax then mixes nothing; equal sigmoids still scale
    expected = 1.0 if layer_class is DyConv2d else 0.7
    assert loss > 0.9 * expected * train_on_two_regimes(conv)


@pytest.mark.parametrize("layer_class", LAYERS)
@pytest.mark.parametrize("zero", [False, True])
def test_kernels_start_different_whatever_the_convolution(layer_class, zero):
    conv = nn.Conv2d(4, 4, 3)
    if zero:
        nn.init.zeros_(conv.weight)
    layer = layer_class.from_conv2d(conv)
    kernels = layer.weight.unflatten(0, (layer.num_kernels, -1)).flatten(1)
    pairs = torch.cdist(kernels[None], kernels[None])[0]
    pairs.fill_diagonal_(1)
    assert pairs.min() > 0.1


@pytest.mark.parametrize(
    ("layer_class", "options", "message"),
    [
        (CondConv2d, {"num_kernels": 0}, "num_kernels must be at least 1, got 0"),
        (DyConv2d, {"num_kernels": 1}, "num_kernels must be at least 2, got 1"),
        (CondConv2d, {"on": "input"}, "on must be one of 'weights', 'features', got 'input'"),
        (DyConv2d, {"reduction": 0}, "reduction must be at least 1, got 0"),
        (DyConv2d, {"temperature": 0.0}, "temperature must be positive and finite, got 0.0"),
    ],
)
def test_rejects(layer_class, options, message):
    with pytest.raises(ValueError, match=message):
        layer_class(4, 6, 3, **options)


@pytest.mark.parametrize("layer_class", LAYERS)
@pytest.mark.parametrize("bias", [True, False])
def test_affine_maps_behind_are_absorbed_one_after_the_other(layer_class, bias, oracle):
    layer = oracle.randomise(layer_class(4, 6, 3, bias=bias)).eval()
    deployed, expected = layer.to_inference(), layer(images())
    with torch.no_grad():
        for _ in range(2):
            scale, shift = torch.randn(6).double(), torch.randn(6).double()
            assert deployed.absorb_affine(scale, shift)
            expected = expected * scale[:, None, None] + shift[:, None, None]
    for on in ("weights", "features"):
        deployed.on = on
        oracle.compare("absorb_affine", deployed(images()), expected)


def test_more_kernels_than_weights_span_no_more():
    assert CondConv2d(1, 2, 1, num_kernels=8).kernel_dimension() == 2
