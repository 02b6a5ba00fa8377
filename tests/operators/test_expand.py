"""ExpandConv2d: layer by layer against loops, folding, a start from a convolution, variants."""

from itertools import cycle, product

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from overconv.functional import compose
from overconv.operators.expand import ExpandConv2d
from overconv.operators.stack import stack_of

MODES = ("zeros", "reflect", "replicate", "circular")
CHANNELS = {
    "ungrouped": (3, 4, 1),
    "square": (4, 4, 1),
    "narrowing": (5, 2, 1),
    "grouped": (4, 6, 2),
    "depthwise": (4, 4, 4),
    "multiplied": (3, 6, 3),
}
KERNELS = {"CL": [1, 2, 3, 5, (2, 3), (3, 1)], "CK": [5, (5, 3), (1, 7)]}
GRID = [(variant, kernel) for variant, kernels in KERNELS.items() for kernel in kernels]


def geometries(kernel):
    """Strides, dilations, paddings, biases and modes of which the image is large enough."""
    sides = (kernel, kernel) if isinstance(kernel, int) else kernel
    # of different lengths, so that all of them meet
    paddings, modes = cycle(["same", 0, (2, 3)]), cycle(MODES)
    biases = cycle([True, False, False, True, True])
    for stride, dilation, _ in product([1, (2, 1), 3], [1, (2, 1)], range(2)):
        padding = next(paddings)
        if padding == "same" and stride != 1:
            padding = (4, 1)
        spans = [d * (k - 1) for d, k in zip((2, 1), sides, strict=True)]
        if padding == 0 and max(spans) > 7:
            padding = (3, 2)
        yield stride, padding, dilation, next(biases), next(modes)


def images(channels, batch=2):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(batch, channels, 9, 8, generator=generator, dtype=torch.float64)


def defined(oracle, layer, x):
    """Pad, then run each layer without padding, then add the bias."""
    x = oracle.padded(x, oracle.amounts(layer), layer.padding_mode)
    strided = 1 if layer.variant == "CL" else len(layer.weights) - 1
    for index, weight in enumerate(layer.weights):
        stride = layer.stride if index == strided else (1, 1)
        dilation = layer.dilation if weight.shape[2:] != (1, 1) else (1, 1)
        x = oracle.convolved(x, weight, stride, dilation, layer.groups)
    return x if layer.bias is None else x + layer.bias[:, None, None]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize(("variant", "kernel"), GRID)
def test_both_places_equal_the_definition_and_the_fold(variant, kernel, channels, oracle):
    in_channels, out_channels, groups = CHANNELS[channels]
    x, expansions = images(in_channels), cycle([2, 3, 1])
    for number, (stride, padding, dilation, bias, mode) in enumerate(geometries(kernel)):
        arguments = (in_channels, out_channels, kernel, stride, padding, dilation, groups, bias)
        layer = ExpandConv2d(*arguments, mode, expansion=next(expansions), variant=variant)
        oracle.randomise(layer, seed=number)
        definition = oracle.gradients(layer, lambda x, layer=layer: defined(oracle, layer, x), x)
        for layer.on in ("weights", "features"):
            ours = oracle.gradients(layer, layer, x)
            oracle.compare(f"ExpandConv2d {variant} = loops, with gradients", ours, definition)
        deployed = layer.to_inference()
        assert type(deployed) is nn.Conv2d
        assert not deployed.training
        oracle.compare("ExpandConv2d, to_inference = eval()", deployed(x), layer.eval()(x))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize(("variant", "kernel"), GRID)
def test_from_conv2d_equals_the_convolution(variant, kernel, channels, oracle):
    in_channels, out_channels, groups = CHANNELS[channels]
    x, expansions = images(in_channels), cycle([4, 5, 7] if variant == "CK" else [4, 1, 3])
    for number, (stride, padding, dilation, bias, mode) in enumerate(geometries(kernel)):
        arguments = (in_channels, out_channels, kernel, stride, padding, dilation, groups, bias)
        conv = nn.Conv2d(*arguments, mode, dtype=torch.float64).train(number % 2 == 0)
        layer = ExpandConv2d.from_conv2d(conv, expansion=next(expansions), variant=variant)
        assert layer.training == conv.training
        oracle.compare("ExpandConv2d.from_conv2d", layer(x), conv(x))
        oracle.compare("ExpandConv2d.from_conv2d, folded", layer.to_inference()(x), conv(x))


