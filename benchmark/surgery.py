"""Surgery on networks of torchvision and timm: what is replaced, what folds, and how exactly.

Weights are random, statistics of batch norms are those of random images, moved off, and no
parameter stays at a value at which it does nothing, so that an error anywhere reaches the outputs.
Nothing is downloaded. All is compared in ``eval()``, with one thread.
"""

import gc
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves

from benchmark.tables import markdown, record
from overconv.norms import batch_norms, fold_norms
from overconv.operators.base import OverConv2d
from overconv.operators.dyconv import DyConv2d
from overconv.operators.maconv import MAConv2d
from overconv.operators.mdconv import MDConv2d
from overconv.selection import convolutions, refused_convs
from overconv.surgery import replace_convs, to_inference

WHERE = "all_but_stem"
REPLACED_BY = partial(MDConv2d, depth=2)
# Deployed with each of them: a chain with a gate, one that folds, parallel kernels.
DEPLOYED = {"MDConv2d": REPLACED_BY, "MAConv2d": MAConv2d, "DyConv2d": DyConv2d}
BATCH, CLASSES = 4, 10


@dataclass(frozen=True)
class Network:
    """A network of somebody's: its library, family, name, side of the images, and arguments."""

    library: str
    family: str
    name: str
    side: int = 64
    options: dict[str, Any] = field(default_factory=dict)

    def build(self) -> nn.Module:
        """The network with random weights, from a seed of its own."""
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if self.library == "timm":
                return timm.create_model(self.name, num_classes=CLASSES, **self.options)
            options = {"weights": None, "num_classes": CLASSES, **self.options}
            return torchvision.models.get_model(self.name, **options)


def _torchvision(*rows: tuple[Any, ...]) -> tuple[Network, ...]:
    return tuple(Network("torchvision", *row) for row in rows)


def _timm(*rows: tuple[Any, ...]) -> tuple[Network, ...]:
    return tuple(Network("timm", *row) for row in rows)


_NO_BACKBONE = {"weights_backbone": None}
NETWORKS = (
    *_torchvision(
        ("AlexNet", "alexnet", 96),
        ("ConvNeXt", "convnext_tiny"),
        ("DeepLabV3", "deeplabv3_mobilenet_v3_large", 64, _NO_BACKBONE),
        ("DenseNet", "densenet121"),
        ("EfficientNet", "efficientnet_b0"),
        ("EfficientNetV2", "efficientnet_v2_s"),
        ("GoogLeNet", "googlenet", 64, {"init_weights": False}),
        ("Inception", "inception_v3", 107, {"init_weights": False}),
        ("LR-ASPP", "lraspp_mobilenet_v3_large", 64, _NO_BACKBONE),
        ("MaxViT", "maxvit_t", 224),
        ("MNASNet", "mnasnet0_5"),
        ("MobileNetV2", "mobilenet_v2"),
        ("MobileNetV3", "mobilenet_v3_small"),
        ("RegNet", "regnet_y_400mf"),
        ("ResNet", "resnet18"),
        ("ResNeXt", "resnext50_32x4d"),
        ("ShuffleNetV2", "shufflenet_v2_x0_5"),
        ("SqueezeNet", "squeezenet1_1"),
        ("VGG", "vgg11_bn"),
    ),
    *_timm(
        ("BAT", "bat_resnext26ts"),
        ("CoaT", "coat_tiny"),
        ("CoAtNet", "test_coatnet", 160),
        ("ConvMixer", "convmixer_768_32"),
        ("ConvNeXt", "test_convnext"),
        ("CPUBone", "cpubone_nano"),
        ("CSPNet", "cs3darknet_focus_s"),
        ("CSPNeXt", "cspnext_tiny"),
        ("DLA", "dla46x_c"),
        ("DPN", "dpn48b"),
        ("ECA-NFNet", "eca_nfnet_l0"),
        ("EdgeNeXt", "edgenext_xx_small"),
        ("EfficientFormer", "efficientformer_l1", 224),
        ("EfficientFormerV2", "efficientformerv2_s0", 224),
        ("EfficientNet, TensorFlow's", "tf_efficientnet_b0"),
        ("EfficientViM", "efficientvim_m1", 224),
        ("EfficientViT, MIT's", "efficientvit_b0"),
        ("EfficientViT, MSRA's", "efficientvit_m0", 224),
        ("FasterNet", "fasternet_t0"),
        ("FastViT", "fastvit_t8"),
        ("GCViT", "gcvit_xxtiny", 224),
        ("GhostNet", "ghostnet_050"),
        ("HaloNet", "halonet_h1", 64),
        ("HardCoRe-NAS", "hardcorenas_b"),
        ("HGNet", "hgnetv2_b0"),
        ("HRNet", "hrnet_w18_small"),
        ("iFormer", "iformer_t", 224),
        ("InceptionNeXt", "inception_next_atto"),
        ("LCNet", "lcnetv2_small"),
        ("LeViT", "levit_128s", 224),
        ("LowFormer", "lowformer_b0"),
        ("MambaOut", "test_mambaout", 160),
        ("MixNet", "mixnet_s"),
        ("MobileNetV3, TensorFlow's", "tf_mobilenetv3_small_075"),
        ("MobileNetV4", "mobilenetv4_conv_small_035"),
        ("MobileOne", "mobileone_s0"),
        ("MobileViT", "mobilevit_xxs"),
        ("NextViT", "nextvit_small"),
        ("PoolFormer", "poolformerv2_s12"),
        ("PVTv2", "pvt_v2_b0"),
        ("RegNet", "regnetx_002"),
        ("RepGhostNet", "repghostnet_050"),
        ("RepVGG", "repvgg_a0"),
        ("RepViT", "repvit_m1"),
        ("Res2Net", "res2next50"),
        ("ResNeSt", "resnest14d"),
        ("ResNet", "test_resnet"),
        ("ResNetV2", "resnetv2_18"),
        ("ResNetV2, BiT", "resnetv2_50x1_bit"),
        ("ReXNet", "rexnet_100"),
        ("SelecSLS", "selecsls42"),
        ("SENet", "legacy_seresnet18"),
        ("SHViT", "shvit_s1"),
        ("SKNet", "skresnet18"),
        ("StarNet", "starnet_s050"),
        ("SwiftFormer", "swiftformer_xs", 224),
        ("TinyViT", "tiny_vit_5m_224", 224),
        ("TResNet", "tresnet_m"),
        ("Visformer", "visformer_tiny", 224),
        ("VoVNet", "ese_vovnet19b_slim_dw"),
        ("Xception", "xception41p"),
        ("XCiT", "xcit_nano_12_p8_224"),
    ),
)


