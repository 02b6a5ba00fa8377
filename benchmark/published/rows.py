"""The rows of the table of published figures: networks, figures, sources, explanations."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from benchmark.published.counters import (
    Why,
    gates_on_kernels,
    norms_and_relus_counted,
    one_router_a_block,
    squeezing_counted,
    with_stride_first,
    without_norms,
)
from benchmark.published.networks import (
    from_timm,
    from_torchvision,
    in_blocks,
    in_last_stages,
    last_of_block,
    mobilenet_v2,
    mobileone,
    repvgg,
)
from overconv.operators.condconv import CondConv2d
from overconv.operators.mobileone import MobileOneConv2d
from overconv.operators.odconv import ODConv2d
from overconv.operators.repvgg import RepVGGConv2d
from overconv.operators.se import SEConv2d
from overconv.surgery import Where

SLIM = "tensorflow/models, research/slim/nets/mobilenet/README.md at 0ba83cf"
VISION = "torchvision, num_params and _ops of the weights' meta"
ODCONV = "OSVAI/ODConv, README.md at 09212d7"
TPU = "tensorflow/tpu, models/official/efficientnet/condconv/README.md at 7c7cbf9"
TIMM = "pytorch-image-models, results/benchmark-infer-amp-nhwc-pt112-cu113-rtx3090.csv at 5e7d47c"
SE = "open-mmlab/mmpretrain, configs/seresnet/README.md at 02b0425"
REPVGG = "open-mmlab/mmpretrain, configs/repvgg/README.md at 09352a8"
MOBILEONE = "open-mmlab/mmpretrain, configs/mobileone/README.md at 09c4815"

NO_NORMS = Why("parameters of batch norms left out", without_norms)
ONE_ROUTER = Why("one router a block, not one a layer", one_router_a_block)
SQUEEZING = Why(
    "a MAC for each value that an SE block pools, and that it scales", squeezing_counted
)
MMCV = Why(
    "OpenMMLab's counter: two a value of a batch norm, one of a ReLU and of what is pooled, none of"
    " a product with a gate",
    norms_and_relus_counted,
)
STRIDE = Why("stride in the first 1 x 1 of a bottleneck, not in the 3 x 3", with_stride_first)
# The authors do not say how they count: this is what all twelve figures have in common. Their
# published code has the stride in the 3 x 3, plain shortcuts, as their parameters too, and gates of
# channels and filters on the features.
ON_KERNELS = Why(
    "inferred: all gates on the kernels, 2 K - 1 operations a weight to mix K, pooling at the size"
    " of the output; ResNets with dynamic shortcuts and the stride in the first 1 x 1",
    gates_on_kernels,
)


@dataclass(frozen=True)
class Figure:
    """A published figure, with the precision that its digits have.

    Attributes:
        written: As it was published, such as ``"11.69M"``, ``"1.814G"`` or ``"3,504,872"``.
    """

    written: str

    @property
    def _parts(self) -> tuple[str, int]:
        match = re.fullmatch(r"(\d[\d,]*)|(\d+(?:\.\d+)?)([MG])", self.written)
        if match is None:
            raise ValueError(f"not a figure: {self.written!r}; write it as 11.69M, 1.8G or 3,504")
        if match[1]:
            return match[1].replace(",", ""), 1
        return match[2], {"M": 10**6, "G": 10**9}[match[3]]

    @property
    def value(self) -> float:
        """The figure as a number."""
        digits, unit = self._parts
        return float(digits) * unit

    @property
    def rounding(self) -> float:
        """Half a unit of its last digit; an integer in full is exact."""
        digits, unit = self._parts
        if unit == 1:
            return 0.0
        return 0.5 * unit / 10 ** len(digits.partition(".")[2])

    def beyond_rounding(self, count: int) -> float:
        """How far ``count`` lies from all that the figure may stand for, as a share of it."""
        difference = count - self.value
        beyond = max(0.0, abs(difference) - self.rounding) / self.value
        return beyond if difference > 0 else -beyond


@dataclass(frozen=True)
class Row:
    """A network as it was published.

    Attributes:
        network: Its name.
        build: Gives it, of plain convolutions, on the meta device.
        parameters, macs: The published figures as they are written (see :class:`Figure`), or None.
        source: Where they stand.
        layer: What stands in the place of the convolutions that ``where`` selects, or None.
        replaced: ``where`` in words.
        deployed: Whether the figures are of the deployed network, or of the one in training.
        why_parameters, why_macs: What else the source counts.
    """

    network: str
    build: Callable[[], nn.Module]
    parameters: str | None
    macs: str | None
    source: str
    layer: Callable[..., nn.Module] | None = None
    where: Where = "all"
    replaced: str = "-"
    deployed: bool = False
    why_parameters: Why | None = None
    why_macs: Why | None = None


_V2 = {width: partial(mobilenet_v2, width) for width in (1.0, 0.75, 0.5, 0.35)}
_18, _50, _101 = (partial(from_torchvision, f"resnet{depth}") for depth in (18, 50, 101))
_B0 = partial(from_timm, "efficientnet_b0")
_SLIM: dict[str, Any] = {"source": SLIM, "why_parameters": NO_NORMS}
_MOVED: dict[str, Any] = {"source": ODCONV, "why_macs": STRIDE}


_BUT_STEM: dict[str, Any] = {"where": "all_but_stem", "replaced": "all but the stem"}
_BLOCKS: dict[str, Any] = {"where": in_blocks, "replaced": "in blocks, not in shortcuts"}


def _od(num_kernels: int, where: dict[str, Any]) -> dict[str, Any]:
    layer = partial(ODConv2d, num_kernels=num_kernels)
    return {"source": ODCONV, "layer": layer, **where, "why_macs": ON_KERNELS}


def _cond(num_kernels: int) -> dict[str, Any]:
    layer = partial(CondConv2d, num_kernels=num_kernels)
    where: dict[str, Any] = {"where": in_last_stages, "replaced": "in the last three stages"}
    whys: dict[str, Any] = {"why_parameters": ONE_ROUTER, "why_macs": SQUEEZING}
    return {"source": TPU, "layer": layer, **where, **whys}


def _se(end: str, source: str) -> dict[str, Any]:
    where: dict[str, Any] = {
        "where": partial(last_of_block, end),
        "replaced": "the last of each block",
    }
    return {"source": source, "layer": SEConv2d, **where}


def _vision(name: str, parameters: str, macs: str) -> Row:
    return Row(name, partial(from_torchvision, name), parameters, macs, VISION)


def _repvgg(
    name: str, build: Any, training: tuple[str, str], deployed: tuple[str, str]
) -> tuple[Row, Row]:
    more: dict[str, Any] = {"source": REPVGG, "layer": RepVGGConv2d, "replaced": "all"}
    return (
        Row(f"RepVGG-{name}", build, *training, **more),
        Row(f"RepVGG-{name}", build, *deployed, **more, deployed=True),
    )


def _mobileone(name: str, build: Any, num_kernels: int, parameters: str, macs: str) -> Row:
    layer = partial(MobileOneConv2d, num_kernels=num_kernels)
    more: dict[str, Any] = {
        "source": MOBILEONE,
        "layer": layer,
        "replaced": "all",
        "deployed": True,
    }
    return Row(f"MobileOne-{name}", build, parameters, macs, **more)


_A, _B = (2, 4, 14, 1), (4, 6, 16, 1)
ROWS: tuple[Row, ...] = (
    _vision("resnet18", "11,689,512", "1.814G"),
    _vision("resnet50", "25,557,032", "4.089G"),
    _vision("resnet101", "44,549,160", "7.801G"),
    _vision("mobilenet_v2", "3,504,872", "0.301G"),
    _vision("mobilenet_v3_small", "2,542,856", "0.057G"),
    _vision("mobilenet_v3_large", "5,483,032", "0.217G"),
    _vision("efficientnet_b0", "5,288,548", "0.386G"),
    Row("MobileNetV2 1.0", _V2[1.0], "3.47M", "300M", **_SLIM),
    Row("MobileNetV2 0.75", _V2[0.75], "2.61M", "209M", **_SLIM),
    Row("MobileNetV2 0.5", _V2[0.5], "1.95M", "97M", **_SLIM),
    Row("MobileNetV2 0.35", _V2[0.35], "1.66M", "59M", **_SLIM),
    Row("MobileNetV2 1.0", _V2[1.0], "3.50M", "300.8M", ODCONV),
    Row("MobileNetV2 1.0", _V2[1.0], "4.94M", "311.8M", **_od(1, _BUT_STEM)),
    Row("MobileNetV2 1.0", _V2[1.0], "11.51M", "327.1M", **_od(4, _BUT_STEM)),
    Row("MobileNetV2 0.75", _V2[0.75], "2.64M", "209.1M", ODCONV),
    Row("MobileNetV2 0.75", _V2[0.75], "3.51M", "217.1M", **_od(1, _BUT_STEM)),
    Row("MobileNetV2 0.75", _V2[0.75], "7.50M", "226.3M", **_od(4, _BUT_STEM)),
    Row("MobileNetV2 0.5", _V2[0.5], "1.97M", "97.1M", ODCONV),
    Row("MobileNetV2 0.5", _V2[0.5], "2.43M", "101.8M", **_od(1, _BUT_STEM)),
    Row("MobileNetV2 0.5", _V2[0.5], "4.44M", "106.4M", **_od(4, _BUT_STEM)),
    Row("ResNet-18", _18, "11.69M", "1.814G", ODCONV),
    Row("ResNet-18", _18, "11.94M", "1.838G", **_od(1, _BLOCKS)),
    Row("ResNet-18", _18, "44.90M", "1.916G", **_od(4, _BLOCKS)),
    Row("ResNet-50", _50, "25.56M", "3.858G", **_MOVED),
    Row("ResNet-50", _50, "28.64M", "3.916G", **_od(1, _BLOCKS)),
    Row("ResNet-50", _50, "90.67M", "4.080G", **_od(4, _BLOCKS)),
    Row("ResNet-101", _101, "44.55M", "7.570G", **_MOVED),
    Row("ResNet-101", _101, "50.82M", "7.675G", **_od(1, _BLOCKS)),
    Row("ResNet-101", _101, "90.44M", "7.802G", **_od(2, _BLOCKS)),
    Row("EfficientNet-B0", _B0, "5.3M", "391M", TPU, why_macs=SQUEEZING),
    Row("EfficientNet-B0", _B0, "13.3M", "402M", **_cond(4)),
    Row("EfficientNet-B0", _B0, "24.0M", "413M", **_cond(8)),
    Row("ResNet-18", _18, "11.78M", None, **_se("conv2", TIMM)),
    Row("ResNet-50", _50, "28.09M", "4.13G", **_se("conv3", SE), why_macs=MMCV),
    Row("ResNet-101", _101, "49.33M", "7.86G", **_se("conv3", SE), why_macs=MMCV),
    *_repvgg("A0", partial(repvgg, _A, 0.75, 2.5), ("9.11M", "1.52G"), ("8.31M", "1.36G")),
    *_repvgg("A1", partial(repvgg, _A, 1.0, 2.5), ("14.09M", "2.64G"), ("12.79M", "2.37G")),
    *_repvgg("A2", partial(repvgg, _A, 1.5, 2.75), ("28.21M", "5.7G"), ("25.5M", "5.12G")),
    *_repvgg("B0", partial(repvgg, _B, 1.0, 2.5), ("15.82M", "3.42G"), ("14.34M", "3.06G")),
    *_repvgg("B1", partial(repvgg, _B, 2.0, 4.0), ("57.42M", "13.16G"), ("51.83M", "11.82G")),
    *_repvgg("B2", partial(repvgg, _B, 2.5, 5.0), ("89.02M", "20.46G"), ("80.32M", "18.39G")),
    *_repvgg("B3", partial(repvgg, _B, 3.0, 5.0), ("123.09M", "29.17G"), ("110.96M", "26.22G")),
    _mobileone("S0", partial(mobileone, 0.75, 1.0, 1.0, 2.0), 4, "2.08M", "0.27G"),
    _mobileone("S1", partial(mobileone, 1.5, 1.5, 2.0, 2.5), 1, "4.76M", "0.82G"),
    _mobileone("S2", partial(mobileone, 1.5, 2.0, 2.5, 4.0), 1, "7.81M", "1.30G"),
    _mobileone("S3", partial(mobileone, 2.0, 2.5, 3.0, 4.0), 1, "10.08M", "1.89G"),
)
