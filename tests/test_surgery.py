"""Surgery on networks of any origin, with layers of the library and of strangers."""

import logging
import re
from copy import deepcopy
from functools import partial

import pytest
import timm
import torch
import torchvision
from timm.layers import CondConv2d as TimmCondConv2d
from torch import nn
from torch.nn.utils import parametrizations

from overconv.operators.base import OverConv2d
from overconv.operators.condconv import CondConv2d
from overconv.operators.dyconv import DyConv2d
from overconv.operators.maconv import MAConv2d
from overconv.operators.mdconv import MDConv2d
from overconv.surgery import convert, rebuild_convs, replace_convs, select_convs, to_inference

LAYERS = [MDConv2d, MAConv2d, CondConv2d, DyConv2d]


class Tripled(nn.Module):
    """A layer of a stranger: nothing of the library's base, few of the arguments."""

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, bias=True):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=bias)

    def forward(self, x):
        return 3 * self.conv(x)

    def to_inference(self):
        folded = deepcopy(self.conv).eval()
        folded.weight.data.mul_(3)
        folded.bias.data.mul_(3)
        return folded


class Net(nn.Module):
    """A stem, a spatial, a pointwise and a depthwise convolution; the pointwise one is shared."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.body = nn.ModuleDict({"wide": nn.Conv2d(4, 4, (1, 5), padding="same")})
        self.point = nn.Conv2d(4, 4, 1)
        self.depth = nn.Conv2d(4, 8, 3, groups=4, padding_mode="circular", padding=1, bias=False)
        self.again = self.point
        self.also = [self.point]  # known to no module

    def forward(self, x):
        x = self.point(self.body["wide"](self.stem(x)).relu())
        return self.depth(self.also[0](self.again(x).relu()))


def perturbed(model: nn.Module) -> nn.Module:
    """In float64, every parameter and statistic off its start."""
    for value in (*model.double().parameters(), *model.buffers()):
        if value.is_floating_point():
            value.data += 0.1 + 0.2 * torch.rand_like(value)
    return model


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, 3, 9, 8, dtype=torch.float64)


# Selecting.


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


def test_a_second_surgery_goes_on_where_the_first_ended(x):
    first = replace_convs(Net(), MDConv2d, "pointwise")
    second = replace_convs(first, DyConv2d, "all_but_stem")
    kinds = [type(m) for m in (second.stem, second.body["wide"], second.point, second.depth)]
    assert kinds == [nn.Conv2d, DyConv2d, MDConv2d, DyConv2d]
    assert second.double()(x).shape == (2, 8, 9, 8)


# Converting.


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("preserve", [False, True])
def test_geometry_device_dtype_and_mode_are_kept(layer, preserve):
    conv = nn.Conv2d(
        4, 6, (3, 5), (2, 1), (1, 3), (1, 2), 2, False, "reflect", dtype=torch.float64
    ).eval()
    built = convert(layer, conv, preserve=preserve)
    for name in ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation"):
        assert getattr(built, name) == getattr(conv, name), name
    assert (built.groups, built.padding_mode, built.bias) == (2, "reflect", None)
    assert not any(module.training for module in built.modules())
    assert all(value.dtype == torch.float64 for value in built.state_dict().values() if value.dim())
    assert all(parameter.requires_grad for parameter in built.parameters())
    y = torch.randn(2, 4, 9, 9, dtype=torch.float64)
    assert built(y).shape == conv(y).shape
    assert torch.allclose(built(y), conv(y)) is preserve
    meta = convert(layer, conv.to("meta"), preserve=False)
    assert all(value.device.type == "meta" for value in meta.state_dict().values())


@pytest.mark.parametrize("preserve", [False, True])
def test_conv2d_for_conv2d(preserve):
    conv = nn.Conv2d(3, 4, 3, padding="same", bias=False)
    built = convert(nn.Conv2d, conv, preserve=preserve)
    assert type(built) is nn.Conv2d
    assert repr(built) == repr(conv)
    assert torch.equal(built.weight, conv.weight) is preserve
    assert built.weight is not conv.weight


def test_a_strangers_layer_may_lack_what_is_not_used():
    conv = nn.Conv2d(3, 4, 3, stride=2, padding=1, dtype=torch.float64)
    built = convert(Tripled, conv, preserve=False)
    assert (built.conv.stride, built.conv.padding) == ((2, 2), (1, 1))
    assert built.conv.weight.dtype == torch.float64
    timms = convert(partial(TimmCondConv2d, num_experts=2), conv, preserve=False)
    assert (timms.stride, timms.num_experts, timms.bias is None) == ((2, 2), 2, False)


@pytest.mark.parametrize(
    ("layer", "arguments", "preserve", "message"),
    [
        (Tripled, {"dilation": 2}, False, r"Tripled takes no argument 'dilation', .* \(2, 2\)"),
        (Tripled, {"padding_mode": "reflect"}, False, "no argument 'padding_mode', .* 'reflect'"),
        (Tripled, {}, True, "Tripled has no from_conv2d.*preserve=False"),
        (partial(MDConv2d, stride=2), {}, True, "layer must not set 'stride'"),
        (partial(MDConv2d, bias=False), {}, False, "layer must not set 'bias'"),
        (partial(MDConv2d, 3), {}, False, "layer must not set 3"),
        (partial(MDConv2d, depth=0), {}, False, "depth must be at least 1, got 0"),
        (lambda **arguments: 3, {}, False, "<lambda> must give a module, got int"),
    ],
)
def test_what_cannot_be_converted_is_told(layer, arguments, preserve, message):
    conv = nn.Conv2d(4, 4, 3, **arguments)
    with pytest.raises(ValueError, match=message):
        convert(layer, conv, preserve=preserve)
    with pytest.raises(ValueError, match="0: .*" + message):  # surgery says where
        replace_convs(nn.Sequential(conv), layer, "all", preserve)


def test_only_a_plain_convolution_is_converted():
    with pytest.raises(ValueError, match="exactly a torch.nn.Conv2d, got ConvTranspose2d"):
        convert(MDConv2d, nn.ConvTranspose2d(3, 4, 3), preserve=False)


# Replacing.


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("where", ["all", "all_but_stem", "spatial", "pointwise", "depthwise"])
def test_preserving_surgery_moves_no_output(layer, where, x):
    model = perturbed(Net()).eval()
    replaced = replace_convs(model, layer, where, preserve=True)
    torch.testing.assert_close(replaced(x), model(x), rtol=0, atol=1e-10)
    number = sum(isinstance(module, layer) for module in replaced.modules())
    assert number == len(select_convs(model, where))


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("build", ["mobilenet_v2", "resnet18"])
def test_torchvisions_networks(layer, build):
    model = getattr(torchvision.models, build)(num_classes=7).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    model.double()
    y = torch.randn(2, 3, 33, 32, dtype=torch.float64)
    replaced = replace_convs(model, layer, "pointwise", preserve=True)
    torch.testing.assert_close(replaced(y), model(y), rtol=0, atol=1e-10)
    torch.testing.assert_close(to_inference(replaced)(y), model(y), rtol=0, atol=1e-10)


def test_the_given_network_stays_as_it_is(x):
    model = perturbed(Net())
    before, modules, state = model(x), list(model.modules()), deepcopy(model.state_dict())
    replaced = replace_convs(model, DyConv2d, "all", preserve=True)
    for value in replaced.parameters():
        value.data.zero_()
    to_inference(replaced)
    assert list(model.modules()) == modules
    assert model.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    torch.testing.assert_close(model(x), before, rtol=0, atol=0)


@pytest.mark.parametrize("operate", [partial(replace_convs, layer=MDConv2d), to_inference])
def test_what_is_shared_stays_shared(operate):
    model = Net() if operate is not to_inference else replace_convs(Net(), MAConv2d, "all")
    after = operate(model)
    assert after.again is after.point
    assert after.also[0] is after.point, "outside of the modules too"
    assert after.point is not model.point
    assert len(list(after.modules())) == len(set(after.modules()))


def test_tied_parameters_stay_tied():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Linear(4, 4), nn.Linear(4, 4))
    model[2].weight = model[1].weight
    replaced = replace_convs(model, MDConv2d, "all")
    assert replaced[2].weight is replaced[1].weight is not model[1].weight


def test_a_network_may_be_a_single_convolution():
    conv = nn.Conv2d(3, 4, 3).eval()
    layer = replace_convs(conv, MAConv2d, "all", preserve=True)
    assert isinstance(layer, MAConv2d)
    assert type(to_inference(layer)) is nn.Conv2d


def test_each_submodules_mode_is_kept():
    model = Net()
    model.point.eval()
    replaced = replace_convs(model, MDConv2d, "all")
    assert replaced.training
    assert not replaced.point.training
    assert replaced.stem.training


@pytest.mark.parametrize("hook", ["register_forward_hook", "register_forward_pre_hook"])
def test_hooks_are_not_lost_in_silence(hook):
    model = Net()
    handle = getattr(model.point, hook)(lambda *args: None)
    with pytest.raises(ValueError, match="'point' has hooks"):
        replace_convs(model, MDConv2d)
    handle.remove()
    replace_convs(model, MDConv2d)


def test_build_is_called_once_for_each_with_its_name():
    model, seen = Net(), []

    def build(name, conv):
        assert conv is model.get_submodule(name)
        seen.append(name)
        return nn.Identity()

    rebuilt = rebuild_convs(model, "all", build)
    assert seen == ["stem", "body.wide", "point", "depth"]
    assert all(isinstance(rebuilt.get_submodule(name), nn.Identity) for name in seen)


def test_what_was_replaced_is_logged(caplog):
    with caplog.at_level(logging.INFO, logger="overconv"):
        replace_convs(Net(), partial(MDConv2d, depth=3))
    (record,) = caplog.records
    assert record.name == "overconv"
    assert record.getMessage() == (
        "replaced 3 of 4 convolutions by MDConv2d: body.wide, point, depth"
    )


# Inference.


@pytest.mark.parametrize("layer", LAYERS)
def test_inference_equals_eval(layer, x):
    model = perturbed(replace_convs(Net(), layer, "all"))
    deployed = to_inference(model)
    assert model.training
    assert not any(module.training for module in deployed.modules())
    torch.testing.assert_close(deployed(x), model.eval()(x), rtol=0, atol=1e-10)
    assert not any(isinstance(module, MAConv2d) for module in deployed.modules())


def test_strangers_layers_fold_too(x):
    model = perturbed(nn.Sequential(Tripled(3, 4, 3), nn.ReLU()))
    deployed = to_inference(model)
    assert type(deployed[0]) is nn.Conv2d
    torch.testing.assert_close(deployed(x), model(x), rtol=0, atol=1e-10)


def test_a_plain_network_is_copied(x):
    model = perturbed(Net())
    deployed = to_inference(model)
    assert repr(deployed) == repr(model)
    assert not {*model.parameters()} & {*deployed.parameters()}
    torch.testing.assert_close(deployed(x), model.eval()(x), rtol=0, atol=0)


class Normed(nn.Module):
    """Two convolutions with batch norms, joined in a way that the tests vary."""

    def __init__(self, join, **options):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(3, **options), nn.BatchNorm2d(3, **options)
        self.join = join

    def forward(self, x):
        return self.join(self, x)


def _norms(model: nn.Module) -> list[str]:
    return [name for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]


def _in_a_row(net, x):
    return net.norm2(net.second(net.norm1(net.first(x)).relu()))


def _skipping(net, x):
    y = net.first(x)
    return net.norm2(net.second(net.norm1(y) + y))  # another one sees what norm1 sees


def _first_twice(net, x):
    return net.norm2(net.second(net.first(net.norm1(net.first(x)))))


def _norm_twice(net, x):
    return net.norm1(net.second(net.norm1(net.first(x))))


def _weight_read(net, x):
    return net.norm2(net.second(net.norm1(net.first(x)))) * net.first.weight.sum()


def _norm_first(net, x):
    return net.first(net.norm1(x))


def _branching(net, x):
    return _in_a_row(net, x) if x.sum() > 0 else net.norm2(net.first(x))


@pytest.mark.parametrize(
    ("join", "options", "left"),
    [
        (_in_a_row, {}, []),
        (_in_a_row, {"affine": False}, []),
        (_in_a_row, {"eps": 0.3}, []),
        (_in_a_row, {"track_running_stats": False}, ["norm1", "norm2"]),
        (_skipping, {}, ["norm1"]),
        (_first_twice, {}, ["norm1"]),
        (_norm_twice, {}, ["norm1", "norm2"]),
        (_weight_read, {}, ["norm1"]),
        (_norm_first, {}, ["norm1", "norm2"]),
        (_branching, {}, ["norm1", "norm2"]),
    ],
)
def test_batch_norms_fold_where_nobody_else_looks(join, options, left, x):
    model = perturbed(Normed(join, **options))
    deployed = to_inference(model)
    assert _norms(deployed) == left
    assert len(_norms(model)) == 2
    assert not any(module.training for module in deployed.modules())
    for y in (x, -x):
        torch.testing.assert_close(deployed(y), model.eval()(y), rtol=0, atol=1e-10)


def test_a_batch_norm_with_a_hook_stays(x):
    model, seen = perturbed(Normed(_in_a_row)), []
    model.norm1.register_forward_hook(lambda *args: seen.append(args))
    deployed = to_inference(model)
    assert _norms(deployed) == ["norm1"]
    deployed(x)
    assert seen


def test_that_nothing_could_be_traced_is_logged(caplog):
    with caplog.at_level(logging.INFO, logger="overconv"):
        to_inference(Normed(_branching))
    assert "batch norms stay, since torch.fx cannot trace the network" in caplog.text


def test_asymmetric_layers_leave_nothing_behind():
    """C4: deployed, the network is the plain one, parameter for parameter."""
    plain = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    for middle in ("norm", "gate", "norm+gate"):
        asymmetric = replace_convs(plain, partial(MAConv2d, middle=middle), "all")
        shapes = [value.shape for value in to_inference(asymmetric).parameters()]
        assert shapes == [value.shape for value in to_inference(plain).parameters()]
        assert shapes == [(4, 3, 3, 3), (4,)]


def test_inference_of_inference_is_itself(x):
    model = perturbed(replace_convs(Net(), MDConv2d, "all"))
    once = to_inference(model)
    torch.testing.assert_close(to_inference(once)(x), once(x), rtol=0, atol=1e-10)


class Aliased(nn.Module):
    """A convolution and a norm, called by their second names."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.body = nn.ModuleList([self.conv, self.norm])

    def forward(self, x):
        return self.body[1](self.conv(x))


def test_a_norm_with_two_names_folds_under_both():
    torch.manual_seed(3)
    network = Aliased().double()
    nn.init.normal_(network.norm.weight)
    nn.init.normal_(network.norm.bias)
    network(torch.randn(8, 3, 6, 6, dtype=torch.float64))
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    deployed = to_inference(network)
    torch.testing.assert_close(deployed(x), network.eval()(x), rtol=0, atol=1e-10)
    assert sum(p.numel() for p in deployed.parameters()) == 4 * 27 + 4
