"""Batch norms fold where it is certain that nobody else looks, and stay elsewhere with a reason."""

import re
import weakref
from copy import deepcopy
from functools import partial

import pytest
import torch
import torchvision
from timm.layers import BatchNormAct2d, Conv2dSame, StdConv2d, SyncBatchNormAct
from timm.layers.norm_act import FrozenBatchNormAct2d
from torch import nn
from torch.nn.utils import parametrizations
from torchvision.ops import FrozenBatchNorm2d

from overconv.norms import batch_norms, fold_norms
from overconv.operators.base import OverConv2d
from overconv.operators.condconv import CondConv2d
from overconv.operators.dyconv import DyConv2d
from overconv.operators.maconv import MAConv2d
from overconv.operators.mdconv import MDConv2d

CONVS = [nn.Conv2d, Conv2dSame, MDConv2d, DyConv2d, CondConv2d]


def perturbed(model: nn.Module) -> nn.Module:
    """In float64 and ``eval()``, every parameter and statistic off its start, of either sign."""
    for name, value in (*model.double().named_parameters(), *model.named_buffers()):
        if value.is_floating_point():
            signed = 0.5 * torch.randn_like(value)
            value.data += signed.abs() if name.endswith(("running_var", "temperature")) else signed
    return model.eval()


def compare(model, folded, *inputs, **arguments):
    """Equal outputs of a network and the folded one, to rounding."""
    found, expected = folded(*inputs, **arguments), model(*inputs, **arguments)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, 3, 9, 8, dtype=torch.float64)


# What folds.


def _norm(kind, channels=4, **options):
    if kind in (FrozenBatchNorm2d, FrozenBatchNormAct2d):
        options.pop("affine", None)
    return kind(channels, **options)


NORMS = [
    nn.BatchNorm2d,
    nn.SyncBatchNorm,
    FrozenBatchNorm2d,
    BatchNormAct2d,
    partial(BatchNormAct2d, act_layer=nn.SiLU),
    partial(BatchNormAct2d, apply_act=False),
    FrozenBatchNormAct2d,
    SyncBatchNormAct,
]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("conv", CONVS)
def test_each_norm_folds_into_each_convolution(conv, norm, bias, x):
    geometry = {"stride": 2, "groups": 1} if conv is Conv2dSame else {"padding": 1, "groups": 2}
    last = conv(6, 4, 3, bias=bias, **geometry)
    model = perturbed(nn.Sequential(nn.Conv2d(3, 6, 1), last, norm(4), nn.Conv2d(4, 3, 1)))
    if isinstance(model[2], SyncBatchNormAct):
        model[2].act = nn.LeakyReLU(0.3)
    folded, left = fold_norms(model)
    assert not left
    assert not batch_norms(folded)
    assert type(folded[1]) is conv
    behind = getattr(model[2], "act", nn.Identity())
    assert type(folded[2]) is type(behind)
    assert len(batch_norms(model)) == 1
    compare(model, folded, x)
    compare(model, folded, -10 * x[:1])


@pytest.mark.parametrize("options", [{"affine": False}, {"eps": 0.3}, {"momentum": None}])
@pytest.mark.parametrize("conv", [nn.Conv2d, MDConv2d])
def test_options_of_a_norm_are_heeded(conv, options, x):
    model = perturbed(nn.Sequential(conv(3, 4, 3), nn.BatchNorm2d(4, **options)))
    folded, left = fold_norms(model)
    assert not left
    compare(model, folded, x)


@pytest.mark.parametrize("layer", [MDConv2d, MAConv2d, DyConv2d, CondConv2d])
def test_two_norms_in_a_row_fold_one_by_one(layer, x):
    model = perturbed(nn.Sequential(layer(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)))
    model[0] = model[0].to_inference()
    once, left = fold_norms(model)
    assert list(left) == ["2"], "it sees what the identity gives"
    compare(model, once, x)


def test_low_precision_stays_so():
    model = nn.Sequential(nn.Conv2d(3, 4, 3).bfloat16(), nn.BatchNorm2d(4))
    folded, _ = fold_norms(model)
    assert {p.dtype for p in folded.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("trains", [False, True])
def test_what_does_not_train_stays_so(trains):
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False).requires_grad_(trains), nn.BatchNorm2d(4))
    folded, _ = fold_norms(model)
    assert [p.requires_grad for p in folded.parameters()] == [trains, trains]


