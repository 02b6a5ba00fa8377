"""DOConv2d: the definition tap by tap, folding, a start from a convolution."""

from itertools import cycle, islice, product

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from overconv.operators.doconv import DOConv2d

MODES = ("zeros", "reflect", "replicate", "circular")
CHANNELS = {
    "ungrouped": (3, 4, 1),
    "square": (4, 4, 1),
    "grouped": (4, 6, 2),
    "depthwise": (4, 4, 4),
    "multiplied": (3, 6, 3),
}
KERNELS = [1, 2, 3, 5, (2, 3), (3, 1)]


def geometries(kernel):
    """Strides, dilations, paddings, biases and modes of which the image is large enough."""
    paddings, modes = cycle(["same", 0, (2, 3)]), cycle(MODES)
    biases = cycle([True, False, False, True, True])
    for stride, dilation, _ in product([1, (2, 1), 3], [1, (2, 1)], range(2)):
        padding = next(paddings)
        if padding == "same" and stride != 1:
            padding = (4, 1)
        if padding == 0 and kernel == 5:
            padding = (3, 0)
        yield stride, padding, dilation, next(biases), next(modes)


def multipliers(kernel):
    """None; those that repeat the identity; those that leave something over."""
    taps = kernel**2 if isinstance(kernel, int) else kernel[0] * kernel[1]
    return cycle([None, 2 * taps, taps + 2, 3 * taps + 1, taps])


def images(channels, batch=2):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(batch, channels, 9, 8, generator=generator, dtype=torch.float64)


def kernel_of(layer):
    """The kernel value by value; the fixed part is written out."""
    rows, columns = layer.kernel_size
    taps, depth = rows * columns, layer.weight.shape[2]
    fixed = torch.zeros(taps, depth, dtype=torch.float64)
    for tap in range(taps):
        for repeat in range(depth // taps):
            fixed[tap, repeat * taps + tap] = 1
    per_group = layer.in_channels // layer.groups
    outputs = []
    for o in range(layer.out_channels):
        group = o * layer.groups // layer.out_channels
        inputs = []
        for i in range(per_group):
            shares = fixed
            if layer.mix is not None:
                shares = shares + layer.mix[group * per_group + i]
            values = [(share * layer.weight[o, i]).sum() for share in shares]
            inputs.append(torch.stack(values).view(rows, columns))
        outputs.append(torch.stack(inputs))
    return torch.stack(outputs)


def defined(oracle, layer, x):
    x = oracle.padded(x, oracle.amounts(layer), layer.padding_mode)
    y = oracle.convolved(x, kernel_of(layer), layer.stride, layer.dilation, layer.groups)
    return y if layer.bias is None else y + layer.bias[:, None, None]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_it_computes_its_definition_and_folds(kernel, channels, oracle):
    in_channels, out_channels, groups = CHANNELS[channels]
    x, depths = images(in_channels), multipliers(kernel)
    for number, (stride, padding, dilation, bias, mode) in enumerate(geometries(kernel)):
        arguments = (in_channels, out_channels, kernel, stride, padding, dilation, groups, bias)
        layer = DOConv2d(*arguments, mode, depth_multiplier=next(depths))
        oracle.randomise(layer, seed=number)
        ours = oracle.gradients(layer, layer, x)
        theirs = oracle.gradients(layer, lambda x, layer=layer: defined(oracle, layer, x), x)
        oracle.compare("DOConv2d = loops, with gradients", ours, theirs)
        deployed = layer.to_inference()
        assert type(deployed) is nn.Conv2d
        assert not deployed.training
        oracle.compare("DOConv2d, to_inference = eval()", deployed(x), layer.eval()(x))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_from_conv2d_equals_the_convolution(kernel, channels, oracle):
    in_channels, out_channels, groups = CHANNELS[channels]
    x, depths = images(in_channels), multipliers(kernel)
    for number, (stride, padding, dilation, bias, mode) in enumerate(geometries(kernel)):
        arguments = (in_channels, out_channels, kernel, stride, padding, dilation, groups, bias)
        conv = nn.Conv2d(*arguments, mode, dtype=torch.float64).train(number % 2 == 0)
        layer = DOConv2d.from_conv2d(conv, depth_multiplier=next(depths))
        assert layer.training == conv.training
        oracle.compare("DOConv2d.from_conv2d", layer(x), conv(x))
        oracle.compare("DOConv2d.from_conv2d, folded", layer.to_inference()(x), conv(x))


def test_numbers_of_parameters():
    layer = DOConv2d(64, 64, 3, bias=False)
    assert sum(p.numel() for p in layer.parameters()) == 36_864 + 64 * 9 * 9 == 42_048
    assert not list(layer.buffers())  # the identity is no tensor at all
    assert sum(p.numel() for p in DOConv2d(6, 6, 3, groups=6).parameters()) == 54 + 6 * 81 + 6
    pointwise = DOConv2d(4, 6, 1)
    assert pointwise.mix is None
    assert sum(p.numel() for p in pointwise.parameters()) == 4 * 6 + 6
    assert DOConv2d(4, 6, 1, depth_multiplier=3).mix.shape == (4, 1, 3)


@pytest.mark.parametrize("kernel", [1, 3, (2, 3)])
def test_a_fresh_layer_is_a_fresh_convolution(kernel):
    arguments = (4, 6, kernel, 2, 1, 1, 2)
    torch.manual_seed(3)
    layer = DOConv2d(*arguments)
    torch.manual_seed(3)
    conv = nn.Conv2d(*arguments)
    x = torch.randn(2, 4, 7, 6)
    assert torch.equal(layer.kernel(), conv.weight)
    assert torch.equal(layer.bias, conv.bias)
    assert torch.equal(layer(x), conv(x))


@pytest.mark.parametrize("depth_multiplier", [9, 14, 27, 31])
def test_a_fresh_layer_has_the_variance_of_a_convolution(depth_multiplier):
    layer = DOConv2d(64, 64, 3, depth_multiplier=depth_multiplier)
    variance = float(layer.kernel().detach().var())
    assert variance == pytest.approx(1 / (3 * 64 * 9), rel=0.05)


def train(layer, steps=20):
    x = images(4)
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(layer(x).shape, generator=generator, dtype=torch.float64)
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.2)
    for _ in range(steps):
        optimiser.zero_grad()
        (layer(x) - target).square().mean().backward()
        optimiser.step()


