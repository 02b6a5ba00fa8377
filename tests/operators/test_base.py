"""What every layer has: what a conversion keeps, and what it shows of itself."""

import pytest
import torch
from torch import nn

from overconv.operators import CondConv2d, DyConv2d, MAConv2d, MDConv2d

LAYERS = [MDConv2d, MAConv2d, CondConv2d, DyConv2d]


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
