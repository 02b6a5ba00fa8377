"""MDConv2d over its whole grid of arguments: both forms, the definition, folding, conversion."""

from itertools import cycle, product

import pytest
import torch
from torch import nn

from overconv.operators.mdconv import MDConv2d

CHANNELS = {"ungrouped": (3, 4, 1), "grouped": (4, 6, 2), "depthwise": (4, 4, 4)}
PLACEMENTS = [
    tuple(p for p, chosen in zip(("input", "middle", "output"), bits, strict=True) if chosen)
    for bits in product((False, True), repeat=3)
]
GEOMETRY = list(
    product(
        ((1, 1), (2, 1)),  # stride
        ((1, 1), (2, 2)),  # dilation
        (False, True),  # bias
        ("zeros", "reflect", "replicate", "circular"),
    )
)


def cases(channels, kernel):
    """Keyword arguments for each stride, dilation, bias and padding mode, a little padding."""
    in_channels, out_channels, groups = CHANNELS[channels]
    for stride, dilation, bias, padding_mode in GEOMETRY:
        margin = dilation[0] * (kernel - 1) // 2
        yield {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "kernel_size": kernel,
            "stride": stride,
            "padding": (margin, margin + 1),
            "dilation": dilation,
            "groups": groups,
            "bias": bias,
            "padding_mode": padding_mode,
        }


def gated(depth, placement, **options):
    """The options of the gates, which a chain without any refuses."""
    return options if {"input", "output"} & set(placement) or placement and depth > 1 else {}


def images(channels, seed=3):
    generator = torch.Generator().manual_seed(seed)
    shape = (2, CHANNELS[channels][0], 7, 6)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_forms_equal_the_definition(depth, kernel, channels, oracle):
    """The other options take turns, each number of them prime to the others."""
    x = images(channels)
    placements = cycle(PLACEMENTS[1:])  # seven
    spatials = cycle(["first", "last", "first", "last", "last"])
    squashes = cycle(["2sigmoid", "sigmoid", "softmax"])
    for number, arguments in enumerate(cases(channels, kernel)):
        layer = MDConv2d(
            **arguments,
            depth=depth,
            placement=(placement := next(placements)),
            spatial=next(spatials),
            **gated(depth, placement, squash=next(squashes)),
        )
        oracle.randomise(layer, seed=number)
        definition = oracle.gradients(layer, lambda x, layer=layer: oracle.chain(layer, x), x)
        for form in ("expanding", "compact"):
            layer.form = form
            ours = oracle.gradients(layer, layer, x)
            oracle.compare("MDConv2d forms = loops, outputs and gradients", ours, definition)
            with torch.no_grad():
                oracle.compare("MDConv2d forms = loops, no gradients", layer(x), definition[0])


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_from_conv2d_equals_the_convolution(depth, kernel, channels, oracle):
    x = images(channels)
    placements = cycle(PLACEMENTS)  # eight, against five and three
    spatials = cycle(["first", "last", "first", "last", "last"])
    squashes = cycle(["2sigmoid", "sigmoid", "softmax"])
    norms = cycle([False, True, True, False, False, True, False])
    for number, arguments in enumerate(cases(channels, kernel)):
        torch.manual_seed(number)
        conv = nn.Conv2d(**arguments, dtype=torch.float64)
        middle_norm = next(norms)
        layer = MDConv2d.from_conv2d(
            conv,
            depth=depth,
            placement=(placement := next(placements)),
            spatial=next(spatials),
            middle_norm=middle_norm,
            **gated(depth, placement, squash=next(squashes), temperature=3.0),
        )
        expected = conv(x)
        if not middle_norm or depth == 1:
            oracle.compare("from_conv2d = convolution, train()", layer(x), expected)
        layer.eval()
        for form in ("expanding", "compact"):
            layer.form = form
            oracle.compare("from_conv2d = convolution, eval()", layer(x), expected)
        oracle.compare("from_conv2d, to_inference = convolution", layer.to_inference()(x), expected)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_to_inference_equals_eval(depth, kernel, channels, oracle):
    """With middle norms whose statistics are off neutral; a fold wherever one is possible."""
    x = images(channels)
    placements = cycle(PLACEMENTS)
    spatials = cycle(["first", "last", "first", "last", "last"])
    whens = cycle(["sample", "batch", "training"])
    norms = cycle([False, True, True, False, False, True, False])
    for number, arguments in enumerate(cases(channels, kernel)):
        layer = MDConv2d(
            **arguments,
            depth=depth,
            placement=(placement := next(placements)),
            spatial=next(spatials),
            middle_norm=next(norms),
            **gated(depth, placement, when=next(whens)),
        )
        oracle.randomise(layer, seed=number)
        deployed = layer.to_inference()
        assert layer.training
        assert not deployed.training
        layer.eval()
        folds = layer.gate is None or layer.gate.when != "sample"
        assert isinstance(deployed, nn.Conv2d) == folds
        definition = oracle.chain(layer, x)
        for form in ("expanding", "compact"):
            layer.form = form
            oracle.compare("MDConv2d eval() = loops", layer(x), definition)
        what = "fold = eval()" if folds else "norms folded = eval()"
        oracle.compare(what, deployed(x), definition)
