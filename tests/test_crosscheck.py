"""Formulas against what counters see, for every layer and form; planted errors of every kind."""

import functools

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import overconv.fvcounter
from benchmark.crosscheck import IMAGE, evaluations
from benchmark.variants import Variant, layers, variants
from overconv.crosscheck import CountersDisagree, cross_check
from overconv.fvcounter import count_by_fvcore
from overconv.models.resnet import ResNet
from overconv.operators.dyconv import DyConv2d
from overconv.operators.macs import Macs
from overconv.operators.mdconv import MDConv2d
from overconv.products import CORRECTIONS


@pytest.mark.parametrize("variant", variants(), ids=str)
def test_formula_and_counter_agree_forward_and_backward(variant):
    """All layers in all forms, geometries and modes; products exactly."""
    for layer in evaluations(variant):
        for batch, gradient in ((1, True), (2, True), (8, True), (2, False)):
            x = torch.zeros(batch, 4, *IMAGE, requires_grad=gradient)
            checked = cross_check(layer, x, backward=True, fvcore=False)
            (only,) = checked.modules.values()
            assert only.formula == only.counted - only.rows + only.elementwise
            assert not (only.rows and only.elementwise)
            if batch > 1 and not only.rows and not only.elementwise:
                assert only.formula == checked.counts.forward.macs


@pytest.mark.parametrize("variant", variants(), ids=str)
def test_they_agree_without_gradients_too(variant):
    """There some layers work in place."""
    for layer in evaluations(variant):
        if not layer.training:
            cross_check(layer, torch.zeros(2, 4, *IMAGE), backward=False, fvcore=False)


@pytest.mark.parametrize("layer", layers(), ids=lambda layer: layer.__name__)
def test_fvcore_agrees(layer):
    for evaluation in evaluations(Variant(layer)):
        checked = cross_check(evaluation, torch.zeros(2, 4, *IMAGE), backward=True, fvcore=True)
        assert checked.fvcore >= checked.counts.forward.macs > 0


# Planted.


class Mixing(nn.Module):
    """Kernels mixed for each sample; how it is written, and what its formula has, can differ."""

    def __init__(self, written="matmul", said=("gate", "compose", "convolution", "other")):
        super().__init__()
        self.kernels = nn.Parameter(torch.randn(3, 6, 4, 3, 3))
        self.gate = nn.Linear(4, 3)
        self.written, self.said, self.factor = written, said, 1

    def forward(self, x):
        shares, kernels = self.gate(x.mean((2, 3))), self.kernels
        if self.written == "matmul":
            own = (shares @ kernels.flatten(1)).view(-1, *kernels.shape[2:])
        elif self.written == "rows":
            own = (shares[:, None] @ kernels.flatten(1)).view(-1, *kernels.shape[2:])
        elif self.written == "product":
            own = (shares[:, :, None, None, None, None] * kernels).sum(1).flatten(0, 1)
        elif self.written == "scaled":
            own = sum(
                torch.addcmul(torch.zeros(()), share[:, None, None, None, None], kernel)
                for share, kernel in zip(shares.unbind(1), kernels, strict=True)
            ).flatten(0, 1)
        elif self.written == "flat":
            own = (shares[..., None] * kernels.flatten(1)).sum(1).view(-1, *kernels.shape[2:])
        elif self.written == "flatter":
            own = torch.cat([(s[:, None] * kernels.flatten(1)).sum(0) for s in shares])
            own = own.view(-1, *kernels.shape[2:])
        elif self.written == "vectors":
            flat = [sum(a * b for a, b in zip(s, kernels.flatten(1), strict=True)) for s in shares]
            own = torch.cat(flat).view(-1, *kernels.shape[2:])
        elif self.written == "prod":
            pairs = torch.broadcast_tensors(shares[..., None], kernels.flatten(1))
            own = torch.stack(pairs).prod(0).sum(1).view(-1, *kernels.shape[2:])
        elif self.written == "divided":
            own = (kernels / (1 / shares)[:, :, None, None, None, None]).sum(1).flatten(0, 1)
        y = F.conv2d(x.reshape(1, -1, *x.shape[2:]), own, None, 1, 1, groups=len(x))
        return y.view(len(x), -1, *y.shape[2:])

    def macs(self, image):
        pixels, values = image[0] * image[1], self.kernels.numel()
        found = {
            "gate": self.gate.weight.numel(),
            "compose": values,
            "convolution": self.factor * values // 3 * pixels,
            "other": 4 * pixels,
        }
        return Macs(**{kind: found[kind] for kind in self.said})


WRITTEN = ("matmul", "product", "scaled", "flat", "flatter", "vectors", "prod", "divided")
X = torch.randn(2, 4, *IMAGE)


@pytest.mark.parametrize("written", WRITTEN)
def test_an_honest_mixture_passes_however_it_is_written(written):
    layer = Mixing(written)
    checked = cross_check(layer, X.clone().requires_grad_(), backward=True)
    (only,) = checked.modules.values()
    mixing = 2 * layer.kernels.numel()
    assert only.elementwise == (0 if written == "matmul" else mixing)
    assert checked.counts.forward.macs == only.formula - only.elementwise
    assert checked.fvcore == checked.counts.forward.macs


