"""The laws that every layer obeys, in every variant; none of them names a layer.

Layers are found in the package, and their variants follow from their constructors
(``benchmark/variants.py``). ``test_deployment.py`` holds what they have to survive in use.
"""

import copy
import inspect
import math
from dataclasses import astuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import overconv
import overconv.operators
from benchmark.checks import Network, modes, run
from benchmark.traits import looks_at_the_batch
from benchmark.variants import EXTRAS, Variant, classes, layers, refused, variants
from overconv.gates import Squash
from overconv.operators.base import OverConv2d, own_options
from overconv.operators.macs import Macs
from overconv.surgery import to_inference

every_layer = pytest.mark.parametrize("layer", layers(), ids=lambda layer: layer.__name__)
every_variant = pytest.mark.parametrize("variant", variants(), ids=str)

DOUBLE = {"dtype": torch.float64}
GEOMETRY = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")


def each_mode(variant):
    """A layer in double precision, in each mode that its form has, and images."""
    for mode in modes(variant):
        yield variant.build(**DOUBLE).train(mode), variant.images(**DOUBLE)


def close(ours, theirs, tolerance=1e-10):
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


# What there is.


def test_every_class_is_a_layer_or_the_base_of_one():
    """One with an argument that is neither would be passed over in silence."""
    for cls in set(classes()) - set(layers()):
        assert any(issubclass(layer, cls) for layer in layers()), cls.__name__
    assert set(EXTRAS) <= {layer.__name__ for layer in layers()}


@every_layer
def test_every_option_is_changed_in_some_variant(layer):
    """What follows from no type is listed in ``EXTRAS`` of ``benchmark/variants.py``.

    Changed from the default, and where that is computed, from what it is computed to.
    """
    changed, defaults = set(), own_options(layer)
    for variant in variants():
        if variant.layer is layer:
            ordinary = layer(**variant.arguments())
            for name, value in variant.options.items():
                if value != getattr(ordinary, name, defaults[name]):  # a temperature is a buffer
                    changed.add(name)
    assert set(defaults) == changed


@every_layer
def test_it_is_exported(layer):
    assert getattr(overconv.operators, layer.__name__) is layer
    assert getattr(overconv, layer.__name__) is layer


@every_layer
def test_arguments_are_those_of_torch_and_then_its_own_by_keyword(layer):
    ours = list(inspect.signature(layer).parameters.values())
    theirs = list(inspect.signature(nn.Conv2d).parameters.values())
    assert [p.name for p in ours[: len(theirs)]] == [p.name for p in theirs]
    assert [p.default for p in ours[: len(theirs)]] == [p.default for p in theirs]
    assert all(p.kind is p.KEYWORD_ONLY for p in ours[len(theirs) :])


def test_nothing_is_refused():
    assert refused() == ()


# What it refuses.


@every_layer
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_channels": 0}, "in_channels must be at least 1, got 0"),
        ({"in_channels": 4.0}, "in_channels must be an integer, got 4.0"),
        ({"out_channels": 0}, "out_channels must be at least 1, got 0"),
        ({"groups": 3}, "in_channels=4 does not split into groups=3"),
        ({"groups": 4}, "out_channels=6 does not split into groups=4"),
        ({"kernel_size": 0}, "kernel_size must be at least 1, got 0"),
        ({"padding": "same", "stride": 2}, "padding='same' needs stride 1"),
        ({"padding_mode": "constant"}, "padding_mode must be one of 'zeros', .*, got 'constant'"),
    ],
    ids=str,
)
def test_it_refuses_a_geometry_in_words(layer, arguments, message):
    with pytest.raises(ValueError, match=message):
        layer(**{"in_channels": 4, "out_channels": 6, "kernel_size": 3, **arguments})


@every_layer
def test_it_refuses_an_option_in_words(layer):
    """Of strings ``benchmark.variants.allowed`` asks the same; no number of its own may be 0."""
    for option, default in own_options(layer).items():
        if isinstance(default, bool | str) or not isinstance(default, int | float | None):
            continue
        with pytest.raises(ValueError, match=option):
            layer(4, 6, 3, **{option: 0})


@every_variant
@pytest.mark.parametrize("shape", [(4, 6, 6), (2, 3, 6, 6), (1, 2, 4, 6, 6)], ids=str)
def test_it_refuses_an_input_of_the_wrong_shape(variant, shape):
    with pytest.raises(ValueError, match=r"input must be \(batch, 4, height, width\), got"):
        variant.build()(torch.zeros(shape))


