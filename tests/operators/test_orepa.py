"""OREPAConv2d: branch by branch on features, folding, a start from a convolution, the prior."""

import math
from itertools import cycle, product

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from overconv.operators.orepa import OREPAConv2d, frequency_prior

MODES = ("zeros", "reflect", "replicate", "circular")
CHANNELS = {
    "ungrouped": (3, 4, 1),
    "square": (4, 4, 1),
    "grouped": (4, 6, 2),
    "depthwise": (4, 4, 4),
    "many groups": (10, 5, 5),
    "many depthwise": (6, 12, 6),
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


def images(channels, batch=2):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(batch, channels, 9, 8, generator=generator, dtype=torch.float64)


def prior_of(channels, kernel_size):
    """The cosines one by one: their frequencies in reading order, without the constant."""
    rows, columns = kernel_size
    pairs = [(u, v) for u in range(rows) for v in range(columns)][1:]
    filters = []
    for channel in range(channels):
        u, v = pairs[channel % len(pairs)]
        down = [math.cos(math.pi * u * (2 * k + 1) / (2 * rows)) for k in range(rows)]
        right = [math.cos(math.pi * v * (2 * k + 1) / (2 * columns)) for k in range(columns)]
        filters.append([[a * b for b in right] for a in down])
    return torch.tensor(filters, dtype=torch.float64)


def branches(oracle, layer, x):
    """What each branch gives for a padded image, on features, with its factors."""
    rows, columns = layer.kernel_size
    geometry = layer.stride, layer.dilation

    def pointwise(x, weight):
        return oracle.convolved(x, weight, groups=layer.groups)

    def spatial(x, weight, groups=layer.groups):
        return oracle.convolved(x, weight, *geometry, groups)

    def centre(x):
        """What a kernel's tap at (rows - 1) // 2, (columns - 1) // 2 sees."""
        tap = torch.zeros(x.shape[1], 1, rows, columns, dtype=torch.float64)
        tap[:, 0, (rows - 1) // 2, (columns - 1) // 2] = 1
        return spatial(x, tap, x.shape[1])

    copies = layer.deep_inner.shape[0] // layer.in_channels
    same = x
    if copies == 2:  # within each group, all its channels and then all again
        groups = x.chunk(layer.groups, 1)
        same = torch.cat([part for group in groups for part in (group, group)], 1)
    inner = same + pointwise(x, layer.deep_inner)
    found = [spatial(x, layer.origin), spatial(inner, layer.deep_outer)]
    if layer.kernel_size != (1, 1):
        mixed = pointwise(x, layer.average)
        ones = torch.ones(layer.out_channels, 1, rows, columns, dtype=torch.float64)
        found.append(spatial(mixed, ones, layer.out_channels) / (rows * columns))
        filters = prior_of(layer.in_channels, layer.kernel_size)[:, None]
        found.append(pointwise(spatial(x, filters, layer.in_channels), layer.frequency))
        found.append(pointwise(centre(x), layer.point))
        found.append(pointwise(spatial(x, layer.depthwise, layer.in_channels), layer.pointwise))
    return [
        torch.stack([s * y[:, o] for o, s in enumerate(factors)], 1)
        for y, factors in zip(found, layer.scales, strict=True)
    ]


def defined(oracle, layer, x):
    """All branches on the padded image, added, normalised channel by channel, and the bias."""
    x = oracle.padded(x, oracle.amounts(layer), layer.padding_mode)
    y = sum(branches(oracle, layer, x))
    if layer.norm:
        y = oracle.normalised(y, layer.batch_norm)
    return y if layer.bias is None else y + layer.bias[:, None, None]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_it_computes_its_definition_and_folds(kernel, channels, oracle):
    in_channels, out_channels, groups = CHANNELS[channels]
    x = images(in_channels)
    norms, modes, expansions = cycle([True, True, False]), cycle([True, False]), cycle([2, 8, 1, 3])
    for number, (stride, padding, dilation, bias, mode) in enumerate(geometries(kernel)):
        arguments = (in_channels, out_channels, kernel, stride, padding, dilation, groups, bias)
        options = {"expansion": next(expansions), "norm": next(norms), "dtype": torch.float64}
        layer = OREPAConv2d(*arguments, mode, **options)
        oracle.randomise(layer, seed=number).train(next(modes))
        ours = oracle.gradients(layer, layer, x)
        theirs = oracle.gradients(layer, lambda x, layer=layer: defined(oracle, layer, x), x)
        what = "train()" if layer.training else "eval()"
        oracle.compare(f"OREPAConv2d = loops, with gradients, {what}", ours, theirs)
        deployed = layer.to_inference()
        assert type(deployed) is nn.Conv2d
        assert not deployed.training
        oracle.compare("OREPAConv2d, to_inference = eval()", deployed(x), layer.eval()(x))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_from_conv2d_equals_the_convolution(kernel, channels, oracle):
    in_channels, out_channels, groups = CHANNELS[channels]
    x, norms = images(in_channels), cycle([True, False, False])
    for number, (stride, padding, dilation, bias, mode) in enumerate(geometries(kernel)):
        arguments = (in_channels, out_channels, kernel, stride, padding, dilation, groups, bias)
        norm = next(norms)
        conv = nn.Conv2d(*arguments, mode, dtype=torch.float64).train(number % 2 == 0)
        layer = OREPAConv2d.from_conv2d(conv, norm=norm)
        assert layer.training == conv.training
        if not norm:
            oracle.compare("OREPAConv2d.from_conv2d, no norm", layer(x), conv(x))
        oracle.compare("OREPAConv2d.from_conv2d, eval()", layer.eval()(x), conv(x))
        oracle.compare("OREPAConv2d.from_conv2d, folded", layer.to_inference()(x), conv(x))


def test_numbers_of_parameters():
    layer = OREPAConv2d(64, 64, 3, bias=False)
    parts = [36_864, 36_864, 4 * 4_096, 4_608, 32_768, 6 * 64, 2 * 64]
    assert sum(p.numel() for p in layer.parameters()) == sum(parts) == 128_000
    pointwise = OREPAConv2d(4, 6, 1, bias=False)  # two branches
    assert sum(p.numel() for p in pointwise.parameters()) == 24 + (16 + 24) + 2 * 6 + 2 * 6
    four, five = OREPAConv2d(20, 20, 3, groups=4), OREPAConv2d(20, 20, 3, groups=5)
    assert (len(four.deep_inner), len(five.deep_inner)) == (20, 40)
    assert (four.deep_outer.shape[1], five.deep_outer.shape[1]) == (5, 8)


def test_a_fresh_layer_starts_with_the_factors_of_the_paper():
    layer = OREPAConv2d(4, 6, 3)
    assert layer.scales[:, 0].tolist() == [0.25, 1.0, 0.25, 0.0, 0.5, 0.5]
    assert all(torch.equal(row, row[:1].expand(6)) for row in layer.scales)
    assert OREPAConv2d(4, 6, 1).scales[:, 0].tolist() == [0.25, 1.0]
    assert not layer.deep_inner.any()
    assert all(
        p.any() for name, p in layer.named_parameters() if p.dim() == 4 and "inner" not in name
    )


@pytest.mark.parametrize(("kernel", "groups"), [(3, 1), ((2, 3), 1), (3, 32), (5, 64)])
def test_a_fresh_sum_has_the_variance_of_the_docstring(kernel, groups):
    layer = OREPAConv2d(64, 64, kernel, groups=groups, norm=False)
    energy = float(layer.kernel().detach().square().sum((1, 2, 3)).mean())
    taps = math.prod(layer.kernel_size)
    assert energy == pytest.approx(3.625 + 0.125 / taps, rel=0.05 if groups == 1 else 0.3)


@pytest.mark.parametrize("kernel_size", [(3, 3), (5, 5), (2, 2), (2, 3), (1, 4), (5, 1), (7, 7)])
def test_the_prior_is_the_cosine_transform_without_its_constant(kernel_size):
    """Every kernel size has all its values, and the filters make up a basis with the average."""
    taps = math.prod(kernel_size)
    prior = frequency_prior(2 * taps, kernel_size)
    assert prior.shape == (2 * taps, 1, *kernel_size)
    torch.testing.assert_close(prior[:, 0], prior_of(2 * taps, kernel_size))
    assert torch.equal(prior[: taps - 1], prior[taps - 1 : 2 * taps - 2])
    basis = torch.cat([torch.ones(1, taps), prior[: taps - 1].flatten(1)])
    products = basis.double() @ basis.double().T
    torch.testing.assert_close(products, products.diag().diag())  # orthogonal
    assert float(products.diag().min()) > 0.2 * taps


def test_the_prior_by_hand():
    prior = frequency_prior(8, (3, 3))[:, 0]
    half = math.cos(math.pi / 6)
    along = torch.tensor([half, 0.0, -half], dtype=torch.float64)
    torch.testing.assert_close(prior[0], along.expand(3, 3))  # over the columns, the same each row
    torch.testing.assert_close(prior[2], along.expand(3, 3).T)
    torch.testing.assert_close(prior[3], torch.outer(along, along))


def test_every_branch_learns():
    """The one that starts at zero and those that start alike, too; and doubled channels part."""
    layer = OREPAConv2d(10, 10, 3, padding=1, groups=5, dtype=torch.float64)
    start = {name: parameter.detach().clone() for name, parameter in layer.named_parameters()}
    x = images(10)
    target = torch.randn_like(layer(x))
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.2)
    for _ in range(5):
        optimiser.zero_grad()
        (layer(x) - target).square().mean().backward()
        optimiser.step()
    for name, parameter in layer.named_parameters():
        if name == "bias":  # which the norm has, too
            continue
        assert float((parameter.detach() - start[name]).abs().max()) > 1e-4, name
    inner = layer.deep_inner.detach().unflatten(0, (5, 2, 2))
    assert float((inner[:, 0] - inner[:, 1]).abs().mean()) > 1e-3


def test_macs_equal_a_count_of_real_runs():
    for kernel, (in_channels, out_channels, groups) in product(KERNELS, CHANNELS.values()):
        for expansion, norm in ((8, True), (3, False)):
            arguments = (in_channels, out_channels, kernel, (2, 1), (4, 3), (1, 2), groups)
            options = {"expansion": expansion, "norm": norm, "dtype": torch.float64}
            layer = OREPAConv2d(*arguments, **options)
            macs = layer.macs((9, 8))
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                layer(images(in_channels, batch=3))
            # torch counts no product that has a single term
            inner = layer.deep_outer.shape[1]
            single = layer.origin.numel() * (kernel != 1 and inner == 1)
            products = 3 * macs.convolution + macs.shared - single
            assert counter.get_total_flops() == 2 * products


def test_macs_by_hand():
    macs = OREPAConv2d(4, 6, 3, stride=2, padding=1).macs((8, 8))
    kernel = 6 * 4 * 9
    assert (macs.convolution, macs.shared) == (16 * kernel, kernel * (4 + 8))
    # the identity and five branches of a value a tap; one of a value a pair of channels
    assert macs.other == 6 * kernel + 24


def test_channels_last():
    x = images(10).to(memory_format=torch.channels_last)
    for kernel, groups in product([1, 3], [1, 5]):
        layer = OREPAConv2d(10, 5, kernel, padding=1, groups=groups, dtype=torch.float64)
        expected = layer(x.contiguous())
        layer = layer.to(memory_format=torch.channels_last)
        torch.testing.assert_close(layer(x), expected)
        folded = layer.to_inference()
        torch.testing.assert_close(folded(x), layer.eval()(x))


def test_lower_precision_keeps_the_prior_and_reset_restores_it():
    layer = OREPAConv2d(4, 6, 3, dtype=torch.float16)
    expected = frequency_prior(4, (3, 3)).half()
    assert torch.equal(layer.prior, expected)
    layer.prior.zero_()
    layer.reset_parameters()
    assert torch.equal(layer.prior, expected)


def test_a_norm_needs_more_than_one_value_to_train():
    layer, x = OREPAConv2d(4, 6, 1), torch.randn(1, 4, 1, 1)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        layer(x)
    assert layer.eval()(x).shape == (1, 6, 1, 1)
    assert OREPAConv2d(4, 6, 1, norm=False)(x).shape == (1, 6, 1, 1)


@pytest.mark.parametrize(
    ("expansion", "message"),
    [
        (0, "expansion must be at least 1, got 0"),
        (0.5, "expansion must be an integer, got 0.5"),
    ],
)
def test_rejects(expansion, message):
    with pytest.raises(ValueError, match=message):
        OREPAConv2d(4, 6, 3, expansion=expansion)
