"""What every layer must survive: compilation, export, precision, formats, copies, small inputs."""

import copy
import io
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from overconv.operators import CondConv2d, DyConv2d, MAConv2d, MDConv2d

LAYERS = {
    "MDConv2d": MDConv2d,
    "MDConv2d-compact": partial(MDConv2d, form="compact", depth=3),
    "MDConv2d-norm": partial(MDConv2d, middle_norm=True, placement=("input", "output")),
    "MDConv2d-last-norm": partial(
        MDConv2d, middle_norm=True, spatial="last", padding_mode="circular"
    ),
    "MDConv2d-batch": partial(MDConv2d, when="batch", form="compact"),
    "MDConv2d-training": partial(MDConv2d, when="training"),
    "MDConv2d-pointwise": partial(MDConv2d, form="compact", kernel_size=1, padding=0),
    "MAConv2d-norm": MAConv2d,
    "MAConv2d-gate": partial(MAConv2d, middle="norm+gate", squash="softmax"),
    "CondConv2d": CondConv2d,
    "CondConv2d-features": partial(CondConv2d, on="features", groups=2),
    "DyConv2d": DyConv2d,
    "DyConv2d-features": partial(DyConv2d, on="features"),
}


def build(name, **options):
    """A layer of 4 to 6 channels, all parameters off their neutral start."""
    layer = partial(LAYERS[name])
    layer = layer(4, 6, **{"kernel_size": 3, "padding": 1, **layer.keywords, **options})
    for parameter in layer.parameters():
        if not parameter.is_meta:
            nn.init.normal_(parameter, std=0.4)
    return layer


def images(batch=3, **options):
    return torch.randn(batch, 4, 6, 5, **options)


every_layer = pytest.mark.parametrize("name", LAYERS)


@every_layer
@pytest.mark.parametrize("mode", [True, False])
def test_traces_into_one_graph(name, mode):
    torch.compiler.reset()  # or the layers before count as so many recompilations of one forward
    layer, x = build(name).train(mode), images()
    traced = torch.compile(copy.deepcopy(layer), fullgraph=True, backend="aot_eager")
    expected, y = layer(x), traced(x)
    torch.testing.assert_close(y, expected)
    expected.square().sum().backward()
    y.square().sum().backward()
    for ours, theirs in zip(layer.parameters(), traced.parameters(), strict=True):
        torch.testing.assert_close(theirs.grad, ours.grad)
    for ours, theirs in zip(layer.buffers(), traced.buffers(), strict=True):
        torch.testing.assert_close(theirs, ours)


@pytest.mark.slow
@every_layer
def test_compiles(name):
    torch.compiler.reset()
    layer, x = build(name), images()
    torch.testing.assert_close(
        torch.compile(copy.deepcopy(layer), fullgraph=True)(x), layer(x), rtol=1e-4, atol=1e-5
    )


@every_layer
def test_exports_for_any_batch(name):
    layer = build(name).eval()
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(layer, (images(),), dynamic_shapes=({0: batch},))
    for size in (2, 7):
        x = images(size)
        torch.testing.assert_close(program.module()(x), layer(x))


@every_layer
def test_autocast(name):
    layer, x = build(name), images()
    expected = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16 or y.dtype == torch.float32
    torch.testing.assert_close(
        y.float(), expected, rtol=0.1, atol=0.1 * float(expected.detach().std())
    )
    y.float().sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())


@every_layer
def test_channels_last_and_strided_inputs(name):
    layer, x = build(name), images()
    expected = layer(x)
    torch.testing.assert_close(layer(x.to(memory_format=torch.channels_last)), expected)
    torch.testing.assert_close(layer(x.transpose(2, 3).contiguous().transpose(2, 3)), expected)
    as_channels_last = copy.deepcopy(layer)
    for parameter in as_channels_last.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.to(memory_format=torch.channels_last)
    torch.testing.assert_close(as_channels_last(x.to(memory_format=torch.channels_last)), expected)


@every_layer
@pytest.mark.parametrize("mode", [True, False])
def test_one_image_and_one_pixel(name, mode):
    """A single image gives what it gives in a batch, unless the layer looks at the whole batch."""
    layer = build(name).train(mode)
    x = images()
    if not mode or "norm" not in name and "batch" not in name and "gate" not in name:
        torch.testing.assert_close(layer(x)[:1], layer(x[:1]))
    assert layer(images(1)).shape == (1, 6, 6, 5)
    pixel = torch.randn(2, 4, 1, 1)
    assert layer(pixel).shape == (2, 6, 1, 1)