@pytest.mark.parametrize("written", WRITTEN)
def test_a_formula_that_omits_its_mixing_is_found_however_it_is_written(written):
    """Written as multiplications, no counter of products sees it."""
    layer = Mixing(written, said=("gate", "convolution", "other"))
    with pytest.raises(CountersDisagree, match="in no formula|not in the formula") as raised:
        cross_check(layer, X)
    for figure in (
        "'convolution': 31104",
        "'other': 576",
        "1296" if "mul" in written else "values",
    ):
        assert figure in str(raised.value)


@pytest.mark.parametrize("kind", ["gate", "compose", "convolution", "other"])
def test_a_formula_that_omits_any_kind_is_found(kind):
    said = {"gate", "compose", "convolution", "other"} - {kind}
    with pytest.raises(CountersDisagree, match="By formula.*torch's counter sees"):
        cross_check(Mixing(said=said), X)


@pytest.mark.parametrize("written", WRITTEN)
def test_a_formula_that_says_too_much_is_found(written):
    layer = Mixing(written)
    layer.factor = 2
    with pytest.raises(CountersDisagree, match="of the formula are not there"):
        cross_check(layer, X)


def test_a_formula_that_composes_what_nobody_composes_is_found():
    class Boasting(Mixing):
        def macs(self, image):
            return super().macs(image) + Macs(compose=100)

    with pytest.raises(CountersDisagree, match="200 multiply-accumulates of the formula are not"):
        cross_check(Boasting(), X)


def test_gating_does_not_pass_for_convolving():
    """Only kernels may be mixed elementwise."""

    class Gated(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) * torch.ones(1, 4, 1, 1)

        def macs(self, image):
            pixels = image[0] * image[1]
            return Macs(convolution=16 * pixels + 4 * pixels)  # the second is other

    with pytest.raises(CountersDisagree, match="576 multiply-accumulates of the formula are not"):
        cross_check(Gated(4, 4, 1), X)


def test_a_library_layer_whose_formula_is_wrong_is_named(monkeypatch):
    model = ResNet(8, 4, conv=functools.partial(DyConv2d, num_kernels=2)).eval()
    x, right = torch.zeros(2, 3, 12, 12), DyConv2d.macs
    cross_check(model, x)

    def wrong(self, image):
        macs = right(self, image)
        return macs if self.in_channels == 4 else macs + Macs(compose=-1)

    monkeypatch.setattr(DyConv2d, "macs", wrong)
    with pytest.raises(CountersDisagree, match=r"'layers\.1\.conv1'|'[\w.]+', batch 2: 2 multiply"):
        cross_check(model, x)


def test_a_wrong_backward_formula_is_found():
    class Wrong(Mixing):
        def macs_backward(self, image, input_gradient):
            return self.macs(image)

    with pytest.raises(CountersDisagree, match="backward pass, batch 2: by formula .* counter"):
        cross_check(Wrong(), X.clone().requires_grad_(), backward=True)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_input_gets_a_gradient_if_it_asks_for_one(device):
    conv, products = nn.Conv2d(4, 5, 3, device=device), 4 * 5 * 9 * 42
    for asks in (True, False):
        x = torch.zeros(2, 4, *IMAGE, device=device, requires_grad=asks)
        checked = cross_check(conv, x, backward=True)
        assert checked.macs_backward == Macs(convolution=(1 + asks) * products)
        assert checked.counts.backward.macs == 2 * (1 + asks) * products


def test_the_stock_formula_of_grouped_convolutions_would_be_found(monkeypatch):
    for key, formula in CORRECTIONS.items():
        if key is torch.ops.aten.convolution_backward:

            def stock(*args, formula=formula, **named):
                return args[9] * formula(*args, **named)

            changed = {**CORRECTIONS, key: stock}
    monkeypatch.setattr("overconv.counters.CORRECTIONS", changed)
    with pytest.raises(CountersDisagree, match="backward pass"):
        cross_check(nn.Conv2d(4, 4, 3, groups=2), X, backward=True)


