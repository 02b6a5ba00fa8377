"""DCDConv2d: the definition position by position, its borders, its norms, its start."""

import copy
from itertools import cycle, product

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from overconv.operators.dcd import DCDConv2d

CHANNELS = {
    "ungrouped": (3, 4, 1),
    "grouped": (4, 6, 2),
    "depthwise": (4, 4, 4),
    "multiplied": (2, 4, 2),
}
KERNELS = [1, 2, 3, 5, (2, 3), (3, 1)]
GRID = list(
    product(
        [1, (2, 1)],  # stride
        [0, (2, 1), "same", (3, 4)],  # padding; the last puts the centre of a 3 x 3 on padding
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
        if min(DCDConv2d(*arguments).output_size((7, 6))) > 0:
            yield arguments


def images(channels, batch=2, seed=5):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, 7, 6, generator=generator, dtype=torch.float64)


def defined_gate(gate, x):
    """Factors and matrix entries, (B, width) each."""

    def squash(logits):
        if gate.squash == "hsigmoid":
            return (logits + 3).clamp(0, 6) / 3
        return 2 / (1 + (-logits).exp())

    cells = F.adaptive_avg_pool2d(x, gate.pool)
    rows = []
    for sample in cells:
        z = gate.squeeze.weight @ sample.permute(1, 2, 0).flatten()
        h = z * squash(gate.select.weight @ z)
        logits = gate.excite.weight @ h
        factors = gate.widths[0]
        rows.append(torch.cat([squash(logits[:factors]), logits[factors:]]))
    rows = torch.stack(rows)
    return rows[:, : gate.widths[0]], rows[:, gate.widths[0] :]


def by_blocks(matrix, z, groups):
    """A block-diagonal matrix (J, I/G) on images (I, H, W)."""
    blocks = zip(matrix.chunk(groups), z.chunk(groups), strict=True)
    return torch.cat([torch.einsum("ji,ihw->jhw", block, part) for block, part in blocks])


def defined(oracle, layer, x):
    factors, entries = defined_gate(layer.gate, x)
    padded = oracle.padded(x, oracle.amounts(layer), layer.padding_mode)
    y = oracle.convolved(padded, layer.weight, layer.stride, layer.dilation, layer.groups)
    # what the centre tap reads, pixel by pixel
    places = [
        [position * stride + dilation * ((size - 1) // 2) for position in range(number)]
        for number, stride, dilation, size in zip(
            y.shape[2:], layer.stride, layer.dilation, layer.kernel_size, strict=True
        )
    ]
    rows = [torch.stack([padded[:, :, r, c] for c in places[1]], -1) for r in places[0]]
    centre = torch.stack(rows, -2)
    groups, latent = layer.groups, layer.latent_channels
    z = torch.stack([by_blocks(layer.compress[:, :, 0, 0], image, groups) for image in centre])
    if layer.compress_norm is not None:
        z = oracle.normalised(z, layer.compress_norm)
    matrices = entries.view(len(x), latent, latent // groups)
    pairs = zip(matrices, z, strict=True)
    mixed = torch.stack([by_blocks(matrix, image, groups) for matrix, image in pairs])
    if layer.mix_norm is not None:
        mixed = oracle.normalised(mixed, layer.mix_norm)
    expand = layer.expand[:, :, 0, 0]
    branch = torch.stack([by_blocks(expand, image, groups) for image in mixed + z])
    y = factors[:, :, None, None] * y + branch
    return y if layer.bias is None else y + layer.bias[:, None, None]


def options():
    """Options in turn, each number of them prime to the others."""
    latents, pools = cycle([None, 4, None, 8, None]), cycle([2, 1, 2, 3, 2, 1, 2])
    squashes, norms = cycle(["hsigmoid", "2sigmoid", "hsigmoid"]), cycle([True, False])
    while True:
        yield {
            "latent_channels": next(latents),
            "pool": next(pools),
            "squash": next(squashes),
            "gate_norm": next(norms),
        }


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_both_places_equal_the_definition(kernel, channels, oracle):
    x, turns = images(CHANNELS[channels][0]), options()
    for number, arguments in enumerate(geometries(channels, kernel)):
        layer = DCDConv2d(*arguments, **next(turns))
        oracle.randomise(layer, seed=number)
        has_norm = layer.mix_norm is not None
        for training in (True, False):
            layer.train(training)
            expected = oracle.gradients(layer, lambda x, layer=layer: defined(oracle, layer, x), x)
            for on in ("weights", "features"):
                layer.on = on
                if training and has_norm and on == "weights":
                    continue
                ours = oracle.gradients(layer, layer, x)
                oracle.compare("DCDConv2d = loops, outputs and gradients", ours, expected)
        expected, deployed = defined(oracle, layer, x), layer.to_inference()
        assert not deployed.training
        assert deployed.compress_norm is deployed.mix_norm is None
        for on in ("weights", "features"):
            deployed.on = on
            oracle.compare("DCDConv2d, to_inference = loops", deployed(x), expected)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_from_conv2d_equals_the_convolution(kernel, channels, oracle):
    x, turns = images(CHANNELS[channels][0]), options()
    for number, arguments in enumerate(geometries(channels, kernel)):
        torch.manual_seed(number)
        conv = nn.Conv2d(*arguments, dtype=torch.float64)
        layer = DCDConv2d.from_conv2d(conv, **next(turns))
        assert layer.training
        for training in (True, False):
            layer.train(training)
            oracle.compare("DCDConv2d.from_conv2d = convolution", layer(x), conv(x))
        layer.on = "weights"
        oracle.compare("DCDConv2d.from_conv2d = convolution", layer(x), conv(x))
        oracle.compare("DCDConv2d.from_conv2d, deployed", layer.to_inference()(x), conv(x))


def test_it_has_the_parameters_of_the_authors_layer():
    layer = DCDConv2d(64, 64, 3, bias=False)
    assert sum(parameter.numel() for parameter in layer.parameters()) == 48_448
    assert (layer.latent_channels, layer.gate.squeeze.out_features) == (16, 16)
    norms = 4 * 16
    plain = DCDConv2d(64, 64, 3, bias=False, gate_norm=False)
    assert sum(parameter.numel() for parameter in plain.parameters()) == 48_448 - norms


@pytest.mark.parametrize(
    ("arguments", "options", "latent", "hidden"),
    [
        ((64, 128, 3), {}, 16, 16),
        ((63, 64, 1), {}, 15, 15),  # floor(sqrt(252)); 4 * 63 // 16
        ((512, 512, 3), {}, 45, 128),
        ((64, 64, 3), {"pool": 1}, 16, 16),  # the matrix is the wider
        ((64, 64, 3), {"latent_channels": 8, "pool": 1, "reduction": 4}, 8, 16),
        ((3, 8, 3), {}, 3, 4),  # no fewer
        ((64, 64, 3, 1, 0, 1, 4), {}, 32, 16),  # 8 for the 16 inputs of each group
        ((64, 64, 3, 1, 0, 1, 64), {}, 128, 16),  # depthwise: 2 each
    ],
)
def test_widths_of_the_branch_and_of_the_gate(arguments, options, latent, hidden):
    layer = DCDConv2d(*arguments, **options)
    assert layer.latent_channels == latent
    assert layer.gate.squeeze.out_features == hidden
    entries = latent * latent // layer.groups
    assert layer.gate.widths == [layer.out_channels, entries]


def test_it_starts_as_the_authors_do():
    layer = DCDConv2d(64, 32, 3)
    for weight, fan_out in ((layer.weight, 32 * 9), (layer.compress, 16), (layer.expand, 32)):
        spread = (2 / fan_out) ** 0.5
        torch.testing.assert_close(weight.std().item(), spread, rtol=0.1, atol=0)


@pytest.mark.parametrize("size", [(7, 6), (5, 1), (1, 1), (2, 3)])
@pytest.mark.parametrize("pool", [1, 2, 3])
def test_cells_are_those_of_adaptive_pooling(pool, size):
    gate = DCDConv2d(4, 6, 1, pool=pool).gate.double()
    x = torch.randn(2, 4, *size, dtype=torch.float64)
    for ours, theirs in zip(gate(x), defined_gate(gate, x), strict=True):
        torch.testing.assert_close(ours, theirs)


# Borders.


@pytest.mark.parametrize("kernel", [1, 3, (2, 4)])
@pytest.mark.parametrize("mode", ["zeros", "circular"])
def test_a_centre_on_padding_is_normalised_too(mode, kernel, oracle):
    """There the branch is what it is for such pixels inside an image that is padded already."""
    layer = DCDConv2d(3, 4, kernel, padding=3, padding_mode=mode)
    oracle.randomise(layer)
    inside = DCDConv2d(3, 4, kernel)
    oracle.randomise(inside)
    x = images(3)
    padded = oracle.padded(x, (3, 3, 3, 3), mode)
    inside.gate.forward = lambda _: layer.gate(x)
    for training in (True, False):
        layer.train(training), inside.train(training)
        oracle.compare("DCDConv2d, padded before", layer(x), inside(padded))


# The norms.


def test_a_training_norm_is_not_composed(oracle):
    layer, x = oracle.randomise(DCDConv2d(3, 4, 3, on="weights")), images(3)
    message = "gate_norm=True cannot compose its kernel while training.* on='features', or eval()"
    with pytest.raises(ValueError, match=message):
        layer(x)
    with pytest.raises(ValueError, match=message):
        layer.kernels(x)
    for training, frozen in (
        (layer.mix_norm, layer.compress_norm),
        (layer.compress_norm, layer.mix_norm),
    ):
        training.train(), frozen.eval()
        with pytest.raises(ValueError, match=message):
            layer(x)
    layer.compress_norm.eval()  # frozen norms are affine
    oracle.compare("DCDConv2d = loops, outputs and gradients", layer(x), defined(oracle, layer, x))


def test_a_single_position_trains_on_the_running_statistics(oracle):
    layer = oracle.randomise(DCDConv2d(4, 6, 3, padding=1))
    pixel = torch.randn(1, 4, 1, 1, dtype=torch.float64)
    before = copy.deepcopy(layer.state_dict())
    alone = layer.train()(pixel)
    alone.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())
    oracle.compare("DCDConv2d, one position", alone, layer.eval()(pixel))
    layer.train()(pixel.expand(1, 4, 1, 2))  # two positions are a batch
    assert (
        layer.compress_norm.num_batches_tracked == before["compress_norm.num_batches_tracked"] + 1
    )
    assert not torch.equal(layer.mix_norm.running_mean, before["mix_norm.running_mean"])


def test_statistics_are_those_of_the_two_places_of_the_branch(oracle):
    layer, x = oracle.randomise(DCDConv2d(3, 4, 3)), images(3)
    with torch.no_grad():
        for norm in (layer.compress_norm, layer.mix_norm):
            norm.reset_running_stats()
            norm.momentum = 1.0
        layer.train()(x)
        z = F.conv2d(x[:, :, 1:-1, 1:-1], layer.compress)
        torch.testing.assert_close(layer.compress_norm.running_mean, z.mean((0, 2, 3)))
        z, (_, entries) = oracle.normalised(z, layer.compress_norm), layer.gate(x)
        mixed = torch.einsum("bji,bihw->bjhw", entries.view(2, 3, 3), z)
        torch.testing.assert_close(layer.mix_norm.running_mean, mixed.mean((0, 2, 3)))
        torch.testing.assert_close(
            layer.mix_norm.running_var, mixed.transpose(0, 1).flatten(1).var(1)
        )


def test_a_deployed_layer_says_that_its_norms_are_gone():
    layer = DCDConv2d(4, 6, 3)
    assert (layer.gate_norm, layer.to_inference().gate_norm) == (True, False)


def test_without_norms_each_image_is_alone(oracle):
    layer, x = oracle.randomise(DCDConv2d(3, 4, 3, gate_norm=False)), images(3)
    single = torch.cat([layer(part) for part in x.split(1)])
    oracle.compare("DCDConv2d, one image", single, layer(x))


@pytest.mark.parametrize("on", ["weights", "features"])
@pytest.mark.parametrize("groups", [1, 2])
def test_an_empty_batch(groups, on):
    layer = DCDConv2d(4, 6, 3, padding=1, groups=groups, on=on).eval()
    assert layer(torch.zeros(0, 4, 5, 6)).shape == (0, 6, 5, 6)


# The start.


@pytest.mark.parametrize("gate_norm", [True, False])
def test_all_of_the_branch_learns_from_its_zero_start(gate_norm):
    conv = nn.Conv2d(3, 4, 3, padding=1, dtype=torch.float64)
    layer, x = DCDConv2d.from_conv2d(conv, gate_norm=gate_norm), images(3)
    start = copy.deepcopy(layer.state_dict())
    target = torch.randn(2, 4, 7, 6, dtype=torch.float64)
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.1)
    for step in range(3):
        optimiser.zero_grad()
        (layer(x) - target).square().mean().backward()
        if step == 0:  # nothing reaches what is behind the zeros, but the zeros move
            assert not layer.compress.grad.any()
            assert layer.expand.grad.abs().min() > 0
            assert layer.gate.excite.weight.grad[:4].abs().max() > 0
        optimiser.step()
    for name, parameter in layer.named_parameters():
        assert (parameter - start[name]).abs().max() > 1e-9, name


def test_it_serves_two_regimes_that_one_kernel_cannot():
    generator = torch.Generator().manual_seed(0)
    targets = torch.randn(2, 4, 4, 1, 1, generator=generator, dtype=torch.float64) / 2
    conv = nn.Conv2d(4, 4, 1, dtype=torch.float64)

    def train(layer):
        optimiser = torch.optim.Adam(layer.parameters(), lr=0.03)
        for _ in range(150):
            x = torch.randn(16, 4, 6, 6, generator=generator, dtype=torch.float64)
            x[:8, 0] += 1
            x[8:, 0] -= 1
            y = torch.cat([F.conv2d(half, w) for half, w in zip(x.split(8), targets, strict=True)])
            loss = (layer(x) - y).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return float(loss.detach())

    layer = DCDConv2d.from_conv2d(conv, gate_norm=False)
    assert train(layer) < 0.5 * train(conv)


# The kernel that a sample sees.


class RandomGates(nn.Module):
    def __init__(self, widths):
        super().__init__()
        self.widths = widths

    def forward(self, x):
        return tuple(torch.rand(len(x), width, dtype=x.dtype) for width in self.widths)


@pytest.mark.parametrize("kernel", [1, (2, 3)])
@pytest.mark.parametrize("latent", [1, 2, 3, 4, 6])
@pytest.mark.parametrize(
    "channels", [(2, 5, 1), (5, 2, 1), (3, 4, 1), (4, 6, 2), (6, 4, 2), (4, 4, 4), (2, 6, 2)]
)
def test_kernel_dimension(channels, latent, kernel, oracle):
    in_channels, out_channels, groups = channels
    layer = DCDConv2d(
        in_channels, out_channels, kernel, groups=groups, latent_channels=latent * groups
    )
    oracle.randomise(layer).eval()
    layer.gate = RandomGates(layer.gate.widths)
    kernels, _ = layer.kernels(torch.zeros(250, in_channels, 7, 6, dtype=torch.float64))
    rank = int(torch.linalg.matrix_rank(kernels.detach().flatten(1), rtol=1e-9))
    assert layer.kernel_dimension() == rank


@pytest.mark.parametrize("on", ["weights", "features"])
@pytest.mark.parametrize(("bias", "gate_norm"), [(True, True), (False, True), (False, False)])
@pytest.mark.parametrize("channels", CHANNELS)
def test_an_affine_map_behind_it_disappears(channels, bias, gate_norm, on, oracle):
    in_channels, out_channels, groups = CHANNELS[channels]
    layer = DCDConv2d(
        in_channels, out_channels, 3, groups=groups, bias=bias, on=on, gate_norm=gate_norm
    )
    oracle.randomise(layer).eval()
    scale, shift = torch.randn(2, out_channels, dtype=torch.float64)
    deployed, x = layer.to_inference(), images(in_channels)
    for times in (1, 2):
        with torch.no_grad():
            assert deployed.absorb_affine(scale, shift)
        expected = layer(x)
        for _ in range(times):
            expected = scale[:, None, None] * expected + shift[:, None, None]
        oracle.compare("DCDConv2d, absorb_affine", deployed(x), expected)


# Formats, precisions, forms.


@pytest.mark.parametrize("on", ["weights", "features"])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3])
def test_channels_last(kernel, groups, on, oracle):
    layer = oracle.randomise(DCDConv2d(4, 6, kernel, groups=groups, on=on)).eval()
    x = images(4)
    expected = layer(x)
    moved = copy.deepcopy(layer).to(memory_format=torch.channels_last)
    for name, value in moved.state_dict().items():
        assert torch.equal(value, layer.state_dict()[name])
    y = moved(x.to(memory_format=torch.channels_last))
    oracle.compare("DCDConv2d, channels_last", y, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("on", ["weights", "features"])
def test_half_precision(on, dtype, oracle):
    layer, x = oracle.randomise(DCDConv2d(4, 6, 3, on=on)).eval(), images(4)
    y, expected = copy.deepcopy(layer).to(dtype)(x.to(dtype)), layer(x)
    assert y.dtype == dtype
    scale = float(expected.detach().abs().max())
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=0.05 * scale)