@pytest.mark.parametrize("padding_mode", MODES)
@pytest.mark.parametrize(("variant", "kernel"), [("CL", 3), ("CK", 5)])
def test_biases_inside_would_add_a_constant(variant, kernel, padding_mode, oracle):
    """With the padding on the first layer, they come to one bias at the end."""
    layer = ExpandConv2d(3, 4, kernel, 2, 2, padding_mode=padding_mode, variant=variant)
    oracle.randomise(layer)
    biases = [torch.randn(len(weight), dtype=torch.float64) for weight in layer.weights]
    x = images(3)
    y = oracle.padded(x, oracle.amounts(layer), padding_mode)
    for index, (weight, bias) in enumerate(zip(layer.weights, biases, strict=True)):
        stride = layer.stride if index == 1 else (1, 1)
        y = oracle.convolved(y, weight, stride) + bias[:, None, None]
    added = (y + layer.bias[:, None, None] - layer(x)).flatten(2)
    oracle.compare("biases inside = a constant", added, added[:1, :, :1].expand_as(added))


def test_numbers_of_parameters():
    layer = ExpandConv2d(64, 64, 3, bias=False)
    assert sum(p.numel() for p in layer.parameters()) == 2 * 4 * 64**2 + 16 * 36_864
    depthwise = ExpandConv2d(6, 6, 3, groups=6)  # four channels a group
    shapes = [tuple(weight.shape) for weight in depthwise.weights]
    assert shapes == [(24, 1, 1, 1), (24, 4, 3, 3), (6, 4, 1, 1)]
    split = ExpandConv2d(2, 3, 7, variant="CK")
    shapes = [tuple(weight.shape) for weight in split.weights]
    assert shapes == [(8, 2, 3, 3), (12, 8, 3, 3), (3, 12, 3, 3)]
    oblong = ExpandConv2d(2, 3, (7, 3), variant="CK")
    assert [tuple(weight.shape[2:]) for weight in oblong.weights] == [(3, 3), (3, 1), (3, 1)]


@pytest.mark.parametrize(
    ("variant", "groups", "kernel"), [("CL", 1, 3), ("CL", 32, 3), ("CK", 1, 5), ("CK", 1, 7)]
)
def test_a_fresh_layer_has_the_variance_of_a_convolution(variant, groups, kernel):
    layer = ExpandConv2d(64, 64, kernel, groups=groups, variant=variant)
    conv = nn.Conv2d(64, 64, kernel, groups=groups)
    energies = [
        float(weight.detach().square().sum((1, 2, 3)).mean())
        for weight in (layer.kernel(), conv.weight)
    ]
    assert energies[0] == pytest.approx(energies[1], rel=0.25 if groups > 1 else 0.08)
    if variant == "CL" and groups == 1:  # and every tap alike
        taps = layer.kernel().detach().square().mean((0, 1))
        assert float(taps.max() / taps.min()) < 1.2


@pytest.mark.parametrize(("variant", "kernel"), [("CL", 3), ("CK", 5)])
def test_spare_channels_come_to_life(variant, kernel):
    """They cannot be seen at the start, but what reads them has a gradient from the first step."""
    conv = nn.Conv2d(4, 4, kernel, dtype=torch.float64)
    layer = ExpandConv2d.from_conv2d(conv, variant=variant, expansion=6)
    x = images(4)
    cotangent = torch.randn_like(layer(x))
    (layer(x) * cotangent).sum().backward()
    spare = layer.weights[-1].grad[:, 16:]
    assert float(spare.abs().min()) > 0
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter -= 0.01 * parameter.grad
    layer.zero_grad()
    (layer(x) * cotangent).sum().backward()
    assert all(float(weight.grad.abs().min()) > 0 for weight in layer.weights)


@pytest.mark.parametrize(
    ("kernel", "expansion"), [(5, 4), (7, 4), (9, 9), (11, 9), ((9, 3), 4), ((1, 11), 3)]
)
def test_a_split_kernel_needs_its_width_to_start_from_a_convolution(kernel, expansion, oracle):
    """The least expansion that will do where input and output are equally wide."""
    conv = nn.Conv2d(2, 2, kernel, padding="same", dtype=torch.float64)
    layer = ExpandConv2d.from_conv2d(conv, variant="CK", expansion=expansion)
    x = images(2)
    oracle.compare("ExpandConv2d.from_conv2d, CK", layer(x), conv(x))
    with pytest.raises(ValueError, match=f"expansion={expansion - 1} is too small: layers of"):
        ExpandConv2d.from_conv2d(conv, variant="CK", expansion=expansion - 1)


