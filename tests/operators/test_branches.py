"""What layers of normed branches share: where a small kernel lies, and how branches start."""

from itertools import product

import pytest
import torch
from torch import nn

from overconv.operators.acb import ACConv2d
from overconv.operators.branches import BranchedConv2d, scale_channels
from overconv.operators.dbb import DBBConv2d
from overconv.operators.mobileone import MobileOneConv2d
from overconv.operators.repvgg import RepVGGConv2d

LAYERS = [ACConv2d, RepVGGConv2d, MobileOneConv2d, DBBConv2d]
MODES = ["zeros", "reflect", "replicate", "circular"]


def norms(layer):
    return [module for module in layer.modules() if isinstance(module, nn.BatchNorm2d)]


def freeze_statistics(layer):
    """Running statistics that do not move: they pad the border of DBB, in ``train()`` too."""
    for norm in norms(layer):
        norm.momentum = 0.0


every_layer = pytest.mark.parametrize("layer_class", LAYERS)


def bare(kernel, stride=1, padding=0, dilation=1, groups=1, mode="zeros"):
    """The geometry, without branches."""
    arguments = (4, 6, kernel, stride, padding, dilation, groups, False, mode, None, torch.float64)
    return BranchedConv2d(*arguments)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dilation", [1, 2, (1, 3)])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5, (2, 3), (4, 1), (3, 2)])
