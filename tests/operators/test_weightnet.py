"""WeightNetConv2d: the definition, a grouped linear layer as an oracle, conversion, cost."""

from itertools import cycle, product

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from overconv.operators.weightnet import WeightNetConv2d

CHANNELS = {"ungrouped": (6, 4, 1), "grouped": (8, 6, 2), "depthwise": (4, 4, 4), "two": (4, 8, 4)}
KERNELS = [1, 3, 5, 2, (2, 3), (3, 1)]
SPLITS = [(2, 2), (4, 2), (3, 1), (6, 2), (1, 1), (6, 3)]  # M and G of the paper


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


def splits(channels, kernel):
    """The M and G that such a kernel allows, in turn."""
    in_channels, _, groups = CHANNELS[channels]
    high, wide = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    values = in_channels // groups * high * wide
    allowed = [split for split in SPLITS if in_channels == groups or values % split[1] == 0]
    return cycle(allowed)


def alphas(layer, sample):
    """The gates of one image, number by number."""
    pooled = torch.stack([channel.mean() for channel in sample])
    reduced = layer.gate.squeeze.weight @ pooled + layer.gate.squeeze.bias
    logits = layer.gate.excite.weight @ reduced + layer.gate.excite.bias
    return [1 / (1 + (-logit).exp()) for logit in logits]


def defined(oracle, layer, x):
    """Kernels written value by value, then one convolution a sample."""
    depthwise = layer.in_channels == layer.groups
    parts = 1 if depthwise else layer.groups_per_channel
    vectors = layer.gates_per_channel // layer.groups_per_channel
    outputs = []
    for sample in x:
        gates, kernel = iter(alphas(layer, sample)), []
        for o in range(layer.out_channels):
            for part in range(parts):
                rows = layer.weight[o * parts + part]
                kernel.append(sum(next(gates) * rows[vector] for vector in range(vectors)))
        assert next(gates, None) is None
        weight = torch.cat(kernel).reshape(
            layer.out_channels, layer.in_channels // layer.groups, *layer.kernel_size
        )
        y = oracle.padded(sample[None], oracle.amounts(layer), layer.padding_mode)
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
def test_it_equals_the_definition_and_converts(kernel, channels, oracle):
    in_channels = CHANNELS[channels][0]
    allowed, batches = splits(channels, kernel), cycle([2, 1, 3])
    for number, arguments in enumerate(geometries(channels, kernel)):
        gates, groups = next(allowed)
        x = images(in_channels, next(batches))
        options = {"gates_per_channel": gates, "groups_per_channel": groups}
        layer = WeightNetConv2d(*arguments, **options)
        oracle.randomise(layer, seed=number).train(number % 2 == 0)
        definition = oracle.gradients(layer, lambda x, layer=layer: defined(oracle, layer, x), x)
        ours = oracle.gradients(layer, layer, x)
        oracle.compare("WeightNetConv2d = loops, outputs and gradients", ours, definition)
        deployed = layer.to_inference()
        assert not deployed.training
        assert layer.gate.squeeze is not None
        oracle.compare("WeightNetConv2d.to_inference = eval()", deployed(x), definition[0])
        scale, shift = torch.randn(2, layer.out_channels, dtype=torch.float64)
        expected = definition[0]
        for _ in range(2):
            with torch.no_grad():
                assert deployed.absorb_affine(scale, shift)
            expected = expected * scale[:, None, None] + shift[:, None, None]
            oracle.compare("WeightNetConv2d.absorb_affine", deployed(x), expected)
        oracle.compare("WeightNetConv2d.kernels", by_kernels(oracle, deployed, x), expected)

        conv = nn.Conv2d(*arguments, dtype=torch.float64).train(number % 2 == 0)
        start = WeightNetConv2d.from_conv2d(conv, **options)
        assert start.training == conv.training
        oracle.compare("WeightNetConv2d.from_conv2d", start(x), conv(x))


