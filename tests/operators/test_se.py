"""SEConv2d: the definition, timm's module behind a convolution, conversion, cost."""

from itertools import cycle, product

import pytest
import torch
from torch import nn

from overconv.operators.se import SEConv2d

CHANNELS = {"ungrouped": (3, 4, 1), "grouped": (4, 6, 2), "depthwise": (4, 4, 4)}
KERNELS = [1, 3, 5, 2, (2, 3), (3, 1)]


def images(channels, batch=2):
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
    """The formula: convolve, pool, two small layers, scale."""
    u = oracle.padded(x, oracle.amounts(layer), layer.padding_mode)
    u = oracle.convolved(u, layer.weight, layer.stride, layer.dilation, layer.groups)
    if layer.bias is not None:
        u = torch.stack([u[:, o] + layer.bias[o] for o in range(u.shape[1])], 1)
    (gates,) = oracle.pooled_gate(layer.gate, u)
    samples = [
        torch.stack([gate * channel for gate, channel in zip(row, sample, strict=True)])
        for row, sample in zip(gates, u, strict=True)
    ]
    return torch.stack(samples)


def by_kernels(oracle, layer, x):
    """Each sample convolved by the kernel that the layer says it sees."""
    kernels, biases = layer.kernels(x)
    outputs = []
    for number, sample in enumerate(x.split(1)):
        y = oracle.padded(sample, oracle.amounts(layer), layer.padding_mode)
        y = oracle.convolved(y, kernels[number], layer.stride, layer.dilation, layer.groups)
        if biases is not None:
            bias = biases if biases.dim() == 1 else biases[number]
            y = y + bias[:, None, None]
        outputs.append(y)
    return torch.cat(outputs)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_it_equals_the_definition_and_converts(kernel, channels, oracle):
    squashes = cycle(["sigmoid", "2sigmoid", "softmax"])
    x = images(CHANNELS[channels][0])
    for number, arguments in enumerate(geometries(channels, kernel)):
        layer = SEConv2d(*arguments, squash=next(squashes), reduction=1 + number % 2)
        oracle.randomise(layer, seed=number).train(number % 2 == 0)
        definition = oracle.gradients(layer, lambda x, layer=layer: defined(oracle, layer, x), x)
        ours = oracle.gradients(layer, layer, x)
        oracle.compare("SEConv2d = loops, outputs and gradients", ours, definition)
        deployed = layer.to_inference()
        assert not deployed.training
        oracle.compare("SEConv2d.to_inference = eval()", deployed(x), definition[0])
        scale, shift = torch.randn(2, layer.out_channels, dtype=torch.float64)
        expected = definition[0]
        for _ in range(2):  # the second time what the first has left is scaled
            with torch.no_grad():
                assert deployed.absorb_affine(scale, shift)
            expected = expected * scale[:, None, None] + shift[:, None, None]
            oracle.compare("SEConv2d.absorb_affine", deployed(x), expected)
        oracle.compare("SEConv2d.kernels", by_kernels(oracle, deployed, x), expected)
        oracle.compare("SEConv2d.kernels", by_kernels(oracle, layer, x), definition[0])

        conv = nn.Conv2d(*arguments, dtype=torch.float64).train(number % 2 == 0)
        start = SEConv2d.from_conv2d(conv, squash=next(squashes))
        assert start.training == conv.training
        oracle.compare("SEConv2d.from_conv2d", start(x), conv(x))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("reduction", [1, 2])
@pytest.mark.parametrize("module", ["SEModule", "SqueezeExcite"])
@pytest.mark.parametrize(
    "geometry",
    [{"kernel_size": 1}, {"kernel_size": (3, 5), "padding": (2, 1), "stride": 2, "groups": 2}],
)
def test_it_equals_timm(geometry, module, reduction, bias, oracle):
    """A convolution and timm's module behind it, with our weights."""
    layers = pytest.importorskip("timm.layers")
    blocks = pytest.importorskip("timm.models._efficientnet_blocks")
    ours = oracle.randomise(SEConv2d(4, 8, **geometry, bias=bias, reduction=reduction))
    hidden = ours.gate.squeeze.out_features
    if module == "SEModule":
        excitation, inner = layers.SEModule(8, rd_channels=hidden), ("fc1", "fc2")
    else:
        excitation = blocks.SqueezeExcite(8, rd_channels=hidden)
        inner = ("conv_reduce", "conv_expand")
    theirs = nn.Sequential(nn.Conv2d(4, 8, **geometry, bias=bias), excitation).double()
    parts = {"": "0.", "gate.squeeze.": f"1.{inner[0]}.", "gate.excite.": f"1.{inner[1]}."}
    names = {}
    for name, _ in ours.named_parameters():
        part, kind = name[: name.rfind(".") + 1], name[name.rfind(".") + 1 :]
        names[name] = parts[part] + kind
    parameters = dict(theirs.named_parameters())
    assert parameters.keys() == set(names.values())
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            parameters[names[name]].copy_(parameter.reshape(parameters[names[name]].shape))
    x = images(4)
    y, gradients = oracle.gradients(ours, ours, x)
    expected, others = oracle.gradients(theirs, theirs, x)
    oracle.compare("SEConv2d = timm's", y, expected)
    for name, gradient in gradients.items():
        other = others[names.get(name, name)].reshape(gradient.shape)
        oracle.compare("SEConv2d = timm's, gradients", gradient, other)


