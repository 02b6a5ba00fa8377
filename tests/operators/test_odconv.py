"""ODConv2d: the definition entry by entry, its start, its gate with and without a batch."""

import copy
import math
from itertools import cycle, product

import pytest
import torch
from torch import nn

from overconv.gates import TemperatureSchedule
from overconv.inference_gate import InferenceGate
from overconv.operators.odconv import ODConv2d

CHANNELS = {
    "ungrouped": (3, 4, 1),
    "grouped": (4, 6, 2),
    "depthwise": (4, 4, 4),
    "multiplied": (2, 4, 2),  # as many groups as inputs, but filters of their own
}
KERNELS = [1, 2, 3, 5, (2, 3), (3, 1)]
GRID = list(
    product(
        [1, (2, 1)],  # stride
        [0, (2, 1), "same", (3, 4)],  # padding
        [1, (2, 1), 2],  # dilation
        [True, False],  # bias
        ["zeros", "reflect", "replicate", "circular"],
    )
)


def geometries(channels, kernel, every=11):
    """A share of the grid, another one for each kind of channels and kernel."""
    start = list(product(CHANNELS, KERNELS)).index((channels, kernel)) % every
    for stride, padding, dilation, bias, mode in GRID[start::every]:
        arguments = (*CHANNELS[channels][:2], kernel, stride, padding, dilation)
        arguments = (*arguments, CHANNELS[channels][2], bias, mode)
        if padding == "same" and stride != 1:
            continue
        if min(ODConv2d(*arguments).output_size((7, 6))) > 0:
            yield arguments


def images(channels, batch=3, seed=5):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, 7, 6, generator=generator, dtype=torch.float64)


def defined_gates(oracle, layer, x):
    """Head by head, (B, width): pooled, hidden, normalised, squashed."""
    gate = layer.gate
    hidden = torch.stack([gate.squeeze.weight @ sample.sum((1, 2)) for sample in x])
    hidden = hidden / (x.shape[2] * x.shape[3])
    if gate.squeeze.bias is not None:
        hidden = hidden + gate.squeeze.bias
    if gate.norm is not None:
        hidden = oracle.normalised(hidden, gate.norm)
    logits = hidden.clamp_min(0) @ gate.excite.weight.T + gate.excite.bias
    heads, start = {}, 0
    for name, width in zip(layer.heads, gate.widths, strict=True):
        part = logits[:, start : start + width]
        start += width
        if name == "kernels":
            temperature = gate.softmax.temperature
            powers = (part / (1 if temperature is None else temperature)).exp()
            heads[name] = powers / powers.sum(1, keepdim=True)
        else:
            temperature = gate.sigmoid.temperature
            heads[name] = 1 / (1 + (-part / (1 if temperature is None else temperature)).exp())
    assert start == logits.shape[1]
    return heads


def defined_kernel(layer, heads, sample):
    """The formula, filter by filter and channel by channel."""
    per_group, filters = layer.in_channels // layer.groups, []
    kernels = layer.weight.split(layer.out_channels)
    for o in range(layer.out_channels):
        group, slices = o // (layer.out_channels // layer.groups), []
        for i in range(per_group):
            shares = [1.0] if "kernels" not in heads else heads["kernels"][sample]
            taps = sum(share * kernel[o, i] for share, kernel in zip(shares, kernels, strict=True))
            taps = taps * heads["inputs"][sample, group * per_group + i]
            if "taps" in heads:
                taps = taps * heads["taps"][sample].view(layer.kernel_size)
            if "filters" in heads:
                taps = taps * heads["filters"][sample, o]
            slices.append(taps)
        filters.append(torch.stack(slices))
    return torch.stack(filters)


