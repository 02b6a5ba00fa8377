"""DyNetConv2d: the definition in both places, mixing, conversion, cost."""

from itertools import cycle, product

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from overconv.operators.dynet import DyNetConv2d
from overconv.operators.parallel import mix_rows

CHANNELS = {"ungrouped": (3, 4, 1), "grouped": (4, 6, 2), "depthwise": (4, 4, 4)}
KERNELS = [1, 3, 5, 2, (2, 3), (3, 1)]
PLACES = ["features", "weights"]


def images(channels=4, batch=2):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(batch, channels, 10, 9, generator=generator, dtype=torch.float64)


def geometries(channels, kernel):
    """The arguments of a convolution: every stride, dilation, bias and padding mode; paddings."""
    in_channels, out_channels, groups = CHANNELS[channels]
    modes = ["zeros", "reflect", "replicate", "circular"]
    paddings = cycle([0, (2, 1), "same", 1, (0, 3), "valid", "same"])
    for stride, dilation, bias, mode in product([1, (2, 1)], [1, (1, 2)], [True, False], modes):
        padding = next(paddings)
        if padding == "same" and stride != 1:
            padding = (1, 2)
        yield in_channels, out_channels, kernel, stride, padding, dilation, groups, bias, mode


def defined(oracle, layer, x):
    """Equation 1 of the paper, one output channel of one sample after the other."""
    (shares,) = oracle.pooled_gate(layer.gate, x)
    number = layer.num_kernels
    outputs = []
    for sample, row in zip(x.split(1), shares, strict=True):
        kernel = []
        for o in range(layer.out_channels):
            kernel.append(
                sum(row[o * number + n] * layer.weight[o * number + n] for n in range(number))
            )
        y = oracle.padded(sample, oracle.amounts(layer), layer.padding_mode)
        weight = torch.stack(kernel)
        y = oracle.convolved(y, weight, layer.stride, layer.dilation, layer.groups)
        outputs.append(y if layer.bias is None else y + layer.bias[:, None, None])
    return torch.cat(outputs)


def by_kernels(oracle, layer, x):
    """Each sample convolved by the kernel that the layer says it sees."""
    kernels, bias = layer.kernels(x)
    outputs = []
    for sample, kernel in zip(x.split(1), kernels, strict=True):
        y = oracle.padded(sample, oracle.amounts(layer), layer.padding_mode)
        y = oracle.convolved(y, kernel, layer.stride, layer.dilation, layer.groups)
        outputs.append(y if bias is None else y + bias[:, None, None])
    return torch.cat(outputs)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_both_places_equal_the_definition(kernel, channels, oracle):
    in_channels = CHANNELS[channels][0]
    numbers, batches = cycle([2, 5, 1, 3, 6]), cycle([2, 1, 3])
    for number, arguments in enumerate(geometries(channels, kernel)):
        x = images(in_channels, next(batches))
        options = {"num_kernels": next(numbers), "reduction": (None, 4, 1)[number % 3]}
        layer = DyNetConv2d(*arguments, **options)
        oracle.randomise(layer, seed=number).train(number % 2 == 0)
        definition = oracle.gradients(layer, lambda x, layer=layer: defined(oracle, layer, x), x)
        for on in PLACES:
            layer.on = on
            ours = oracle.gradients(layer, layer, x)
            oracle.compare(f"DyNetConv2d on {on} = loops, outputs and gradients", ours, definition)
        layer.on = PLACES[number % 2]
        deployed = layer.to_inference()
        assert (deployed.on, deployed.training) == ("weights", False)
        oracle.compare("DyNetConv2d.to_inference = eval()", deployed(x), definition[0])
        scale, shift = torch.randn(2, layer.out_channels, dtype=torch.float64)
        expected = definition[0]
        for _ in range(2):
            with torch.no_grad():
                assert deployed.absorb_affine(scale, shift)
            expected = expected * scale[:, None, None] + shift[:, None, None]
            for deployed.on in PLACES:
                oracle.compare("DyNetConv2d.absorb_affine", deployed(x), expected)
        oracle.compare("DyNetConv2d.kernels", by_kernels(oracle, deployed, x), expected)

        conv = nn.Conv2d(*arguments, dtype=torch.float64)
        for train, on in ((number % 2 == 0, "weights"), (number % 2 == 1, "features")):
            start = DyNetConv2d.from_conv2d(conv.train(train), on=on, **options)
            assert start.training == train
            oracle.compare("DyNetConv2d.from_conv2d", start(x), conv(x))