@pytest.mark.parametrize(("channels", "reduction"), [(64, 16), (256, 16), (64, 4)])
def test_it_has_the_parameters_of_the_paper(channels, reduction):
    """Two matrices of C x C/r, and their biases."""
    layer = SEConv2d(64, channels, 3, bias=False, reduction=reduction)
    hidden = channels // reduction
    gate = 2 * channels**2 // reduction + channels + hidden
    assert sum(p.numel() for p in layer.parameters()) == 64 * channels * 9 + gate
    pixels, macs = 28 * 30, layer.macs((30, 32))
    assert (macs.gate, macs.convolution) == (2 * channels * hidden, 64 * channels * 9 * pixels)
    assert (macs.compose, macs.shared) == (0, 0)
    assert macs.other == 2 * channels * pixels  # read once by the pool, once by the gate


def test_a_narrow_gate_has_four_hidden_units():
    assert SEConv2d(3, 16, 3).gate.squeeze.out_features == 4
    assert SEConv2d(3, 96, 3).gate.squeeze.out_features == 6


def test_gates_span_one_dimension_a_channel():
    layer = SEConv2d(4, 6, 3, groups=2).double()

    class AnyGates(nn.Module):
        def forward(self, u):
            return (torch.randn(len(u), 6, dtype=u.dtype),)

    layer.gate = AnyGates()
    kernels, _ = layer.kernels(images(4, batch=50))
    assert torch.linalg.matrix_rank(kernels.flatten(1)) == layer.kernel_dimension() == 6


def test_a_zero_scale_is_absorbed_too():
    """As a pruned batch norm has it; the gate goes on reading what the convolution gives."""
    layer = SEConv2d(4, 6, 3).eval()
    nn.init.normal_(layer.gate.excite.weight)
    deployed, x = layer.to_inference(), torch.randn(2, 4, 5, 5)
    scale, shift = torch.tensor([0.0, 1, 2, 0, -1, 3]), torch.arange(6.0)
    deployed.absorb_affine(scale, shift)
    expected = layer(x) * scale[:, None, None] + shift[:, None, None]
    torch.testing.assert_close(deployed(x), expected)
    assert deployed.macs((5, 5)).other == layer.macs((5, 5)).other + 6


def test_a_fresh_layer_has_the_outputs_of_a_convolution():
    layer, conv, x = SEConv2d(4, 6, 3), nn.Conv2d(4, 6, 3), torch.randn(2, 4, 5, 5)
    for module in (layer, conv):
        torch.manual_seed(3)
        module.reset_parameters()
    torch.testing.assert_close(layer(x), conv(x))


def test_the_gate_learns():
    layer, x = SEConv2d.from_conv2d(nn.Conv2d(4, 6, 3)), torch.randn(8, 4, 5, 5)
    layer(x).square().mean().backward()
    gradients = layer.gate.excite.weight.grad
    assert torch.linalg.matrix_rank(gradients) > 1  # and not all channels alike


def test_channels_last_stays(oracle):
    layer = oracle.randomise(SEConv2d(4, 6, 3))
    x = images(4)
    expected = layer(x)
    layer.to(memory_format=torch.channels_last)
    assert layer.weight.is_contiguous(memory_format=torch.channels_last)
    y = layer(x.to(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)
    oracle.compare("SEConv2d, channels_last", y, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reduction": 0}, "reduction must be at least 1, got 0"),
        ({"reduction": 0.25}, "reduction must be an integer, got 0.25"),
        ({"squash": "relu"}, "squash must be one of '2sigmoid', 'sigmoid', 'softmax', got 'relu'"),
        ({"squash": "softmax", "out_channels": 1}, "softmax' over a single value is constant"),
    ],
)
def test_rejects(options, message):
    with pytest.raises(ValueError, match=message):
        SEConv2d(**{"in_channels": 4, "out_channels": 6, "kernel_size": 3, **options})