def defined(oracle, layer, x):
    heads, outputs = defined_gates(oracle, layer, x), []
    padded = oracle.padded(x, oracle.amounts(layer), layer.padding_mode)
    for number, sample in enumerate(padded.split(1)):
        kernel = defined_kernel(layer, heads, number)
        y = oracle.convolved(sample, kernel, layer.stride, layer.dilation, layer.groups)
        outputs.append(y if layer.bias is None else y + layer.bias[:, None, None])
    return torch.cat(outputs)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_both_places_equal_the_definition(kernel, channels, oracle):
    x = images(CHANNELS[channels][0])
    numbers, norms = cycle([2, 1, 3]), cycle([True, True, False, True])
    for number, arguments in enumerate(geometries(channels, kernel)):
        layer = ODConv2d(*arguments, num_kernels=next(numbers), gate_norm=next(norms))
        oracle.randomise(layer, seed=number).train(number % 2 == 0)
        definition = oracle.gradients(layer, lambda x, layer=layer: defined(oracle, layer, x), x)
        for on in ("weights", "features"):
            layer.on = on
            ours = oracle.gradients(layer, layer, x)
            oracle.compare("ODConv2d = loops, outputs and gradients", ours, definition)
        deployed = layer.to_inference()
        assert not deployed.training
        assert isinstance(deployed.gate, InferenceGate)
        expected = defined(oracle, layer.eval(), x)
        for on in ("weights", "features"):
            deployed.on = on
            oracle.compare("ODConv2d, to_inference = loops", deployed(x), expected)
            with torch.no_grad():
                oracle.compare("ODConv2d, no gradients = loops", deployed(x), expected)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_from_conv2d_equals_the_convolution(kernel, channels, oracle):
    x = images(CHANNELS[channels][0])
    numbers, norms = cycle([4, 1, 3]), cycle([True, True, False, True])
    for number, arguments in enumerate(geometries(channels, kernel)):
        torch.manual_seed(number)
        conv = nn.Conv2d(*arguments, dtype=torch.float64).train(number % 2 == 0)
        options = {"num_kernels": next(numbers), "gate_norm": next(norms), "temperature": 3.0}
        layer = ODConv2d.from_conv2d(conv, **options)
        assert layer.training == conv.training
        for on in ("weights", "features"):
            layer.on = on
            oracle.compare("ODConv2d.from_conv2d = convolution", layer(x), conv(x))
        oracle.compare("ODConv2d.from_conv2d, deployed", layer.to_inference()(x), conv(x))


@pytest.mark.parametrize(
    ("arguments", "num_kernels", "heads"),
    [
        ((8, 8, 3), 4, ("inputs", "filters", "taps", "kernels")),
        ((8, 8, 3), 1, ("inputs", "filters", "taps")),
        ((8, 8, 1), 4, ("inputs", "filters", "kernels")),
        ((8, 8, 1), 1, ("inputs", "filters")),
        ((8, 8, (1, 3), 1, 0, 1, 8), 4, ("inputs", "taps", "kernels")),
        ((8, 16, 3, 1, 0, 1, 8), 4, ("inputs", "filters", "taps", "kernels")),
        ((8, 8, 1, 1, 0, 1, 8), 1, ("inputs",)),
    ],
)
def test_heads_that_would_repeat_another_are_left_out(arguments, num_kernels, heads):
    layer = ODConv2d(*arguments, num_kernels=num_kernels)
    assert layer.heads == heads
    assert len(layer.gate(torch.zeros(2, 8, 5, 5))) == len(heads)


def parameters(layer):
    return sum(parameter.numel() for parameter in layer.parameters())


@pytest.mark.parametrize(("num_kernels", "expected"), [(4, 150_909), (1, 40_249)])
def test_it_has_the_parameters_of_the_authors_layer(num_kernels, expected):
    assert parameters(ODConv2d(64, 64, 3, bias=False, num_kernels=num_kernels)) == expected


@pytest.mark.parametrize(
    ("channels", "options", "hidden"),
    [
        (64, {}, 16),
        (512, {}, 32),
        (64, {"reduction": 2}, 32),
        (64, {"min_hidden": 3}, 4),
        (16, {"min_hidden": 3}, 3),
    ],
)
def test_width_of_the_hidden_layer(channels, options, hidden):
    layer = ODConv2d(channels, 8, 1, **options)
    assert layer.gate.squeeze.out_features == layer.gate.excite.in_features == hidden


