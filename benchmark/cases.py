"""Our one list of cases: what the gate, the exact figures and ``pytest benchmark`` watch.

Each layer of the library at a telling shape or two, off the values at which its gates and branches
do nothing; layers that make their kernel for each input as they are deployed, planned by counted
work so that the form does not depend on the machine; layers that fold as they are trained, since
folded they are a plain convolution; and small networks. One call takes 0.1 to 5 ms on one core.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.variants import moved_statistics, randomise
from overconv.bench.cases import Case, by_kernels, checked
from overconv.forms import plan_forms
from overconv.models.mobilenet import MobileNetV2
from overconv.models.resnet import ResNet
from overconv.operators.acb import ACConv2d
from overconv.operators.condconv import CondConv2d
from overconv.operators.dbb import DBBConv2d
from overconv.operators.dcd import DCDConv2d
from overconv.operators.doconv import DOConv2d
from overconv.operators.dyconv import DyConv2d
from overconv.operators.dynet import DyNetConv2d
from overconv.operators.expand import ExpandConv2d
from overconv.operators.maconv import MAConv2d
from overconv.operators.mdconv import MDConv2d
from overconv.operators.mobileone import MobileOneConv2d
from overconv.operators.odconv import ODConv2d
from overconv.operators.orepa import OREPAConv2d
from overconv.operators.repvgg import RepVGGConv2d
from overconv.operators.se import SEConv2d
from overconv.operators.weightnet import WeightNetConv2d
from overconv.surgery import replace_convs, to_inference

# Arguments of nn.Conv2d, and the side of the image.
Geometry = tuple[dict[str, int], int]
# MobileNetV2's expansion of 64 channels, its depthwise layer behind it, and its last projection.
EXPANSION: Geometry = ({"in_channels": 64, "out_channels": 384, "kernel_size": 1}, 14)
DEPTHWISE: Geometry = (
    {"in_channels": 384, "out_channels": 384, "kernel_size": 3, "padding": 1, "groups": 384},
    14,
)
PROJECTION: Geometry = ({"in_channels": 960, "out_channels": 160, "kernel_size": 1}, 7)
# ResNet-18's 3 x 3 at 28, at half its width; and a small one, for batches that are trained on.
SPATIAL: Geometry = ({"in_channels": 64, "out_channels": 64, "kernel_size": 3, "padding": 1}, 28)
SMALL: Geometry = ({"in_channels": 32, "out_channels": 32, "kernel_size": 3, "padding": 1}, 14)

Build = Callable[[], nn.Module]


# Layers.


def _layer(layer: Any, geometry: Geometry) -> nn.Module:
    """A layer with random gates, branches and statistics."""
    return randomise(layer(**geometry[0]))


def _deployed(layer: Any, geometry: Geometry, batch: int) -> nn.Module:
    """The layer as it is deployed: what folds is folded, and its form is that of least work."""
    arguments, side = geometry
    images = torch.zeros(batch, arguments["in_channels"], side, side)
    return plan_forms(to_inference(_layer(layer, geometry).eval()), images)


def _as_trained(layer: Any, geometry: Geometry, module: nn.Module, x: Tensor) -> Tensor:
    """What a deployed layer has to put out: what the layer that it is made from does."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trained = _layer(layer, geometry).eval()
    return by_kernels(trained, x)


def _case(
    name: str,
    layer: Any,
    geometry: Geometry,
    batch: int = 1,
    *,
    deployed: bool = False,
    **more: Any,
) -> Case:
    arguments, side = geometry
    if deployed:
        build: Build = partial(_deployed, layer, geometry, batch)
        more["expected"] = partial(_as_trained, layer, geometry)
    else:
        build = partial(_layer, layer, geometry)
        more["expected"] = by_kernels
    plain = partial(nn.Conv2d, **arguments)
    shape = (batch, arguments["in_channels"], side, side)
    return Case(name, build, shape, plain, **more)


DYNAMIC = {
    "mdconv": MDConv2d,
    "dyconv": DyConv2d,
    "condconv": CondConv2d,
    "dynet": DyNetConv2d,
    "odconv": ODConv2d,
    "dcd": DCDConv2d,
    "weightnet": WeightNetConv2d,
    "se": SEConv2d,
}
FOLDING = {
    "maconv": MAConv2d,
    "acb": ACConv2d,
    "dbb": DBBConv2d,
    "doconv": DOConv2d,
    "mobileone": MobileOneConv2d,
    "orepa": OREPAConv2d,
    "repvgg": RepVGGConv2d,
}
THREE = partial(MDConv2d, depth=3, placement=("input", "middle", "output"))
COMPACT = partial(MDConv2d, form="compact")
ON_FEATURES = partial(DyConv2d, on="features")
TRAINED = {"step": "training"}