def test_without_norms_the_network_is_copied(x):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).double()
    folded, left = fold_norms(model)
    assert not left
    assert not folded.training
    assert model.training
    assert folded[0].weight is not model[0].weight
    compare(model, folded, x)


def test_on_meta_there_is_nothing_to_compute():
    with torch.device("meta"):
        model = torchvision.models.resnet18()
    folded, left = fold_norms(model)
    assert not left
    assert not batch_norms(folded)


# Who else looks. A join is the forward of the network below, and the norms that stay.


class Normed(nn.Module):
    """Two convolutions with batch norms, joined in a way that the tests vary."""

    def __init__(self, join, conv=nn.Conv2d):
        super().__init__()
        self.first, self.second = conv(3, 3, 3, padding=1), conv(3, 3, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.join = join

    def forward(self, x):
        return self.join(self, x)


def _in_a_row(net, x):
    return net.norm2(net.second(net.norm1(net.first(x)).relu()))


def _skipping(net, x):
    y = net.first(x)
    return net.norm2(net.second(net.norm1(y) + y))


def _skipping_late(net, x):
    y = net.first(x)
    return net.norm2(net.second(net.norm1(y))) + y


def _given_out(net, x):
    y = net.first(x)
    return net.norm2(net.second(net.norm1(y))), y


def _in_place(net, x):
    y = net.first(x)
    y += 1
    return net.norm2(net.second(net.norm1(y)))


def _in_place_method(net, x):
    y = net.first(x)
    y.mul_(2)
    return net.norm2(net.second(net.norm1(y)))


def _first_twice(net, x):
    return net.norm2(net.second(net.first(net.norm1(net.first(x)))))


def _norm_twice(net, x):
    return net.norm1(net.second(net.norm1(net.first(x))))


def _norm_on_both(net, x):
    return net.norm2(net.second(net.norm1(net.first(x)) + net.norm1(x)))


def _weight_read(net, x):
    return net.norm2(net.second(net.norm1(net.first(x)))) * net.first.weight.sum()


def _weight_read_sideways(net, x):
    weight = next(net.first.parameters())
    return net.norm2(net.second(net.norm1(net.first(x)))) * torch.sum(
        weight.detach() * x[0, 0, 0, 0]
    )


def _shape_read(net, x):
    weight = next(net.first.parameters())
    return _in_a_row(net, x.to(weight.device, weight.dtype) * weight.shape[0] / weight.size(0))


def _mean_read(net, x):
    return net.norm2(net.second(net.norm1(net.first(x)))) + net.norm1.running_mean[:, None, None]


def _mean_read_by_itself(net, x):
    shift = net.norm1.running_mean.sum().item()  # becomes a constant of the graph
    return net.norm2(net.second(net.norm1(net.first(x)))) + shift


def _norm_first(net, x):
    return net.first(net.norm1(x))


def _branching(net, x):
    return _in_a_row(net, x) if x.sum() > 0 else net.norm2(net.first(x))


def _by_keyword(net, x):
    return net.norm2(input=net.second(net.norm1(input=net.first(x))))


def _asking(net, x):
    y = net.first(x)
    z = net.norm2(net.second(net.norm1(y)))
    return z + y if isinstance(z, torch.Tensor) else z


def _asking_torch(net, x):
    y = net.first(x)
    z = net.norm2(net.second(net.norm1(y)))
    return z + y if torch.is_tensor(z) else z


def _asking_for_lists(net, x):
    return _in_a_row(net, x[0] if isinstance(x, list | tuple) else x)


def _asking_the_unknown(net, x):
    y = net.first(x)
    z = y if isinstance(x.mean(), torch.Tensor) else 0
    return net.norm2(net.second(net.norm1(y) + z))


@torch.fx.wrap
def _call(module, x):
    return module(x)


def _given_away(net, x):
    return net.norm2(net.second(net.norm1(net.first(x)))) + _call(net.first, x)


def _kept(net, x):
    net.kept = net.first(x)
    return net.norm2(net.second(net.norm1(net.kept)))


BOTH = ["norm1", "norm2"]
OTHERS = "others see the output of 'first' too"
READ = "is not only called, its values are read as well"
JOINS = [
    (_in_a_row, {}),
    (_by_keyword, {}),
    (_shape_read, {}),
    (_asking_for_lists, {}),
    (_skipping, {"norm1": OTHERS}),
    (_skipping_late, {"norm1": OTHERS}),
    (_given_out, {"norm1": OTHERS}),
    (_kept, {"norm1": OTHERS}),
    (_in_place, {"norm1": "it sees no output of a convolution, but that of add"}),
    (_in_place_method, {"norm1": OTHERS}),
    (_first_twice, {"norm1": "'first', whose output it sees, is called 2 times"}),
    (_norm_twice, {"norm1": "it is called 2 times", "norm2": "it is never called"}),
    (_norm_on_both, {"norm1": "it is called 2 times"}),
    (_weight_read, {"norm1": f"'first', whose output it sees, {READ}"}),
    (_weight_read_sideways, {"norm1": f"'first', whose output it sees, {READ}"}),
    (_mean_read, {"norm1": f"it {READ}"}),
    (_mean_read_by_itself, {"norm1": f"it {READ}"}),
    (_norm_first, {"norm1": "but an input", "norm2": "it is never called"}),
    (_branching, dict.fromkeys(BOTH, "torch.fx cannot trace the network: .*control flow")),
    (_asking, {"norm1": OTHERS}),
    (_asking_torch, {"norm1": OTHERS}),
    (_asking_the_unknown, dict.fromkeys(BOTH, "cannot trace .* depends on the type of a value")),
    (
        _given_away,
        {"norm1": "'first', whose output it sees, is in reach of 'first', which is read"},
    ),
]


def check_left(left, expected):
    assert list(left) == list(expected)
    for name, reason in expected.items():
        assert re.search(reason, left[name]), left[name]


CASES = [
    pytest.param(join, expected, conv, id=f"{join.__name__}-{conv.__name__}")
    for join, expected in JOINS
    for conv in (nn.Conv2d, MDConv2d, DyConv2d)
    if conv is not MDConv2d or "weight" not in join.__name__  # its weights have other names
]


@pytest.mark.parametrize(("join", "expected", "conv"), CASES)
def test_norms_fold_where_nobody_else_looks(join, expected, conv, x):
    model = perturbed(Normed(join, conv))
    folded, left = fold_norms(model)
    check_left(left, expected)
    assert list(batch_norms(folded)) == list(expected)
    assert list(batch_norms(model)) == BOTH
    for y in (x, -x):
        compare(model, folded, y)
        assert not any(module.training for module in folded.modules())
        if join is _kept:
            compare(lambda _: model.kept, lambda _: folded.kept, y)


class Optional(nn.Module):
    """Who sees what depends on arguments with defaults."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)


class Masked(Optional):
    def forward(self, x, mask=None):
        y = self.conv(x)
        return self.norm(y) * mask if mask is not None else self.norm(y) + y


class Flagged(Optional):
    def forward(self, x, *, both=False):
        y = self.conv(x)
        return (self.norm(y), y) if both else self.norm(y)


class Harmless(Optional):
    def forward(self, x, mask=None, twice: bool = False, scale=2.0):
        y = self.norm(self.conv(x)) * scale
        y = y if mask is None else y * mask
        return y + y if twice else y


class Switched(Optional):
    def __init__(self):
        super().__init__()
        self.conv2 = nn.Conv2d(3, 3, 1)

    def forward(self, x, second=False):
        return self.norm(self.conv2(x) if second else self.conv(x))


class Skipped(Optional):
    def forward(self, x, skip=False):
        return self.conv(x) if skip else self.norm(self.conv(x))


class Counted(Optional):
    def forward(self, x, times=1):
        for _ in range(times):
            x = self.norm(self.conv(x))
        return x


class Starred(Optional):
    def forward(self, x, **more):
        y = self.conv(x)
        return self.norm(y) + (y if more else 0)


class Listed(Optional):
    def forward(self, x, scales=(1, 2)):
        return self.norm(self.conv(x)) * sum(scales)


class Many(Optional):
    def forward(self, x, a=1, b=2, c=3, d=4, e=5):
        return self.norm(self.conv(x)) + a + b + c + d + e


MASK = torch.rand(2, 3, 9, 8, dtype=torch.float64)


@pytest.mark.parametrize(
    ("kind", "calls", "reason"),
    [
        (Masked, [{}, {"mask": MASK}], "others see the output of 'conv' too"),
        (Flagged, [{}, {"both": True}], "others see the output of 'conv' too"),
        (Harmless, [{}, {"mask": MASK, "twice": True}, {"scale": 3.0}], None),
        (Switched, [{}, {"second": True}], "it follows conv, conv2, depending on the arguments"),
        (Skipped, [{}, {"skip": True}], "it is never called"),
        (Counted, [{}, {"times": 2}], "cannot trace the network: 'Proxy'"),
        (Starred, [{}, {"more": 1}], r"takes any number of arguments, \*\*more"),
        (Listed, [{}, {"scales": (3,)}], r"the optional argument scales=\(1, 2\)"),
        (Many, [{}, {"a": 2}], "has 5 optional arguments"),
    ],
)
def test_all_ways_of_calling_a_network_count(kind, calls, reason, x):
    model = perturbed(kind())
    folded, left = fold_norms(model)
    check_left(left, {} if reason is None else {"norm": reason})
    for arguments in calls:
        compare(model, folded, x, **arguments)


# What the graph does not show.


class Block(nn.Module):
    """A convolution and a norm, in a module of their own."""

    def __init__(self, channels=3):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels)

    def forward(self, x):
        return self.norm(self.conv(x))


class Shaped(Block):
    """Cannot be traced: what it does depends on the image."""

    def forward(self, x):
        y = self.conv(x)
        return self.norm(y) + (y if x.shape[2] > 8 else 0)


class Reaching(Shaped):
    """Cannot be traced either, and calls something of others that it holds."""

    def __init__(self, hold):
        super().__init__()
        self.hold = hold

    def forward(self, x):
        held = self.hold() if isinstance(self.hold, weakref.ref) else self.hold
        held = held[0] if isinstance(held, list) else held
        return super().forward(x) + held(x)


def test_a_part_that_cannot_be_traced_is_left_and_the_rest_folds(x):
    model = perturbed(nn.Sequential(Block(), Shaped(), nn.Sequential(Block(), Shaped())))
    folded, left = fold_norms(model)
    check_left(left, {"1.norm": "reach of '1', which torch.fx cannot trace", "2.1.norm": "'2.1'"})
    for y in (x, x[:, :, :5]):
        compare(model, folded, y)


HOLDS = {
    "registered": lambda conv: conv,
    "in a list": lambda conv: [conv],
    "partial": lambda conv: partial(nn.Module.__call__, conv),
    "method": lambda conv: conv.forward,
    "closure": lambda conv: lambda x: conv(x),
    "weak": weakref.ref,
}


@pytest.mark.parametrize("hold", HOLDS)
def test_what_an_untraced_part_can_reach_is_left(hold, x):
    block = perturbed(Block())
    model = nn.Sequential(block, perturbed(Reaching(HOLDS[hold](block.conv))))
    folded, left = fold_norms(model)
    expected = {"1.norm": "reach of '1', which torch.fx cannot trace"}
    if hold not in ("closure", "weak"):  # these are not copied: they go on calling what they did
        expected = {"0.norm": "'0.conv', whose output it sees, is in reach of '1'"} | expected
    check_left(left, expected)
    compare(model, folded, x)


class Nosy(nn.Conv2d):
    """A convolution of somebody's, which is not looked into, and calls another one."""

    def __init__(self, other):
        super().__init__(3, 3, 1)
        self.others = [other]

    def forward(self, x):
        return super().forward(x) + self.others[0](x)


def test_what_a_strangers_convolution_can_reach_is_left(x):
    block = Block()
    model = perturbed(nn.Sequential(block, Nosy(block.conv)))
    folded, left = fold_norms(model)
    check_left(left, {"0.norm": "in reach of a Nosy, which is not looked into"})
    compare(model, folded, x)


class Tied(nn.Module):
    """The weight of a convolution is read under the name of another."""

    def __init__(self):
        super().__init__()
        self.other, self.block = nn.Conv2d(3, 3, 1), Block()
        self.block.conv.weight = self.other.weight

    def forward(self, x):
        return self.block(x) * self.block.conv.weight.sum()


def test_a_tied_weight_that_is_read_is_read_in_all_modules(x):
    model = perturbed(Tied())
    folded, left = fold_norms(model)
    check_left(left, {"block.norm": "values are read"})
    compare(model, folded, x)


def test_convolutions_of_one_weight_fold_apart(x):
    model = perturbed(nn.Sequential(Block(), Block()))
    model[1].conv.weight = model[0].conv.weight
    folded, left = fold_norms(model)
    assert not left
    compare(model, folded, x)


@pytest.mark.parametrize("hooked", ["norm", "conv", "", "inner"])
def test_what_a_hook_sees_does_not_change(hooked, x):
    """Also where it sits on a container that gives on what the convolution gave."""
    model = perturbed(
        nn.Sequential(nn.Sequential(nn.Sequential(nn.Conv2d(3, 3, 1)), nn.BatchNorm2d(3)))
    )
    module = {"norm": model[0][1], "conv": model[0][0][0], "inner": model[0][0], "": model}[hooked]
    seen: list[torch.Tensor] = []
    module.register_forward_hook(lambda module, args, output: seen.append(output))
    folded, left = fold_norms(model)
    assert bool(left) is bool(hooked), "a hook on the whole sees the output only"
    compare(model, folded, x)
    torch.testing.assert_close(seen[0], seen[1], rtol=1e-9, atol=1e-9)


def _patch_conv(model):
    conv = model[0].conv
    conv.forward = lambda x: 2 * nn.Conv2d.forward(conv, x)


def _patch_norm(model):
    norm = model[0].norm
    norm.forward = lambda x: 2 * nn.BatchNorm2d.forward(norm, x)


def _patch_network(model):
    model.forward = lambda x: model[0].norm(model[0].conv(x)) + model[0].conv(x)


def _weight_norm(model):
    parametrizations.weight_norm(model[0].conv)


def _scaled_statistics(model):
    parametrizations.weight_norm(model[0].norm, dim=None)


def _subclass(model):
    class Doubled(nn.BatchNorm2d):
        def forward(self, x):
            return 2 * super().forward(x)

    model[0].norm = Doubled(3)


def _standardised(model):
    model[0].conv = StdConv2d(3, 3, 1)


def _no_statistics(model):
    model[0].norm = nn.BatchNorm2d(3, track_running_stats=False)


def _stubborn(model):
    class Stubborn(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = Block()

        def forward(self, x):
            return self.block(x)

        def train(self, mode=True):
            super().train(mode)
            self.block.norm.train()
            return self

    model[0] = Stubborn()


def _dropping(model):
    model[0].norm = BatchNormAct2d(3, drop_layer=nn.Dropout2d)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_patch_conv, "of class Conv2d, with more to it than a weight and a bias"),
        (_patch_norm, "may compute something else than a batch norm"),
        (_patch_network, "the network has an attribute in the place of a method"),
        (_weight_norm, "of class ParametrizedConv2d, which is no plain convolution"),
        (_scaled_statistics, "ParametrizedBatchNorm2d may compute something else"),
        (_subclass, "Doubled may compute something else than a batch norm"),
        (_standardised, "of class StdConv2d, which is no plain convolution"),
        (_no_statistics, "it keeps no running statistics"),
        (_stubborn, r"it stays in train\(\)"),
        (_dropping, "it drops values"),
    ],
)
def test_only_what_is_known_folds(change, reason, x):
    model = nn.Sequential(Block())
    change(model)
    perturbed(model)
    folded, left = fold_norms(model)
    (name,) = left
    check_left(left, {name: reason})
    compare(model, folded, x)