# Conversion.


def plain(variant, **factory):
    """A convolution of the variant's geometry."""
    return nn.Conv2d(**variant.arguments(), **factory)


@every_variant
def test_it_starts_as_the_convolution_that_it_replaces(variant):
    conv, x = plain(variant, **DOUBLE), variant.images(**DOUBLE)
    for mode in (True, False):
        weight = conv.weight.detach().clone()
        layer = variant.layer.from_conv2d(conv.train(mode), **variant.options)
        assert type(layer) is variant.layer
        assert {module.training for module in layer.modules()} == {mode}
        assert {p.dtype for p in layer.parameters()} == {torch.float64}
        assert trains(layer) == {True}
        assert (layer.bias is None) == (conv.bias is None)
        for name in ("in_channels", "out_channels", *GEOMETRY):
            assert getattr(layer, name) == getattr(conv, name), name
        if mode in modes(variant):
            # which sees to it that every parameter is reached
            y, _ = run(copy.deepcopy(layer).train(mode), x)
            if not mode or not looks_at_the_batch(layer):
                close(y, conv(x))
        close(layer.eval()(x), conv(x))
        assert torch.equal(conv.weight, weight)


@every_variant
def test_it_starts_on_the_meta_device_too(variant):
    layer = variant.layer.from_conv2d(plain(variant, device="meta"), **variant.options)
    assert all(tensor.is_meta for tensor in [*layer.parameters(), *layer.buffers()])
    x = variant.images(device="meta")
    assert layer.eval()(x).shape == plain(variant, device="meta")(x).shape


@every_variant
def test_it_starts_anew_from_any_state(variant):
    """So that one that was made without values, on the meta device, gets all of them."""
    layer, fresh = variant.layer(**variant.arguments(), **variant.options), {}
    for name, value in layer.state_dict().items():
        fresh[name] = value.clone()
        value.fill_(math.nan if value.is_floating_point() else 7)
    layer.reset_parameters()
    for name, parameter in layer.named_parameters():
        assert parameter.isfinite().all(), name
    for name, value in layer.named_buffers():
        assert torch.equal(value, fresh.get(name, value)), name


@every_layer
def test_it_starts_only_as_what_is_a_plain_convolution(layer):
    class Doubled(nn.Conv2d):
        def forward(self, x):
            return 2 * super().forward(x)

    for other in (Doubled(4, 6, 3), nn.ConvTranspose2d(4, 6, 3), nn.Conv1d(4, 6, 3)):
        with pytest.raises(ValueError, match=f"a torch.nn.Conv2d, got {type(other).__name__}"):
            layer.from_conv2d(other)


@every_variant
def test_inference_computes_what_eval_does_and_leaves_the_rest_alone(variant):
    for mode in (True, False):
        layer = variant.build(**DOUBLE).train(mode)
        state = {name: value.clone() for name, value in layer.state_dict().items()}
        generator = torch.get_rng_state()
        deployed = layer.to_inference()
        assert torch.equal(torch.get_rng_state(), generator)
        assert {module.training for module in layer.modules()} == {mode}
        assert layer.state_dict().keys() == state.keys()
        for name, value in layer.state_dict().items():
            assert torch.equal(value, state[name]), name
        assert not any(module.training for module in deployed.modules())
        mine = {tensor.data_ptr() for tensor in layer.state_dict().values()}
        assert not any(t.data_ptr() in mine for t in deployed.state_dict().values())
        x = variant.images(**DOUBLE)
        close(deployed(x), layer.eval()(x))
        again = deployed.to_inference() if isinstance(deployed, OverConv2d) else deployed
        close(again(x), layer(x))


def trains(module):
    return {parameter.requires_grad for parameter in module.parameters()}


@every_variant
def test_what_is_frozen_stays_so_at_inference(variant):
    for train in (True, False):
        layer = variant.build().requires_grad_(train)
        deployed = layer.to_inference()
        assert trains(deployed) == trains(layer) == {train}
        if isinstance(deployed, OverConv2d):
            assert trains(deployed.to_inference()) == {train}


@every_layer
def test_in_a_network_too_though_norms_fold_into_it(layer):
    for train in (True, False):
        network = Network(Variant(layer)).build().requires_grad_(train)
        assert trains(to_inference(network)) == {train}