def test_repeated_parts_start_different_and_drift_apart(monkeypatch):
    conv = nn.Conv2d(4, 4, 3, dtype=torch.float64)
    layer = DOConv2d.from_conv2d(conv, depth_multiplier=20)
    mixes = layer.mix.detach()[..., :18].unflatten(2, (2, 9))
    parts = layer.weight.detach()[..., :18].unflatten(2, (2, 9))
    assert float((parts[:, :, 0] - parts[:, :, 1]).abs().mean()) > 0.05
    train(layer)
    assert float((mixes[:, :, 0] - mixes[:, :, 1]).abs().mean()) > 1e-3
    assert float(layer.mix.detach()[..., 18:].abs().min()) > 0  # what the identity leaves over, too
    # the defect that the random differences prevent
    equal = DOConv2d.from_conv2d(conv, depth_multiplier=18)
    with torch.no_grad():
        equal.weight.copy_((conv.weight.flatten(2) / 2).repeat(1, 1, 2))
    train(equal)
    mixes = equal.mix.detach().unflatten(2, (2, 9))
    assert float((mixes[:, :, 0] - mixes[:, :, 1]).abs().max()) < 1e-12


def test_each_input_channel_has_a_matrix_of_its_own():
    """In grouped layers too: the kernels of another group do not move."""
    layer = DOConv2d(4, 6, 3, groups=2, dtype=torch.float64)
    before = layer.kernel().detach()
    with torch.no_grad():
        layer.mix[3].normal_()
    moved = (layer.kernel().detach() - before).abs().amax((2, 3)) > 0
    expected = torch.zeros(6, 2, dtype=torch.bool)
    expected[3:, 1] = True  # the second input of the second group
    assert torch.equal(moved, expected)


def test_macs_equal_a_count_of_real_runs():
    for kernel, (in_channels, out_channels, groups) in product(KERNELS, CHANNELS.values()):
        for depth in islice(multipliers(kernel), 5):
            arguments = (in_channels, out_channels, kernel, (2, 1), (4, 3), (1, 2), groups)
            layer = DOConv2d(*arguments, depth_multiplier=depth, dtype=torch.float64)
            macs = layer.macs((9, 8))
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                layer(images(in_channels, batch=3))
            # torch counts no product that has a single term
            shared = macs.shared if layer.depth_multiplier > 1 else 0
            assert counter.get_total_flops() == 2 * (3 * macs.convolution + shared)


def test_macs_by_hand():
    macs = DOConv2d(4, 6, 3, stride=2, padding=1, groups=2, depth_multiplier=19).macs((8, 8))
    kernel = 6 * 2 * 9
    assert (macs.convolution, macs.shared, macs.other) == (16 * kernel, 19 * kernel, 2 * kernel)
    macs = DOConv2d(4, 6, 1).macs((8, 8))
    assert macs.total == macs.convolution == 64 * 24


def test_channels_last():
    layer = DOConv2d(4, 6, 3, padding=1, groups=2).double()
    x = images(4).to(memory_format=torch.channels_last)
    expected = layer(x.contiguous())
    layer = layer.to(memory_format=torch.channels_last)
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer.to_inference()(x), expected)


@pytest.mark.parametrize(
    ("kernel_size", "depth_multiplier", "message"),
    [
        (3, 8, r"depth_multiplier must be at least the 9 taps .*\(3, 3\).* got 8"),
        ((2, 3), 5, r"depth_multiplier must be at least the 6 taps .*\(2, 3\).* got 5"),
        (1, 0, "depth_multiplier must be at least 1, got 0"),
        (1, 2.0, "depth_multiplier must be an integer, got 2.0"),
    ],
)
def test_rejects(kernel_size, depth_multiplier, message):
    with pytest.raises(ValueError, match=message):
        DOConv2d(4, 6, kernel_size, depth_multiplier=depth_multiplier)
