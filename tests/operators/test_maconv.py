"""MAConv2d: the definition in both modes, and one exact convolution afterwards."""

from itertools import product

import pytest
import torch
from torch import nn

from overconv.operators.maconv import MAConv2d

GEOMETRIES = {
    "pointwise": {"kernel_size": 1},
    "strided": {"kernel_size": 3, "padding": 1, "stride": 2},
    "dilated": {"kernel_size": 3, "padding": (2, 1), "dilation": 2, "padding_mode": "reflect"},
    "grouped": {"kernel_size": (3, 1), "padding": (1, 0), "groups": 2, "bias": False},
    "depthwise": {"kernel_size": 3, "padding": 1, "groups": 4, "padding_mode": "circular"},
    "same": {"kernel_size": 5, "padding": "same", "padding_mode": "replicate"},
}


def images():
    generator = torch.Generator().manual_seed(5)
    return torch.randn(3, 4, 6, 5, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("middle", ["norm", "gate", "norm+gate"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_definition_fold_and_start(geometry, middle, oracle):
    x, arguments = images(), GEOMETRIES[geometry]
    for depth, spatial in product([1, 2, 3, 4], ["first", "last"]):
        options = {"depth": depth, "spatial": spatial, "middle": middle}
        layer = oracle.randomise(MAConv2d(4, 4, **arguments, **options))
        for mode in (True, False):
            layer.train(mode)
            definition = oracle.gradients(layer, lambda x, layer=layer: oracle.chain(layer, x), x)
            what = "MAConv2d = loops, outputs and gradients"
            oracle.compare(what, oracle.gradients(layer, layer, x), definition)
        folded = layer.train().to_inference()
        assert type(folded) is nn.Conv2d
        # what a norm subtracts has to go somewhere: the fold then has a bias
        bias = arguments.get("bias", True) or ("norm" in middle and depth > 1)
        assert repr(folded) == repr(nn.Conv2d(4, 4, **{**arguments, "bias": bias}))
        oracle.compare("MAConv2d fold = eval()", folded(x), layer.eval()(x))

        conv = nn.Conv2d(4, 4, **arguments, dtype=torch.float64)
        start = MAConv2d.from_conv2d(conv, **options)
        if middle == "gate" or depth == 1:
            oracle.compare("MAConv2d.from_conv2d, train()", start(x), conv(x))
        fresh = MAConv2d.from_conv2d(conv, **options)
        oracle.compare("MAConv2d.from_conv2d, eval()", fresh.eval()(x), conv(x))


@pytest.mark.parametrize("middle", ["norm", "gate", "norm+gate"])
def test_fold_after_training_steps(middle, oracle):
    """Statistics and running gates moved by training, not by hand."""
    layer = oracle.randomise(MAConv2d(4, 6, 3, padding=1, depth=3, middle=middle))
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.01)
    for _ in range(3):
        optimiser.zero_grad()
        layer(images()).square().mean().backward()
        optimiser.step()
    oracle.compare("MAConv2d fold = eval()", layer.to_inference()(images()), layer.eval()(images()))


def test_costs_nothing_more_at_inference():
    """As many multiply-accumulates as the plain convolution: of the folded layer's own shape."""
    layer = MAConv2d(8, 16, 3, padding=1, depth=3).eval()
    assert layer.macs((5, 5)).convolution == (16 * 8 * 9 + 16 * 16 + 16 * 16) * 25
    assert layer.to_inference().weight.numel() * 25 == 16 * 8 * 9 * 25


def test_rejects():
    with pytest.raises(ValueError, match="middle must be one of 'norm', 'gate', 'norm.gate', got"):
        MAConv2d(4, 6, 3, middle="none")


@pytest.mark.parametrize("option", [{"squash": "softmax"}, {"reduction": 4}, {"temperature": 2.0}])
def test_without_a_gate_no_option_of_one_is_ignored(option):
    ((name, value),) = option.items()
    for options, said in (
        ({}, "middle='norm'"),
        ({"depth": 3}, "middle='norm'"),
        ({"depth": 1, "middle": "gate"}, "depth=1 and middle='gate'"),
    ):
        with pytest.raises(ValueError) as caught:
            MAConv2d(4, 6, 3, **options, **option)
        assert str(caught.value) == f"{name}={value!r} has no effect with {said}: there is no gate"
    for middle in ("gate", "norm+gate"):
        assert MAConv2d(4, 6, 3, middle=middle, **option).gate is not None