@every_variant
def test_an_affine_map_behind_it_is_absorbed(variant):
    layer, x = variant.build(**DOUBLE).to_inference(), variant.images(**DOUBLE)
    if not isinstance(layer, OverConv2d):
        assert type(layer) is nn.Conv2d  # into which any batch norm folds
        return
    expected = layer(x)
    for _ in range(2):
        scale, shift = torch.randn(2, layer.out_channels, **DOUBLE).unbind()
        before = {name: value.clone() for name, value in layer.state_dict().items()}
        with torch.no_grad():
            absorbed = layer.absorb_affine(scale, shift)
        assert type(absorbed) is bool
        if absorbed:
            expected = expected * scale[:, None, None] + shift[:, None, None]
        else:
            torch.testing.assert_close(dict(layer.state_dict()), before, rtol=0, atol=0)
        close(layer(x), expected)
        for form in layer.forms((6, 5)):
            moved = copy.deepcopy(layer)
            setattr(moved, layer.form_option, form)
            close(moved(x), expected)
        twin = copy.deepcopy(layer)
        close(twin.to_inference()(x), expected)


@every_variant
def test_a_stride_that_is_set_later_counts(variant):
    """For the output as for all that is said and made of the layer, with gradients or without."""
    layer, x = variant.build(**DOUBLE).eval(), variant.images(**DOUBLE)
    if layer.padding == "same":
        return
    layer(x)
    layer.stride = (3, 2)
    y = layer(x)
    assert y.shape[2:] == layer.output_size(tuple(x.shape[2:]))
    close(layer.to_inference()(x), y)
    with torch.no_grad():
        close(layer(x), y)


# The kernel that a sample sees.


@every_variant
def test_its_kernels_are_what_it_convolves_with(variant):
    for layer, x in each_mode(variant):
        if layer.training and looks_at_the_batch(layer):
            continue
        kernels, bias = layer.kernels(x)
        conv = plain(variant, **DOUBLE)
        assert kernels.shape[0] in (1, 3)
        assert kernels.shape[1:] == conv.weight.shape
        rows = []
        for index, sample in enumerate(x):
            kernel = kernels[index if len(kernels) > 1 else 0]
            constant = bias
            if bias is not None and bias.dim() == 2:
                constant = bias[index if len(bias) > 1 else 0]
            assert constant is None or constant.shape == (layer.out_channels,)
            padded = layer.pad_fully(sample[None])
            geometry = layer.stride, 0, layer.dilation, layer.groups
            rows.append(F.conv2d(padded, kernel, constant, *geometry))
        close(torch.cat(rows), layer(x))


@every_variant
def test_its_kernels_span_as_many_dimensions_as_it_says(variant):
    layer = variant.build(**DOUBLE).eval()
    says, x = layer.kernel_dimension(), variant.images(2, **DOUBLE)
    gate = getattr(layer, "gate", None)
    if gate is None or layer.kernels(x)[0].shape[0] == 1:  # gates that do not see the sample
        assert says == 1
        return
    values = layer.kernels(x)[0][0].numel()
    assert 1 <= says <= values
    batch, forward = values + 8, gate.forward
    gate.forward = lambda u: tuple(torch.randn_like(part) for part in forward(u))
    with torch.no_grad():
        kernels = layer.kernels(variant.images(batch, **DOUBLE))[0].flatten(1)
    found = torch.linalg.svdvals(kernels)
    assert int((found > 1e-9 * found[0]).sum()) == says


@every_variant
def test_a_sample_is_alone_unless_the_layer_looks_at_the_batch(variant):
    for layer, x in each_mode(variant):
        seen = layer.training and looks_at_the_batch(layer)
        whole, one = copy.deepcopy(layer)(x), copy.deepcopy(layer)(x[:1])
        if seen:
            assert not torch.allclose(whole[:1], one, rtol=1e-6)
        else:
            close(whole[:1], one)


# Forms.


@every_variant
def test_without_gradients_it_computes_the_same_and_leaves_its_input_alone(variant):
    """In every form: some have a shorter way then, which multiplies in place."""

    def check(layer, x):
        expected, before = copy.deepcopy(layer)(x), x.clone()
        with torch.no_grad():
            close(copy.deepcopy(layer)(x), expected)
        torch.testing.assert_close(x, before, rtol=0, atol=0)

    for layer, x in each_mode(variant):
        for one in (layer, layer.to_inference()):
            check(one, x)
            for form in one.forms((6, 5)) if isinstance(one, OverConv2d) else ():
                setattr(one, one.form_option, form)
                check(one, x)


