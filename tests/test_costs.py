"""Costs against counts derived by hand, and against what torch and fvcore see in real runs."""

import json
import logging
import re
from copy import deepcopy
from functools import partial

import pytest
import torch
import torchvision
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils.flop_counter import FlopCounterMode

from overconv.costs import KINDS, Cost, Costs, count_cost, count_costs
from overconv.forms import plan_forms
from overconv.models.mobilenet import MobileNetV2
from overconv.models.resnet import ResNet
from overconv.operators.condconv import CondConv2d
from overconv.operators.dbb import DBBConv2d
from overconv.operators.dyconv import DyConv2d
from overconv.operators.maconv import MAConv2d
from overconv.operators.macs import Macs
from overconv.operators.mdconv import MDConv2d
from overconv.surgery import to_inference

IMAGE = torch.zeros(1, 3, 32, 32)


# By hand.


def test_resnet20_by_hand():
    """Table 6 of its paper: 19 convolutions of 3 x 3 on 32, 16 and 8 pixels, and the classifier."""
    by_hand = (27 * 16 + 6 * 9 * 16 * 16) * 32**2
    by_hand += (9 * 16 * 32 + 5 * 9 * 32 * 32) * 16**2
    by_hand += (9 * 32 * 64 + 5 * 9 * 64 * 64) * 8**2
    by_hand += 64 * 10
    costs = count_costs(ResNet(20), IMAGE)
    assert by_hand == 40_551_040  # the 40.55 M that is quoted for it
    assert costs.training == Cost(269_722, Macs(convolution=by_hand))
    # Deployed, each norm has left one bias a channel, of its two parameters.
    assert costs.deployed == Cost(269_722 - 688, Macs(convolution=by_hand))
    assert costs.training.flops == 2 * by_hand


def test_mobilenet_is_the_published_300_million():
    model = MobileNetV2(num_classes=1000, stem_stride=2, strides=(1, 2, 2, 2, 1, 2, 1))
    costs = count_costs(model, torch.zeros(1, 3, 224, 224))
    assert costs.training.macs == Macs(convolution=300_774_272)


def test_an_expanding_chain_by_hand():
    """I=6 to O=10 through M=10, 3 x 3 at stride 2 on 9 x 8, so 5 x 4 come out; hidden layer 4."""
    layer = MDConv2d(
        6, 10, 3, stride=2, padding=1, depth=3, placement=("input", "middle", "output")
    )
    layer = nn.Sequential(layer, nn.BatchNorm2d(10))
    costs = count_costs(layer, torch.zeros(1, 6, 9, 8))
    gate = 6 * 4 + 4 * (6 + 10 + 10 + 10)
    pooling, gating = 6 * 72, 6 * 72 + 3 * 10 * 20
    convolution = (9 * 6 * 10 + 10 * 10 + 10 * 10) * 20
    assert costs.training.macs.total == gate + pooling + gating + convolution
    assert costs.training.macs.convolution == convolution
    assert costs.training.macs.gate == gate
    parameters = 9 * 60 + 100 + 100 + 10 + gate + 4 + 36 + 20
    assert costs.training.parameters == parameters
    assert costs.deployed.parameters == parameters - 20  # the batch norm behind folds


def test_a_compact_chain_by_hand():
    layer = MDConv2d(6, 10, 3, padding=1, form="compact", bias=False)
    macs = count_costs(layer, torch.zeros(1, 6, 9, 8)).deployed.macs
    assert macs.gate == 6 * 4 + 4 * 10
    assert macs.compose == 10 * 10 * (9 * 6)
    assert macs.convolution == 9 * 6 * 10 * 72
    assert macs.other == 6 * 72 + 10 * 10  # pooling; the gate on the smaller of both layers
    assert macs.shared == 0


@pytest.mark.parametrize("on", ["weights", "features"])
def test_parallel_kernels_by_hand(on):
    layer = DyConv2d(6, 10, 3, padding=1, groups=2, num_kernels=4, on=on)
    costs = count_costs(layer, torch.zeros(1, 6, 9, 8))
    kernel, gate = 9 * 3 * 10, 6 * 4 + 4 * 4
    assert costs.training.parameters == 4 * (kernel + 10) + gate + 4 + 4
    expected = {
        "weights": gate + 4 * (kernel + 10) + kernel * 72 + 6 * 72,
        "features": gate + 4 * 10 + 4 * kernel * 72 + 6 * 72 + 4 * 10 * 72,
    }
    assert costs.training.macs.total == expected[on]
    assert costs.deployed.macs.total == expected["weights"], "deployed in its best form"