def test_a_small_kernel_lies_on_the_taps_of_the_large_one(kernel, dilation, mode, oracle):
    """Run as a kernel of full size that is zero elsewhere, for every size of a branch."""
    x = torch.randn(2, 4, 13, 14, dtype=torch.float64)
    grid = product([1, 2, (1, 3)], [0, 1, (2, 0), (0, 3), 4, "same", "valid"], [1, 2])
    for stride, padding, groups in grid:
        if padding == "same" and stride != 1:
            continue
        layer = bare(kernel, stride, padding, dilation, groups, mode)
        rows, columns = layer.kernel_size
        image = oracle.padded(x, oracle.amounts(layer), mode)
        for high, wide in {(1, 1), (1, columns), (rows, 1), (rows, columns), (1 + rows // 2, 1)}:
            small = torch.randn(6, 4 // groups, high, wide, dtype=torch.float64)
            large = small.new_zeros(6, 4 // groups, rows, columns)
            top, left = (rows - high) // 2, (columns - wide) // 2
            large[:, :, top : top + high, left : left + wide] = small
            expected = oracle.convolved(image, large, layer.stride, layer.dilation, groups)
            oracle.compare("a small kernel, run", layer.convolve(x, layer.pad(x), small), expected)
            oracle.compare("a small kernel, placed", layer.placed(small), large)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("kernel", "padding", "dilation"), [(3, 1, 1), (3, 2, 2), ((3, 5), (1, 2), 1), (5, "same", 1)]
)
def test_one_tap_under_the_usual_padding_is_the_image(kernel, padding, dilation, mode):
    layer, x = bare(kernel, 1, padding, dilation, 1, mode), torch.randn(2, 4, 9, 9).double()
    seen, left_to_torch = layer.seen_by((1, 1), x, layer.pad(x))
    assert seen is x
    assert left_to_torch == (0, 0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("size", [(1, 1), (1, 3), (3, 1), (3, 3)])
def test_a_branch_copies_no_image(size, padding, mode):
    """It sees a view of the image or of the padded one, which is padded once for all branches."""
    layer, x = bare(3, 1, padding, 1, 1, mode), torch.randn(2, 4, 9, 9).double()
    padded = layer.pad(x)
    seen, left_to_torch = layer.seen_by(size, x, padded)
    kept = {x.untyped_storage().data_ptr(), padded.untyped_storage().data_ptr()}
    mixed = mode == "zeros" and padding == 0 or mode != "zeros"
    assert seen.untyped_storage().data_ptr() in kept
    assert left_to_torch == (0, 0) if mixed else max(left_to_torch) <= padding


def test_the_bias_is_drawn_as_that_of_a_convolution():
    layer = BranchedConv2d(4, 6, 3, 1, 0, 1, 2, True, "zeros", None, None)
    conv = nn.Conv2d(4, 6, 3, groups=2)
    torch.manual_seed(3)
    layer.reset_bias()
    torch.manual_seed(3)
    bound = conv.weight[0].numel() ** -0.5
    torch.testing.assert_close(layer.bias, nn.init.uniform_(conv.bias, -bound, bound))


@pytest.mark.parametrize("stride", [1, 2, (1, 3)])
@pytest.mark.parametrize("padding", [0, 1, (2, 0), "same"])
@pytest.mark.parametrize("mode", MODES)
def test_the_image_is_passed_on_as_by_an_identity_kernel(mode, padding, stride, oracle):
    if padding == "same" and stride != 1:
        return
    for kernel, dilation in product([3, 2, (1, 4)], [1, 2]):
        layer, x = (
            bare(kernel, stride, padding, dilation, 1, mode),
            torch.randn(2, 4, 9, 8).double(),
        )
        rows, columns = layer.kernel_size
        passing = torch.zeros(4, 4, rows, columns, dtype=torch.float64)
        for channel in range(4):
            passing[channel, channel, (rows - 1) // 2, (columns - 1) // 2] = 1
        image = oracle.padded(x, oracle.amounts(layer), mode)
        expected = oracle.convolved(image, passing, layer.stride, layer.dilation)
        oracle.compare("the image passed on", layer.passed(x, layer.pad(x)), expected)


@every_layer
def test_branches_start_as_convolutions_do(layer_class):
    """Kernels of another size keep the fan of their own size; norms are neutral."""
    torch.manual_seed(0)
    layer = layer_class(64, 64, 3, bias=False)
    for branch in layer.branches.values():
        deviation = float(branch.weight.detach().std())
        assert abs(deviation * (3 * branch.weight[0].numel()) ** 0.5 - 1) < 0.1
    for norm in norms(layer):
        assert (norm.weight == 1).all()
        assert not norm.bias.any()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(5)
    layer.reset_parameters()
    assert not any((parameter == 5).all() for parameter in layer.parameters())


@every_layer
@pytest.mark.parametrize("mode", [True, False])
def test_gradients_of_gradients(layer_class, mode, oracle):
    layer = oracle.randomise(layer_class(2, 2, 3, padding=1)).train(mode)
    freeze_statistics(layer)
    x = torch.randn(2, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: layer(x).sigmoid(), x, fast_mode=True)


@every_layer
def test_statistics_move_as_those_of_a_lone_norm(layer_class, oracle):
    """The running statistics of the first branch are those of its convolution."""
    layer = layer_class(4, 4, 3, padding=2, stride=2).double()
    branch = next(iter(layer.branches.values()))
    x = torch.randn(3, 4, 7, 6, dtype=torch.float64)
    features = oracle.convolved(oracle.padded(x, (2, 2, 2, 2), "zeros"), branch.weight, (2, 2))
    mean, variance = features.mean((0, 2, 3)), features.var((0, 2, 3), correction=1)
    layer(x)
    oracle.compare("running mean", branch.norm.running_mean, 0.1 * mean)
    oracle.compare("running variance", branch.norm.running_var, 0.9 + 0.1 * variance)


@every_layer
def test_conversion_fits_a_layer_that_has_been_trained(layer_class, oracle):
    """Whatever weights and statistics it had."""
    layer = oracle.randomise(layer_class(4, 4, 3, padding=1)).train()
    conv = nn.Conv2d(4, 4, 3, padding=1, dtype=torch.float64)
    x = torch.randn(2, 4, 6, 5, dtype=torch.float64)
    with torch.no_grad():
        layer.start_from(conv.weight, conv.bias)
    assert all(module.training for module in layer.modules())
    oracle.compare("start_from a trained layer", layer.eval()(x), conv(x))


@pytest.mark.parametrize("shape", [(2, 4, 5, 3), (2, 4, 1, 1), (2, 1, 5, 3), (0, 4, 5, 3)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("copies", [1, 3])
def test_factors_are_a_convolution(copies, layout, shape, oracle):
    x = torch.randn(shape, dtype=torch.float64).contiguous(memory_format=layout)
    weight = torch.randn(copies * shape[1], 1, 1, 1, dtype=torch.float64)
    y = scale_channels(x, weight)
    assert y.is_contiguous(memory_format=layout) or 1 in shape or 0 in shape  # or both are one
    if y.numel():
        oracle.compare("factors", y, oracle.convolved(x, weight, groups=shape[1]))


@every_layer
@pytest.mark.parametrize("channels", [(4, 6, 2), (4, 4, 4)], ids=["grouped", "depthwise"])
def test_channels_last_stays(layer_class, channels, oracle):
    in_channels, out_channels, groups = channels
    layer = layer_class(in_channels, out_channels, 3, padding=1, groups=groups)
    oracle.randomise(layer)
    freeze_statistics(layer)
    x = torch.randn(2, 4, 6, 5, dtype=torch.float64)
    expected = layer(x)
    layer.to(memory_format=torch.channels_last)
    y = layer(x.to(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)
    oracle.compare("channels_last", y, expected)


@every_layer
def test_hooks_on_norms_see_what_they_gave(layer_class):
    """Nothing is added in place to what a module returned."""
    layer, seen = layer_class(4, 4, 3, padding=1), []
    for norm in norms(layer):
        norm.register_full_backward_hook(lambda module, into, out: None)
        norm.register_forward_hook(lambda module, inputs, y: seen.append((y, y.clone())))
    layer(torch.randn(2, 4, 5, 5, requires_grad=True)).sum().backward()
    assert all(torch.equal(kept, copied) for kept, copied in seen)


@every_layer
def test_batches_of_none_and_of_one(layer_class):
    layer = layer_class(4, 4, 3, padding=1)
    assert layer(torch.randn(1, 4, 5, 5)).shape == (1, 4, 5, 5)
    with pytest.raises(ValueError, match="more than 1 value per channel when training"):
        layer(torch.randn(1, 4, 1, 1))
    layer.eval()
    assert layer(torch.randn(1, 4, 1, 1)).shape == (1, 4, 1, 1)
    assert layer(torch.randn(0, 4, 5, 5)).shape == (0, 4, 5, 5)


@every_layer
def test_autocast_keeps_one_dtype(layer_class):
    layer, x = layer_class(4, 4, 3, padding=1), torch.randn(4, 4, 6, 6)
    expected = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), expected, rtol=0.1, atol=0.1)