def test_it_starts_as_the_authors_do():
    layer = ODConv2d(64, 32, 3, num_kernels=4)
    spread = (2 / (32 * 9)) ** 0.5
    torch.testing.assert_close(layer.weight.std().item(), spread, rtol=0.02, atol=0)
    assert layer.weight.mean().abs() < 0.01 * spread
    for rows, width in zip(layer.gate.excite.weight.split([64, 32, 9, 4]), (64, 32), strict=False):
        torch.testing.assert_close(rows.std().item(), (2 / width) ** 0.5, rtol=0.1, atol=0)
    assert not layer.gate.excite.bias.any()
    hidden = layer.gate.squeeze.weight
    torch.testing.assert_close(hidden.std().item(), (2 / 16) ** 0.5, rtol=0.1, atol=0)
    plain = ODConv2d(64, 32, 3, gate_norm=False).gate.squeeze
    assert plain.bias is not None
    assert not plain.bias.any()


# A norm in the gate, and a batch of one.


@pytest.mark.parametrize("size", [(7, 6), (1, 1)])
def test_a_single_image_trains_on_the_running_statistics(size, oracle):
    layer = oracle.randomise(ODConv2d(4, 6, 1))
    norm, x = layer.gate.norm, torch.randn(1, 4, *size, dtype=torch.float64)
    before = copy.deepcopy(norm.state_dict())
    alone = layer.train()(x)
    alone.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
    assert all(torch.equal(before[name], value) for name, value in norm.state_dict().items())
    oracle.compare("ODConv2d, one image", alone, layer.eval()(x))
    oracle.compare("ODConv2d, one image", alone, defined(oracle, layer.train(), x))
    layer(x.repeat(2, 1, 1, 1))
    assert norm.num_batches_tracked == before["num_batches_tracked"] + 1
    assert not torch.equal(norm.running_mean, before["running_mean"])


def test_without_the_norm_each_image_is_alone(oracle):
    layer, x = oracle.randomise(ODConv2d(4, 6, 3, gate_norm=False)), images(4)
    oracle.compare("ODConv2d, one image", torch.cat([layer(part) for part in x.split(1)]), layer(x))


@pytest.mark.parametrize("on", ["weights", "features"])
def test_an_empty_batch(on):
    layer = ODConv2d(4, 6, 3, padding=1, on=on).eval()
    assert layer(torch.zeros(0, 4, 5, 6)).shape == (0, 6, 5, 6)


# Temperature.


def test_the_schedule_moves_all_heads_and_folding_keeps_them(oracle):
    layer, x = oracle.randomise(ODConv2d(4, 6, 3)).eval(), images(4)
    TemperatureSchedule(start=30, end=2, until=0.5).apply(layer, 0.5)
    temperatures = [v for name, v in layer.state_dict().items() if name.endswith("temperature")]
    assert [float(value) for value in temperatures] == [2, 2]
    oracle.compare("ODConv2d, to_inference = loops", layer.to_inference()(x), layer(x))
    layer.gate.sigmoid.temperature.fill_(0.7)  # the two need not agree
    oracle.compare("ODConv2d, to_inference = loops", layer.to_inference()(x), layer(x))
    TemperatureSchedule(start=1e9, end=1).apply(layer, 0)
    for gates, neutral in zip(layer.gate(x), layer.gate.neutral, strict=True):
        torch.testing.assert_close(gates, torch.full_like(gates, neutral))


# Symmetry.


