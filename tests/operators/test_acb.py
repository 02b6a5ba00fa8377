"""ACConv2d: the definition, folding, conversion, and what the paper says of it."""

from itertools import cycle, product

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from overconv.operators.acb import ACConv2d

CHANNELS = {"ungrouped": (3, 4, 1), "grouped": (4, 6, 2), "depthwise": (4, 4, 4)}
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


def defined(oracle, layer, x):
    """Three kernels of full size, two of them zero but in one row or one column."""
    high, wide = layer.kernel_size
    branches, x = layer.branches, oracle.padded(x, oracle.amounts(layer), layer.padding_mode)
    row, column = (torch.zeros_like(branches["square"].weight) for _ in range(2))
    row[:, :, (high - 1) // 2] = branches["row"].weight[:, :, 0]
    column[:, :, :, (wide - 1) // 2] = branches["column"].weight[:, :, :, 0]
    kernels = {"square": branches["square"].weight, "row": row, "column": column}
    y = 0
    for name, kernel in kernels.items():
        features = oracle.convolved(x, kernel, layer.stride, layer.dilation, layer.groups)
        y = y + oracle.normalised(features, branches[name].norm)
    return y if layer.bias is None else y + layer.bias[:, None, None]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_it_equals_the_definition_and_converts(kernel, channels, oracle):
    x = images(CHANNELS[channels][0])
    for number, arguments in enumerate(geometries(channels, kernel)):
        layer = oracle.randomise(ACConv2d(*arguments), seed=number)
        for mode in (True, False):
            layer.train(mode)
            ours = oracle.gradients(layer, layer, x)
            expected = oracle.gradients(layer, lambda x, layer=layer: defined(oracle, layer, x), x)
            what = f"ACConv2d = loops, {'train()' if mode else 'eval()'}, outputs and gradients"
            oracle.compare(what, ours, expected)
        folded = layer.to_inference()
        assert type(folded) is nn.Conv2d
        oracle.compare("ACConv2d.to_inference = eval()", folded(x), expected[0])

        conv = nn.Conv2d(*arguments, dtype=torch.float64).train(number % 2 == 0)
        start = ACConv2d.from_conv2d(conv, gamma=(1.0, 1 / 3)[number % 2])
        assert start.training == conv.training
        oracle.compare("ACConv2d.from_conv2d, eval()", start.eval()(x), conv(x))
        oracle.compare("ACConv2d.from_conv2d, folded", start.to_inference()(x), conv(x))


def test_it_has_the_parameters_of_the_paper():
    layer = ACConv2d(64, 64, 3, bias=False)
    assert sum(p.numel() for p in layer.parameters()) == 61_824
    assert sum(p.numel() for p in layer.to_inference().parameters()) == 36_864 + 64


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("groups", [1, 2])
def test_macs_equal_a_count_of_a_run(groups, mode):
    layer, x = ACConv2d(4, 6, (3, 5), (2, 1), 1, 2, groups).train(mode), images(4).float()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        y = layer(x)
    macs = layer.macs(x.shape[2:])
    assert counter.get_total_flops() == 2 * len(x) * macs.convolution
    assert macs.other == 2 * y[0].numel()  # two additions
    assert macs.total == macs.convolution + macs.other


@pytest.mark.parametrize("gamma", [1.0, 1 / 3])
def test_gamma_is_where_the_scales_start(gamma):
    fresh = ACConv2d(4, 6, 3, gamma=gamma)
    converted = ACConv2d.from_conv2d(nn.Conv2d(4, 6, 3), gamma=gamma)
    for layer in (fresh, converted):
        for branch in layer.branches.values():
            assert (branch.norm.weight == torch.tensor(gamma)).all()
            assert not branch.norm.bias.any()
    x = torch.randn(64, 4, 6, 6)
    deviations = fresh(x).detach().std((0, 2, 3))  # of a sum of three, hardly correlated
    torch.testing.assert_close(deviations, torch.full((6,), 3**0.5 * gamma), rtol=0.4, atol=0)


def test_equal_branches_of_a_small_kernel_start_different():
    """Of a 1 x 1 kernel all three have the same size."""
    layer = ACConv2d.from_conv2d(nn.Conv2d(4, 6, 1))
    kernels = torch.stack([branch.weight.flatten() for branch in layer.branches.values()])
    distances = torch.cdist(kernels[None], kernels[None])[0] + torch.eye(3)
    assert distances.min() > 0.2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": 0}, "gamma must be a positive number, got 0"),
        ({"gamma": "cifar"}, "gamma must be a positive number, got 'cifar'"),
        ({"padding": "same", "stride": 2}, "padding='same' needs stride 1"),
        ({"groups": 4}, "out_channels=6 does not split into groups=4"),
    ],
)
def test_rejects(options, message):
    with pytest.raises(ValueError, match=message):
        ACConv2d(4, 6, 3, **options)