@pytest.mark.parametrize("middle", ["norm", "gate", "norm+gate"])
def test_an_asymmetric_network_deploys_at_the_plain_ones_cost(middle):
    """C4, counted: parameters and multiply-accumulates equal the plain network's."""
    for build in (partial(ResNet, 8, 4), partial(MobileNetV2, 0.1)):
        plain = count_costs(build(), IMAGE)
        asymmetric = count_costs(build(conv=partial(MAConv2d, middle=middle), where="all"), IMAGE)
        assert asymmetric.deployed == plain.deployed
        assert asymmetric.training.parameters > plain.training.parameters
        assert asymmetric.over_parameters > plain.over_parameters


# Against counters of real runs. Torch's counts products of matrices and convolutions, whatever they
# are for, but nothing elementwise; backward passes are not asked, as it is wrong on their groups.

LAYERS = {
    "plain": nn.Conv2d,
    "md": MDConv2d,
    "md-deep": partial(MDConv2d, depth=4, middle_channels=8),
    "md-everywhere": partial(MDConv2d, placement=("input", "middle", "output"), squash="softmax"),
    "md-last": partial(MDConv2d, spatial="last", depth=3, middle_norm=True),
    "md-compact": partial(MDConv2d, form="compact"),
    "md-compact-last": partial(MDConv2d, form="compact", spatial="last", depth=3),
    "md-ungated": partial(MDConv2d, placement=()),
    "md-ungated-compact": partial(MDConv2d, placement=(), depth=3, form="compact"),
    "md-batch": partial(MDConv2d, when="batch"),
    "md-training": partial(MDConv2d, when="training"),
    "ma": MAConv2d,
    "ma-gate": partial(MAConv2d, middle="gate", depth=3),
    "cond": partial(CondConv2d, num_kernels=3),
    "cond-features": partial(CondConv2d, num_kernels=3, on="features"),
    "dy": DyConv2d,
    "dy-features": partial(DyConv2d, on="features"),
}


def seen_by_torch(model: nn.Module, shape: tuple[int, ...]) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(shape))
    macs, rest = divmod(counter.get_total_flops(), 2)
    assert not rest
    return macs


def mixing(model: nn.Module, image: tuple[int, int]) -> int:
    """Elementwise work that mixture layers do as a product of matrices: mixing features."""
    total = 0

    def count(layer, inputs, output):
        nonlocal total
        if getattr(layer, "on", None) == "features":
            total += layer.num_kernels * output[0].numel()

    hooks = [module.register_forward_hook(count) for module in model.modules()]
    model(torch.zeros(2, 3, *image))
    for hook in hooks:
        hook.remove()
    return total


@pytest.mark.parametrize(
    ("network", "layer"),
    [("resnet", layer) for layer in LAYERS]
    + [("mobilenet", layer) for layer in ("md", "md-compact-last", "cond-features")],
)
def test_counts_are_what_torch_sees_in_a_real_run(network, layer):
    build = {"resnet": partial(ResNet, 8, 8), "mobilenet": partial(MobileNetV2, 0.1)}[network]
    model = build(conv=LAYERS[layer], where="all")
    costs = count_costs(model, torch.zeros(1, 3, 13, 12))
    deployed = plan_forms(to_inference(model), torch.zeros(1, 3, 13, 12))
    for form, cost in ((model.train(), costs.training), (deployed, costs.deployed)):
        macs = cost.macs
        per_image = macs.gate + macs.compose + macs.convolution + mixing(form, (13, 12))
        seen = seen_by_torch(form, (3, 3, 13, 12))
        assert seen == 3 * per_image + macs.shared


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # fvcore's own
@pytest.mark.parametrize("build", [partial(ResNet, 8, 8), partial(MobileNetV2, 0.35)])
def test_plain_networks_cost_what_fvcore_counts(build):
    from fvcore.nn import FlopCountAnalysis

    logging.getLogger("fvcore").setLevel(logging.ERROR)
    model = build().eval()
    analysis = FlopCountAnalysis(model, torch.zeros(1, 3, 20, 24)).unsupported_ops_warnings(False)
    counted = analysis.by_operator()
    expected = counted["conv"] + counted["linear"]
    assert count_costs(model, torch.zeros(1, 3, 20, 24)).training.macs.total == expected


# Backward, by kind and by module.


