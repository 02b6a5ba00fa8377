"""How much work a run is: data, network and recipe by the name of a preset.

A preset's name is not part of a trial's identity; what it holds is.
"""

from dataclasses import dataclass
from functools import partial

from ablations.study import Layer
from overconv.models.mobilenet import MobileNetV2
from overconv.models.resnet import ResNet
from overconv.training.recipe import Recipe

MODELS: dict[str, Layer] = {
    "resnet8": partial(ResNet, depth=8, width=8),
    "resnet8_stride2": partial(ResNet, depth=8, width=8, stem_stride=2),
    "resnet20": partial(ResNet, depth=20, width=16),
    "resnet56": partial(ResNet, depth=56, width=16),
    "mobilenetv2": partial(MobileNetV2, width=0.5),
}


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Data, network, recipe and the number of blocks that a run takes unless told otherwise."""

    purpose: str
    dataset: str
    model: str
    recipe: Recipe
    num_blocks: int


PRESETS = {
    "smoke": Preset(
        purpose="does everything run? seconds a trial; no result",
        dataset="digits",
        model="resnet8",
        recipe=Recipe(
            epochs=6, batch_size=64, lr=0.1, warmup_epochs=1, crop_padding=1, num_validation=150
        ),
        num_blocks=3,
    ),
    "pilot": Preset(
        purpose="is the setting sane? under a minute a trial; no result",
        dataset="fashion_mnist",
        model="resnet8_stride2",
        recipe=Recipe(
            epochs=2, lr=0.1, weight_decay=1e-4, crop_padding=2, flip=True, num_validation=5000
        ),
        num_blocks=2,
    ),
    "reference": Preset(
        purpose="the published comparison at laptop scale: minutes a trial on one core",
        dataset="fashion_mnist",
        model="resnet8_stride2",
        recipe=Recipe(
            epochs=8, lr=0.1, weight_decay=1e-4, crop_padding=2, flip=True, num_validation=5000
        ),
        num_blocks=10,
    ),
    "paper": Preset(
        purpose="a recipe of the kind the literature uses: needs a cluster",
        dataset="fashion_mnist",
        model="resnet20",
        recipe=Recipe(
            epochs=200,
            lr=0.1,
            weight_decay=5e-4,
            warmup_epochs=5,
            crop_padding=4,
            flip=True,
            num_validation=5000,
        ),
        num_blocks=10,
    ),
}
