"""The kernel algebra against loops over every index, in double precision."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from overconv.functional import (
    add_kernels,
    average_kernel,
    compose,
    constant_through,
    conv2d_per_sample,
    embed_kernel,
    fold_norm_after,
    fold_norm_before,
    gate_features,
    identity_kernel,
    mix_kernels,
    norm_as_affine,
    pointwise_after,
    pointwise_before,
    scale_input,
    scale_output,
    scale_taps,
    spread_taps,
)


def random(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def loops(x, weight, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1, outside=None):
    """Convolution, one multiplication at a time; ``outside`` is read beyond the border."""
    (batch, in_channels, high, wide), (out_channels, per_group, rows, columns) = (
        x.shape,
        weight.shape,
    )
    out_high = (high + 2 * padding[0] - dilation[0] * (rows - 1) - 1) // stride[0] + 1
    out_wide = (wide + 2 * padding[1] - dilation[1] * (columns - 1) - 1) // stride[1] + 1
    outside = [0.0] * in_channels if outside is None else outside.tolist()
    image, kernel = x.tolist(), weight.tolist()
    y = torch.zeros(batch, out_channels, out_high, out_wide, dtype=torch.float64)
    for b, o, p, q in itertools.product(*map(range, y.shape)):
        group, total = o // (out_channels // groups), 0.0
        for i, r, c in itertools.product(range(per_group), range(rows), range(columns)):
            channel = group * per_group + i
            row = p * stride[0] + r * dilation[0] - padding[0]
            column = q * stride[1] + c * dilation[1] - padding[1]
            inside = 0 <= row < high and 0 <= column < wide
            value = image[b][channel][row][column] if inside else outside[channel]
            total += kernel[o][i][r][c] * value
        y[b, o, p, q] = total
    return y


def norm_off_neutral(channels, affine=True):
    norm = nn.BatchNorm2d(channels, eps=0.1, affine=affine).double().eval()
    with torch.no_grad():
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.3, 2.0)
        if affine:
            norm.weight.normal_()
            norm.bias.normal_()
    return norm


GROUPS = [1, 2, 4]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("bias", ["none", "shared", "one", "per sample"])
@pytest.mark.parametrize("kernels", [1, 3])
@pytest.mark.parametrize(
    "geometry",
    [
        {"size": (1, 1)},
        {"size": (1, 1), "groups": 2},
        {"size": (1, 1), "stride": (2, 1)},
        {"size": (1, 1), "padding": (1, 0)},
        {"size": (2, 3), "stride": (2, 1), "padding": (1, 2), "dilation": (2, 1)},
        {"size": (3, 3), "padding": (1, 1), "groups": 4},
    ],
    ids=str,
)
def test_conv2d_per_sample(geometry, kernels, bias, memory_format):
    size, geometry = geometry["size"], {k: v for k, v in geometry.items() if k != "size"}
    x = random(3, 4, 5, 6).to(memory_format=memory_format)
    weight = random(kernels, 8, 4 // geometry.get("groups", 1), *size)
    bias = {"none": None, "shared": random(8), "one": random(1, 8), "per sample": random(3, 8)}[
        bias
    ]
    expected = torch.cat(
        [
            loops(x[i : i + 1], weight[i if kernels > 1 else 0], **geometry)
            + (0 if bias is None else bias.expand(3, 8)[i][:, None, None])
            for i in range(3)
        ]
    )
    close(conv2d_per_sample(x, weight, bias, **geometry), expected)


def test_gate_features():
    x, gate = random(2, 3, 2, 2), random(2, 3)
    y = gate_features(x, gate)
    for b, c in itertools.product(range(2), range(3)):
        close(y[b, c], x[b, c] * gate[b, c])
    assert gate_features(x.bfloat16(), gate).dtype == torch.bfloat16


@pytest.mark.parametrize("groups", GROUPS)
def test_pointwise_after_is_exact_at_the_border(groups):
    x, kernel = random(1, 4, 5, 4), random(8, 4 // groups, 3, 2)
    pointwise = random(12, 8 // groups, 1, 1)
    geometry = {"stride": (2, 1), "padding": (2, 1), "dilation": (1, 2), "groups": groups}
    expected = loops(loops(x, kernel, **geometry), pointwise, groups=groups)
    close(loops(x, pointwise_after(kernel, pointwise, groups), **geometry), expected)


@pytest.mark.parametrize("size", [(3, 2), (1, 1)])
@pytest.mark.parametrize("groups", GROUPS)
def test_pointwise_before(groups, size):
    x, pointwise = random(1, 4, 5, 4), random(8, 4 // groups, 1, 1)
    kernel = random(12, 8 // groups, *size)
    geometry = {"stride": (2, 1), "padding": (2, 1), "dilation": (1, 2), "groups": groups}
    expected = loops(loops(x, pointwise, groups=groups), kernel, **geometry)
    close(loops(x, pointwise_before(pointwise, kernel, groups), **geometry), expected)


@pytest.mark.parametrize(
    ("first_size", "second_size"),
    [((3, 3), (3, 3)), ((2, 3), (3, 1)), ((1, 1), (3, 2)), ((3, 2), (1, 1)), ((4, 1), (2, 5))],
)
@pytest.mark.parametrize("groups", GROUPS)
def test_compose_any_sizes(groups, first_size, second_size):
    x = random(1, 4, 7, 8)
    first, second = random(8, 4 // groups, *first_size), random(4, 8 // groups, *second_size)
    expected = loops(loops(x, first, padding=(1, 0), groups=groups), second, groups=groups)
    close(loops(x, compose(first, second, groups), padding=(1, 0), groups=groups), expected)


def test_compose_needs_the_flip():
    """Two kernels without symmetry: composing by correlation instead gives another answer."""
    first, second = random(1, 1, 3, 3), random(1, 1, 3, 3)
    correlated = F.conv2d(first, second, padding=2)
    assert (compose(first, second) - correlated).abs().max() > 0.1


def test_compose_with_stride_and_dilation():
    """Taps two apart after a stride of two lie four apart in the input."""
    x, first, second = random(1, 2, 13, 12), random(3, 2, 3, 2), random(2, 3, 2, 3)
    expected = loops(loops(x, first, stride=(2, 2), dilation=(3, 1)), second, dilation=(2, 2))
    composed = compose(spread_taps(first, (3, 1)), spread_taps(second, (4, 4)))
    close(loops(x, composed, stride=(2, 2)), expected)
    # and where the taps lie on one grid already, the dilation stays
    expected = loops(loops(x, first, stride=(2, 1), dilation=(4, 2)), second, dilation=(2, 2))
    close(loops(x, compose(first, second), stride=(2, 1), dilation=(4, 2)), expected)


@pytest.mark.parametrize("size", [(1, 1), (3, 2)])
@pytest.mark.parametrize("batches", [(3, 3), (1, 3), (3, None), (None, 3)])
@pytest.mark.parametrize("groups", [1, 2])
def test_compose_batches_of_kernels(groups, batches, size):
    first_batch, second_batch = batches
    first = random(*([] if first_batch is None else [first_batch]), 4, 4 // groups, 2, 3)
    second = random(*([] if second_batch is None else [second_batch]), 6, 4 // groups, *size)
    composed = compose(first, second, groups)
    for sample in range(3):
        one = first if first.dim() == 4 else first[min(sample, len(first) - 1)]
        two = second if second.dim() == 4 else second[min(sample, len(second) - 1)]
        close(composed[sample], compose(one, two, groups))


@pytest.mark.parametrize("groups", GROUPS)
def test_constant_through(groups):
    constant, kernel = random(4), random(8, 4 // groups, 2, 3)
    image = constant[None, :, None, None].expand(1, 4, 2, 3)
    close(constant_through(constant, kernel, groups), loops(image, kernel, groups=groups).flatten())
    batch = random(3, 4)
    for sample, one in zip(constant_through(batch, kernel, groups), batch, strict=True):
        close(sample, constant_through(one, kernel, groups))


def test_add_kernels_of_different_sizes():
    x = random(1, 2, 6, 5)
    point, row, square = random(3, 2, 1, 1), random(3, 2, 1, 3), random(3, 2, 3, 5)
    expected = loops(x, point) + loops(x, row, padding=(0, 1)) + loops(x, square, padding=(1, 2))
    close(loops(x, add_kernels(point, row, square), padding=(1, 2)), expected)


@pytest.mark.parametrize(
    ("size", "into", "dilation", "into_dilation"),
    [
        ((1, 1), (3, 5), (1, 1), (1, 1)),
        ((1, 3), (3, 3), (1, 1), (1, 1)),
        ((1, 1), (3, 3), (7, 7), (2, 3)),  # the dilation of a single tap means nothing
        ((3, 3), (5, 5), (1, 2), (1, 1)),
        ((3, 3), (5, 3), (2, 4), (2, 4)),
        ((3, 2), (7, 3), (4, 2), (2, 1)),
        ((2, 2), (4, 2), (1, 1), (1, 1)),
    ],
)
def test_embed_kernel(size, into, dilation, into_dilation):
    x, kernel = random(1, 2, 9, 8), random(3, 2, *size)
    embedded = embed_kernel(kernel, into, dilation, into_dilation)
    assert embedded.shape[2:] == into
    grown = [
        (grid * (new - 1) - step * (old - 1)) // 2
        for grid, new, step, old in zip(into_dilation, into, dilation, size, strict=True)
    ]
    padding = (grown[0] + 1, grown[1])
    expected = loops(x, kernel, padding=(1, 0), dilation=dilation)
    close(loops(x, embedded, padding=padding, dilation=into_dilation), expected)


@pytest.mark.parametrize(
    ("size", "into", "dilation", "into_dilation"),
    [(2, 3, 1, 1), (3, 1, 1, 1), (3, 5, 3, 2), (3, 3, 2, 1)],
)
def test_embed_kernel_refuses(size, into, dilation, into_dilation):
    with pytest.raises(ValueError, match=f"{size} taps at dilation {dilation} do not lie on"):
        embed_kernel(random(1, 1, size, size), into, dilation, into_dilation)


def test_spread_taps():
    x, kernel = random(1, 2, 8, 8), random(3, 2, 3, 2)
    close(loops(x, spread_taps(kernel, (2, 3))), loops(x, kernel, dilation=(2, 3)))
    assert spread_taps(kernel, 1) is kernel


@pytest.mark.parametrize("groups", GROUPS)
def test_scales(groups):
    x, kernel = random(1, 4, 4, 4), random(8, 4 // groups, 3, 2)
    geometry = {"padding": (1, 0), "groups": groups}
    inputs, outputs = random(4), random(8)
    scaled = x * inputs[:, None, None]
    close(
        loops(x, scale_input(kernel, inputs, groups), **geometry), loops(scaled, kernel, **geometry)
    )
    expected = loops(x, kernel, **geometry) * outputs[:, None, None]
    close(loops(x, scale_output(kernel, outputs), **geometry), expected)
    for scale in (scale_input, scale_output):
        batch = random(3, 4 if scale is scale_input else 8)
        arguments = (groups,) if scale is scale_input else ()
        for sample, one in zip(scale(kernel, batch, *arguments), batch, strict=True):
            close(sample, scale(kernel, one, *arguments))
        # a kernel of its own for each sample, too
        close(
            scale(kernel.expand(3, *kernel.shape), batch, *arguments),
            scale(kernel, batch, *arguments),
        )


def test_scale_taps():
    kernel, scale = random(3, 2, 2, 3), random(2, 3)
    scaled = scale_taps(kernel, scale)
    for o, i, r, c in itertools.product(*map(range, kernel.shape)):
        close(scaled[o, i, r, c], kernel[o, i, r, c] * scale[r, c])


@pytest.mark.parametrize("size", [1, 2, 3, (4, 3)])
@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_identity_kernel(groups, size):
    x = random(2, 4, 5, 4)
    kernel = identity_kernel(4, size, groups, dtype=torch.float64)
    close(F.conv2d(x, kernel, padding="same", groups=groups), x)


@pytest.mark.parametrize("groups", GROUPS)
def test_average_kernel(groups):
    x = random(2, 4, 6, 5)
    kernel = average_kernel(4, (2, 3), groups, dtype=torch.float64)
    expected = F.avg_pool2d(x, (2, 3), (2, 1), (1, 1))
    close(loops(x, kernel, (2, 1), (1, 1), groups=groups), expected)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", GROUPS)
def test_fold_norm_after(groups, bias, affine):
    x, kernel = random(2, 4, 4, 3), random(8, 4 // groups, 3, 2)
    bias, norm = random(8) if bias else None, norm_off_neutral(8, affine)
    y = loops(x, kernel, padding=(1, 1), groups=groups)
    expected = norm(y if bias is None else y + bias[:, None, None])
    kernel, bias = fold_norm_after(kernel, bias, norm)
    close(loops(x, kernel, padding=(1, 1), groups=groups) + bias[:, None, None], expected)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", GROUPS)
def test_fold_norm_before(groups, bias, affine):
    """Padded by the norm's image of zero, of which the last assertion proves the need."""
    x, kernel = random(2, 4, 4, 3), random(8, 4 // groups, 3, 2)
    bias, norm = random(8) if bias else None, norm_off_neutral(4, affine)
    geometry = {"padding": (1, 1), "groups": groups}
    _, shift = norm_as_affine(norm)
    plain = 0 if bias is None else bias[:, None, None]
    expected = loops(norm(x), kernel, **geometry, outside=shift) + plain
    folded, folded_bias = fold_norm_before(norm, kernel, bias, groups)
    close(loops(x, folded, **geometry) + folded_bias[:, None, None], expected)
    padded_by_zero = loops(norm(x), kernel, **geometry) + plain
    assert (padded_by_zero - expected).abs().max() > 1e-3


def test_norm_as_affine_refuses_batch_statistics():
    for norm in (nn.BatchNorm2d(2), nn.BatchNorm2d(2, track_running_stats=False).eval()):
        with pytest.raises(ValueError, match="normalises by the batch"):
            norm_as_affine(norm)


def test_gradients_flow_through_the_algebra():
    inputs = [random(3, 2, 2, 2), random(2, 3, 2, 3), random(3), random(2)]

    def algebra(first, second, middle, outside):
        kernel = compose(scale_output(first, middle), scale_input(second, middle))
        return scale_output(embed_kernel(kernel, (5, 6)), outside)

    assert torch.autograd.gradcheck(algebra, [tensor.requires_grad_() for tensor in inputs])


def test_mixed_kernels_keep_their_memory_format():
    shares, kernels = torch.randn(3, 2), torch.randn(8, 5, 3, 3)
    mixed = mix_kernels(shares, kernels)
    last = mix_kernels(shares, kernels.to(memory_format=torch.channels_last))
    torch.testing.assert_close(last, mixed)
    assert mixed.is_contiguous()
    assert last[0].is_contiguous(memory_format=torch.channels_last)
    expected = torch.einsum("bn,noikl->boikl", shares, kernels.unflatten(0, (2, 4)))
    torch.testing.assert_close(mixed, expected)


def test_a_traced_graph_does_not_depend_on_the_batch():
    """Eagerly, kernels larger than their images are convolved one by one."""
    kernels = torch.randn(2, 8, 8, 3, 3)

    class Net(torch.nn.Module):
        def forward(self, x, weight):
            return conv2d_per_sample(x, weight, None, 1, 1)

    x = torch.randn(2, 8, 2, 2)
    batch = torch.export.Dim("batch", min=2, max=9)
    shapes = ({0: batch}, {0: batch})
    exported = torch.export.export(Net(), (x, kernels), dynamic_shapes=shapes).module()
    for size in (2, 3, 5):
        x, kernels = torch.randn(size, 8, 2, 2), torch.randn(size, 8, 8, 3, 3)
        torch.testing.assert_close(exported(x, kernels), Net()(x, kernels))


@pytest.mark.parametrize("bias", [None, "shared", "own"])
@pytest.mark.parametrize("kernels", [0, 1])
def test_no_images_give_no_outputs_and_gradients_of_zero(bias, kernels):
    x, weight = torch.zeros(0, 4, 5, 5), torch.randn(kernels, 6, 2, 3, 3, requires_grad=True)
    added = None
    if bias is not None:
        added = torch.randn(*((6,) if bias == "shared" else (kernels, 6)), requires_grad=True)
    y = conv2d_per_sample(x.requires_grad_(), weight, added, 2, 1, 1, 2)
    assert y.shape == (0, 6, 3, 3)
    y.sum().backward()
    for tensor in (x, weight, *([] if added is None else [added])):
        assert tensor.grad is not None
        assert not tensor.grad.any()
