"""The recipe: one value, checked, and what it says of rates and decay."""

import math

import pytest
from torch import nn

from overconv import DyConv2d
from overconv.training.recipe import Recipe


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs=0; allowed: whole numbers from 1"),
        ({"epochs": 2.0}, "epochs=2.0"),
        ({"batch_size": True}, "batch_size=True"),
        ({"optimizer": "sdg"}, "optimizer='sdg'; allowed: 'sgd', 'adamw'"),
        ({"schedule": "step"}, "schedule='step'; allowed: 'cosine', 'constant'"),
        ({"decay": "none"}, "decay='none'"),
        ({"lr": -0.1}, "lr=-0.1"),
        ({"lr": float("nan")}, "lr=nan"),
        ({"lr": "0.1"}, "lr='0.1'; allowed: numbers"),
        ({"momentum": 1.0}, "momentum=1.0"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0"),
        ({"warmup_epochs": 4}, "warmup_epochs=4"),
        ({"crop_padding": -1}, "crop_padding=-1"),
        ({"threads": 0}, "threads=0"),
        ({"schedules": (3,)}, "schedules holds 3"),
        ({"schedules": 3}, "schedules=3; allowed: a tuple"),
        ({"nesterov": "no"}, "nesterov='no'; allowed: True, False"),
        ({"flip": 1}, "flip=1; allowed: True, False"),
        ({"ema": 1.0}, "ema=1.0; allowed: from 0.0 to 1.0"),
        ({"ema": -0.1}, "ema=-0.1"),
        ({"amp": "fp16"}, "amp='fp16'; allowed: 'none', 'bfloat16', 'float16'"),
        ({"amp": None}, "amp=None; allowed"),
        ({"mixup": -0.2}, "mixup=-0.2"),
        ({"mixup": math.inf}, "mixup=inf"),
        ({"channels_last": 1}, "channels_last=1; allowed: True, False"),
        ({"resized_crop": 1.5}, "resized_crop=1.5; allowed: from 0.0 to 1.0"),
        (
            {"resized_crop": 0.08, "crop_padding": 4},
            "crop_padding=4 and resized_crop=0.08 are two ways to crop; allowed: one of them",
        ),
        ({"image_size": 0}, "image_size=0; allowed: whole numbers from 1"),
        ({"image_size": 224.0}, "image_size=224.0"),
        ({"ranks": 0}, "ranks=0; allowed: whole numbers from 1"),
        ({"ranks": True}, "ranks=True"),
        ({"ranks": 3, "batch_size": 32}, "batch_size=32 does not divide by ranks=3"),
    ],
)
def test_a_value_out_of_range_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**{"epochs": 3, **options})


def test_the_ends_of_what_is_allowed_are():
    Recipe(epochs=3, resized_crop=1, image_size=1, ranks=32, batch_size=32, warmup_epochs=3, ema=0)


def test_whole_and_broken_numbers_are_one_recipe():
    assert repr(Recipe(epochs=3, lr=1)) == repr(Recipe(epochs=3, lr=1.0))


def test_the_cosine_ends_at_zero_after_a_linear_rise():
    recipe = Recipe(epochs=10, lr=0.4, warmup_epochs=2)
    rates = [recipe.rate(step, steps_per_epoch=50) for step in range(500)]
    rise = [b - a for a, b in zip(rates[:99], rates[1:100], strict=True)]
    assert max(rise) == pytest.approx(min(rise))
    assert rates[100] == 0.4 == max(rates)
    assert rates[300] == pytest.approx(0.2)
    assert rates[499] < 0.4 * (math.pi / 400) ** 2
    assert all(a > b for a, b in zip(rates[100:], rates[101:], strict=False))


def test_a_constant_rate_stays():
    recipe = Recipe(epochs=2, lr=0.3, schedule="constant")
    assert {recipe.rate(step, 10) for step in range(20)} == {0.3}


def test_norms_and_biases_do_not_decay():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), DyConv2d(4, 4, 3, num_kernels=2))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, others = Recipe(epochs=1).build_optimizer(model).param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (5e-4, 0.0)
    assert {names[id(p)] for p in decayed["params"]} == {
        "0.weight", "2.weight", "2.gate.squeeze.weight", "2.gate.excite.weight",
    }  # fmt: skip
    assert len(decayed["params"]) + len(others["params"]) == len(names)
    [everything] = Recipe(epochs=1, decay="all").build_optimizer(model).param_groups
    assert len(everything["params"]) == len(names)
