"""Presets: every name leads to a recipe and a network that a record can name."""

import pytest
import torch

from ablations.identity import describe_call
from ablations.presets import MODELS, PRESETS, choose_preset
from overconv.training.data import outline

PAPER = [
    ("cifar10", "resnet18_cifar", 200, 11173962),
    ("cifar100", "resnet18_cifar", 200, 11220132),
    ("imagenet", "resnet18", 200, 11689512),
    ("fashion_mnist", "resnet20", 200, 269434),
]


@pytest.mark.parametrize(("dataset", "model", "epochs", "parameters"), PAPER)
def test_paper_has_a_network_and_a_recipe_for_each_data_set(dataset, model, epochs, parameters):
    found = choose_preset("paper", dataset)
    assert (found.dataset, found.model, found.recipe.epochs) == (dataset, model, epochs)
    data = outline(dataset)
    shape = data.input_shape(found.recipe)  # refuses a recipe that does not suit the images
    with torch.device("meta"):
        network = MODELS[model](in_channels=shape[0], num_classes=data.num_classes)
        logits = network.eval()(torch.empty(1, *shape))
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert logits.shape == (1, data.num_classes)
    assert found.recipe.batch_size <= data.num_train - found.recipe.num_validation
    assert found.num_blocks == PRESETS["paper"].num_blocks


def test_the_literatures_recipes_have_what_it_uses():
    for dataset in ("cifar10", "cifar100", "imagenet"):
        recipe = choose_preset("paper", dataset).recipe
        assert 100 <= recipe.epochs <= 300 and recipe.schedule == "cosine"
        assert recipe.warmup_epochs and recipe.label_smoothing and recipe.mixup and recipe.ema
        assert recipe.amp != "none" and recipe.channels_last and recipe.num_validation
    assert choose_preset("paper", "imagenet").recipe.resized_crop == 0.08
    assert choose_preset("paper", "imagenet").recipe.image_size == 224


def test_a_network_has_its_own_recipe_where_there_is_one():
    mobile = choose_preset("paper", "imagenet", "mobilenetv2_imagenet")
    assert (mobile.recipe.epochs, mobile.recipe.lr, mobile.recipe.weight_decay) == (300, 0.05, 4e-5)
    other = choose_preset("paper", "imagenet", "resnet50")
    assert other.model == "resnet50"
    assert other.recipe == choose_preset("paper", "imagenet").recipe
    assert choose_preset("paper", None, "mobilenetv2_cifar").dataset == "cifar10"


def test_other_presets_give_their_recipe_to_any_data():
    found = choose_preset("smoke", "cifar10", "resnet20")
    assert (found.dataset, found.model) == ("cifar10", "resnet20")
    assert found.recipe == PRESETS["smoke"].recipe
    assert choose_preset("pilot").model == PRESETS["pilot"].model


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("papers",), "no preset 'papers'; allowed: smoke, pilot, reference, paper"),
        (("smoke", None, "vgg"), "no model 'vgg'; allowed: resnet8, .*resnet50, mobilenetv2_imag"),
        (("paper", "digits"), "no recipe for data set 'digits'; it has: cifar10, cifar100, imagen"),
    ],
)
def test_what_there_is_not_is_named(names, message):
    with pytest.raises(ValueError, match=message):
        choose_preset(*names)


@pytest.mark.parametrize("model", MODELS)
def test_a_record_can_name_every_network(model):
    described = describe_call(MODELS[model])
    assert described["class"].startswith("overconv.models.")
    assert described["options"]["conv"] == {"class": "torch.nn.Conv2d", "options": {}}


@pytest.mark.parametrize("model", ["resnet18", "resnet50", "mobilenetv2_imagenet"])
def test_the_networks_of_imagenet_have_its_strides(model):
    seen = []
    with torch.device("meta"):
        network = MODELS[model](in_channels=3, num_classes=10).eval()
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.register_forward_hook(lambda m, x, y: seen.append(y.shape[-1]))
        network(torch.empty(1, 3, 224, 224))
    assert (seen[0], seen[-1]) == (112, 7)