class Functional(nn.Module):
    """A product that no module does."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        y = self.conv(x).flatten(2)
        return y @ y.transpose(1, 2)


def test_products_outside_of_layers_are_refused_or_listed():
    with pytest.raises(CountersDisagree, match="no formula charges 2,304 .*'the model'"):
        cross_check(Functional(), X)
    checked = cross_check(Functional(), X, unknown="list", backward=True)
    assert checked.only_counted == {"": 2 * 4 * 4 * 72}
    assert "2,304" in checked.not_seen["formulas"][""]
    assert "not compared" in checked.not_seen["formulas"]["backward pass"]
    assert "counted outside of what formulas charge" in str(checked)


def test_fvcore_that_disagrees_is_an_error(monkeypatch):
    seen = []

    def miscounted(model, x):
        total, missed = count_by_fvcore(model, x)
        seen.append(total)
        return total - 1, missed

    monkeypatch.setattr("overconv.crosscheck.count_by_fvcore", miscounted)
    with pytest.raises(CountersDisagree, match="fvcore sees 1,151 .* torch's counter 1,152"):
        cross_check(nn.Conv2d(4, 2, 1), X)
    assert seen == [1152]


# What was not seen.


def test_each_counter_lists_what_it_could_not_see():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.spare = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)
            self.norm, self.slope = nn.BatchNorm2d(4), nn.PReLU()

        def forward(self, x):
            return F.max_pool2d(self.slope(self.norm(self.conv(x))), 2)

    with pytest.raises(ValueError, match="cost of 'slope', a PReLU"):
        cross_check(Unused(), X)
    checked = cross_check(Unused().eval(), X, unknown="list")
    assert checked.not_seen["formulas"] == {
        "slope": "a PReLU with parameters has no formula",
        "spare": "a module that was not called",
    }
    torch_missed = checked.not_seen["torch's counter"]
    assert torch_missed["_native_batch_norm_legit_no_training"] == "1 times, 336 values"
    assert "max_pool2d_with_indices" in torch_missed
    assert "aten::max_pool2d" in checked.not_seen["fvcore"]
    assert checked.not_seen["fvcore"]["spare"] == "a module that the traced graph does not call"
    assert "could not see:\n" in str(checked)


def test_without_values_it_costs_no_memory_and_no_fvcore():
    with torch.device("meta"):
        model = torchvision.models.resnet18()
    x = torch.empty(64, 3, 224, 224, device="meta")
    checked = cross_check(model, x)
    assert checked.macs.total == 1_814_073_344
    assert checked.counts.forward.macs == 64 * 1_814_073_344
    stem = 64 * 9408 * 112**2
    assert checked.counts.backward.macs == 2 * 64 * 1_814_073_344 - stem
    assert checked.fvcore is None
    assert checked.counts.peak_bytes > 10**9
    with pytest.raises(ValueError, match="fvcore needs values"):
        cross_check(model, x, fvcore=True)


def test_the_model_stays_as_it_is():
    model = nn.Sequential(MDConv2d(4, 4, 3, when="batch"), nn.BatchNorm2d(4)).train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    x = X.clone().requires_grad_()
    cross_check(model, x)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert x.grad is None
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


# fvcore's formulas.


class Einsum(nn.Module):
    def __init__(self, equation, *shapes):
        super().__init__()
        self.equation = equation
        self.others = nn.ParameterList(torch.randn(shape) for shape in shapes)

    def forward(self, x):
        return torch.einsum(self.equation, x, *self.others)


@pytest.mark.parametrize(
    ("equation", "shape", "other", "macs"),
    [
        ("bn,nv->bv", (7, 11), (11, 13), 7 * 11 * 13),
        ("...gomt,...gmi->...goit", (3, 2, 5, 4, 9), (3, 2, 4, 7), 3 * 2 * 5 * 4 * 9 * 7),
        ("...gomt,...gmi->...goit", (2, 5, 4, 9), (3, 2, 4, 7), 3 * 2 * 5 * 4 * 9 * 7),
        ("bchw,oc->bohw", (2, 101, 13, 17), (103, 101), 2 * 101 * 13 * 17 * 103),
    ],
)
def test_einsums_are_counted_to_the_last_digit(equation, shape, other, macs):
    """Where fvcore reads three or four digits of numpy's text."""
    assert count_by_fvcore(Einsum(equation, other), torch.zeros(shape))[0] == macs


class Calls(nn.Module):
    def __init__(self, call):
        super().__init__()
        self.call = call

    def forward(self, x):
        return self.call(x)


@pytest.mark.parametrize(
    ("call", "macs"),
    [
        (lambda x: x @ torch.ones(5), 30),
        (lambda x: x @ torch.ones(2, 5, 7), 210),
        (lambda x: torch.baddbmm(torch.ones(2, 1, 7), x, torch.ones(2, 5, 7)), 210),
        (lambda x: F.scaled_dot_product_attention(x, x, x), 2 * 2 * 9 * 5),
        (lambda x: F.batch_norm(x, torch.ones(3), torch.ones(3)), 0),
    ],
    ids=["vector", "matmul", "baddbmm", "attention", "norm"],
)
def test_what_fvcore_lacks_is_added(call, macs):
    assert count_by_fvcore(Calls(call), torch.zeros(2, 3, 5))[0] == macs


def test_an_einsum_of_three_has_no_one_cost():
    with pytest.raises(ValueError, match="an einsum of 3 tensors"):
        count_by_fvcore(Einsum("ab,bc,cd->ad", (3, 4), (4, 5)), torch.zeros(2, 3))


def test_the_logger_of_fvcore_is_left_as_it_was():
    import logging

    logger = logging.getLogger("fvcore")
    before = logger.level
    overconv.fvcounter.count_by_fvcore(nn.Linear(3, 2), torch.zeros(1, 3))
    assert logger.level == before


def test_an_unknown_way_with_the_unknown_is_refused():
    with pytest.raises(ValueError, match=r"unknown must be one of .*, got 'ignore'"):
        cross_check(nn.Conv2d(3, 4, 1), torch.zeros(2, 3, 5, 5), unknown="ignore")