@every_layer
def test_copies_pickles_and_state_dicts(name):
    layer, x = build(name).train(), images()
    layer(x)  # move the running statistics
    layer.eval()
    twin = copy.deepcopy(layer)
    torch.testing.assert_close(twin(x), layer(x), rtol=0, atol=0)
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=False)
    torch.testing.assert_close(loaded(x), layer(x), rtol=0, atol=0)
    other = build(name).eval()
    other.load_state_dict(layer.state_dict())
    torch.testing.assert_close(other(x), layer(x), rtol=0, atol=0)


@every_layer
def test_meta_device(name):
    layer = build(name, device="meta")
    assert all(tensor.is_meta for tensor in layer.state_dict().values())
    assert layer(images(device="meta")).shape == (3, 6, 6, 5)
    assert all(p.is_meta for p in layer.to_inference().parameters())


@pytest.mark.parametrize("layer", [MDConv2d, MAConv2d, CondConv2d, DyConv2d])
def test_conversion_on_the_meta_device(layer):
    conv = nn.Conv2d(4, 6, 3, device="meta")
    assert layer.from_conv2d(conv)(images(device="meta")).shape == (3, 6, 4, 3)


@every_layer
def test_dtype_argument(name):
    layer = build(name, dtype=torch.float64)
    assert {
        tensor.dtype for tensor in layer.state_dict().values() if tensor.is_floating_point()
    } == {torch.float64}
    assert layer(images(dtype=torch.float64)).dtype == torch.float64


# Elementwise work that torch runs as a product, or that ``shared`` holds beside the products.
MIXING = 3 * 4 * 6 * 30  # the outputs of four kernels, for three images
ELEMENTWISE = {
    "MDConv2d-batch": -36,  # the gate on the smaller factor, 6 x 6
    "CondConv2d-features": 2 * MIXING,  # eight kernels
    "DyConv2d-features": MIXING,
}


@every_layer
@pytest.mark.parametrize("mode", [True, False])
def test_macs_equal_a_count_of_real_runs(name, mode):
    """Torch counts two operations a multiply-accumulate, in matrix products and convolutions."""
    layer = build(name).train(mode)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        layer(images())
    macs = layer.macs((6, 5))
    products = 3 * (macs.gate + macs.compose + macs.convolution) + macs.shared
    assert counter.get_total_flops() == 2 * (products + ELEMENTWISE.get(name, 0))


def test_elementwise_macs_by_hand():
    layer = MDConv2d(4, 6, 3, padding=1, depth=3, placement=("input", "middle", "output"))
    pooling, pixels = 4 * 6 * 5, 6 * 5
    assert layer.macs((6, 5)).other == pooling + pixels * (4 + 6 + 6 + 6)
    layer.form = "compact"
    # each middle gate scales a 6 x 6 layer; input and output scale the 6 x 4 x 3 x 3 kernel
    assert layer.macs((6, 5)).other == pooling + 2 * 36 + 2 * 216
    assert layer.macs((6, 5)).compose == 2 * 36 * 4 * 9
    layer = DyConv2d(4, 6, 3, padding=1)
    assert layer.macs((6, 5)).other == pooling
    layer.on = "features"
    assert layer.macs((6, 5)).other == pooling + 4 * 6 * pixels


@pytest.mark.parametrize(
    ("options", "shared", "compose"),
    [
        ({"placement": ()}, 36 * 36, 0),
        ({"placement": ("output",)}, 36 * 36, 0),  # ungated factors are composed once
        ({"placement": ("middle",)}, 0, 36 * 36),
        # once a batch: the gate's two layers, its multiplication of a 6 x 6 layer, the composition
        ({"placement": ("middle",), "when": "batch"}, 4 * 4 + 4 * 6 + 36 + 36 * 36, 0),
    ],
)
def test_compact_macs_are_shared_where_gates_are(options, shared, compose):
    layer = MDConv2d(4, 6, 3, padding=1, form="compact", **options)
    macs = layer.macs((6, 5))
    assert (macs.shared, macs.compose) == (shared, compose)


def test_constant_gates_cost_nothing():
    layer = MDConv2d(4, 6, 3, padding=1, when="training").eval()
    assert layer.macs((6, 5)).gate == 0
    assert layer.macs((6, 5)).other == 6 * 30  # the gating alone, no pooling
