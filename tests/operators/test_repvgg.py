"""RepVGGConv2d: the definition, timm's block, folding, conversion."""

from itertools import cycle, product

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from overconv.operators.repvgg import RepVGGConv2d

CHANNELS = {
    "ungrouped": (4, 4, 1),
    "wider": (3, 5, 1),
    "grouped": (4, 4, 2),
    "grouped-wider": (4, 6, 2),
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
    """Kernels of full size: one zero but at a tap, and one that is one at that tap of a channel."""
    x = oracle.padded(x, oracle.amounts(layer), layer.padding_mode)
    square, point = layer.branches["square"], layer.branches["point"]
    tap = [(size - 1) // 2 for size in layer.kernel_size]
    placed = torch.zeros_like(square.weight)
    placed[:, :, tap[0], tap[1]] = point.weight[:, :, 0, 0]
    terms = [(square.weight, square.norm), (placed, point.norm)]
    if layer.identity is not None:
        passing = torch.zeros_like(square.weight)
        per_group = passing.shape[1]
        for channel in range(len(passing)):
            passing[channel, channel % per_group, tap[0], tap[1]] = 1
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
    x = images(CHANNELS[channels][0])
    for number, arguments in enumerate(geometries(channels, kernel)):
        layer = oracle.randomise(RepVGGConv2d(*arguments), seed=number)
        possible = "wider" not in channels and layer.stride == (1, 1)
        assert (layer.identity is not None) == possible
        for mode in (True, False):
            layer.train(mode)
            ours = oracle.gradients(layer, layer, x)
            expected = oracle.gradients(layer, lambda x, layer=layer: defined(oracle, layer, x), x)
            what = f"RepVGGConv2d = loops, {'train()' if mode else 'eval()'}, outputs and gradients"
            oracle.compare(what, ours, expected)
        folded = layer.to_inference()
        assert type(folded) is nn.Conv2d
        oracle.compare("RepVGGConv2d.to_inference = eval()", folded(x), expected[0])

        conv = nn.Conv2d(*arguments, dtype=torch.float64).train(number % 2 == 0)
        start = RepVGGConv2d.from_conv2d(conv)
        assert start.training == conv.training
        oracle.compare("RepVGGConv2d.from_conv2d, eval()", start.eval()(x), conv(x))
        oracle.compare("RepVGGConv2d.from_conv2d, folded", start.to_inference()(x), conv(x))


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (3, 2), (5, 1), (1, 1)])
def test_it_equals_timm(kernel, dilation, stride, channels, mode, oracle):
    """Timm's block without its activation, by our weights and statistics."""
    block = pytest.importorskip("timm.models.byobnet").RepVggBlock
    in_channels, out_channels, groups = CHANNELS[channels]
    padding = dilation * (kernel - 1) // 2
    geometry = (in_channels, out_channels, kernel, stride, padding, dilation, groups, False)
    ours = oracle.randomise(RepVGGConv2d(*geometry)).train(mode)
    theirs = block(
        in_channels,
        out_channels,
        kernel,
        stride,
        (dilation, dilation),
        group_size=in_channels // groups if groups > 1 else None,
    )
    theirs.act = nn.Identity()
    theirs.double().train(mode)
    names = {"branches.square.": "conv_kxk.", "branches.point.": "conv_1x1."}
    state = {}
    for name, value in ours.state_dict().items():
        for own, other in names.items():
            name = name.replace(own + "weight", other + "conv.weight")
            name = name.replace(own + "norm", other + "bn")
        state[name] = value.clone()
    theirs.load_state_dict(state)
    x = images(in_channels)
    y, gradients = oracle.gradients(ours, ours, x)
    expected, others = oracle.gradients(theirs, theirs, x)
    oracle.compare("RepVGGConv2d = timm's", y, expected)
    # both list their parameters in the same order but for the identity, which timm has first
    identities = [name for name in gradients if name.startswith("identity")]
    for name in ["input", *identities]:
        oracle.compare("RepVGGConv2d = timm's, gradients", gradients.pop(name), others.pop(name))
    for own, other in zip(gradients.values(), others.values(), strict=True):
        oracle.compare("RepVGGConv2d = timm's, gradients", own, other)
    kernel, bias = theirs.eval()._get_kernel_bias()
    folded = ours.to_inference()
    oracle.compare("RepVGGConv2d.to_inference = timm's", folded.weight, kernel)
    oracle.compare("RepVGGConv2d.to_inference = timm's", folded.bias, bias)


def test_it_has_the_parameters_of_the_paper():
    def count(*arguments, **options):
        layer = RepVGGConv2d(*arguments, bias=False, **options)
        return sum(p.numel() for p in layer.parameters())

    assert count(64, 64, 3) == 41_344
    assert count(64, 64, 3, stride=2) == 41_344 - 2 * 64
    assert count(64, 128, 3) == 2 * 10 * 64**2 + 4 * 128
    assert RepVGGConv2d(4, 4, 3, stride=(1, 2)).identity is None


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("channels", CHANNELS)
def test_macs_equal_a_count_of_a_run(channels, mode):
    in_channels, out_channels, groups = CHANNELS[channels]
    layer = RepVGGConv2d(in_channels, out_channels, (3, 5), 1, 1, 2, groups).train(mode)
    x = images(in_channels).float()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        y = layer(x)
    macs = layer.macs(x.shape[2:])
    assert counter.get_total_flops() == 2 * len(x) * macs.convolution
    additions = 1 if "wider" in channels else 2
    factors = 1 if channels == "depthwise" else 0  # a pointwise kernel of so many is no product
    assert macs.other == y[0].numel() * (additions + factors)
    assert macs.total == macs.convolution + macs.other


def test_the_usual_layer_copies_no_image(monkeypatch):
    """With the padding that keeps the size, point and identity see the image itself."""
    layer, seen = RepVGGConv2d(4, 4, 3, padding=1), []
    x = torch.randn(2, 4, 6, 6)
    for module in (layer.identity, layer.branches["point"].norm):
        module.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    convolve = nn.functional.conv2d
    monkeypatch.setattr(
        nn.functional, "conv2d", lambda x, *rest: seen.append(x) or convolve(x, *rest)
    )
    layer(x)
    assert sum(image is x for image in seen) == 3  # two convolutions and the identity


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding": "same", "stride": 2}, "padding='same' needs stride 1"),
        ({"groups": 4}, "out_channels=6 does not split into groups=4"),
        ({"padding_mode": "mirror"}, "padding_mode must be one of 'zeros', .*, got 'mirror'"),
    ],
)
def test_rejects(options, message):
    with pytest.raises(ValueError, match=message):
        RepVGGConv2d(4, 6, 3, **options)
