"""The convolutions of known networks, as shapes to measure layers on."""

from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import nn


@dataclass(frozen=True)
class Shape:
    """A convolution of a network and the image that it sees there.

    Attributes:
        network: Where it is from.
        in_channels, out_channels, kernel_size, stride, padding, groups: As in
            :class:`torch.nn.Conv2d`, both sides alike.
        image: Height and width of its input.
    """

    network: str
    in_channels: int
    out_channels: int
    kernel_size: int
    stride: int
    padding: int
    groups: int
    image: int

    @property
    def arguments(self) -> tuple[int, ...]:
        """For a layer, in the order of :class:`torch.nn.Conv2d`."""
        return (
            self.in_channels,
            self.out_channels,
            self.kernel_size,
            self.stride,
            self.padding,
            1,
            self.groups,
        )

    @property
    def kind(self) -> str:
        """``"pointwise"``, ``"depthwise"`` or ``"spatial"``."""
        if self.groups > 1:
            return "depthwise"
        return "pointwise" if self.kernel_size == 1 else "spatial"

    def __str__(self) -> str:
        groups = f" /{self.groups}" if self.groups > 1 else ""
        stride = f" s{self.stride}" if self.stride > 1 else ""
        size = f"{self.kernel_size}x{self.kernel_size}{stride}{groups}"
        return f"{self.in_channels}-{self.out_channels} {size} at {self.image}"


def shapes_of(name: str, image: int = 224) -> list[Shape]:
    """The distinct convolutions of one of torchvision's networks, in the order of their use."""
    found: dict[Shape, None] = {}

    def look(conv: Any, arguments: tuple[Any, ...]) -> None:
        shape = Shape(
            name,
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size[0],
            conv.stride[0],
            conv.padding[0],
            conv.groups,
            arguments[0].shape[2],
        )
        found[shape] = None

    with torch.device("meta"):
        model = getattr(torchvision.models, name)().eval()
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_pre_hook(look)
        model(torch.empty(1, 3, image, image))
    return list(found)


# Wide and at a low resolution, narrow and at a high one, and many layers' worth of channels.
OTHERS = (
    Shape("others", 512, 2048, 1, 1, 0, 1, 7),
    Shape("others", 24, 24, 5, 1, 2, 1, 112),
    Shape("others", 256, 256, 3, 1, 1, 1, 28),
)


def layer_shapes() -> list[Shape]:
    """The distinct convolutions of MobileNetV2 and ResNet-18 at 224 pixels, and three others."""
    return [*shapes_of("mobilenet_v2"), *shapes_of("resnet18"), *OTHERS]