LAYERS = (
    # Deployed, one image.
    *(_case(f"{name}/expansion", DYNAMIC[name], EXPANSION, deployed=True) for name in DYNAMIC),
    _case("mdconv/projection", MDConv2d, PROJECTION, deployed=True),
    _case("mdconv/spatial", MDConv2d, SPATIAL, deployed=True),
    _case("mdconv,depth=3/spatial", THREE, SPATIAL, deployed=True),
    _case("mdconv/depthwise", MDConv2d, DEPTHWISE, deployed=True),
    _case("odconv/depthwise", ODConv2d, DEPTHWISE, deployed=True),
    _case("maconv/spatial,folded", MAConv2d, SPATIAL, deployed=True),
    # A kernel for each of eight images, and the same by features.
    _case("mdconv,compact/small,batch=8", COMPACT, SMALL, 8),
    _case("dyconv/small,batch=8", DyConv2d, SMALL, 8),
    _case("dyconv,features/small,batch=8", ON_FEATURES, SMALL, 8),
    # A step of training.
    _case("mdconv/small,training", MDConv2d, SMALL, 8, **TRAINED),
    _case("mdconv,depth=3/small,training", THREE, SMALL, 8, **TRAINED),
    _case("dyconv/small,training", DyConv2d, SMALL, 8, **TRAINED),
    *(
        _case(f"{name}/small,training", FOLDING[name], SMALL, 4, step="training")
        for name in FOLDING
    ),
    _case("expand/small,training", ExpandConv2d, SMALL, 2, **TRAINED),
)


# Networks.


def _plain_network(network: Any, deployed: bool) -> nn.Module:
    """The network of plain convolutions, with statistics as after some training."""
    model = moved_statistics(network())
    return to_inference(model.eval()) if deployed else model


def _network(network: Any, layer: Any, where: str) -> nn.Module:
    """The plain network with ``layer`` in it, computing the same."""
    return replace_convs(_plain_network(network, False), layer, where, preserve=True)


def _planned(network: Any, layer: Any, where: str, shape: tuple[int, ...]) -> nn.Module:
    model = _network(network, layer, where).eval()
    return plan_forms(to_inference(model), torch.zeros(shape))


def _as_plain(network: Any, module: nn.Module, x: Tensor) -> Tensor:
    """What a network has to put out that starts from the plain one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        plain = _plain_network(network, False).eval()
    moved = dict(module.named_buffers())  # statistics that steps of training have moved
    for name, buffer in plain.named_buffers():
        buffer.copy_(moved.get(name, buffer))
    return plain(x)


def _model(
    name: str,
    network: Any,
    layer: Any,
    where: str,
    shape: tuple[int, ...],
    step: str = "inference",
) -> Case:
    deployed = step == "inference"
    arms = network, layer, where
    build = partial(_planned, *arms, shape) if deployed else partial(_network, *arms)
    plain = partial(_plain_network, network, deployed)
    return Case(name, build, shape, plain, step, partial(_as_plain, network))


RESNET8 = partial(ResNet, depth=8, width=16)
RESNET20 = partial(ResNet, depth=20, width=8)
MOBILE = partial(MobileNetV2, width=0.35, stem_stride=2, strides=(1, 2, 2, 2, 1, 2, 1))

NETWORKS = (
    _model("resnet8/mdconv", RESNET8, MDConv2d, "all_but_stem", (1, 3, 32, 32)),
    _model(
        "resnet8/mdconv,training", RESNET8, MDConv2d, "all_but_stem", (1, 3, 32, 32), "training"
    ),
    _model("resnet20/dyconv", RESNET20, DyConv2d, "all_but_stem", (1, 3, 32, 32)),
    _model("mobilenetv2/mdconv", MOBILE, MDConv2d, "pointwise", (1, 3, 48, 48)),
    _model("mobilenetv2/dyconv", MOBILE, DyConv2d, "pointwise", (1, 3, 48, 48)),
)

CASES = checked((*LAYERS, *NETWORKS))
