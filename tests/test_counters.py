"""Counters against counts by hand, real runs against runs without values, torch's known errors."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmark.variants import layers
from overconv.counters import OUTSIDE, Work, count
from overconv.models.mobilenet import MobileNetV2
from overconv.models.resnet import ResNet
from overconv.products import CORRECTIONS
from overconv.valueless import emptied, without_values

MENDED = (
    "torch's own formula is right now, or counts what it did not: take this one out of"
    " overconv/products.py"
)


def stock(call):
    """Multiply-accumulates by torch's counter as it is."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() // 2


def corrected(call):
    """The same with our formulas."""
    with FlopCounterMode(display=False, custom_mapping=dict(CORRECTIONS)) as counter:
        call()
    return counter.get_total_flops() // 2


def ours(call):
    counts = count(call)
    return counts.forward.macs + counts.backward.macs


def leaf(*shape):
    return torch.randn(shape, requires_grad=True)


# Torch's known errors: each test fails once upstream has mended it.


def test_torch_counts_the_gradient_of_a_grouped_kernel_once_a_group():
    x, weight = leaf(2, 8, 6, 5), leaf(12, 2, 3, 3)

    def call():
        F.conv2d(x, weight, groups=4).sum().backward()

    forward = 2 * 12 * 4 * 3 * (2 * 9)
    assert stock(call) == (2 + 4) * forward, MENDED
    assert corrected(call) == ours(call) == 3 * forward


@pytest.mark.parametrize(
    ("operation", "shapes", "macs"),
    [
        (torch.mv, ((3, 5), (5,)), 15),
        (torch.addmv, ((3,), (3, 5), (5,)), 15),
        (torch.dot, ((7,), (7,)), 7),
        (torch.vdot, ((7,), (7,)), 7),
        (torch.addbmm, ((3, 5), (2, 3, 4), (2, 4, 5)), 120),
        (F.scaled_dot_product_attention, ((2, 3, 6, 4), (2, 3, 7, 4), (2, 3, 7, 4)), 2 * 1008),
    ],
)
def test_torch_does_not_see_some_products(operation, shapes, macs):
    tensors = [torch.randn(shape) for shape in shapes]

    def call():
        operation(*tensors)

    assert stock(call) == 0, MENDED
    assert corrected(call) == ours(call) == macs


def test_torch_does_not_see_attention_backward_on_a_cpu():
    q, k, v = leaf(2, 3, 6, 4), leaf(2, 3, 7, 4), leaf(2, 3, 7, 4)

    def call():
        F.scaled_dot_product_attention(q, k, v).sum().backward()

    product = 2 * 3 * 6 * 7 * 4
    assert stock(call) == 0, MENDED
    assert ours(call) == corrected(call) == (2 + 5) * product  # the scores are computed anew


def test_torch_does_not_see_kernels_mixed_elementwise():
    """We do, apart from products."""
    shares, kernels = torch.rand(3, 4), torch.randn(4, 6, 2, 3, 3)

    def call():
        (shares[:, :, None, None, None, None] * kernels).sum(1)

    assert stock(call) == 0, MENDED
    work = count(call).forward
    assert work.macs == 0
    assert work.multiplications == {"mul": 3 * kernels.numel()}


# Products.


@pytest.mark.parametrize("batch", [1, 2, 8])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("transposed", [False, True])
def test_convolutions_cost_three_times_the_forward_pass(
    batch, groups, stride, dilation, transposed
):
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    conv = kind(4, 8, (3, 2), stride, 1, dilation=dilation, groups=groups)
    x = leaf(batch, 4, 7, 6)
    y = conv(x)
    positions = (x if transposed else y).shape[2:].numel()
    forward = batch * conv.weight.numel() * positions
    counts = count(lambda: conv(x).sum().backward())
    assert counts.forward.products == {"convolution": forward}
    assert counts.backward.products == {"convolution_backward": 2 * forward}
    assert corrected(lambda: conv(x).sum().backward()) == 3 * forward


def test_an_operand_without_gradient_costs_nothing_backward():
    conv, linear = nn.Conv2d(4, 8, 3, groups=2), nn.Linear(8, 3)
    images, features = torch.randn(2, 4, 6, 6), torch.randn(5, 8)
    forward = 2 * 8 * 2 * 9 * 16
    assert count(lambda: conv(images).sum().backward()).backward.macs == forward
    assert count(lambda: linear(features).sum().backward()).backward.macs == 5 * 24
    conv.weight.requires_grad_(False)
    linear.weight.requires_grad_(False)
    images.requires_grad_()
    assert count(lambda: conv(images).sum().backward()).backward.macs == forward
    assert count(lambda: linear(features).sum().backward()).backward.macs == 0


