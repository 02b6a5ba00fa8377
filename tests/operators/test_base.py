"""Geometry: what is accepted, how sizes come out, what a conversion keeps."""

from itertools import product

import pytest
import torch
from torch import nn

from overconv.operators import CondConv2d, DyConv2d, MAConv2d, MDConv2d
from overconv.operators.base import Macs, OverConv2d

LAYERS = [MDConv2d, MAConv2d, CondConv2d, DyConv2d]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_channels": 0}, "in_channels must be at least 1, got 0"),
        ({"in_channels": 4.0}, "in_channels must be an integer, got 4.0"),
        ({"groups": 3}, "in_channels=4 does not split into groups=3"),
        ({"groups": 4}, "out_channels=6 does not split into groups=4"),
        ({"groups": 0}, "groups must be at least 1, got 0"),
        ({"kernel_size": 0}, "kernel_size must be at least 1, got 0"),
        ({"kernel_size": (3, 3, 3)}, r"kernel_size must be an integer or a pair"),
        ({"stride": (1, 0)}, "stride must be at least 1, got 0"),
        ({"padding": -1}, "padding must be at least 0, got -1"),
        ({"padding": "full"}, "padding must be one of 'same', 'valid', got 'full'"),
        ({"padding": "same", "stride": 2}, "padding='same' needs stride 1"),
        ({"dilation": 0}, "dilation must be at least 1, got 0"),
        ({"padding_mode": "constant"}, "padding_mode must be one of 'zeros', .*, got 'constant'"),
    ],
)
@pytest.mark.parametrize("layer", LAYERS)
def test_rejects(layer, arguments, message):
    with pytest.raises(ValueError, match=message):
        layer(**{"in_channels": 4, "out_channels": 6, "kernel_size": 3, **arguments})


@pytest.mark.parametrize("shape", [(4, 6, 6), (2, 3, 6, 6), (1, 2, 4, 6, 6)])
@pytest.mark.parametrize("layer", LAYERS)
def test_rejects_an_input_of_the_wrong_shape(layer, shape):
    with pytest.raises(ValueError, match=r"input must be \(batch, 4, height, width\), got"):
        layer(4, 6, 3)(torch.zeros(shape))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_output_size_and_padding_equal_torch():
    x = torch.randn(1, 2, 9, 8)
    grid = product(
        [1, 3, (2, 4)], [1, (2, 3)], [0, 2, (1, 0), "same", "valid"], [1, 2], ["zeros", "circular"]
    )
    for kernel, stride, padding, dilation, mode in grid:
        if padding == "same" and stride != 1:
            continue
        arguments = (2, 2, kernel, stride, padding, dilation, 1)
        geometry = OverConv2d(*arguments, mode)
        conv = nn.Conv2d(*arguments, True, mode)
        assert (*geometry.output_size((9, 8)),) == conv(x).shape[2:]
        ours = torch.nn.functional.conv2d(
            geometry.pad(x),
            conv.weight,
            conv.bias,
            geometry.stride,
            geometry.conv_padding,
            geometry.dilation,
        )
        torch.testing.assert_close(ours, conv(x))
        fully = torch.nn.functional.conv2d(
            geometry.pad_fully(x), conv.weight, conv.bias, geometry.stride, 0, geometry.dilation
        )
        torch.testing.assert_close(fully, conv(x))


@pytest.mark.parametrize("layer", LAYERS)
def test_conversion_keeps_what_the_convolution_is(layer):
    conv = nn.Conv2d(
        4, 6, (3, 1), (2, 1), (1, 0), (1, 2), 2, False, "circular", dtype=torch.float64
    ).eval()
    weight = conv.weight.detach().clone()
    converted = layer.from_conv2d(conv)
    assert type(converted) is layer
    assert not any(module.training for module in converted.modules())
    assert {p.dtype for p in converted.parameters()} == {torch.float64}
    assert converted.bias is None
    for name in ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode"):
        assert getattr(converted, name) == getattr(conv, name)
    assert torch.equal(conv.weight, weight)
    assert all(parameter.requires_grad for parameter in converted.parameters())


@pytest.mark.parametrize("layer", LAYERS)
def test_conversion_refuses_what_may_compute_something_else(layer):
    class Doubled(nn.Conv2d):
        def forward(self, x):
            return 2 * super().forward(x)

    for other in (Doubled(4, 6, 3), nn.ConvTranspose2d(4, 6, 3), nn.Conv1d(4, 6, 3)):
        with pytest.raises(
            ValueError, match=f"exactly a torch.nn.Conv2d, got {type(other).__name__}"
        ):
            layer.from_conv2d(other)


@pytest.mark.parametrize("layer", LAYERS)
def test_inference_leaves_layer_and_generator_alone(layer):
    made = layer(4, 6, 3).train()
    state = {name: value.clone() for name, value in made.state_dict().items()}
    generator = torch.get_rng_state()
    made.to_inference()
    assert torch.equal(torch.get_rng_state(), generator)
    assert made.training
    assert all(torch.equal(value, state[name]) for name, value in made.state_dict().items())


def test_macs_add_up():
    total = Macs(1, 2, 3, 4, 5) + Macs(gate=10, shared=20)
    assert total == Macs(11, 2, 3, 4, 25)
    assert total.total == 45


def test_repr_says_what_the_layer_is():
    layer = MDConv2d(4, 6, 3, stride=2, padding=1, bias=False, depth=3, spatial="last")
    expected = (
        "4, 6, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), bias=False, depth=3,"
        " middle_channels=4, form='expanding', spatial='last'"
    )
    assert layer.extra_repr() == expected
    assert DyConv2d(4, 6, 3).extra_repr() == "4, 6, kernel_size=(3, 3), on='weights'"


def test_repr_says_what_a_derived_layer_is():
    """Options that its constructor passes on are shown, and one of its own."""

    class Soft(DyConv2d):
        def __init__(self, *args, sharp=False, **options):
            super().__init__(*args, num_kernels=3, **options)
            self.sharp = sharp

    text = Soft(4, 6, 3, sharp=True, reduction=2).extra_repr()
    assert text == "4, 6, kernel_size=(3, 3), num_kernels=3, on='weights', reduction=2, sharp=True"
