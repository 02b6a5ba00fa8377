"""MDConv2d over its own options, in both modes, and over odd geometries."""

import re
from itertools import product

import pytest
import torch
from torch import nn

from overconv.operators.maconv import MAConv2d
from overconv.operators.mdconv import MDConv2d

PLACEMENTS = [
    tuple(p for p, chosen in zip(("input", "middle", "output"), bits, strict=True) if chosen)
    for bits in product((False, True), repeat=3)
]
BORDERS = {"kernel_size": 3, "padding": (1, 2), "stride": (1, 2)}


def images(batch=3):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(batch, 4, 6, 5, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("placement", PLACEMENTS, ids="-".join)
@pytest.mark.parametrize("spatial", ["first", "last"])
def test_options_equal_the_definition(spatial, placement, oracle):
    """Whatever the gates, norms and modes: forms, definition and inference agree."""
    x = images()
    whens, squashes = ["sample", "batch", "training"], ["2sigmoid", "sigmoid", "softmax"]
    if not placement:  # no gates, and no options of them
        whens, squashes = whens[:1], squashes[:1]
    grid = product(whens, [False, True], squashes, [1, 2])
    for number, (when, middle_norm, squash, groups) in enumerate(grid):
        options = {"placement": placement, "when": when, "middle_norm": middle_norm}
        layer = MDConv2d(
            4, 6, **BORDERS, groups=groups, depth=3, spatial=spatial, squash=squash, **options
        )
        oracle.randomise(layer, seed=number)
        for mode, form in product([True, False], ["expanding", "compact"]):
            if mode and form == "compact" and middle_norm:
                continue
            layer.train(mode)
            layer.form = form
            definition = oracle.gradients(layer, lambda x, layer=layer: oracle.chain(layer, x), x)
            what = f"MDConv2d options, {'train()' if mode else 'eval()'}: outputs and gradients"
            oracle.compare(what, oracle.gradients(layer, layer, x), definition)
        oracle.compare("to_inference = eval()", layer.to_inference()(x), definition[0])


@pytest.mark.parametrize("kernel", [2, (4, 1), (2, 3), (1, 2)])
@pytest.mark.parametrize("padding", ["same", "valid", (1, 0)])
@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_even_and_oblong_kernels(padding_mode, padding, kernel, oracle):
    x = images()
    for spatial, middle_norm, dilation in product(["first", "last"], [False, True], [1, (1, 2)]):
        geometry = {"padding": padding, "padding_mode": padding_mode, "dilation": dilation}
        options = {"spatial": spatial, "middle_norm": middle_norm, "depth": 2}
        conv = nn.Conv2d(4, 6, kernel, **geometry, dtype=torch.float64).eval()
        layer = MDConv2d.from_conv2d(conv, **options)
        oracle.compare("odd kernels: from_conv2d = convolution", layer(x), conv(x))
        oracle.randomise(layer)
        definition = oracle.gradients(layer, lambda x, layer=layer: oracle.chain(layer, x), x)
        for form in ("expanding", "compact"):
            layer.form = form
            ours = oracle.gradients(layer, layer, x)
            oracle.compare("odd kernels: forms = loops, outputs and gradients", ours, definition)
        ungated = MDConv2d(4, 6, kernel, **geometry, placement=(), **options)
        oracle.randomise(ungated)
        folded = ungated.to_inference()
        assert isinstance(folded, nn.Conv2d)
        assert folded.padding == ungated.padding
        oracle.compare("odd kernels: fold = eval()", folded(x), ungated.eval()(x))


@pytest.mark.parametrize("form", ["expanding", "compact"])
@pytest.mark.parametrize("spatial", ["first", "last"])
def test_gradients_equal_finite_differences(spatial, form, oracle):
    options = {"placement": ("input", "middle", "output"), "depth": 3, "form": form}
    layer = oracle.randomise(MDConv2d(4, 6, 3, padding=1, groups=2, spatial=spatial, **options))
    assert torch.autograd.gradcheck(layer, images(2)[:, :, :3, :3].requires_grad_())


def test_the_forms_share_their_parameters(oracle):
    layer, x = oracle.randomise(MDConv2d(4, 6, 3, depth=3)), images()
    names = [name for name, _ in layer.named_parameters()]
    before = layer(x)
    layer.form = "compact"
    assert [name for name, _ in layer.named_parameters()] == names
    torch.testing.assert_close(layer(x), before)
    allowed = r"form must be 'expanding', 'compact' or an order of A3 D2 A2 D1 A1 x"
    for form in ("both", "A3 (D2 (A2 x))", "A2 (D1 (A1 x))", "A3 (A2 (D1 (A1 (D2 x))))", None, 3):
        with pytest.raises(ValueError, match=f"{allowed}.* got {re.escape(repr(form))}"):
            layer.form = form
    assert layer.form == "compact"


def test_kernels_differ_between_samples(oracle):
    layer = oracle.randomise(MDConv2d(4, 6, 3))
    kernel, _ = layer.kernels(images())
    assert (kernel[0] - kernel[1]).abs().max() > 1e-2


def test_compact_cannot_normalise_by_the_batch():
    layer = MDConv2d(4, 6, 3, middle_norm=True, form="compact").double()
    with pytest.raises(ValueError, match="use form='expanding', or eval()"):
        layer(images())
    layer.eval()(images())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"kernel_size": 1, "shape": (4, 10)}, 4),  # the smaller side of a pointwise layer
        ({"kernel_size": 1, "shape": (10, 4)}, 4),
        ({"kernel_size": 3, "shape": (4, 10)}, 10),
        ({"kernel_size": 3, "shape": (1, 16)}, 9),  # in * taps
        ({"kernel_size": 3, "shape": (4, 10), "spatial": "last"}, 4),
        ({"kernel_size": 3, "shape": (4, 8), "groups": 2}, 8),
        ({"kernel_size": 3, "shape": (4, 4), "groups": 4}, 8),  # depthwise: two a group
    ],
)
def test_default_middle_channels(arguments, expected):
    in_channels, out_channels = arguments.pop("shape")
    assert MDConv2d(in_channels, out_channels, **arguments).middle_channels == expected