def by_matmul(x, shares, kernels):
    batch = len(x)
    own = (shares @ kernels.flatten(1)).view(-1, *kernels.shape[2:])
    return F.conv2d(x.reshape(1, -1, *x.shape[2:]), own, groups=batch)


def by_multiplying(x, shares, kernels):
    batch = len(x)
    own = (shares[:, :, None, None, None, None] * kernels).sum(1).flatten(0, 1)
    return F.conv2d(x.reshape(1, -1, *x.shape[2:]), own, groups=batch)


def by_einsum(x, shares, kernels):
    batch = len(x)
    own = torch.einsum("bn,noikl->boikl", shares, kernels).flatten(0, 1)
    return F.conv2d(x.reshape(1, -1, *x.shape[2:]), own, groups=batch)


def by_vmap(x, shares, kernels):
    def one(image, own):
        kernel = (own @ kernels.flatten(1)).view(kernels.shape[1:])
        return F.conv2d(image[None], kernel)

    return torch.vmap(one)(x, shares)


def by_unfolding(x, shares, kernels):
    own = (shares @ kernels.flatten(1)).view(len(x), kernels.shape[1], -1)
    return own @ F.unfold(x, kernels.shape[-2:])


@pytest.mark.parametrize("batch", [1, 2, 4])
@pytest.mark.parametrize(
    "form", [by_matmul, by_multiplying, by_einsum, by_vmap, by_unfolding], ids=lambda f: f.__name__
)
def test_all_ways_to_write_a_mixture_cost_the_same(form, batch):
    x, shares, kernels = leaf(batch, 4, 7, 7), leaf(batch, 3), leaf(3, 6, 4, 3, 3)
    counts = count(lambda: form(x, shares, kernels).sum().backward())
    mixing, convolving = batch * kernels.numel(), batch * kernels[0].numel() * 25
    elementwise = sum(counts.forward.multiplications.values())
    if form is by_multiplying:
        assert (counts.forward.macs, elementwise) == (convolving, mixing)
        assert counts.backward.macs == 2 * convolving
    else:
        assert counts.forward.macs + elementwise == convolving + mixing
        assert counts.backward.macs == 2 * counts.forward.macs


# Operations and copies.


def test_operations_and_copies_are_told_apart_by_hand():
    x = torch.randn(3, 4)

    def call():
        y = x.t().contiguous()  # t, clone
        y = torch.cat([y, y.to(torch.float64).to(torch.float32)])  # two _to_copy, cat
        y.copy_(y + 1)  # add, copy_
        return y.relu_()

    work = count(call).forward
    assert work.operations == {
        "_to_copy": 2,
        "add": 1,
        "cat": 1,
        "clone": 1,
        "copy_": 1,
        "relu_": 1,
        "t": 1,
    }
    assert work.copies == {"_to_copy": 2, "clone": 1, "copy_": 1}
    assert work.unseen == {"cat": 24}
    assert work.elementwise == {"add": 24, "relu_": 24}


def test_what_multiplies_images_is_told_from_what_adds():
    x, gate = torch.randn(2, 3, 5, 5), torch.rand(2, 3, 1, 1)

    def call():
        y = x * gate
        y = y + x
        y = torch.add(y, x, alpha=2)  # a multiplication too
        y = torch.lerp(x, y, gate).relu()
        return y.mean((2, 3)) * 3  # of two axes

    work = count(call).forward
    assert work.multiplications == {"add": 150, "lerp": 150, "mul": 150}
    assert work.pooled == 150


def test_inference_mode_counts_as_without_gradients():
    """There torch hands over whole what it is made of."""
    model, x = ResNet(8, 4).eval(), torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected = count(lambda: model(x), model)
    with torch.inference_mode():
        assert count(lambda: model(x), model) == expected