def test_a_stack_composes_to_its_kernel(oracle):
    for groups, sizes in product([1, 2], [(1, 3, 1), (3, 3), (3, 3, 3), (1, 4, 1), (1, 1, 1)]):
        size = 1 + sum(side - 1 for side in sizes)
        weight = torch.randn(3 * groups, 2, size, size, dtype=torch.float64)
        widths = [2, *[13] * (len(sizes) - 1), 3]
        layers = [
            torch.randn(wide_out * groups, wide_in, side, side, dtype=torch.float64)
            for wide_in, wide_out, side in zip(widths[:-1], widths[1:], sizes, strict=True)
        ]
        before = [layer.clone() for layer in layers]
        whole, *rest = stack_of(weight, layers, groups)
        for layer in rest:
            whole = compose(whole, layer, groups)
        oracle.compare("stack_of", whole, weight)
        assert all(map(torch.equal, layers, before))


def test_macs_equal_a_count_of_real_runs():
    for variant, kernel in GRID:
        for in_channels, out_channels, groups in CHANNELS.values():
            arguments = (in_channels, out_channels, kernel, (2, 1), (4, 3), (1, 2), groups)
            layer = ExpandConv2d(*arguments, variant=variant, dtype=torch.float64)
            for on, macs in layer.forms((9, 8)).items():
                layer.on = on
                assert layer.macs((9, 8)) == macs
                with FlopCounterMode(display=False) as counter, torch.no_grad():
                    layer(images(in_channels, batch=3))
                assert counter.get_total_flops() == 2 * (3 * macs.convolution + macs.shared)
                assert macs.total == macs.convolution + macs.shared


def test_macs_by_hand():
    layer = ExpandConv2d(4, 6, 3, stride=2, padding=1)
    # 1 x 1 on 8 x 8 pixels, then 3 x 3 and 1 x 1 on 4 x 4
    assert layer.macs((8, 8)).convolution == 64 * 16 * 4 + 16 * (24 * 16 * 9 + 6 * 24)
    layer.on = "weights"
    assert layer.macs((8, 8)).convolution == 16 * 6 * 4 * 9
    assert layer.macs((8, 8)).shared == 24 * 16 * 4 * 9 + 6 * 24 * 4 * 9
    split = ExpandConv2d(4, 4, 5, stride=2, padding=2, variant="CK")
    # padded to 12 x 12, then 10 x 10 pixels, then every other one of 8 x 8
    assert split.macs((8, 8)).convolution == 100 * 16 * 4 * 9 + 16 * 4 * 16 * 9


def test_channels_last():
    x = images(4).to(memory_format=torch.channels_last)
    for variant, on in product(("CL", "CK"), ("weights", "features")):
        layer = ExpandConv2d(4, 6, 5, padding=2, groups=2, variant=variant, on=on).double()
        expected = layer(x.contiguous())
        layer = layer.to(memory_format=torch.channels_last)
        torch.testing.assert_close(layer(x), expected)
        torch.testing.assert_close(layer.to_inference()(x), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"expansion": 0}, "expansion must be at least 1, got 0"),
        ({"expansion": 1.5}, "expansion must be an integer, got 1.5"),
        ({"variant": "CC"}, "variant must be one of 'CL', 'CK', got 'CC'"),
        ({"on": "input"}, "on must be one of 'weights', 'features', got 'input'"),
        ({"variant": "CK"}, r"variant='CK' .* at least 5, got kernel_size=\(3, 3\)"),
        ({"variant": "CK", "kernel_size": (4, 5)}, r"sides must be odd .* got .*\(4, 5\)"),
        ({"variant": "CK", "kernel_size": (5, 2)}, r"sides must be odd .* got .*\(5, 2\)"),
    ],
)
def test_rejects(options, message):
    with pytest.raises(ValueError, match=message):
        ExpandConv2d(4, 6, **{"kernel_size": 3, **options})
