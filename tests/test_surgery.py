"""Surgery on networks of any origin, with layers of the library and of strangers."""

import logging
from copy import deepcopy
from functools import partial

import pytest
import torch
import torchvision
from timm.layers import CondConv2d as TimmCondConv2d
from torch import nn

from overconv.norms import batch_norms
from overconv.operators.condconv import CondConv2d
from overconv.operators.dyconv import DyConv2d
from overconv.operators.maconv import MAConv2d
from overconv.operators.mdconv import MDConv2d
from overconv.selection import select_convs
from overconv.surgery import convert, rebuild_convs, replace_convs, to_inference

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
        (MDConv2d(4, 6, 3, depth=3), {}, True, "must be a class .*, got an instance of MDConv2d"),
        (MDConv2d(4, 6, 3, depth=3), {}, False, "must be a class .*, got an instance of MDConv2d"),
        (partial(MDConv2d(4, 6, 3)), {}, False, "must be a class .*, got an instance of MDConv2d"),
        ("MDConv2d", {}, False, "layer must be a class .*, got str"),
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


def _trains(module):
    return {name: parameter.requires_grad for name, parameter in module.named_parameters()}


@pytest.mark.parametrize("preserve", [False, True])
@pytest.mark.parametrize("layer", [*LAYERS, nn.Conv2d])
def test_what_does_not_train_stays_so(layer, preserve):
    conv = nn.Conv2d(4, 4, 3).requires_grad_(False)
    assert not any(_trains(convert(layer, conv, preserve=preserve)).values())
    conv.bias.requires_grad_(True)
    trains = _trains(convert(layer, conv, preserve=preserve))
    assert [name for name in trains if trains[name]] == ["bias"]
    conv.weight.requires_grad_(True)
    assert all(_trains(convert(layer, conv, preserve=preserve)).values())
    conv.bias.requires_grad_(False)
    trains = _trains(convert(layer, conv, preserve=preserve))
    assert [name for name in trains if not trains[name]] == ["bias"]
    assert not conv.bias.requires_grad
    frozen = replace_convs(nn.Sequential(nn.Conv2d(4, 4, 1), conv), layer, preserve=preserve)
    assert [name for name, grad in _trains(frozen).items() if not grad] == ["1.bias"]


@pytest.mark.parametrize("trains", ["weight", "bias"])
def test_a_bias_that_cannot_be_found_is_told(trains):
    conv = nn.Conv2d(3, 4, 3).requires_grad_(False)
    getattr(conv, trains).requires_grad_(True)
    with pytest.raises(ValueError, match=f"Tripled has no parameter 'bias', .* only the {trains}"):
        convert(Tripled, conv, preserve=False)
    conv.requires_grad_(False)
    assert not any(_trains(convert(Tripled, conv, preserve=False)).values())


def test_only_a_plain_convolution_is_converted():
    with pytest.raises(ValueError, match="exactly a torch.nn.Conv2d, got ConvTranspose2d"):
        convert(MDConv2d, nn.ConvTranspose2d(3, 4, 3), preserve=False)


# Replacing.


def test_a_second_surgery_goes_on_where_the_first_ended(x):
    first = replace_convs(Net(), MDConv2d, "pointwise")
    second = replace_convs(first, DyConv2d, "all_but_stem")
    kinds = [type(m) for m in (second.stem, second.body["wide"], second.point, second.depth)]
    assert kinds == [nn.Conv2d, DyConv2d, MDConv2d, DyConv2d]
    assert second.double()(x).shape == (2, 8, 9, 8)


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
    options = {"width_mult": 0.25} if build == "mobilenet_v2" else {}
    model = getattr(torchvision.models, build)(num_classes=7, **options).eval()
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


class Tied(nn.Module):
    """A parameter with two owners."""

    def __init__(self, other, name="weight"):
        super().__init__()
        self.stem, self.conv, self.other = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3), other
        setattr(other, name, getattr(self.conv, name))


@pytest.mark.parametrize(
    ("other", "name"),
    [
        (nn.Conv2d(4, 4, 3), "weight"),
        (nn.Conv2d(4, 4, 3, groups=1), "bias"),
        (nn.ConvTranspose2d(4, 4, 3), "weight"),
    ],
)
def test_tied_convolutions_are_not_untied_in_silence(other, name):
    model = Tied(other, name)
    message = f"'conv.{name}' and 'other.{name}' are one parameter, .* of 'conv' would not share"
    with pytest.raises(ValueError, match=message):
        replace_convs(model, MDConv2d)
    with pytest.raises(ValueError, match=message):
        rebuild_convs(model, "spatial", lambda name, conv: nn.Identity())
    replace_convs(model, MDConv2d, lambda name, conv: name == "stem")
    other.__dict__.pop(name, None)
    setattr(other, name, nn.Parameter(getattr(model.conv, name).detach().clone()))
    replaced = replace_convs(model, MDConv2d)
    assert isinstance(replaced.conv, MDConv2d)


def test_a_parameter_under_two_names_of_one_convolution_is_told():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    model[2].weight = model[1].weight
    model.also = model[1]  # a module with two names is shared, not tied
    with pytest.raises(ValueError, match="'1.weight' and '2.weight' are one parameter"):
        replace_convs(model, MDConv2d)
    model[2].weight = nn.Parameter(model[2].weight.detach().clone())
    replaced = replace_convs(model, MDConv2d)
    assert replaced.also is replaced[1]