def train_on_two_regimes(layer, steps=300):
    """Two kinds of images, each with a kernel of its own to be learnt; returns the last loss."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.randn(2, 4, 4, 3, 3, generator=generator, dtype=torch.float64) / 6
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.03)
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


def test_parallel_kernels_drift_apart_and_gates_learn():
    conv = nn.Conv2d(4, 4, 3, padding=1, dtype=torch.float64)
    layer = ODConv2d.from_conv2d(conv, num_kernels=4)
    start = differences(layer)
    pairs = torch.cdist(*[layer.weight.detach().unflatten(0, (4, -1)).flatten(1)[None]] * 2)[0]
    assert pairs.fill_diagonal_(1).min() > 0.1
    loss = train_on_two_regimes(layer)
    assert (differences(layer) - start).abs().max() > 0.1
    for rows in layer.gate.excite.weight.detach().split(layer.gate.widths):
        assert (rows - rows.mean(0)).abs().max() > 0.01
    assert loss < 0.7 * train_on_two_regimes(conv)  # one kernel cannot serve both regimes


def test_a_symmetric_start_would_never_part(monkeypatch):
    """The defect that the random differences prevent."""
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    conv = nn.Conv2d(4, 4, 3, padding=1, dtype=torch.float64)
    layer = ODConv2d.from_conv2d(conv, num_kernels=4)
    train_on_two_regimes(layer)
    assert differences(layer).abs().max() < 1e-12
    rows = layer.gate.excite.weight.detach()[-4:]
    assert (rows - rows.mean(0)).abs().max() < 1e-12


def test_zero_weights_start_with_different_kernels_too():
    conv = nn.Conv2d(4, 4, 3)
    nn.init.zeros_(conv.weight)
    layer, x = ODConv2d.from_conv2d(conv), images(4).float()
    assert differences(layer).std() > 0.1
    torch.testing.assert_close(layer(x), conv(x))


@pytest.mark.parametrize(("kernel", "num_kernels", "slower"), [(3, 4, 256), (1, 4, 64), (3, 1, 64)])
def test_the_size_of_the_first_step(kernel, num_kernels, slower, oracle):
    conv = nn.Conv2d(4, 6, kernel, dtype=torch.float64)
    layer, x = ODConv2d.from_conv2d(conv, num_kernels=num_kernels), images(4)
    (plain,) = torch.autograd.grad(conv(x).square().sum(), conv.weight)
    (ours,) = torch.autograd.grad(layer(x).square().sum(), layer.weight)
    with torch.no_grad():
        before = layer.kernels(x)[0]
        layer.weight -= ours
        moved = before - layer.kernels(x)[0]
    for step in moved:
        oracle.compare("ODConv2d, first step", slower * step, plain, 1e-9)


# The kernel that a sample sees.


class RandomGates(nn.Module):
    def __init__(self, widths):
        super().__init__()
        self.widths = widths

    def forward(self, x):
        return tuple(torch.rand(len(x), width, dtype=x.dtype) for width in self.widths)


@pytest.mark.parametrize("num_kernels", [1, 3])
@pytest.mark.parametrize("kernel", [1, (2, 3)])
@pytest.mark.parametrize("channels", CHANNELS)
def test_kernel_dimension(channels, kernel, num_kernels, oracle):
    in_channels, out_channels, groups = CHANNELS[channels]
    layer = ODConv2d(in_channels, out_channels, kernel, groups=groups, num_kernels=num_kernels)
    oracle.randomise(layer)
    layer.gate = RandomGates(layer.gate.widths)
    kernels, _ = layer.kernels(torch.zeros(200, in_channels, 7, 6, dtype=torch.float64))
    rank = int(torch.linalg.matrix_rank(kernels.detach().flatten(1), rtol=1e-9))
    assert layer.kernel_dimension() == rank


@pytest.mark.parametrize("on", ["weights", "features"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("channels", CHANNELS)
def test_an_affine_map_behind_it_disappears(channels, bias, on, oracle):
    in_channels, out_channels, groups = CHANNELS[channels]
    layer = ODConv2d(in_channels, out_channels, 3, groups=groups, bias=bias, on=on, num_kernels=2)
    oracle.randomise(layer).eval()
    scale, shift = torch.randn(2, out_channels, dtype=torch.float64)
    deployed, x = layer.to_inference(), images(in_channels)
    for times in (1, 2):
        with torch.no_grad():
            assert deployed.absorb_affine(scale, shift)
        expected = layer(x)
        for _ in range(times):
            expected = scale[:, None, None] * expected + shift[:, None, None]
        oracle.compare("ODConv2d, absorb_affine", deployed(x), expected)


class SharedButFilters(nn.Module):
    def forward(self, x):
        generator = torch.Generator().manual_seed(0)
        shapes = ((1, 4), (len(x), 6), (1, 9))
        gates = [torch.rand(shape, generator=generator, dtype=x.dtype) for shape in shapes]
        return iter(gates)


def test_gates_of_a_users_own_may_serve_the_batch(oracle):
    layer = oracle.randomise(ODConv2d(4, 6, 3, num_kernels=1, on="weights")).eval()
    layer.gate = SharedButFilters()
    expected = layer(images(4))
    with torch.no_grad():
        oracle.compare("gates of a user's own", layer(images(4)), expected)


# Formats, precisions, forms.


@pytest.mark.parametrize("on", ["weights", "features"])
@pytest.mark.parametrize("groups", [1, 2])
def test_channels_last(groups, on, oracle):
    layer = oracle.randomise(ODConv2d(4, 6, 3, groups=groups, on=on))
    x, before = images(4), layer.state_dict()
    expected = layer(x)
    moved = copy.deepcopy(layer).to(memory_format=torch.channels_last)
    assert moved.weight.is_contiguous(memory_format=torch.channels_last)
    for name, value in moved.state_dict().items():
        assert torch.equal(value, before[name]) or "running" in name or "tracked" in name
    y = moved(x.to(memory_format=torch.channels_last))
    oracle.compare("ODConv2d, channels_last", y, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("on", ["weights", "features"])
def test_half_precision(on, dtype, oracle):
    layer, x = oracle.randomise(ODConv2d(4, 6, 3, on=on)).eval(), images(4)
    y = copy.deepcopy(layer).to(dtype)(x.to(dtype))
    assert y.dtype == dtype
    torch.testing.assert_close(y.double(), layer(x), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("gate_norm", [True, False])
@pytest.mark.parametrize("on", ["weights", "features"])
def test_second_derivatives(on, gate_norm, oracle):
    layer = oracle.randomise(ODConv2d(2, 2, (1, 2), num_kernels=2, on=on, gate_norm=gate_norm))
    x = images(2)[:2, :, :2, :2].requires_grad_()
    assert torch.autograd.gradgradcheck(layer, (x,))


def test_the_cheaper_form_depends_on_the_image():
    layer = ODConv2d(64, 64, 3, padding=1)
    small, large = (layer.forms((side, side)) for side in (7, 56))
    assert small["features"].total < small["weights"].total
    assert large["features"].total > large["weights"].total
    # pooling, the input's gates, the taps' gates on the kernel, the filters' gates
    assert small["features"].other == 64 * 49 * 2 + 9 * 64 * 64 + 64 * 49
    # pooling, inputs by taps, that by the kernel, filters by the kernel
    assert small["weights"].other == 64 * 49 + 9 * 64 + 2 * 9 * 64 * 64
    assert small["weights"].compose == 4 * 9 * 64 * 64
    assert small["weights"].gate == 16 * (64 + 64 + 64 + 9 + 4)
    assert ODConv2d(64, 64, 3, num_kernels=1).macs((7, 7)).compose == 0
    layer.on = "weights"
    assert layer.macs((7, 7)) == small["weights"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_kernels": 0}, "num_kernels must be at least 1, got 0"),
        ({"on": "input"}, "on must be one of 'weights', 'features', got 'input'"),
        ({"reduction": 0}, "reduction must be at least 1, got 0"),
        ({"min_hidden": 0}, "min_hidden must be at least 1, got 0"),
        ({"temperature": 0.0}, "temperature must be positive and finite, got 0.0"),
    ],
)
def test_rejects(options, message):
    with pytest.raises(ValueError, match=message):
        ODConv2d(4, 6, 3, **options)


def test_a_wrong_place_is_refused_at_any_time():
    layer = ODConv2d(4, 6, 3)
    with pytest.raises(ValueError, match="on must be one of 'weights', 'features', got 'both'"):
        layer.on = "both"
    assert layer.on == "features"
    assert math.prod(layer.gate.neutral) * layer.num_kernels == 1 / 8