@pytest.mark.parametrize("spatial", ["first", "last"])
@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize("shape", [(2, 9), (9, 2), (4, 4)])
@pytest.mark.parametrize("groups", [1, 2])
def test_from_conv2d_holds_a_kernel_of_low_rank(groups, shape, depth, spatial, oracle):
    """A middle below the channels, but not below the rank; the groups have different ranks."""
    conv = nn.Conv2d(groups * shape[0], groups * shape[1], 3, groups=groups).double()
    x = torch.randn(2, groups * shape[0], 5, 5, dtype=torch.float64)
    with torch.no_grad():
        rows, columns = conv.weight.view(groups, shape[1], -1).shape[1:]
        if spatial == "last":
            rows, columns = 9 * shape[1], shape[0]
        kernel = torch.zeros(groups, rows, columns, dtype=torch.float64)
        for group, rank in enumerate((1, 2)[:groups]):
            kernel[group] = torch.randn(rows, rank).double() @ torch.randn(rank, columns).double()
        kernel = kernel.view(groups, shape[1], 9, shape[0]).mT if spatial == "last" else kernel
        conv.weight.copy_(kernel.reshape_as(conv.weight))
    options = {"depth": depth, "spatial": spatial}
    layer = MDConv2d.from_conv2d(conv, middle_channels=2 * groups, **options)
    oracle.compare("from_conv2d at low rank", layer(x), conv(x))


@pytest.mark.parametrize("spatial", ["first", "last"])
def test_from_conv2d_refuses_to_cut_the_rank(spatial):
    conv = nn.Conv2d(8, 8, 3, groups=2)
    with pytest.raises(ValueError, match=r"middle_channels=6 \(3 a group\) is below the rank 4"):
        MDConv2d.from_conv2d(conv, middle_channels=6, spatial=spatial)