@pytest.mark.parametrize(("gates", "groups"), SPLITS)
def test_it_equals_a_grouped_linear_layer(gates, groups, oracle):
    """The paper's words: a grouped layer from M O gates to O I K K values, in G O groups."""
    layer = WeightNetConv2d(6, 4, 3, gates_per_channel=gates, groups_per_channel=groups)
    oracle.randomise(layer)
    x = images(6)
    linear = nn.Conv2d(gates * 4, 4 * 6 * 9, 1, groups=groups * 4, bias=False).double()
    with torch.no_grad():
        # torch has the outputs first, then the inputs of each group
        linear.weight.copy_(layer.weight.transpose(1, 2).reshape(linear.weight.shape))
    (alpha,) = layer.gate(x)
    emitted = linear(alpha[:, :, None, None]).reshape(len(x), 4, 6, 3, 3)
    oracle.compare("WeightNetConv2d = a grouped linear layer", layer.kernels(x)[0], emitted)


@pytest.mark.parametrize(("gates", "groups"), [(2, 2), (4, 2), (8, 1)])
def test_it_has_the_parameters_of_the_paper(gates, groups):
    """Dense: M/G P + M O (h + 1); depthwise: M/G k k C + M/G C (h + 1); and what reduces."""
    options = {"bias": False, "gates_per_channel": gates, "groups_per_channel": groups}
    for in_channels, hidden in ((64, 16), (512, 32)):
        layer = WeightNetConv2d(in_channels, 32, 3, **options)
        reduce = in_channels * hidden + hidden
        emit = gates // groups * in_channels * 32 * 9
        expected = emit + gates * 32 * (hidden + 1) + reduce
        assert sum(p.numel() for p in layer.parameters()) == expected
        layer = WeightNetConv2d(in_channels, in_channels, 3, groups=in_channels, **options)
        emit = gates // groups * 9 * in_channels
        expected = emit + gates // groups * in_channels * (hidden + 1) + reduce
        assert sum(p.numel() for p in layer.parameters()) == expected


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("gates", [2, 4])
def test_macs_equal_a_count_of_real_runs(gates, groups):
    layer = WeightNetConv2d(4, 8, 3, padding=1, groups=groups, gates_per_channel=gates)
    for made, hidden in ((layer, 16), (layer.to_inference(), None)):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            made(torch.randn(3, 4, 6, 5))
        macs, plain = made.macs((6, 5)), 8 * 4 // groups * 9
        products = 3 * (macs.gate + macs.compose + macs.convolution)
        assert counter.get_total_flops() == 2 * products
        width = 8 * (gates // 2 if groups == 4 else gates)
        assert macs.gate == (4 * width if hidden is None else hidden * (4 + width))
        assert macs.convolution == plain * 30
        assert macs.compose + macs.other == gates // 2 * plain + 4 * 30
        assert (macs.compose > 0) == (gates == 4)  # a single vector is scaled


@pytest.mark.parametrize(
    ("arguments", "split", "dimension"),
    [
        ((4, 6, 3), (2, 2), 12),  # two parts of one vector for each of six channels
        ((4, 6, 3), (6, 2), 36),
        ((4, 6, 3), (3, 1), 18),
        ((4, 2, 1), (8, 2), 8),  # a part has two values, and so has the span
        ((4, 4, 3, 1, 0, 1, 4), (4, 2), 8),  # a depthwise kernel is one part
    ],
)
def test_gates_span_as_many_dimensions(arguments, split, dimension):
    gates, groups = split
    layer = WeightNetConv2d(*arguments, gates_per_channel=gates, groups_per_channel=groups).double()
    width = layer.gate.excite.out_features

    class AnyGates(nn.Module):
        def forward(self, x):
            return (torch.randn(len(x), width, dtype=x.dtype),)

    layer.gate = AnyGates()
    kernels, _ = layer.kernels(images(arguments[0], batch=80))
    assert torch.linalg.matrix_rank(kernels.flatten(1)) == dimension
    assert layer.kernel_dimension() == dimension


@pytest.mark.parametrize(("in_channels", "folds"), [(4, True), (16, True), (64, False)])
def test_linear_layers_fold_where_that_is_less(in_channels, folds, oracle):
    layer = oracle.randomise(WeightNetConv2d(in_channels, 64, 3))
    deployed, x = layer.to_inference(), images(in_channels)
    assert (deployed.gate.squeeze is None) == folds
    (ours,), (theirs,) = deployed.gate(x), layer.gate(x)
    oracle.compare("WeightNetConv2d, gates of the copy", ours, theirs)
    if folds:
        assert sum(p.numel() for p in deployed.gate.parameters()) == (in_channels + 1) * 128
    again = deployed.to_inference()
    oracle.compare("WeightNetConv2d, gates of the copy", again.gate(x)[0], theirs)


def differences(layer):
    """What parts each vector from the mean of its part's."""
    return layer.weight.detach() - layer.weight.detach().mean(1, keepdim=True)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("zero", [False, True])
def test_vectors_start_different_and_drift_apart(zero, groups):
    conv = nn.Conv2d(4, 4, 3, padding=1, groups=groups, dtype=torch.float64)
    if zero:
        nn.init.zeros_(conv.weight)
    layer = WeightNetConv2d.from_conv2d(conv, gates_per_channel=6)
    start = differences(layer)
    assert (torch.cdist(start, start) + torch.eye(3)).min() > 0.1
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
    rows = layer.gate.excite.weight.detach().unflatten(0, layer.weight.shape[:2])
    assert (rows - rows.mean(1, keepdim=True)).abs().amax() > 0.05


def test_a_symmetric_start_would_never_part(monkeypatch):
    """The defect that the random differences prevent."""
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    conv = nn.Conv2d(4, 4, 3, dtype=torch.float64)
    layer = WeightNetConv2d.from_conv2d(conv, gates_per_channel=6)
    layer(images(4, 8)).square().mean().backward()
    for gradients in (layer.weight.grad, layer.gate.excite.weight.grad.unflatten(0, (8, 3))):
        assert (gradients - gradients.mean(1, keepdim=True)).abs().max() < 1e-12


@pytest.mark.parametrize("gates", [2, 8])
@pytest.mark.parametrize("groups", [1, 16])
def test_a_fresh_layer_has_the_variance_of_a_convolution(groups, gates):
    layer = WeightNetConv2d(16, 512, 3, groups=groups, gates_per_channel=gates)
    kernels, _ = layer.kernels(torch.randn(1, 16, 5, 5))
    conv = nn.Conv2d(16, 512, 3, groups=groups)
    assert abs(float((kernels.std() / conv.weight.std()).detach()) - 1) < 0.04


def test_channels_last(oracle):
    layer = oracle.randomise(WeightNetConv2d(4, 6, 3, groups=2, gates_per_channel=4))
    x = images(4)
    expected = oracle.gradients(layer, layer, x)
    layer.to(memory_format=torch.channels_last)
    ours = oracle.gradients(layer, layer, x.to(memory_format=torch.channels_last))
    oracle.compare("WeightNetConv2d, channels_last", ours, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gates_per_channel": 0}, "gates_per_channel must be at least 1, got 0"),
        ({"groups_per_channel": 0}, "groups_per_channel must be at least 1, got 0"),
        ({"gates_per_channel": 3}, "gates_per_channel=3 does not split into groups_per_channel=2"),
        (
            {"in_channels": 3},
            "groups_per_channel=2 does not split the 27 values of an output channel's kernel",
        ),
        ({"reduction": 0}, "reduction must be at least 1, got 0"),
    ],
)
def test_rejects(options, message):
    with pytest.raises(ValueError, match=message):
        WeightNetConv2d(**{"in_channels": 4, "out_channels": 6, "kernel_size": 3, **options})