@pytest.mark.parametrize("layer", [MDConv2d, DyConv2d])
def test_a_parametrised_layer_keeps_its_norm(layer, x):
    """To scale values that are computed anew at each call would be in vain."""
    model = nn.Sequential(layer(3, 4, 3), nn.BatchNorm2d(4))
    parametrizations.weight_norm(model[0].gate.excite)
    folded, left = fold_norms(perturbed(model))
    check_left(left, {"1": "with hooks or parametrisations inside"})
    compare(model, folded, x)


def test_a_layer_that_cannot_absorb_keeps_its_norm(x):
    class Refusing(OverConv2d):
        def __init__(self):
            super().__init__(3, 4, 1)
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x):
            return self.conv(x)

        def absorb_affine(self, scale, shift):
            self.conv.bias.add_(1)  # wrongly, and so on a copy
            return False

    model = perturbed(nn.Sequential(Refusing(), nn.BatchNorm2d(4)))
    folded, left = fold_norms(model)
    check_left(left, {"1": "'0', of class Refusing, cannot absorb it"})
    compare(model, folded, x)


class Copied(nn.Sequential):
    """Copies itself in its own way: with its values, but not with what ``deepcopy`` is given."""

    def __deepcopy__(self, memo):
        copy = Copied(*map(deepcopy, self))
        return copy.train(self.training)