@pytest.mark.parametrize("places", [1, 5])
@pytest.mark.parametrize("values", [1, 9, 150, 401])  # on both sides of what torch does by loops
@pytest.mark.parametrize("number", [1, 2, 4])
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_rows_are_mixed_place_by_place(batch, number, values, places, oracle):
    generator = torch.Generator().manual_seed(1)
    shares = torch.rand(batch, places, number, generator=generator, dtype=torch.float64)
    rows = torch.randn(places, number, values, generator=generator, dtype=torch.float64)
    expected = torch.zeros(batch, places, values, dtype=torch.float64)
    for b, r, n in product(range(batch), range(places), range(number)):
        expected[b, r] += shares[b, r, n] * rows[r, n]
    mixed = mix_rows(shares, rows)
    assert mixed.shape == expected.shape
    if batch:
        oracle.compare("mix_rows = loops", mixed, expected)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("image", [(3, 3), (20, 20)])  # features are mixed in two ways
def test_places_agree_in_larger_layers(image, kernel, oracle):
    """Where matrix products take over from elementwise work."""
    layer = oracle.randomise(DyNetConv2d(96, 8, kernel, padding=kernel // 2))
    for batch in (1, 3):
        x = torch.randn(batch, 96, *image, dtype=torch.float64)
        definition = oracle.gradients(layer, lambda x: defined(oracle, layer, x), x)
        for layer.on in PLACES:
            ours = oracle.gradients(layer, layer, x)
            oracle.compare("DyNetConv2d, larger", ours, definition)


@pytest.mark.parametrize("number", [1, 4, 6])
def test_it_has_the_parameters_of_the_paper(number):
    """g P and I O g, and the biases of the coefficients, which the formula leaves out."""
    layer = DyNetConv2d(64, 32, 3, bias=False, num_kernels=number)
    kernels, coefficients = number * 64 * 32 * 9, (64 + 1) * 32 * number
    assert sum(p.numel() for p in layer.parameters()) == kernels + coefficients
    layer = DyNetConv2d(64, 32, 3, bias=False, num_kernels=number, reduction=4)
    coefficients = (64 + 1) * 16 + (16 + 1) * 32 * number
    assert sum(p.numel() for p in layer.parameters()) == kernels + coefficients


@pytest.mark.parametrize("on", PLACES)
@pytest.mark.parametrize("number", [1, 6])
@pytest.mark.parametrize("image", [(6, 5), (12, 12)])
def test_macs_equal_a_count_of_real_runs(image, number, on):
    layer = DyNetConv2d(4, 8, 3, padding=1, stride=2, num_kernels=number, on=on, groups=2)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        layer(torch.randn(3, 4, *image))
    macs, pixels = layer.forms(image)[on], (image[0] // 2) * ((image[1] + 1) // 2)
    assert macs == layer.macs(image)
    products = 3 * (macs.gate + macs.compose + macs.convolution)
    mixing, pooling = number * 8 * pixels, 4 * image[0] * image[1]
    as_products = on == "features" and number > 1 and number * pixels >= 400
    assert counter.get_total_flops() == 2 * (products + 3 * mixing * as_products)
    plain = 8 * 2 * 9
    assert macs.gate == 4 * 8 * number
    if on == "features":
        assert (macs.convolution, macs.compose) == (number * plain * pixels, 0)
        assert macs.other == pooling + mixing
    else:
        assert (macs.convolution, macs.compose + macs.other) == (
            plain * pixels,
            number * plain + pooling,
        )


@pytest.mark.parametrize(
    ("arguments", "number", "dimension"),
    [((4, 6, 3), 3, 18), ((4, 4, 3, 1, 0, 1, 4), 3, 12), ((3, 4, 1), 6, 12), ((4, 5, 2), 1, 5)],
)
def test_coefficients_span_as_many_dimensions(arguments, number, dimension):
    layer = DyNetConv2d(*arguments, num_kernels=number).double()
    width = layer.gate.widths[0]

    class AnyGates(nn.Module):
        def forward(self, x):
            return (torch.randn(len(x), width, dtype=x.dtype),)

    layer.gate = AnyGates()
    kernels, _ = layer.kernels(images(arguments[0], batch=60))
    assert torch.linalg.matrix_rank(kernels.flatten(1)) == dimension
    assert layer.kernel_dimension() == dimension


def differences(layer):
    """What parts each kernel from the mean of its output channel's."""
    kernels = layer.weight.detach().unflatten(0, (layer.out_channels, layer.num_kernels))
    return (kernels - kernels.mean(1, keepdim=True)).flatten(2)


@pytest.mark.parametrize("zero", [False, True])
def test_kernels_start_different_and_drift_apart(zero):
    conv = nn.Conv2d(4, 4, 3, padding=1, dtype=torch.float64)
    if zero:
        nn.init.zeros_(conv.weight)
    layer = DyNetConv2d.from_conv2d(conv, num_kernels=4)
    start = differences(layer)
    distances = torch.cdist(start, start) + torch.eye(4)
    assert distances.min() > 0.1
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.2, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):  # the sign of the first channel's mean decides on the sign of the output
        x = torch.randn(16, 4, 6, 6, generator=generator, dtype=torch.float64)
        x[:8, 0] += 1
        x[8:, 0] -= 1
        y = torch.cat([x[:8], -x[8:]])
        optimiser.zero_grad()
        (layer(x) - y).square().mean().backward()
        optimiser.step()
    assert (differences(layer) - start).abs().max() > 0.05
    rows = layer.gate.excite.weight.detach().unflatten(0, (4, 4))
    assert (rows - rows.mean(1, keepdim=True)).abs().amax((1, 2)).min() > 0.05


def test_a_symmetric_start_would_never_part(monkeypatch):
    """The defect that the random differences prevent."""
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    layer = DyNetConv2d.from_conv2d(nn.Conv2d(4, 4, 3, dtype=torch.float64), num_kernels=4)
    x = images(4, 8)
    layer(x).square().mean().backward()
    gradients = layer.weight.grad.unflatten(0, (4, 4))
    assert (gradients - gradients.mean(1, keepdim=True)).abs().max() < 1e-12
    rows = layer.gate.excite.weight.grad.unflatten(0, (4, 4))
    assert (rows - rows.mean(1, keepdim=True)).abs().max() < 1e-12


def test_a_fresh_layer_has_the_variance_of_a_convolution():
    layer, conv = DyNetConv2d(16, 256, 3), nn.Conv2d(16, 256, 3)
    kernels, _ = layer.kernels(torch.randn(1, 16, 5, 5))
    assert abs(float((kernels.std() / conv.weight.std()).detach()) - 1) < 0.02


@pytest.mark.parametrize("on", PLACES)
def test_channels_last(on, oracle):
    layer = oracle.randomise(DyNetConv2d(4, 6, 3, groups=2, on=on))
    x = images(4)
    expected, (kernels, _) = oracle.gradients(layer, layer, x), layer.kernels(x)
    layer.to(memory_format=torch.channels_last)
    assert layer.weight.is_contiguous(memory_format=torch.channels_last)
    ours = oracle.gradients(layer, layer, x.to(memory_format=torch.channels_last))
    oracle.compare("DyNetConv2d, channels_last", ours, expected)
    oracle.compare("DyNetConv2d, channels_last", layer.kernels(x)[0], kernels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_kernels": 0}, "num_kernels must be at least 1, got 0"),
        ({"on": "input"}, "on must be one of 'weights', 'features', got 'input'"),
        ({"reduction": 0}, "reduction must be at least 1, got 0"),
        ({"reduction": 0.25}, "reduction must be an integer, got 0.25"),
    ],
)
def test_rejects(options, message):
    with pytest.raises(ValueError, match=message):
        DyNetConv2d(4, 6, 3, **options)
    if "on" in options:
        with pytest.raises(ValueError, match=message):
            DyNetConv2d(4, 6, 3).on = options["on"]
