"""How much work a run is: data, network and recipe by the name of a preset.

A preset's name is not part of a trial's identity; what it holds is.
"""

from dataclasses import dataclass, replace
from functools import partial

from ablations import paper_recipes
from ablations.study import Layer
from overconv.models.imagenet_resnet import ImageNetResNet
from overconv.models.mobilenet import MobileNetV2
from overconv.models.resnet import ResNet
from overconv.training.recipe import Recipe

MODELS: dict[str, Layer] = {
    "resnet8": partial(ResNet, depth=8, width=8),
    "resnet8_width4": partial(ResNet, depth=8, width=4),
    "resnet8_stride2": partial(ResNet, depth=8, width=8, stem_stride=2),
    "resnet20": partial(ResNet, depth=20, width=16),
    "resnet56": partial(ResNet, depth=56, width=16),
    "mobilenetv2": partial(MobileNetV2, width=0.5),
    "resnet18_cifar": partial(ImageNetResNet, depth=18, small_images=True),
    "mobilenetv2_cifar": partial(MobileNetV2, width=1.0),
    "resnet18": partial(ImageNetResNet, depth=18),
    "resnet50": partial(ImageNetResNet, depth=50),
    "mobilenetv2_imagenet": partial(
        MobileNetV2, width=1.0, stem_stride=2, strides=(1, 2, 2, 2, 1, 2, 1)
    ),
}


@dataclass(frozen=True)
class Variant:
    """A network on a data set, and the recipe that is usual for the two."""

    dataset: str
    model: str
    recipe: Recipe


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Data, network, recipe and the number of blocks that a run takes unless told otherwise.

    ``others``: further data sets and networks with a recipe of their own. A preset that has some is
    for their data sets alone; one that has none gives its recipe to any.
    """

    purpose: str
    dataset: str
    model: str
    recipe: Recipe
    num_blocks: int
    others: tuple[Variant, ...] = ()


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
        purpose="the published comparison at laptop scale: under a minute a trial on one core",
        dataset="fashion_mnist",
        model="resnet8_stride2",
        # Chosen on plain convolutions and validation examples alone: docs/reference-setting.md.
        recipe=Recipe(
            epochs=8,
            batch_size=64,
            lr=0.1,
            weight_decay=1e-4,
            crop_padding=2,
            flip=True,
            num_validation=2000,
            num_train=5000,
        ),
        num_blocks=10,
        others=(
            Variant(
                "digits",
                "resnet8_width4",
                Recipe(
                    epochs=30,
                    batch_size=32,
                    lr=0.1,
                    weight_decay=1e-4,
                    crop_padding=1,
                    num_validation=300,
                    num_train=400,
                ),
            ),
        ),
    ),
    "paper": Preset(
        purpose="a recipe of the kind the literature uses, by data set and network; needs GPUs",
        dataset="cifar10",
        model="resnet18_cifar",
        recipe=paper_recipes.CIFAR,
        num_blocks=10,
        others=(
            Variant("cifar100", "resnet18_cifar", paper_recipes.CIFAR),
            Variant("imagenet", "resnet18", paper_recipes.IMAGENET_RESNET),
            Variant("imagenet", "mobilenetv2_imagenet", paper_recipes.IMAGENET_MOBILENET),
            Variant("fashion_mnist", "resnet20", paper_recipes.FASHION_MNIST),
        ),
    ),
}


def choose_preset(name: str, dataset: str | None = None, model: str | None = None) -> Preset:
    """The preset ``name`` with ``dataset`` and ``model`` where they are given, and their recipe.

    Where the preset has several recipes, it is the one of data set and network, or, for a network
    that has none, the first of the data set, whose network is also the one unless told otherwise.

    Raises:
        ValueError: A name is unknown, or the preset has no recipe for ``dataset``.
    """
    if name not in PRESETS:
        raise ValueError(f"no preset {name!r}; allowed: {', '.join(PRESETS)}")
    if model is not None and model not in MODELS:
        raise ValueError(f"no model {model!r}; allowed: {', '.join(MODELS)}")
    preset = PRESETS[name]
    dataset = dataset or preset.dataset
    variants = (Variant(preset.dataset, preset.model, preset.recipe), *preset.others)
    fitting = [variant for variant in variants if variant.dataset == dataset]
    if preset.others and not fitting:
        known = ", ".join(dict.fromkeys(variant.dataset for variant in variants))
        raise ValueError(f"preset {name!r} has no recipe for data set {dataset!r}; it has: {known}")
    candidates = [v for v in fitting if v.model == model] or fitting or variants
    chosen = candidates[0]
    return replace(
        preset, dataset=dataset, model=model or chosen.model, recipe=chosen.recipe, others=()
    )