@pytest.mark.parametrize("conv", [nn.Conv2d, MDConv2d])
@pytest.mark.parametrize("inside", [0, 1])
def test_a_pair_of_which_one_cannot_be_swapped_stays_whole(conv, inside, x):
    """One without the other would compute something else."""
    pair: list[nn.Module] = [conv(3, 4, 3), nn.BatchNorm2d(4)]
    pair[inside] = Copied(pair[inside])
    others = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU()
    model = perturbed(nn.Sequential(*pair, *others))
    folded, left = fold_norms(model)
    compare(model, folded, x)
    norm, swapped = ("1", "0.0") if inside == 0 else ("1.0", "1.0")
    assert left == {norm: f"{swapped!r} is in a module that copies itself in its own way"}
    assert isinstance(folded[3], nn.Identity)


def test_names_and_sharing(x):
    """A convolution and a norm under two names, called by their second; a shared activation."""

    class Aliased(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), BatchNormAct2d(4, act_layer=nn.PReLU)
            self.body = nn.ModuleList([self.conv, self.norm])
            self.act = self.norm.act
            self.also = [self.conv]  # known to no module

        def forward(self, x):
            return self.act(-self.body[1](self.conv(x)))

    model = perturbed(Aliased())
    folded, left = fold_norms(model)
    assert not left
    assert folded.body[0] is folded.conv is folded.also[0]
    assert folded.body[1] is folded.norm is folded.act
    compare(model, folded, x)
    assert sum(p.numel() for p in folded.parameters()) == 4 * 27 + 4 + 1