@pytest.mark.parametrize(("on", "gate_norm"), [("weights", False), ("features", True)])
def test_second_derivatives(on, gate_norm, oracle):
    layer = DCDConv2d(2, 2, (1, 2), on=on, gate_norm=gate_norm, squash="2sigmoid")
    x = images(2)[:, :, :2, :3].requires_grad_()
    assert torch.autograd.gradgradcheck(oracle.randomise(layer), (x,))


def test_costs_of_the_two_forms():
    layer = DCDConv2d(64, 64, 3, padding=1, stride=2).eval()
    features, weights = (layer.forms((8, 6))[on] for on in ("features", "weights"))
    gate = 16 * (4 * 64 + 16 + 64 + 256)
    assert features.gate == weights.gate == gate
    assert features.convolution == 12 * (64 * 64 * 9 + 16 * 64 + 16 * 16 + 64 * 16)
    assert features.other == 64 * 48 + 12 * (64 + 16)
    assert weights.convolution == 12 * 64 * 64 * 9
    constant = 16 * 16 + 64 * 16
    assert weights.compose == 16 * 16 * 64 + 64 * 16 * 64 + constant
    # pooling; rows, Q past the matrix, the centre tap; both norms
    assert weights.other == 64 * 48 + 64 * 64 * 9 + 16 * 64 + 64 * 64 + 16 * 64 + 16 * 16
    deployed = layer.to_inference().forms((8, 6))["weights"]
    assert (deployed.compose, weights.other - deployed.other) == (
        weights.compose,
        16 * 64 + 16 * 16,
    )
    assert DCDConv2d(64, 64, 3, gate_norm=False, on="weights").macs((9, 9)).compose == 81_920


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on": "input"}, "on must be one of 'weights', 'features', got 'input'"),
        ({"reduction": 0}, "reduction must be at least 1, got 0"),
        ({"pool": 0}, "pool must be at least 1, got 0"),
        ({"pool": (2, 2)}, r"pool must be an integer, got \(2, 2\)"),
        ({"squash": "softmax"}, "squash must be one of 'hsigmoid', '2sigmoid', got 'softmax'"),
        ({"latent_channels": 0}, "latent_channels must be at least 1, got 0"),
        ({"latent_channels": 3, "groups": 2}, "latent_channels=3 does not split into groups=2"),
    ],
)
def test_rejects(options, message):
    with pytest.raises(ValueError, match=message):
        DCDConv2d(4, 6, 3, **options)


def test_a_wrong_place_is_refused_at_any_time():
    layer = DCDConv2d(4, 6, 3)
    with pytest.raises(ValueError, match="on must be one of 'weights', 'features', got 'both'"):
        layer.on = "both"
    assert layer.on == "features"