def test_work_is_attributed_to_the_innermost_module():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x):
            return self.conv(x) * 2

    model = nn.Sequential(Scaled(), nn.Linear(5, 2))
    counts = count(lambda: model(torch.zeros(2, 3, 5, 5)).sum().backward(), model)
    named = {
        name: (work.macs, sum(work.multiplications.values()))
        for name, work in counts.modules.items()
    }
    assert named == {
        OUTSIDE: (0, 0),
        "0": (0, 200),
        "0.conv": (12 * 50, 0),
        "1": (2 * 4 * 5 * 10, 0),
    }
    assert counts.forward == sum(counts.modules.values(), Work())
    assert not any(module._forward_hooks for module in model.modules())


def test_hooks_are_gone_after_an_error():
    model = nn.Sequential(nn.Linear(3, 2))
    with pytest.raises(RuntimeError):
        count(lambda: model(torch.zeros(1, 4)), model)
    assert ours(lambda: model(torch.zeros(1, 3))) == 6


# Bytes.


def test_peak_bytes_by_hand():
    given = torch.zeros(10)  # 40 bytes, read by the call

    def call():
        a = given + torch.ones(10)  # 120: the one is freed again
        b = a.double()  # 160
        del a  # 120
        c = b[:5]  # a view
        d = torch.cat([c, b])  # 15 doubles: 240
        del b
        return d.sum()  # c keeps b alive: 248

    assert count(call).peak_bytes == 248


def test_peak_bytes_of_a_backward_pass_by_hand():
    weight = leaf(100)

    def call():
        y = weight * 2  # 800, and the factor is no tensor
        y.square().sum().backward()

    # the square, 1200, and its sum, 1204; backward the gradient of the square is a view of that of
    # the sum, 4; then times the factor 2 y, in tensors of 400 each
    first = count(call).peak_bytes
    assert first == count(call).peak_bytes - 400, "the gradient that is there already"
    assert first >= 4 * 400


def test_what_is_freed_before_the_end_does_not_count_twice():
    def call():
        for _ in range(5):
            torch.zeros(1000)

    assert count(call).peak_bytes == 4000


# Without values.

NETWORKS = {
    "resnet": lambda: ResNet(8, 8),
    "mobilenet": lambda: MobileNetV2(0.1),
    "googlenet": lambda: torchvision.models.googlenet(init_weights=False, num_classes=3),
    **{layer.__name__: lambda layer=layer: layer(4, 6, 3, padding=1) for layer in layers()},
}


def step(model, x, trains):
    def infer():
        with torch.no_grad():
            return model(x)

    def train():
        y = model(x)
        y = y if isinstance(y, torch.Tensor) else y[0]
        return torch.autograd.grad(y.square().mean(), list(model.parameters()), allow_unused=True)

    return train if trains else infer


@pytest.mark.parametrize("trains", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_counts_are_the_same_every_time_and_without_values(name, trains):
    size = 64 if name == "googlenet" else 12
    channels = 4 if name.endswith("Conv2d") else 3
    model, x = NETWORKS[name]().train(trains), torch.randn(2, channels, size, size)
    counts = [count(step(model, x, trains), model) for _ in range(3)]
    assert counts[0] == counts[1] == counts[2]
    assert counts[0].peak_bytes > 0
    with without_values():
        empty, images = emptied(model), torch.empty(x.shape)
        assert count(step(empty, images, trains), empty) == counts[0]


# What is private in torch.


def test_what_torch_keeps_private_is_still_there():
    """If this fails after a new release of torch, ``overconv/counters.py`` has to follow it."""
    from torch.utils import _python_dispatch, flop_counter

    assert hasattr(_python_dispatch, "TorchDispatchMode"), "no mode sees what is dispatched"
    assert torch._C._current_graph_task_id() == -1, "a backward pass is known by it"
    assert isinstance(flop_counter.flop_registry, dict), "torch's formulas"
    assert callable(flop_counter.shape_wrapper), "how its formulas get shapes"
    assert callable(flop_counter.sdpa_flop_count), "its formula of attention"
    assert callable(flop_counter.sdpa_backward_flop_count), "and backward"
    operator = torch.ops.aten.view.default
    assert operator.is_view, "views are told from work by it"
    assert operator.overloadpacket is torch.ops.aten.view, "formulas are found by it"
    assert torch.Tag.pointwise in torch.ops.aten.mul.Tensor.tags, "elementwise work is found by it"
    assert torch.Tag.reduction in torch.ops.aten.sum.default.tags
    storage = torch.zeros(3).untyped_storage()
    tensor = torch.empty(0).set_(storage)
    assert tensor.untyped_storage() is storage, "a storage is known by its identity"