@pytest.mark.parametrize("spatial", ["first", "last"])
@pytest.mark.parametrize("groups", [1, 2])
def test_spare_middle_channels_are_unseen_but_learn(groups, spatial, oracle):
    """Random rows in, zero columns out: no effect yet, and a gradient on the way out."""
    conv = nn.Conv2d(4, 6, 3, padding=1, groups=groups, dtype=torch.float64)
    layer = MDConv2d.from_conv2d(conv, middle_channels=64, spatial=spatial)
    x = images()
    oracle.compare("from_conv2d with spare channels", layer(x), conv(x))
    (layer(x) * torch.randn(6, 6, 5)).sum().backward()
    into = layer.weights[0].view(groups, 64 // groups, -1)
    out_of = layer.weights[-1].view(groups, 6 // groups, 64 // groups, -1)
    assert into.abs().amax(2).gt(0).all()
    assert out_of[:, :, -2:].eq(0).all()
    gradient = layer.weights[-1].grad.view_as(out_of)
    assert gradient.abs().amax((1, 3)).gt(0).all()


@pytest.mark.parametrize("form", ["expanding", "compact"])
@pytest.mark.parametrize("placement", PLACEMENTS[1:], ids="-".join)
def test_gates_get_gradients_and_leave_neutral(placement, form):
    """From the preserving start: the last layer at once, the hidden one from the second step."""
    conv = nn.Conv2d(4, 6, 3, padding=1, dtype=torch.float64)
    layer = MDConv2d.from_conv2d(conv, depth=3, placement=placement, form=form)
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.1)
    target = torch.randn(3, 6, 6, 5, dtype=torch.float64)
    for step in range(2):
        optimiser.zero_grad()
        (layer(images()) - target).square().mean().backward()
        assert layer.gate.excite.weight.grad.abs().amax(1).gt(0).all()
        assert layer.gate.squeeze.weight.grad.any() == (step > 0)
        optimiser.step()
    for head in layer.gate(images()):
        assert (head - 1).abs().max() > 1e-6
        assert (head[0] - head[1]).abs().max() > 1e-9


def test_inference_drops_layers_that_nothing_separates(oracle):
    layer = oracle.randomise(
        MDConv2d(4, 6, 3, depth=4, placement=("input", "output"), middle_norm=True)
    )
    deployed = layer.to_inference()
    assert (deployed.depth, deployed.form) == (1, "expanding")
    shown = "depth=1, placement=('input', 'output'), form='expanding'"
    assert deployed.extra_repr() == f"4, 6, kernel_size=(3, 3), {shown}"
    deployed.form = "compact"
    oracle.compare("to_inference = eval()", deployed(images()), layer.eval()(images()))
    again = deployed.to_inference()
    oracle.compare("to_inference = eval()", again(images()), layer(images()))


@pytest.mark.parametrize("placement", PLACEMENTS, ids="-".join)
def test_starts_with_the_variance_of_a_convolution(placement):
    torch.manual_seed(0)
    squashes = ["2sigmoid", "sigmoid", "softmax"] if placement else ["2sigmoid"]
    for squash, spatial in product(squashes, ["first", "last"]):
        options = {"placement": placement, "squash": squash, "spatial": spatial}
        layer = MDConv2d(64, 64, 3, depth=3, **options)
        kernel, _ = layer.kernels(torch.randn(1, 64, 4, 4))
        ratio = float(kernel.detach().std() / nn.Conv2d(64, 64, 3).weight.detach().std())
        assert 0.85 < ratio < 1.15


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"depth": 2.0}, "depth must be an integer, got 2.0"),
        ({"middle_channels": 3, "groups": 2}, "middle_channels=3 does not split into groups=2"),
        ({"middle_channels": 0}, "middle_channels must be at least 1, got 0"),
        ({"placement": "middle"}, "placement must be a tuple of places, got the string 'middle'"),
        ({"placement": ("start",)}, r"placement must be a subset of .*, got \('start',\)"),
        ({"placement": ("input", "input")}, "placement must be a subset of"),
        ({"when": "always"}, "when must be one of"),
        ({"when": "always", "placement": ()}, "when must be one of"),
        ({"form": "flat"}, "form must be 'expanding', 'compact' or an order of A2 D1 A1 x"),
        ({"temperature": True}, "temperature must be positive and finite, got True"),
        ({"temperature": "1"}, "temperature must be positive and finite, got '1'"),
        ({"spatial": "middle"}, "spatial must be one of 'first', 'last', got 'middle'"),
        ({"squash": "relu"}, "squash must be one of"),
        ({"squash": "softmax", "middle_channels": 1}, "over a single value"),
        ({"reduction": 0}, "reduction must be at least 1, got 0"),
        ({"temperature": -1.0}, "temperature must be positive and finite, got -1.0"),
    ],
)
def test_rejects(options, message):
    with pytest.raises(ValueError, match=message):
        MDConv2d(4, 6, 3, **options)


