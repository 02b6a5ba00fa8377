"""MobileNetV2, at the strides of small images."""

from collections.abc import Sequence

from torch import Tensor, nn

from overconv.checks import at_least, positive
from overconv.models.building import put_layers
from overconv.surgery import Layer, Where

# Of each stage: expansion, channels and number of blocks, table 2 of the source.
STAGES = (
    (1, 16, 1),
    (6, 24, 2),
    (6, 32, 3),
    (6, 64, 4),
    (6, 96, 3),
    (6, 160, 3),
    (6, 320, 1),
)


class InvertedResidual(nn.Module):
    """A pointwise, a depthwise and a pointwise convolution, beside the identity where shapes agree.

    Shape:
        (B, in_channels, H, W) -> (B, out_channels, ceil(H / stride), ceil(W / stride))
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = in_channels * expansion
        layers = [] if expansion == 1 else [_conv_norm_relu(in_channels, middle, 1)]
        self.conv = nn.Sequential(
            *layers,
            _conv_norm_relu(middle, middle, 3, stride, groups=middle),
            nn.Conv2d(middle, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.is_residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.is_residual else self.conv(x)


class MobileNetV2(nn.Module):
    """Network of inverted residuals: a stem, seven stages, a pointwise head, a linear classifier.

    Structure, initialisation and the names of parameters are those of
    :func:`torchvision.models.mobilenet_v2`, whose weights load. Only the strides differ: by default
    the last stage has an eighth of the image's side, where the source, for images of 224 pixels,
    has a 32nd; ``stem_stride=2, strides=(1, 2, 2, 2, 1, 2, 1)`` gives the source's. Channels are
    multiples of 8. A replaced convolution starts as the layer in its place starts.

    Args:
        width: Factor on the channels of all stages, and above 1 of the head.
        num_classes, in_channels: Of the data.
        stem_stride: Stride of the first convolution.
        dropout: Probability of dropping a feature before the classifier.
        strides: Stride of the first block of each of the seven stages.
        conv: What stands in the place of the convolutions that ``where`` selects: a class that
            takes the arguments of :class:`torch.nn.Conv2d`, or a :func:`functools.partial` of one.
        where: As in :func:`overconv.surgery.select_convs`.

    Shape:
        (B, in_channels, H, W) -> logits (B, num_classes)

    Raises:
        ValueError: An argument is out of its range, or as in
            :func:`overconv.surgery.replace_convs`.

    Source:
        M. Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks", CVPR 2018.

    Example:
        >>> sum(parameter.numel() for parameter in MobileNetV2(num_classes=1000).parameters())
        3504872
    """

    def __init__(
        self,
        width: float = 1.0,
        num_classes: int = 10,
        in_channels: int = 3,
        stem_stride: int = 1,
        dropout: float = 0.2,
        *,
        strides: Sequence[int] = (1, 1, 2, 2, 1, 2, 1),
        conv: Layer = nn.Conv2d,
        where: Where = "all_but_stem",
    ) -> None:
        super().__init__()
        positive("width", width)
        if len(strides) != len(STAGES):
            raise ValueError(f"strides must be {len(STAGES)} integers, got {strides!r}")
        wide = nearest_multiple(32 * width)
        stem_stride = at_least("stem_stride", stem_stride, 1)
        features: list[nn.Module] = [
            _conv_norm_relu(at_least("in_channels", in_channels, 1), wide, 3, stem_stride)
        ]
        for (expansion, channels, num_blocks), stride in zip(STAGES, strides, strict=True):
            at_least("strides", stride, 1)
            for block in range(num_blocks):
                wide_in, wide = wide, nearest_multiple(channels * width)
                block_stride = stride if block == 0 else 1
                features.append(InvertedResidual(wide_in, wide, block_stride, expansion))
        head = nearest_multiple(1280 * max(1.0, width))
        self.features = nn.Sequential(*features, _conv_norm_relu(wide, head, 1))
        self.classifier = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(head, at_least("num_classes", num_classes, 1))
        )
        self._reset_parameters()
        put_layers(self, conv, where)

    def _reset_parameters(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


def _conv_norm_relu(
    in_channels: int, out_channels: int, side: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, side, stride, side // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU6(inplace=True),
    )


def nearest_multiple(channels: float, divisor: int = 8) -> int:
    """The multiple of ``divisor`` next to ``channels`` that is not below 90 % of it.

    >>> [nearest_multiple(channels) for channels in (8.0, 11.2, 11.9, 12.0, 3.0)]
    [8, 16, 16, 16, 8]
    """
    nearest = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * channels else nearest