@every_variant
def test_all_forms_give_the_same_outputs_and_gradients(variant):
    for layer, x in each_mode(variant):
        forms = layer.forms((6, 5))
        assert bool(forms) == (layer.form_option is not None)
        if not forms:
            continue
        present = getattr(layer, layer.form_option)
        expected = run(copy.deepcopy(layer), x)
        assert layer.training or len(forms) > 1
        for form, cost in forms.items():
            other = copy.deepcopy(layer)
            setattr(other, layer.form_option, form)
            assert other.macs((6, 5)) == cost
            assert {module.training for module in other.modules()} == {layer.training}
            close(run(other, x), expected, 1e-9)
            setattr(other, layer.form_option, present)
            assert other.macs((6, 5)) == layer.macs((6, 5))
        with pytest.raises(ValueError, match=f"{layer.form_option} must be"):
            setattr(layer, layer.form_option, "sideways")
        assert getattr(layer, layer.form_option) == present


# Cost.


class Work(TorchDispatchMode):
    """Counts multiply-accumulates of a run: those of products, and of elementwise work.

    Elementwise are multiplications of images and kernels, of three axes or more. A product of a
    single row with images, which torch runs where parallel images are mixed, is of both kinds.
    """

    def __init__(self, pixels):
        super().__init__()
        self.pixels, self.products, self.elementwise, self.mixing = pixels, 0, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        if packet in flop_registry:
            count = flop_registry[packet](*args, **(kwargs or {}), out_val=out) // 2
            self.products += count
            if packet is torch.ops.aten.bmm:
                left, right = args
                if left.shape[1] == 1 and right.shape[2] % self.pixels == 0:
                    self.mixing += count
        elif packet in (torch.ops.aten.mul, torch.ops.aten.addcmul) and out.dim() >= 3:
            self.elementwise += out.numel()
        return out


@every_variant
def test_macs_equal_a_count_of_real_runs(variant):
    """Products and what is elementwise, an image and a batch."""
    image = (26, 26)  # so that no other size is a multiple of the number of pixels
    for layer, _ in each_mode(variant):
        macs = layer.macs(image)
        assert all(type(part) is int and part >= 0 for part in astuple(macs))
        counts = []
        for batch in (2, 5):
            with Work(torch.Size(layer.output_size(image)).numel()) as work, torch.no_grad():
                layer(variant.images(batch, image, **DOUBLE))
            counts.append(work)
        few, many = counts
        products, mixing, elementwise = (
            (getattr(many, kind) - getattr(few, kind)) / 3
            for kind in ("products", "mixing", "elementwise")
        )
        said = macs.gate + macs.compose + macs.convolution
        assert said in (products, products - mixing), (macs, products, mixing, elementwise)
        shared = few.products - 2 * products
        scaling = few.elementwise - 2 * elementwise
        assert shared <= macs.shared <= shared + scaling, (macs, shared, scaling)
        assert macs.other >= elementwise + (products - said), (macs, elementwise)


def test_macs_add_up():
    assert Macs(1, 2, 3, 4, 5) + Macs(gate=10, shared=20) == Macs(11, 2, 3, 4, 25)


# What it looks like.


@every_variant
def test_its_repr_shows_the_options_that_differ(variant):
    """Attributes by name, but for a temperature: that is a buffer, since schedules move it."""
    layer = variant.layer(**variant.arguments(), **variant.options)
    text = layer.extra_repr()
    for name, default in own_options(variant.layer).items():
        value = variant.options.get(name, default)
        if name == "temperature":
            found = [m.temperature for m in layer.modules() if isinstance(m, Squash)]
            assert found or name not in variant.options
            assert all(float(temperature) == value for temperature in found)
        elif value is not None:  # what is computed then is up to the layer
            assert getattr(layer, name) == value, name
            shown = value != default or name == layer.form_option
            assert (f", {name}={value!r}" in text) == shown == (f", {name}=" in text), name
    deployed = layer.to_inference()  # where norms are folded
    assert "norm=True" not in deployed.extra_repr()
    conv, ordinary = plain(variant), nn.Conv2d(4, 6, 3)
    for name in GEOMETRY:
        if name == "kernel_size" or getattr(conv, name) != getattr(ordinary, name):
            assert f"{name}={getattr(conv, name)!r}" in text
    assert ("bias=False" in layer.extra_repr()) == (conv.bias is None)


@every_variant
def test_parameters_with_four_axes_at_most(variant):
    """So that it can be moved to channels_last."""
    assert all(p.dim() <= 4 for p in variant.build().parameters())