@pytest.mark.parametrize(
    "option", [{"when": "batch"}, {"squash": "softmax"}, {"reduction": 4}, {"temperature": 2.0}]
)
@pytest.mark.parametrize(
    ("gateless", "said"),
    [
        ({"placement": ()}, "placement=()"),
        ({"placement": (), "depth": 3}, "placement=()"),
        ({"depth": 1}, "depth=1 and placement=('middle',)"),
    ],
)
def test_without_a_gate_no_option_of_one_is_ignored(gateless, said, option):
    ((name, value),) = option.items()
    message = f"{name}={value!r} has no effect with {said}: there is no gate"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        MDConv2d(4, 6, 3, **gateless, **option)
    MDConv2d(4, 6, 3, **{"depth": 1, **gateless, "placement": ("output",)}, **option)
    defaults = {"when": "sample", "squash": "2sigmoid", "reduction": 16, "temperature": 1.0}
    assert MDConv2d(4, 6, 3, **gateless, **defaults).gate is None


def test_a_single_layer_is_the_end_of_an_axis():
    """What is about the middle does nothing there."""
    torch.manual_seed(0)
    options = {"middle_norm": True, "middle_channels": 8, "spatial": "last"}
    layer = MDConv2d(4, 6, 3, depth=1, **options)
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 6, 3)
    assert torch.equal(layer(images().float()), plain(images().float()))
    assert len(list(layer.parameters())) == 2
    assert "middle_channels" not in repr(layer)


# At inference.


@pytest.mark.parametrize("spatial", ["first", "last"])
@pytest.mark.parametrize("placement", [("input", "output"), ("middle",), ("middle", "output")])
@pytest.mark.parametrize("bias", [True, False])
def test_an_affine_map_behind_is_absorbed(placement, spatial, bias, oracle):
    options = {"placement": placement, "spatial": spatial, "middle_norm": True, "bias": bias}
    layer = oracle.randomise(MDConv2d(4, 6, 3, padding=1, depth=3, **options)).eval()
    deployed, expected = layer.to_inference(), layer(images())
    with torch.no_grad():
        for _ in range(2):
            scale, shift = torch.randn(6).double(), torch.randn(6).double()
            scale[0] = 0
            assert deployed.absorb_affine(scale, shift)
            expected = expected * scale[:, None, None] + shift[:, None, None]
    oracle.compare("absorb_affine", deployed(images()), expected)
    for form in deployed.forms((6, 6)):
        deployed.form = form
        oracle.compare("absorb_affine", deployed(images()), expected)


def test_ungated_layers_become_one_only_where_that_is_less():
    wide = MDConv2d(64, 64, 1, placement=("output",), middle_channels=64).to_inference()
    narrow = MDConv2d(64, 64, 1, placement=("output",), middle_channels=8).to_inference()
    assert (wide.depth, narrow.depth) == (1, 2)


def test_a_trained_middle_is_never_multiplied_in_place(oracle):
    """What a hook keeps of the features stays as it was."""
    layer = oracle.randomise(MDConv2d(4, 6, 3, middle_norm=True)).eval()
    kept = []
    layer.behind[0].register_forward_hook(lambda module, inputs, output: kept.append(output))
    with torch.no_grad():
        layer(images())
    expected = layer.behind[0](nn.functional.conv2d(images(), layer.weights[0]))
    torch.testing.assert_close(kept[0], expected)


def test_neutral_gates_are_made_up_for_behind_the_norm():
    """So that in training, too, a fresh layer's middle has the statistics of its norm."""
    torch.manual_seed(0)
    layer = MDConv2d(4, 6, 3, middle_norm=True, squash="sigmoid")
    conv = nn.Conv2d(4, 6, 3)
    start = MDConv2d.from_conv2d(conv, squash="sigmoid", middle_norm=True)
    # the first layer is drawn as a convolution is; the second makes up for the half
    bound = (4 * 9) ** -0.5
    assert layer.weights[0].abs().max() <= bound
    torch.testing.assert_close(start.weights[0], conv.weight)
    torch.testing.assert_close(start.weights[1][:, :, 0, 0], 2 * torch.eye(6))