def test_a_trace_leaves_no_marks(x):
    class Marked(Block):
        def __init__(self):
            super().__init__()
            self.calls = 0
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            self.seen += 1
            self.last = super().forward(x) + torch.rand(3, 1, 1, dtype=torch.float64).sort(0)[0]
            return self.last + torch.tensor([1.0, 2.0, 3.0])[:, None, None]

    model = perturbed(Marked())
    before, seen, state = set(vars(model)), model.seen.item(), torch.get_rng_state()
    folded, left = fold_norms(model)
    assert not left
    assert set(vars(model)) == set(vars(folded)) == before
    assert folded.calls == model.calls == 0
    assert folded.seen.item() == model.seen.item() == seen
    assert torch.equal(torch.get_rng_state(), state)


def test_isinstance_is_given_back():
    before = isinstance
    fold_norms(nn.Sequential(Block(), Shaped()))
    fold_norms(Normed(_branching))
    assert isinstance is before


def test_norms_of_other_sizes_and_of_layers_are_none_of_ours():
    model = nn.Sequential(
        nn.BatchNorm1d(3), nn.BatchNorm3d(3), MAConv2d(3, 4, 3), nn.BatchNorm2d(3)
    )
    assert any(isinstance(module, nn.BatchNorm2d) for module in model[2].modules())
    assert list(batch_norms(model)) == ["3"]