def test_a_backward_pass_by_hand():
    """The stem's image needs no gradient, of the first gate neither; the average is constant."""
    chain = MDConv2d(4, 6, 3, padding=1, bias=False)
    model = nn.Sequential(chain, nn.BatchNorm2d(6), DBBConv2d(6, 6, 3, padding=1), nn.Linear(8, 2))
    cost = count_costs(model, torch.zeros(1, 4, 9, 8)).training
    gate, first, second = (4 * 4, 4 * 6), 9 * 4 * 6 * 72, 6 * 6 * 72
    assert cost.modules["0"] == Macs(gate=40, convolution=first + second, other=288 + 432)
    assert cost.modules_backward["0"] == Macs(
        gate=gate[0] + 2 * gate[1], convolution=first + 2 * second, other=2 * (288 + 432)
    )
    average = 6 * 9 * 72
    assert cost.modules["2"].convolution == (3 * 36 + 2 * 324) * 72 + average
    assert cost.modules_backward["2"] == Macs(
        convolution=2 * (3 * 36 + 2 * 324) * 72 + average,
        other=2 * cost.modules["2"].other,
        shared=2 * 36,
    )
    assert cost.modules_backward["3"] == Macs(convolution=2 * 8 * 2 * 6 * 9)
    assert cost.macs_backward == sum(cost.modules_backward.values(), Macs())
    assert cost.macs == sum(cost.modules.values(), Macs())
    assert cost.flops_backward == 2 * cost.macs_backward.total


def test_an_image_that_needs_a_gradient_costs_one():
    conv, x = nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 5, 5)
    assert count_costs(conv, x).training.macs_backward.total == 27 * 4 * 9
    x.requires_grad_()
    assert count_costs(conv, x).training.macs_backward.total == 2 * 27 * 4 * 9


def test_what_is_deployed_has_no_backward_pass():
    deployed = count_costs(ResNet(8, 4, conv=MDConv2d), IMAGE).deployed
    assert deployed.macs_backward == Macs()
    assert deployed.modules_backward == {}
    assert (
        set(deployed.modules) == {name for name in deployed.modules if "norm" not in name} != set()
    )


def test_a_cost_as_it_stands_has_the_form_that_is_set():
    layer = MDConv2d(4, 6, 3, padding=1, form="compact").eval()
    x = torch.zeros(1, 4, 9, 8)
    assert count_cost(layer, x).macs == layer.macs((9, 8))
    layer.form = "expanding"
    assert count_cost(layer, x).macs == layer.macs((9, 8)) != count_costs(layer, x).deployed.macs


def test_its_table_says_where_the_cost_is():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), MDConv2d(4, 8, 3), nn.Linear(28, 2))
    text = str(count_costs(model, torch.zeros(1, 3, 32, 32)))
    lines = [line.split() for line in text.splitlines()]
    assert lines[0] == ["in", "training:"]
    assert lines[1] == ["module", "pass", *KINDS, "MACs", "FLOPs"]
    assert lines[2] == ["0", "forward", "0", "0", "97,200", "0", "0", "97,200", "194,400"]
    assert lines[3] == ["backward", "0", "0", "97,200", "0", "0", "97,200", "194,400"]
    assert [line[0] for line in lines[4:8:2]] == ["1", "2"]
    assert "in all, 590 parameters  forward" in text
    assert "deployed, 0 parameters fewer:" in text


def test_figures_have_one_name_each():
    cost = count_cost(nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 5, 5))
    zeros = dict.fromkeys(KINDS, 0)
    macs = zeros | {"convolution": 972}
    assert cost.figures() == {
        "parameters": 112,
        **{f"macs.{kind}": value for kind, value in macs.items()},
        **{f"macs_backward.{kind}": value for kind, value in macs.items()},
    }


# What it does to the model, and what it refuses.


def test_nothing_is_computed_or_changed():
    model = ResNet(8, 4, conv=partial(MDConv2d, when="batch", middle_norm=True)).train()
    model.fc.eval()
    state, random = deepcopy(model.state_dict()), torch.get_rng_state()
    count_costs(model, IMAGE)
    assert torch.equal(torch.get_rng_state(), random)
    assert model.training
    assert not model.fc.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.device.type == "cpu" for parameter in model.parameters())


@pytest.mark.parametrize(
    "layer", [MDConv2d, MAConv2d, DyConv2d, CondConv2d, partial(MDConv2d, when="training")]
)
def test_batch_device_dtype_and_mode_do_not_matter(layer):
    model = ResNet(8, 4, conv=layer)
    costs = count_costs(model, IMAGE)
    assert count_costs(model, torch.zeros(7, 3, 32, 32)) == costs
    assert count_costs(model.eval(), IMAGE) == costs
    assert count_costs(deepcopy(model).double(), IMAGE.double()) == costs
    assert count_costs(deepcopy(model).to("meta"), IMAGE) == costs