def test_weights_may_be_pruned_parametrised_and_replicated(oracle):
    from torch.nn.utils import parametrizations, prune

    layer, x = oracle.randomise(MDConv2d(4, 6, 3)), images()
    prune.l1_unstructured(layer.weights, "0", 0.5)
    oracle.compare("pruned", layer(x), oracle.chain(layer, x))
    with torch.no_grad():
        oracle.compare("pruned", layer(x), oracle.chain(layer, x))
    layer = oracle.randomise(MDConv2d(4, 6, 3))
    expected = layer(x)
    parametrizations.weight_norm(layer.weights, "0")
    oracle.compare("parametrised", layer(x), expected)
    with torch.no_grad():
        oracle.compare("parametrised", layer(x), expected)
    deployed = oracle.randomise(MDConv2d(4, 6, 3)).to_inference()
    expected = deployed(x)
    parametrizations.weight_norm(deployed.gate, "matrix0")
    oracle.compare("parametrised", deployed(x), expected)
    deployed = oracle.randomise(MDConv2d(4, 6, 3)).to_inference()
    expected = deployed(x)
    parametrizations.weight_norm(deployed, "bias", dim=None)
    with torch.no_grad():
        oracle.compare("parametrised", deployed(x), expected)
    deployed = oracle.randomise(MDConv2d(4, 6, 3)).to_inference()
    expected = deployed(x)
    prune.l1_unstructured(deployed.gate, "bias1", 0.0)
    oracle.compare("pruned", deployed(x), expected)


class Tripled(MDConv2d):
    def gates(self, x):
        return {name: 3 * gate for name, gate in super().gates(x).items()}


def test_gates_of_a_users_own_are_heard_without_gradients_too(oracle):
    layer = oracle.randomise(Tripled(4, 6, 3))
    expected = layer(images())
    assert not torch.allclose(expected, MDConv2d.forward(MDConv2d(4, 6, 3).double(), images()))
    with torch.no_grad():
        oracle.compare("gates of a user's own", layer(images()), expected)
        layer.gate.forward = lambda x: [torch.rand(2, layer.middle_channels)] * 2
        with pytest.raises(ValueError, match=r"zip\(\) argument 2 is longer"):
            layer(images())


def test_a_synchronised_norm_in_the_middle_folds_too(oracle):
    layer = nn.Sequential(oracle.randomise(MAConv2d(4, 6, 3))).eval()
    other = nn.SyncBatchNorm.convert_sync_batchnorm(layer)
    assert isinstance(other[0].behind[0], nn.SyncBatchNorm)
    oracle.compare("synchronised", other[0].to_inference()(images()), layer(images()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_narrow_kernel_is_not_cut(dtype):
    conv = nn.Conv2d(64, 64, 3, dtype=dtype)
    with pytest.raises(ValueError, match="is below the rank 64 of the kernel"):
        MDConv2d.from_conv2d(conv, middle_channels=32)
    layer = MDConv2d.from_conv2d(conv, middle_channels=64)
    kernel, _ = layer.kernels(torch.zeros(1, 64, 3, 3, dtype=dtype))
    torch.testing.assert_close(kernel[0], conv.weight)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("options", [{}, {"form": "compact"}, {"form": "compact", "groups": 2}])
@pytest.mark.parametrize("batch", [1, 2])
def test_autocast_after_deployment(batch, options, dtype):
    layer = MDConv2d(4, 6, 1, **options).eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    x = torch.randn(batch, 4, 224, 224) + 2  # the sum of a channel overflows float16
    for module in (layer, layer.to_inference()):
        with torch.autocast("cpu", dtype), torch.no_grad():
            y = module(x)
        assert y.dtype == dtype
        assert y.isfinite().all()


@pytest.mark.parametrize("when", ["batch", "training"])
def test_a_batch_of_none_leaves_the_running_gates(when):
    layer = MDConv2d(4, 6, 3, when=when).train()
    before = layer.gate.running.clone()
    layer(torch.zeros(0, 4, 5, 5))
    assert torch.equal(layer.gate.running, before)
