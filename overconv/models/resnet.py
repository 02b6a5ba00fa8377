"""Residual networks for small images."""

import torch.nn.functional as F
from torch import Tensor, nn

from overconv.checks import at_least, positive
from overconv.models.building import put_layers
from overconv.surgery import Layer, Where


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut without parameters.

    Where the block changes the shape, the shortcut takes every ``stride``-th pixel and appends
    channels of zeros (option A of the source).

    Shape:
        (B, in_channels, H, W) -> (B, out_channels, ceil(H / stride), ceil(W / stride))
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride, self.num_appended = stride, out_channels - in_channels
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.shortcut(x))

    def shortcut(self, x: Tensor) -> Tensor:
        """``x`` in the shape of the block's output."""
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, self.num_appended)) if self.num_appended else x


class ResNet(nn.Module):
    """Residual network of CIFAR size: a stem, three stages of ``n`` blocks, a linear classifier.

    ``depth = 6 n + 2`` counts the layers with weights. The stages have ``round(width)``,
    ``round(2 * width)`` and ``round(4 * width)`` channels, and the second and third halve the
    image. With the defaults it is the published ResNet-20 for CIFAR-10, of 269,722 parameters. It
    starts by He's normal initialisation over the convolutions' outputs, or, where they are
    replaced, as the layer in their place starts.

    Args:
        depth: 6 n + 2 for n >= 1: 8, 14, 20, 26, 32, 44, 56, 110, ...
        width: Channels of the first stage; the second and third have two and four times as many.
            A fraction sets them more finely.
        stem_stride: Stride of the first convolution; 2 suits images twice CIFAR's size, or a
            quarter of the work.
        num_classes, in_channels: Of the data.
        conv: What stands in the place of the convolutions that ``where`` selects: a class that
            takes the arguments of :class:`torch.nn.Conv2d`, or a :func:`functools.partial` of one.
        where: As in :func:`overconv.surgery.select_convs`.

    Shape:
        (B, in_channels, H, W) -> logits (B, num_classes)

    Raises:
        ValueError: An argument is out of its range, or as in
            :func:`overconv.surgery.replace_convs`.

    Source:
        K. He et al., "Deep residual learning for image recognition", CVPR 2016, section 4.2.

    Example:
        >>> sum(parameter.numel() for parameter in ResNet().parameters())
        269722
    """

    def __init__(
        self,
        depth: int = 20,
        width: float = 16,
        stem_stride: int = 1,
        num_classes: int = 10,
        in_channels: int = 3,
        *,
        conv: Layer = nn.Conv2d,
        where: Where = "all_but_stem",
    ) -> None:
        super().__init__()
        num_blocks, rest = divmod(at_least("depth", depth, 8) - 2, 6)
        if rest:
            raise ValueError(f"depth must be 6 n + 2, such as 8, 14 or 20, got {depth!r}")
        widths = [round(positive("width", width) * times) for times in (1, 2, 4)]
        if widths[0] < 1:
            raise ValueError(f"width must leave the first stage a channel, got {width!r}")
        self.conv1 = nn.Conv2d(
            at_least("in_channels", in_channels, 1),
            widths[0],
            3,
            at_least("stem_stride", stem_stride, 1),
            padding=1,
            bias=False,
        )
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layer1 = _stage(num_blocks, widths[0], widths[0], 1)
        self.layer2 = _stage(num_blocks, widths[0], widths[1], 2)
        self.layer3 = _stage(num_blocks, widths[1], widths[2], 2)
        self.fc = nn.Linear(widths[2], at_least("num_classes", num_classes, 1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        put_layers(self, conv, where)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean((2, 3)))


def _stage(num_blocks: int, in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        BasicBlock(in_channels, out_channels, stride),
        *(BasicBlock(out_channels, out_channels, 1) for _ in range(num_blocks - 1)),
    )
