"""The networks of published tables, on the meta device.

A network of which the convolutions are to be replaced is built of plain ones: RepVGG and MobileOne
as the stacks of convolutions that they are once deployed.
"""

import timm
import torch
import torchvision
from torch import nn

from overconv.models.mobilenet import MobileNetV2

# Networks.


def from_torchvision(name: str) -> nn.Module:
    """A network of torchvision for 1000 classes."""
    with torch.device("meta"):
        return torchvision.models.get_model(name, weights=None)


def from_timm(name: str) -> nn.Module:
    """A network of timm for 1000 classes."""
    with torch.device("meta"):
        return timm.create_model(name, pretrained=False)


def mobilenet_v2(width: float) -> nn.Module:
    """MobileNetV2 for images of 224 pixels, of any width."""
    with torch.device("meta"):
        return MobileNetV2(width, 1000, stem_stride=2, strides=(1, 2, 2, 2, 1, 2, 1))


def _classified(layers: list[nn.Module], channels: int) -> nn.Sequential:
    pool = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(*layers, pool, nn.Flatten(), nn.Linear(channels, 1000))


def repvgg(depths: tuple[int, ...], a: float, b: float) -> nn.Module:
    """RepVGG of plain 3 x 3 convolutions: a stem and four stages, each halves the image."""
    layers: list[nn.Module] = []
    wide = 3
    widths = [min(64, int(64 * a)), *(int(base * a) for base in (64, 128, 256)), int(512 * b)]
    with torch.device("meta"):
        for depth, width in zip((1, *depths), widths, strict=True):
            for number in range(depth):
                stride = 2 if number == 0 else 1
                layers += [nn.Conv2d(wide, width, 3, stride, 1, bias=False), nn.ReLU()]
                wide = width
        return _classified(layers, wide)


def mobileone(*widths: float) -> nn.Module:
    """MobileOne of plain depthwise and pointwise convolutions, ``widths`` times its stages'."""
    channels = [int(base * times) for base, times in zip((64, 128, 256, 512), widths, strict=True)]
    wide = min(64, channels[0])
    with torch.device("meta"):
        layers: list[nn.Module] = [nn.Conv2d(3, wide, 3, 2, 1, bias=False), nn.ReLU()]
        for depth, width in zip((2, 8, 10, 1), channels, strict=True):
            for number in range(depth):
                stride = 2 if number == 0 else 1
                layers += [nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.ReLU()]
                layers += [nn.Conv2d(wide, width, 1, bias=False), nn.ReLU()]
                wide = width
        return _classified(layers, wide)


# Which convolutions.


def in_blocks(name: str, conv: nn.Conv2d) -> bool:
    """Those of a ResNet's blocks, without stem and shortcuts."""
    return name.startswith("layer") and "downsample" not in name


def last_of_block(end: str, name: str, conv: nn.Conv2d) -> bool:
    """The convolution of each block of a ResNet at which the block ends, ``"conv2"`` or so."""
    return in_blocks(name, conv) and name.endswith(end)


def in_last_stages(name: str, conv: nn.Conv2d) -> bool:
    """Those of the last three stages of EfficientNet, without the gates of its SE blocks."""
    return name.startswith(("blocks.4", "blocks.5", "blocks.6")) and ".se." not in name
