"""Residual networks with projections: ImageNet's, and the same for small images."""

import torch.nn.functional as F
from torch import Tensor, nn

from overconv.checks import at_least, positive
from overconv.models.building import put_layers
from overconv.surgery import Layer, Where

# Of each depth: whether its blocks are bottlenecks, and their number in each stage; table 1 of
# the source.
DEPTHS = {
    18: (False, (2, 2, 2, 2)),
    34: (False, (3, 4, 6, 3)),
    50: (True, (3, 4, 6, 3)),
    101: (True, (3, 4, 23, 3)),
    152: (True, (3, 8, 36, 3)),
}


class ProjectedBlock(nn.Module):
    """Two convolutions, or three of which the outer ones are pointwise, beside a shortcut.

    Where the block changes the shape, the shortcut is a pointwise convolution (option B of the
    source). The 3 x 3 convolution of a bottleneck has the stride, as in torchvision.

    Shape:
        (B, in_channels, H, W) -> (B, width or 4 * width, ceil(H / stride), ceil(W / stride))
    """

    def __init__(self, in_channels: int, width: int, stride: int, *, is_bottleneck: bool) -> None:
        super().__init__()
        wide_out = 4 * width if is_bottleneck else width
        first, second = ((1, 1), (3, stride)) if is_bottleneck else ((3, stride), (3, 1))
        self.conv1 = _conv(in_channels, width, *first)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, *second)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv(width, wide_out, 1, 1) if is_bottleneck else None
        self.bn3 = nn.BatchNorm2d(wide_out) if is_bottleneck else None
        self.downsample = (
            nn.Sequential(_conv(in_channels, wide_out, 1, stride), nn.BatchNorm2d(wide_out))
            if stride > 1 or in_channels != wide_out
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.conv3 is not None and self.bn3 is not None:
            y = self.bn3(self.conv3(F.relu(y)))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ImageNetResNet(nn.Module):
    """Residual network of ImageNet size: a stem, four stages, a linear classifier.

    Structure, initialisation and the names of parameters are those of
    :func:`torchvision.models.resnet18` and its siblings, whose weights load.

    Args:
        depth: 18, 34, 50, 101 or 152.
        width: Channels of the first stage; the others have two, four and eight times as many, and
            bottlenecks end in four times that. A fraction sets them more finely.
        num_classes, in_channels: Of the data.
        small_images: Begin with a 3 x 3 convolution of stride 1 in the place of one of 7 x 7 with
            stride 2 and a pooling with stride 2: the usual "ResNet-18" of images of 32 pixels.
        conv: What stands in the place of the convolutions that ``where`` selects: a class that
            takes the arguments of :class:`torch.nn.Conv2d`, or a :func:`functools.partial` of one.
        where: As in :func:`overconv.surgery.select_convs`.

    Shape:
        (B, in_channels, H, W) -> logits (B, num_classes)

    Raises:
        ValueError: An argument is out of its range, or as in
            :func:`overconv.surgery.replace_convs`.

    Source:
        K. He et al., "Deep residual learning for image recognition", CVPR 2016, section 4.1.

    Example:
        >>> sum(parameter.numel() for parameter in ImageNetResNet().parameters())
        11689512
    """

    def __init__(
        self,
        depth: int = 18,
        width: float = 64,
        num_classes: int = 1000,
        in_channels: int = 3,
        *,
        small_images: bool = False,
        conv: Layer = nn.Conv2d,
        where: Where = "all_but_stem",
    ) -> None:
        super().__init__()
        if depth not in DEPTHS:
            raise ValueError(f"depth must be one of {', '.join(map(str, DEPTHS))}, got {depth!r}")
        is_bottleneck, num_blocks = DEPTHS[depth]
        widths = [round(positive("width", width) * times) for times in (1, 2, 4, 8)]
        if widths[0] < 1:
            raise ValueError(f"width must leave the first stage a channel, got {width!r}")
        at_least("in_channels", in_channels, 1)
        side, stride = (3, 1) if small_images else (7, 2)
        self.conv1 = _conv(in_channels, widths[0], side, stride)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.pool = nn.Identity() if small_images else nn.MaxPool2d(3, 2, padding=1)
        wide = widths[0]
        stages = []
        for index, (width_, count) in enumerate(zip(widths, num_blocks, strict=True)):
            blocks = []
            for block in range(count):
                stride = 2 if index and block == 0 else 1
                blocks.append(ProjectedBlock(wide, width_, stride, is_bottleneck=is_bottleneck))
                wide = 4 * width_ if is_bottleneck else width_
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.fc = nn.Linear(wide, at_least("num_classes", num_classes, 1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        put_layers(self, conv, where)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


def _conv(in_channels: int, out_channels: int, side: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, side, stride, side // 2, bias=False)