def measure(
    names: Iterable[str] | None = None, *, say: Callable[[str], object] | None = None
) -> dict[str, Any]:
    """The record of the table, for the networks of these names or all; says each row as it comes.

    Raises:
        ValueError: There is no network of a name.
    """
    chosen = NETWORKS if names is None else tuple(map(_network, names))
    rows = []
    for number, network in enumerate(chosen, 1):
        start = time.perf_counter()
        rows.append(measure_network(network))
        taken = time.perf_counter() - start
        line = f"[{number}/{len(chosen)}] {taken:.1f} s  {' | '.join(_cells(rows[-1]))}"
        (say or partial(print, file=sys.stderr, flush=True))(line)
        gc.collect()
    layers = {name: _named(layer) for name, layer in DEPLOYED.items()}
    more = {"where": WHERE, "batch": BATCH, "layers": layers}
    versions = {"timm": timm.__version__, "torchvision": torchvision.__version__}
    return record("python -m benchmark surgery", rows, **more, **versions)


def _network(name: str) -> Network:
    for network in NETWORKS:
        if network.name == name:
            return network
    raise ValueError(f"no network {name!r}; there are: {', '.join(n.name for n in NETWORKS)}")


def _named(layer: Any) -> str:
    if not isinstance(layer, partial):
        return layer.__name__
    return f"{layer.func.__name__}({', '.join(f'{k}={v!r}' for k, v in layer.keywords.items())})"