@pytest.mark.parametrize("hook", ["register_forward_hook", "register_forward_pre_hook"])
def test_hooks_are_not_lost_in_silence(hook):
    model = Net()
    handle = getattr(model.point, hook)(lambda *args: None)
    with pytest.raises(ValueError, match="'point' has hooks"):
        replace_convs(model, MDConv2d)
    handle.remove()
    replace_convs(model, MDConv2d)


class Copied(nn.Sequential):
    """Copies itself in its own way: with its values, but not with what ``deepcopy`` is given."""

    def __deepcopy__(self, memo):
        copy = Copied(*map(deepcopy, self))
        return copy.train(self.training)


def test_what_cannot_be_put_into_a_copy_is_told():
    copied = nn.Sequential(nn.Conv2d(3, 4, 1), Copied(nn.Conv2d(4, 4, 3), nn.ReLU()))
    with pytest.raises(ValueError, match=r"in the place of '1.0': .* its own way"):
        replace_convs(copied, MDConv2d, "spatial")
    replaced = replace_convs(copied, MDConv2d, "pointwise")
    assert [type(module) for module in replaced] == [MDConv2d, Copied]
    with pytest.raises(ValueError, match=r"in the place of '1.0': .* its own way"):
        to_inference(nn.Sequential(nn.ReLU(), Copied(MAConv2d(4, 4, 3))))


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
    # Behind random norms outputs reach 1e5, where 1e-10 is less than what rounding moves.
    torch.testing.assert_close(deployed(x), model.eval()(x), rtol=1e-14, atol=1e-10)
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


def test_which_norms_stay_is_logged(caplog):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.ReLU())
    model.extend([nn.BatchNorm2d(4), MDConv2d(4, 4, 3), nn.BatchNorm2d(4)])
    with caplog.at_level(logging.INFO, logger="overconv"):
        deployed = to_inference(model)
    stays = "it sees the output of {!r}, of class {}, which is no plain convolution"
    assert caplog.messages == [
        "folded 2 of 4 batch norms",
        f"2 batch norms stay: 2 ({stays.format('1', 'BatchNorm2d')});"
        f" 4 ({stays.format('3', 'ReLU')})",
    ]
    assert list(batch_norms(deployed)) == ["2", "4"]
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="overconv"):
        to_inference(nn.Sequential(nn.Conv2d(3, 4, 3)))
    assert not caplog.messages


@pytest.mark.parametrize("layer", LAYERS)
def test_norms_fold_into_layers_of_all_kinds(layer):
    plain = torchvision.models.mobilenet_v2(num_classes=5, width_mult=0.25)
    model = perturbed(replace_convs(plain, layer, "all"))
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    deployed = to_inference(model)
    assert len(batch_norms(model)) == 52
    assert not batch_norms(deployed)
    torch.testing.assert_close(deployed(images), model.eval()(images), rtol=1e-9, atol=1e-9)


def test_a_deployed_network_shares_nothing_with_the_trained_one(x):
    model = perturbed(nn.Sequential(DyConv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)))
    before, deployed = model.eval()(x), to_inference(model)
    for value in (*deployed.parameters(), *deployed.buffers()):
        value.data.zero_()
    torch.testing.assert_close(model(x), before, rtol=0, atol=0)


class Kept(nn.Module):
    """A stranger's layer whose form for inference is no new module, against its word."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.conv(x)

    def to_inference(self):
        return self.conv


def test_a_form_for_inference_that_is_not_new_is_copied(x):
    model = perturbed(nn.Sequential(Kept(), nn.BatchNorm2d(4)))
    before = deepcopy(model.state_dict())
    deployed = to_inference(model)
    assert model[0].conv.training
    assert deployed[0] is not model[0].conv
    torch.testing.assert_close(deployed(x), model.eval()(x), rtol=1e-9, atol=1e-9)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("layer", [MAConv2d, Tripled])
@pytest.mark.parametrize("hook", ["register_forward_hook", "register_full_backward_pre_hook"])
def test_hooks_on_what_folds_are_not_lost_in_silence(layer, hook):
    model = nn.Sequential(nn.Sequential(layer(3, 4, 3)), nn.ReLU())
    for module in list(model[0].modules())[1:]:
        handle = getattr(module, hook)(lambda *arguments: None)
        with pytest.raises(ValueError, match=r"'0\.0' has hooks, on itself or inside, which its"):
            to_inference(model)
        handle.remove()
    to_inference(model)


def test_hooks_on_what_is_copied_are_kept(x):
    seen = []
    model = perturbed(nn.Sequential(DyConv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()))
    model[0].register_forward_hook(lambda module, inputs, output: seen.append(output))
    deployed = to_inference(model)
    assert len(batch_norms(deployed)) == 1, "what the hook sees must not change"
    torch.testing.assert_close(deployed(x), model.eval()(x), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(*seen, rtol=1e-9, atol=1e-9)
    inner = nn.Sequential(DyConv2d(3, 4, 3))
    inner[0].gate.register_forward_hook(lambda *arguments: None)
    with pytest.raises(ValueError, match="'0' has hooks, on itself or inside"):
        to_inference(inner)


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
