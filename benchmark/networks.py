"""Networks of torchvision and timm on which surgery is tried, a small member of each family.

Weights are random: nothing is downloaded.
"""

import warnings
from dataclasses import dataclass, field
from typing import Any

import timm
import torch
import torchvision
from torch import nn

CLASSES = 10


@dataclass(frozen=True)
class Network:
    """A network of somebody's.

    Attributes:
        library, family, name: Of ``"torchvision"`` or ``"timm"``.
        side: Height and width of the images; 64, or what the network asks for.
        options: Arguments of the network.
        reads: Part of the names of convolutions whose attributes the network itself reads, so that
            they have to stay.
    """

    library: str
    family: str
    name: str
    side: int = 64
    options: dict[str, Any] = field(default_factory=dict)
    reads: str = ""

    def build(self) -> nn.Module:
        """The network with random weights, from a seed of its own."""
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if self.library == "timm":
                return timm.create_model(
                    self.name, pretrained=False, num_classes=CLASSES, **self.options
                )
            options = {"weights": None, "num_classes": CLASSES, **self.options}
            return torchvision.models.get_model(self.name, **options)


def _torchvision(*rows: tuple[Any, ...]) -> tuple[Network, ...]:
    return tuple(Network("torchvision", *row) for row in rows)


def _timm(*rows: tuple[Any, ...]) -> tuple[Network, ...]:
    return tuple(Network("timm", *row) for row in rows)


_NO_BACKBONE = {"weights_backbone": None}
_SIXTY_FOUR = {"img_size": 64}
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
        ("CoaT", "coat_tiny", 64, _SIXTY_FOUR),
        ("CoAtNet", "test_coatnet", 64, _SIXTY_FOUR),
        ("ConvMixer", "convmixer_768_32"),
        ("ConvNeXt", "test_convnext"),
        ("CPUBone", "cpubone_nano"),
        ("CSPNet", "cs3darknet_focus_s"),
        ("CSPNeXt", "cspnext_tiny"),
        ("DLA", "dla46x_c"),
        ("DPN", "dpn48b"),
        ("ECA-NFNet", "eca_nfnet_l0"),
        ("EdgeNeXt", "edgenext_xx_small", 64, {}, "token_projection"),
        ("EfficientFormer", "efficientformer_l1", 224),
        ("EfficientFormerV2", "efficientformerv2_s0", 64, _SIXTY_FOUR),
        ("EfficientNet, TensorFlow's", "tf_efficientnet_b0"),
        ("EfficientViM", "efficientvim_m1", 224),
        ("EfficientViT, MIT's", "efficientvit_b0"),
        ("EfficientViT, MSRA's", "efficientvit_m0", 224),
        ("FasterNet", "fasternet_t0"),
        ("FastViT", "fastvit_t8"),
        ("GCViT", "gcvit_xxtiny", 64, _SIXTY_FOUR),
        ("GhostNet", "ghostnet_050"),
        ("GENet", "gernet_s"),
        ("HardCoRe-NAS", "hardcorenas_b"),
        ("HGNet", "hgnetv2_b0"),
        ("HRNet", "hrnet_w18_small"),
        ("iFormer", "iformer_t"),
        ("InceptionNeXt", "inception_next_atto"),
        ("LCNet", "lcnetv2_small"),
        ("LeViT", "levit_128s", 224),
        ("LowFormer", "lowformer_b0"),
        ("MambaOut", "test_mambaout"),
        ("MixNet", "mixnet_s"),
        ("MobileNetV3, TensorFlow's", "tf_mobilenetv3_small_075"),
        ("MobileNetV4", "mobilenetv4_conv_small_035"),
        ("MobileOne", "mobileone_s0"),
        ("MobileViT", "mobilevit_xxs"),
        ("NFNet", "test_nfnet"),
        ("PoolFormer", "poolformerv2_s12"),
        ("PVTv2", "pvt_v2_b0"),
        ("RegNet", "regnetx_002"),
        ("RegNetZ", "regnetz_005"),
        ("RepGhostNet", "repghostnet_050"),
        ("RepVGG", "repvgg_a0"),
        ("RepViT", "repvit_m1"),
        ("Res2Net", "res2next50"),
        ("ResNeSt", "resnest14d"),
        ("ResNet", "test_resnet"),
        ("ResNetV2", "resnetv2_18"),
        ("ResNetV2, BiT", "resnetv2_50x1_bit"),
        ("ReXNet", "rexnet_100"),
        ("SENet", "legacy_seresnet18"),
        ("SHViT", "shvit_s1"),
        ("SKNet", "skresnet18"),
        ("StarNet", "starnet_s050"),
        ("SwiftFormer", "swiftformer_xs"),
        ("TinyViT", "tiny_vit_5m_224"),
        ("TResNet", "tresnet_m"),
        ("Visformer", "visformer_tiny", 64, _SIXTY_FOUR),
        ("VoVNet", "ese_vovnet19b_slim_dw"),
        ("XCiT", "xcit_nano_12_p8_224", 64, {}, "token_projection"),
    ),
)


def find(name: str) -> Network:
    """The network of that name.

    Raises:
        ValueError: There is none.
    """
    for network in NETWORKS:
        if network.name == name:
            return network
    raise ValueError(f"no network {name!r}; there are: {', '.join(n.name for n in NETWORKS)}")