@torch.no_grad()
def measure_network(network: Network) -> dict[str, Any]:
    """A row: counts, reasons and errors, the latter relative to how far images lie apart."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = network.build().double()
    torch.manual_seed(1)
    images = torch.randn(BATCH, 3, network.side, network.side, dtype=torch.float64)
    leave_the_start(model)
    calibrate(model, images)
    refused = refused_convs(model, WHERE)
    row = {
        "network": network.name,
        "library": network.library,
        "family": network.family,
        "side": network.side,
        "convolutions": len(convolutions(model)),
        "refused": dict(Counter(reason.partition(",")[0] for reason in refused.values())),
        "replaced": 0,
        "norms": len(batch_norms(model)),
    }
    row["scale"] = scale_of(model(images))
    if len(refused) < len(convolutions(model)) - 1:
        row |= _replacing(model, images)
        row["deployed"] = {name: _deploying(model, images, DEPLOYED[name]) for name in DEPLOYED}
        row |= {key: row["deployed"]["MDConv2d"].pop(key) for key in ("left",)}
    else:  # nothing can be replaced; the network is deployed as it is
        row["deployed"] = {"none": _deploying(model, images, None)}
        row["left"] = row["deployed"]["none"].pop("left")
    for deployed in row["deployed"].values():
        deployed.pop("left", None)
    torch.set_num_threads(threads)
    return row


def _replacing(model: nn.Module, images: Tensor) -> dict[str, Any]:
    """How far the outputs move when convolutions are replaced by layers that preserve them."""
    expected = model(images)
    torch.manual_seed(2)
    replaced = replace_convs(model, REPLACED_BY, WHERE, preserve=True)
    found = {"float64": error_of(replaced(images), expected)}
    count = sum(isinstance(module, OverConv2d) for module in replaced.modules())
    del replaced
    single = deepcopy(model).float()
    plain = single(images.float())
    replaced = replace_convs(single, REPLACED_BY, WHERE, preserve=True)
    found["float32"] = error_of(replaced(images.float()), plain)
    found["rounding"] = error_of(plain, expected)
    return {"replaced": count, "replacing": found}


def _deploying(model: nn.Module, images: Tensor, layer: Any) -> dict[str, Any]:
    """How far the outputs move when a network with layers off their start is deployed."""
    torch.manual_seed(3)
    if layer is not None:
        model = replace_convs(model, layer, WHERE, preserve=True)
        for module in model.modules():
            if isinstance(module, OverConv2d):
                disturb(module)
        calibrate(model, images)
    expected = model(images)
    deployed = to_inference(model)
    num_left = len(batch_norms(deployed))
    left = fold_norms(deployed)[1]
    assert len(left) == num_left, "deploying again folds more"
    return {
        "float64": error_of(deployed(images), expected),
        "scale": scale_of(expected),
        "folded": len(batch_norms(model)) - num_left,
        "left": dict(Counter(map(_without_names, left.values()))),
    }


def _without_names(reason: str) -> str:
    parts = reason.split("'")
    return "..".join(parts[::2])


# Networks in which nothing is neutral.


def leave_the_start(model: nn.Module) -> None:
    """Draw anew all parameters that are constant, such as scales of a residual or of a norm."""
    for name, parameter in model.named_parameters():
        if parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all()):
            if parameter.squeeze().dim() > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
            elif "bias" in name:
                parameter.normal_(std=0.2)
            else:
                parameter.uniform_(0.5, 1.5)


def disturb(layer: OverConv2d) -> None:
    """Move all parameters and running means of a layer by a share of their size."""
    for values in (*layer.parameters(), *layer.buffers()):
        if values.dim() > 0:
            size = values.square().mean().sqrt()
            fan_in = values[0].numel() if values.dim() > 1 else 16
            size = torch.where(size > 0, 0.3 * size, fan_in**-0.5)  # such as of a neutral gate
            values.add_(size * torch.randn_like(values))


def calibrate(model: nn.Module, images: Tensor) -> None:
    """Give all batch norms the statistics of what they see of ``images``, moved a little.

    So outputs neither vanish nor explode, however deep the network. Leaves it in ``eval()``.
    """

    def look(norm: Any, inputs: tuple[Tensor]) -> None:
        values = inputs[0].transpose(0, 1).flatten(1)
        variance, mean = torch.var_mean(values, 1, correction=0)
        # few values may be alike by chance
        variance = variance + 0.01 * variance.mean() + 1e-12
        norm.running_mean.copy_(mean + 0.2 * variance.sqrt() * torch.randn_like(mean))
        norm.running_var.copy_(variance * torch.empty_like(mean).uniform_(0.7, 1.4))

    norms = [module for module in model.eval().modules() if isinstance(module, _BatchNorm)]
    hooks = [norm.register_forward_pre_hook(look) for norm in norms]
    model(images)
    for hook in hooks:
        hook.remove()


def _flat(output: Any) -> Tensor:
    """All of an output, a row for each image."""
    return torch.cat([value.flatten(1) for value in tree_leaves(output)], 1).double()


def scale_of(output: Any) -> float:
    """How far the outputs of different images lie apart: root mean square around their mean."""
    return _flat(output).std(0, correction=0).square().mean().sqrt().item()


def error_of(found: Any, expected: Any) -> float:
    """Largest difference, relative to the scale of what is expected."""
    return (_flat(found) - _flat(expected)).abs().max().item() / scale_of(expected)


# Text.

COLUMNS = (
    "network",
    "family",
    "convolutions",
    "replaced",
    "refused",
    "norms folded",
    "norms left",
    "moved, float32",
    "rounding, float32",
    "moved, float64",
    *(f"deployed, {name}" for name in DEPLOYED),
)


def text(found: dict[str, Any]) -> str:
    """The table in words, from the record alone."""
    rows = found["rows"]
    tables = [
        f"{library}\n\n"
        + markdown(COLUMNS, [_cells(row) for row in rows if row["library"] == library])
        for library in dict.fromkeys(row["library"] for row in rows)
    ]
    return "\n".join([*tables])


def _cells(row: dict[str, Any]) -> Sequence[str]:
    moved = row.get("replacing", {})
    deployed = row["deployed"]
    (folded,) = {value["folded"] for value in deployed.values()}
    return (
        f"`{row['network']}`",
        row["family"],
        str(row["convolutions"]),
        str(row["replaced"]),
        _listed(row["refused"]),
        str(folded),
        _listed(row["left"]),
        *(_short(moved.get(key)) for key in ("float32", "rounding", "float64")),
        *(_short(deployed.get(name, {}).get("float64")) for name in DEPLOYED),
    )


def _listed(counts: dict[str, int]) -> str:
    return "; ".join(f"{count} {reason}" for reason, count in counts.items()) or "0"


def _short(error: float | None) -> str:
    return "-" if error is None else f"{error:.0e}"
