"""Which convolutions are meant, and which are left because they may compute something else."""

import re
from functools import partial

import pytest
import timm
import torch
import torchvision
from timm.layers import Conv2dSame, StdConv2d
from torch import nn
from torch.nn.utils import parametrizations, prune

from overconv.operators.base import OverConv2d
from overconv.operators.mdconv import MDConv2d
from overconv.selection import refused_convs, select_convs
from overconv.surgery import convert, replace_convs


class Net(nn.Module):
    """A stem, a spatial, a pointwise and a depthwise convolution."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.body = nn.ModuleDict({"wide": nn.Conv2d(4, 4, (1, 5), padding="same")})
        self.point = nn.Conv2d(4, 4, 1)
        self.depth = nn.Conv2d(4, 8, 3, groups=4, padding_mode="circular", padding=1, bias=False)
        self.again = self.point


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("all", ["stem", "body.wide", "point", "depth"]),
        ("all_but_stem", ["body.wide", "point", "depth"]),
        ("spatial", ["stem", "body.wide", "depth"]),
        ("pointwise", ["point"]),
        ("depthwise", ["depth"]),
        (lambda name, conv: "o" in name and conv.bias is not None, ["body.wide", "point"]),
    ],
)
def test_where_selects(where, names):
    model = Net()
    selected = select_convs(model, where)
    assert list(selected) == names
    for name, conv in selected.items():
        assert conv is model.get_submodule(name)


def test_where_counts_on_torchvisions_mobilenet():
    """By table 2 of the paper: 17 blocks, the first of them without an expansion."""
    with torch.device("meta"):
        model = torchvision.models.mobilenet_v2()
    counts = {"all": 52, "all_but_stem": 51, "spatial": 18, "pointwise": 34, "depthwise": 17}
    for where, number in counts.items():
        assert len(select_convs(model, where)) == number, where


def test_a_single_channel_is_not_depthwise():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=2))
    with pytest.raises(ValueError, match="'depthwise' selects none of the 2 plain convolutions"):
        select_convs(model, "depthwise")


def test_a_grouped_one_by_one_is_not_pointwise():
    model = nn.Sequential(nn.Conv2d(4, 4, 1, groups=2), nn.Conv2d(4, 4, 1))
    assert list(select_convs(model, "pointwise")) == ["1"]


def test_names_pass_over_subclasses_and_the_stem_may_be_one():
    """timm's network has a stem of its own class, which pads by the image's size."""
    with torch.device("meta"):
        model = timm.create_model("tf_mobilenetv3_small_075")
    stem = model.conv_stem
    assert type(stem) is not nn.Conv2d
    assert isinstance(stem, nn.Conv2d)
    plain = [n for n, m in model.named_modules() if type(m) is nn.Conv2d]
    assert list(select_convs(model, "all_but_stem")) == plain
    assert list(select_convs(model, "all")) == plain


def test_a_predicate_that_selects_a_subclass_is_told():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), parametrizations.weight_norm(nn.Conv2d(4, 4, 3)))
    with pytest.raises(ValueError, match="where selects '1', a ParametrizedConv2d"):
        replace_convs(model, MDConv2d, lambda name, conv: True)
    replaced = replace_convs(model, MDConv2d, "all")
    assert [type(module).__name__ for module in replaced] == ["MDConv2d", "ParametrizedConv2d"]


@pytest.mark.parametrize("where", ["stem", "", "3x3", None, 3, ["all"]])
def test_an_unknown_where_is_told_what_there_is(where):
    with pytest.raises(
        ValueError, match=f"'all_but_stem', .* predicate, got {re.escape(repr(where))}"
    ):
        replace_convs(Net(), MDConv2d, where)


@pytest.mark.parametrize(
    ("model", "where", "message"),
    [
        (nn.Linear(2, 2), "all", "selects none of the 0 plain convolutions of Linear"),
        (nn.Conv2d(3, 4, 3), "all_but_stem", "selects none of the 1 plain"),
        (Net(), lambda name, conv: False, "selects none of the 4 plain convolutions of Net"),
    ],
)
def test_no_match_is_an_error(model, where, message):
    with pytest.raises(ValueError, match=message):
        replace_convs(model, MDConv2d, where)


def test_surgery_does_not_look_into_layers():
    class Branched(OverConv2d):
        def __init__(self, *args, **kwargs):
            super().__init__(4, 4, 3)
            self.branch = nn.Conv2d(4, 4, 3)

    model = nn.Sequential(Branched(), nn.Conv2d(4, 4, 3))
    assert list(select_convs(model, "all")) == ["1"]
    assert list(select_convs(model, "all_but_stem")) == ["1"], "the layer is the stem"


# What is left.


def _patched():
    conv = nn.Conv2d(4, 4, 3)
    conv.forward = lambda x: x
    return conv


def _patched_inside():
    conv = nn.Conv2d(4, 4, 3)
    conv._conv_forward = lambda x, weight, bias: x
    return conv


def _with_more():
    conv = nn.Conv2d(4, 4, 3)
    conv.register_buffer("mask", torch.ones(4))
    return conv


OTHER = "which may compute something else than a torch.nn.Conv2d"
STRANGE = [
    (partial(Conv2dSame, 4, 4, 3, stride=2), f"a Conv2dSame, {OTHER}"),
    (partial(StdConv2d, 4, 4, 3), f"a StdConv2d, {OTHER}"),
    (partial(nn.LazyConv2d, 4, 3), f"a LazyConv2d, {OTHER}"),
    (lambda: parametrizations.weight_norm(nn.Conv2d(4, 4, 3)), f"a ParametrizedConv2d, {OTHER}"),
    (_patched, "which has something of its own in the place of a method"),
    (_patched_inside, "which has something of its own in the place of a method"),
    (_with_more, "which has more to it than a weight and a bias"),
]


@pytest.mark.parametrize(("build", "reason"), STRANGE)
def test_what_is_not_plain_is_left_and_named(build, reason, caplog):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), build(), nn.Conv2d(4, 4, 3))
    assert refused_convs(model) == refused_convs(model, "spatial") == {"1": reason}
    assert refused_convs(model, "depthwise") == {}
    assert refused_convs(model, lambda name, conv: name == "1") == {"1": reason}
    assert refused_convs(model, lambda name, conv: name == "2") == {}
    with caplog.at_level("INFO", logger="overconv"):
        replaced = replace_convs(model, MDConv2d)
    assert [type(module) for module in replaced][1:] == [type(model[1]), MDConv2d]
    assert caplog.messages == [
        "replaced 1 of 3 convolutions by MDConv2d: 2",
        f"left 1 that 'all_but_stem' means: 1 ({reason})",
    ]
    with pytest.raises(ValueError, match=f"where selects '1', {reason}"):
        replace_convs(model, MDConv2d, lambda name, conv: True)
    with pytest.raises(ValueError, match="conv must be"):
        convert(MDConv2d, model[1], preserve=True)


def test_pruned_convolutions_are_not_plain():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))
    prune.random_unstructured(model[1], "weight", 0.5)
    assert refused_convs(model) == {"1": "which has more to it than a weight and a bias"}


def test_a_stem_is_not_refused_but_not_meant():
    model = nn.Sequential(StdConv2d(3, 4, 3), StdConv2d(4, 4, 3))
    assert list(refused_convs(model)) == ["1"]
    assert list(refused_convs(model, "all")) == ["0", "1"]
    message = (
        f"selects none of the 0 plain convolutions of Sequential; left is '1', a StdConv2d, {OTHER}"
    )
    with pytest.raises(ValueError, match=message):
        replace_convs(model, MDConv2d)
    with pytest.raises(ValueError, match="where must be one of 'all', .* got 'stem'"):
        refused_convs(model, "stem")


def test_a_layer_is_not_refused():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), MDConv2d(4, 4, 3), nn.Conv2d(4, 4, 3))
    assert refused_convs(model, "all") == {}
    assert refused_convs(model, lambda name, conv: True) == {}


def test_refused_convolutions_of_timms_networks():
    with torch.device("meta"):
        model = timm.create_model("tf_efficientnet_b0")
    refused = refused_convs(model, "all")
    assert len(refused) == 5
    assert {reason.split(",")[0] for reason in refused.values()} == {"a Conv2dSame"}
    assert not set(refused) & set(select_convs(model, "all"))
