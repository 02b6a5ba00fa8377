"""MobileOneConv2d: the definition, timm's block, folding, conversion, kernels that drift apart."""

from itertools import cycle, product

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from overconv.operators.mobileone import MobileOneConv2d

CHANNELS = {
    "ungrouped": (4, 4, 1),
    "wider": (3, 5, 1),
    "grouped": (4, 6, 2),
    "depthwise": (4, 4, 4),
}
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
    """Kernels of full size, each with its norm; the pointwise and the identity at one tap."""
    x = oracle.padded(x, oracle.amounts(layer), layer.padding_mode)
    tap = [(size - 1) // 2 for size in layer.kernel_size]
    branches = [layer.branches[f"kernel{number}"] for number in range(layer.num_kernels)]
    terms = [(branch.weight, branch.norm) for branch in branches]
    empty = torch.zeros_like(branches[0].weight)
    if layer.kernel_size != (1, 1):
        placed = empty.clone()
        placed[:, :, tap[0], tap[1]] = layer.branches["point"].weight[:, :, 0, 0]
        terms.append((placed, layer.branches["point"].norm))
    if layer.identity is not None:
        passing = empty.clone()
        for channel in range(len(passing)):
            passing[channel, channel % passing.shape[1], tap[0], tap[1]] = 1
        terms.append((passing, layer.identity))
    y = 0
    for kernel, norm in terms:
        features = oracle.convolved(x, kernel, layer.stride, layer.dilation, layer.groups)
        y = y + oracle.normalised(features, norm)
    return y if layer.bias is None else y + layer.bias[:, None, None]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_it_equals_the_definition_and_converts(kernel, channels, oracle):
    x, numbers = images(CHANNELS[channels][0]), cycle([1, 4, 2, 3, 1])
    for number, arguments in enumerate(geometries(channels, kernel)):
        layer = MobileOneConv2d(*arguments, num_kernels=next(numbers))
        oracle.randomise(layer, seed=number)
        possible = channels in ("ungrouped", "depthwise") and layer.stride == (1, 1)
        assert (layer.identity is not None) == possible
        assert ("point" in layer.branches) == (kernel != 1)
        for mode in (True, False):
            layer.train(mode)
            ours = oracle.gradients(layer, layer, x)
            expected = oracle.gradients(layer, lambda x, layer=layer: defined(oracle, layer, x), x)
            what = f"MobileOneConv2d = loops, {'train()' if mode else 'eval()'}, with gradients"
            oracle.compare(what, ours, expected)
        folded = layer.to_inference()
        assert type(folded) is nn.Conv2d
        oracle.compare("MobileOneConv2d.to_inference = eval()", folded(x), expected[0])

        conv = nn.Conv2d(*arguments, dtype=torch.float64).train(number % 2 == 0)
        start = MobileOneConv2d.from_conv2d(conv, num_kernels=layer.num_kernels)
        assert start.training == conv.training
        oracle.compare("MobileOneConv2d.from_conv2d, eval()", start.eval()(x), conv(x))
        oracle.compare("MobileOneConv2d.from_conv2d, folded", start.to_inference()(x), conv(x))


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("kernel", "num_kernels"), [(3, 4), (3, 1), (1, 4), (1, 1), (5, 2)])
def test_it_equals_timm(kernel, num_kernels, stride, channels, mode, oracle):
    """Timm's block without its activation, by our weights and statistics."""
    block = pytest.importorskip("timm.models.byobnet").MobileOneBlock
    in_channels, out_channels, groups = CHANNELS[channels]
    geometry = (in_channels, out_channels, kernel, stride, kernel // 2, 1, groups, False)
    ours = oracle.randomise(MobileOneConv2d(*geometry, num_kernels=num_kernels)).train(mode)
    theirs = block(
        in_channels,
        out_channels,
        kernel,
        stride,
        group_size=in_channels // groups if groups > 1 else None,
        num_conv_branches=num_kernels,
    )
    theirs.act = nn.Identity()
    theirs.double().train(mode)

    def renamed(name):
        for number in range(num_kernels):
            name = name.replace(f"branches.kernel{number}.", f"conv_kxk.{number}.")
        name = name.replace("branches.point.", "conv_scale.")
        return (
            name.replace(".norm.", ".bn.")
            .replace(".weight", ".conv.weight")
            .replace(".bn.conv.", ".bn.")
        )

    parts = ("identity.", "conv_kxk", "conv_scale")
    state = {
        name if name.startswith("identity") else renamed(name): value.clone()
        for name, value in ours.state_dict().items()
    }
    assert all(name.startswith(parts) for name in state)
    theirs.load_state_dict(state)
    x = images(in_channels)
    y, gradients = oracle.gradients(ours, ours, x)
    expected, others = oracle.gradients(theirs, theirs, x)
    oracle.compare("MobileOneConv2d = timm's", y, expected)
    for name, gradient in gradients.items():
        other = name if name.startswith(("identity", "input")) else renamed(name)
        oracle.compare("MobileOneConv2d = timm's, gradients", gradient, others[other])
    kernel, bias = theirs.eval()._get_kernel_bias()
    folded = ours.to_inference()
    oracle.compare("MobileOneConv2d.to_inference = timm's", folded.weight, kernel)
    oracle.compare("MobileOneConv2d.to_inference = timm's", folded.bias, bias)


def test_it_has_the_parameters_of_the_paper():
    def count(*arguments, **options):
        layer = MobileOneConv2d(*arguments, bias=False, **options)
        return sum(p.numel() for p in layer.parameters())

    # the two halves of a block of S0: depthwise and pointwise, four kernels each
    assert count(48, 48, 3, groups=48) == 4 * 9 * 48 + 48 + 6 * 2 * 48
    assert count(48, 128, 1) == 4 * 48 * 128 + 4 * 2 * 128
    assert count(64, 64, 3, num_kernels=1) == 41_344  # then it is RepVGG's


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("channels", CHANNELS)
def test_macs_equal_a_count_of_a_run(channels, mode):
    in_channels, out_channels, groups = CHANNELS[channels]
    layer = MobileOneConv2d(in_channels, out_channels, (3, 5), 1, 1, 2, groups).train(mode)
    x = images(in_channels).float()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        y = layer(x)
    macs = layer.macs(x.shape[2:])
    assert counter.get_total_flops() == 2 * len(x) * macs.convolution
    additions = 5 if layer.identity is not None else 4
    factors = 1 if channels == "depthwise" else 0  # a pointwise kernel of so many is no product
    assert macs.other == y[0].numel() * (additions + factors)
    assert macs.total == macs.convolution + macs.other


def differences(layer):
    """What parts each kernel from the mean of all."""
    branches = [layer.branches[f"kernel{number}"] for number in range(layer.num_kernels)]
    kernels = torch.stack([branch.weight.detach() for branch in branches])
    return kernels - kernels.mean(0)


def train(layer, steps=40):
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(4, 4, 3, 3, generator=generator, dtype=torch.float64)
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    for _ in range(steps):
        x = torch.randn(8, 4, 6, 6, generator=generator, dtype=torch.float64)
        loss = (layer(x) - nn.functional.conv2d(x, target, padding=1)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def test_kernels_drift_apart():
    conv = nn.Conv2d(4, 4, 3, padding=1, dtype=torch.float64)
    layer = MobileOneConv2d.from_conv2d(conv)
    start = differences(layer)
    train(layer)
    assert (differences(layer) - start).abs().amax((1, 2, 3, 4)).min() > 0.01


def test_equal_kernels_would_never_part(monkeypatch):
    """The defect that the random differences prevent."""
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    conv = nn.Conv2d(4, 4, 3, padding=1, dtype=torch.float64)
    layer = MobileOneConv2d.from_conv2d(conv)
    train(layer)
    assert differences(layer).abs().max() < 1e-9


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("zero", [False, True])
def test_kernels_start_different_whatever_the_convolution(zero, kernel):
    conv = nn.Conv2d(4, 6, kernel, groups=2)
    if zero:
        nn.init.zeros_(conv.weight)
    for layer in (MobileOneConv2d(4, 6, kernel, groups=2), MobileOneConv2d.from_conv2d(conv)):
        kernels = differences(layer).flatten(1)
        distances = torch.cdist(kernels[None], kernels[None])[0] + torch.eye(4)
        assert distances.min() > 0.2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_kernels": 0}, "num_kernels must be at least 1, got 0"),
        ({"num_kernels": 2.0}, "num_kernels must be an integer, got 2.0"),
        ({"padding": "same", "stride": 2}, "padding='same' needs stride 1"),
        ({"groups": 4}, "out_channels=6 does not split into groups=4"),
    ],
)
def test_rejects(options, message):
    with pytest.raises(ValueError, match=message):
        MobileOneConv2d(4, 6, 3, **options)
