"""Equal arms give equal text; what changes what is computed changes it."""

import importlib.util
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torchvision
from timm.layers import CondConv2d as TimmCondConv2d
from torch import nn

from ablations import identity
from ablations.identity import describe, describe_call, describe_layer, public_name
from overconv import MDConv2d, TemperatureSchedule
from overconv.models.resnet import ResNet

LAYER = '''
"""A layer of the user's."""
from torch import nn

class Shift(nn.Conv2d):
    """Doc."""

    def __init__(self, *args, amount: float = 1.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.amount = amount

    def forward(self, x):
        return super().forward(x) + self.amount  # a remark
'''


def load(folder: Path, text: str, name: str = "users_layer"):
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def forget_modules():
    yield
    sys.modules.pop("users_layer", None)


def test_a_default_is_part_of_the_identity(monkeypatch):
    before = describe_layer(partial(MDConv2d, depth=3))
    assert before["options"]["depth"] == 3
    assert before["options"]["middle_norm"] is False
    changed = {**MDConv2d.__init__.__kwdefaults__, "reduction": 8}
    monkeypatch.setattr(MDConv2d.__init__, "__kwdefaults__", changed)
    assert describe_layer(partial(MDConv2d, depth=3)) != before


def test_a_default_given_is_the_default():
    assert describe_layer(partial(MDConv2d, depth=2)) == describe_layer(MDConv2d)


def test_nested_partials_are_one():
    nested = partial(partial(ResNet, 14, width=4), width=8)
    assert describe_call(nested) == describe_call(partial(ResNet, depth=14, width=8))


def test_the_convolutions_own_arguments_are_the_networks():
    assert "stride" not in describe_layer(MDConv2d)["options"]


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (nn.Conv2d, "torch.nn.Conv2d"),
        (MDConv2d, "overconv.MDConv2d"),
        (ResNet, "overconv.models.ResNet"),
        (torchvision.models.resnet18, "torchvision.models.resnet18"),
    ],
)
def test_a_name_is_the_shortest_that_imports(target, name):
    assert public_name(target) == name


def test_a_moved_or_reworded_file_is_the_same_layer(tmp_path):
    first = describe_layer(load(tmp_path / "a", LAYER).Shift)
    moved = LAYER.replace("Doc.", "Other words.").replace("a remark", "another")
    assert describe_layer(load(tmp_path / "b", moved).Shift) == first


@pytest.mark.parametrize(("old", "new"), [("+ self.amount", "- self.amount"), ("= 1.0,", "= 2.0,")])
def test_a_changed_line_of_the_users_is_another_layer(old, new, tmp_path):
    first = describe_layer(load(tmp_path / "a", LAYER).Shift)
    assert old in LAYER
    assert describe_layer(load(tmp_path / "b", LAYER.replace(old, new)).Shift) != first


def test_what_a_users_file_imports_is_part_of_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    helper = tmp_path / "users_helper.py"
    helper.write_text("FACTOR = 1.0\n")
    text = LAYER.replace("from torch import nn", "from torch import nn\nimport users_helper")
    first = describe_layer(load(tmp_path, text).Shift)
    helper.write_text('"""Only words."""\nFACTOR = 1.0\n')
    assert describe_layer(load(tmp_path, text).Shift) == first
    helper.write_text("FACTOR = 0.1\n")
    assert describe_layer(load(tmp_path, text).Shift) != first
    sys.modules.pop("users_helper", None)


def test_an_installed_layer_carries_its_version():
    described = describe_layer(partial(TimmCondConv2d, num_experts=4))
    assert described["options"] == {"num_experts": 4}
    assert described["version"].startswith("timm ")


def test_it_does_not_matter_where_a_package_is_installed(monkeypatch):
    """For the user alone, by Debian, in the environment that another one was made from."""
    held = (nn.Conv2d, TimmCondConv2d, partial(ResNet, conv=nn.Conv2d))
    before = describe(held)
    there = {name: "/nowhere" for name in ("purelib", "platlib", "stdlib")}
    monkeypatch.setattr(identity.sysconfig, "get_paths", lambda: there)
    assert describe(held) == before


def test_a_frozen_dataclass_is_its_fields():
    described = describe(TemperatureSchedule(start=10.0))
    assert described["class"] == "overconv.TemperatureSchedule"
    assert described["fields"]["start"] == 10.0


@dataclass
class Thawed:
    value: int = 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda conv: conv, "a lambda cannot be found"),
        ({"a": lambda: 1}, "a lambda cannot be found"),
        (float("nan"), "nan has no canonical form"),
        (Thawed(), "cannot be recorded"),
        (object(), "cannot be recorded"),
        ({1: 2}, "1 is no key"),
        (partial(MDConv2d, depht=2), "depht"),
        (nn.Conv2d(1, 1, 1), "cannot be recorded"),
    ],
)
def test_what_no_record_could_name_is_refused(value, message):
    with pytest.raises(ValueError, match=message):
        describe(value)


def test_a_closure_is_refused():
    def local(name, conv):
        return True

    with pytest.raises(ValueError, match="defined in a function"):
        describe(local)