def test_one_pixel_a_channel_is_enough():
    """A batch norm in training refuses a single value, which a single image could not help."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    assert count_costs(model, torch.zeros(1, 3, 3, 3)).training.macs.total == 108


def test_a_big_network_costs_no_memory():
    with torch.device("meta"):
        model = torchvision.models.resnet18()
    costs = count_costs(model, torch.zeros(1, 3, 224, 224))
    assert costs.training.parameters == 11_689_512
    assert costs.training.macs.total == 1_814_073_344  # fvcore and torchvision: 1.814 G


def test_a_shared_layer_is_charged_for_each_call_and_owned_once():
    conv = nn.Conv2d(4, 4, 1)
    once, twice = nn.Sequential(conv), nn.Sequential(conv, conv)
    one, two = (count_costs(model, torch.zeros(1, 4, 5, 5)).training for model in (once, twice))
    assert (one.parameters, one.macs.total) == (20, 16 * 25)
    assert (two.parameters, two.macs.total) == (20, 2 * 16 * 25)


def test_tied_parameters_count_once():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    costs = count_costs(model, torch.zeros(1, 4))
    assert costs.training.parameters == costs.deployed.parameters == 16
    assert costs.training.macs.total == 32


def test_a_linear_layer_is_charged_for_each_position():
    assert count_costs(nn.Linear(4, 6), torch.zeros(1, 5, 4)).training.macs.total == 4 * 6 * 5


def test_shared_work_is_told_apart():
    model = nn.Sequential(MDConv2d(4, 4, 3, placement=(), form="compact", bias=False))
    costs = count_costs(model, torch.zeros(1, 4, 5, 5))
    assert costs.training.macs == Macs(shared=4 * 4 * 36, convolution=144 * 9)
    assert costs.deployed == Cost(144, Macs(convolution=144 * 9))


def test_the_figures_go_into_json():
    costs = count_costs(nn.Sequential(MAConv2d(4, 6, 3)), torch.zeros(1, 4, 5, 5))
    figures = json.loads(json.dumps(costs.as_dict()))
    training, deployed = (9 * 24 + 36) * 9, 9 * 24 * 9
    assert figures == {
        "parameters_training": 9 * 24 + 36 + 6 + 12,
        "parameters_deployed": 9 * 24 + 6,
        "over_parameters": 36 + 12,
        "macs_training": training,
        "macs_deployed": deployed,
        "flops_training": 2 * training,
        "flops_deployed": 2 * deployed,
    }
    assert all(type(figure) is int for figure in costs.as_dict().values())


class Owner(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 1, 1))
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.conv(x * self.weight)


class Measured(Owner):
    def macs(self, image):
        return Macs(convolution=9 * image[0] * image[1], other=3 * image[0] * image[1])


class Squared(nn.Conv2d):
    def forward(self, x):
        return super().forward(x).square()


class Folded(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.conv(x.transpose(0, 1).flatten(0, 1)[:, None].expand(-1, 3, -1, -1))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.ReLU(), Owner()), "cost of '1', a Owner .* method macs"),
        (Owner(), "cost of 'the model', a Owner"),
        (nn.Sequential(nn.Bilinear(3, 3, 3)), "cost of '0', a Bilinear"),
        (nn.Sequential(Squared(3, 3, 1)), "cost of '0', a Squared"),
        (nn.Sequential(nn.MultiheadAttention(4, 2)), "cost of '0', a MultiheadAttention"),
        (
            nn.Sequential(parametrizations.weight_norm(nn.Conv2d(3, 4, 3))),
            "cost of '0.parametrizations.weight', a ParametrizationList",
        ),
        (Folded(), "'conv': its input .* has no batch of 2"),
    ],
)
def test_what_cannot_be_counted_is_named(model, message):
    with pytest.raises(ValueError, match=message):
        count_costs(model, torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize(
    ("model", "name", "message"),
    [
        (Owner(), "", "a Owner with parameters has no formula"),
        (nn.Sequential(nn.PReLU(3)), "0", "a PReLU with parameters has no formula"),
        (Folded(), "conv", r"its input .* has no batch of 2 as its first axis"),
    ],
)
def test_what_cannot_be_counted_is_listed_if_asked_for(model, name, message):
    cost = count_costs(model, torch.zeros(1, 3, 4, 4), unknown="list").training
    assert re.fullmatch(message, cost.uncounted[name])
    assert f"not counted: {name}: " in str(cost)
    inner = isinstance(model, Owner)  # whose convolution has a formula
    assert cost.macs == Macs(convolution=9 * 16 if inner else 0)


@pytest.mark.parametrize("count", [count_costs, count_cost])
def test_unknown_is_one_of_two(count):
    with pytest.raises(ValueError, match=r"unknown must be one of .*, got 'ignore'"):
        count(nn.Conv2d(3, 3, 1), IMAGE, unknown="ignore")


def test_a_strangers_layer_counts_itself():
    costs = count_costs(nn.Sequential(Measured()), torch.zeros(1, 3, 4, 5))
    assert costs.training.macs == Macs(convolution=180, other=60)
    assert costs == Costs(costs.training, costs.training)
