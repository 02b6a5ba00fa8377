"""Geometry: what is accepted, and how sizes and paddings come out."""

from itertools import product

import pytest
import torch
from torch import nn

from overconv.operators import CondConv2d, DyConv2d, MAConv2d, MDConv2d
from overconv.operators.geometry import ConvGeometry

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
        geometry = ConvGeometry(*arguments, mode)
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
