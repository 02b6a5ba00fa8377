"""Kernel algebra as pure functions; every layer of the library is built from them.

Axes: B batch, I input, M middle and O output channels, K x L kernel, H x W image, G groups.
A kernel has the shape (O, I/G, K, L) of torch, or with a batch of kernels in front
(B, O, I/G, K, L), where a batch of one serves every sample. "Composing" two kernels gives the
kernel of applying the one and then the other, with the padding on the first; there it is exact at
the border too, whatever is added in between. Like ``torch.nn.functional.conv2d``, a kernel
correlates: no flip.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Pair = int | Sequence[int]


def _pair(value: Pair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


# Applying a kernel.


def conv2d_per_sample(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Tensor:
    """Convolve each sample with its own kernel; a batch of one kernel is shared.

    Shape:
        x (B, I, H, W), weight (B or 1, O, I/G, K, L), bias (O) or (B or 1, O) -> (B, O, H', W')
    """
    batch, kernels = x.shape[0], weight.shape[0]
    if batch == 0:  # nothing to compute, and no convolution has as many groups
        weight, kernels = weight.sum(0, keepdim=True), 1
        bias = bias.sum(0) if bias is not None and bias.dim() == 2 else bias
    if kernels == 1:
        weight = weight.squeeze(0)
        if bias is None or bias.dim() == 1:
            return F.conv2d(x, weight, bias, stride, padding, dilation, groups)
        if bias.shape[0] == 1:
            return F.conv2d(x, weight, bias.squeeze(0), stride, padding, dilation, groups)
        y = F.conv2d(x, weight, None, stride, padding, dilation, groups)
        return y + bias.to(y.dtype)[:, :, None, None]
    out_channels, geometry = weight.shape[1], (_pair(stride), _pair(padding), _pair(dilation))
    if bias is not None:
        bias = bias.expand(batch, out_channels)
    if weight.shape[3:] == (1, 1) and geometry[1] == (0, 0):
        return _multiply_pixels(x, weight, bias, geometry[0], groups)
    if groups == 1 and _one_by_one_is_faster(x, weight):
        biases = [None] * batch if bias is None else list(bias.unbind())
        samples = zip(x.split(1), weight.unbind(), biases, strict=True)
        return torch.cat(
            [F.conv2d(image, kernel, own, *geometry) for image, kernel, own in samples]
        )
    # the samples become groups of one convolution
    y = F.conv2d(
        x.reshape(1, -1, *x.shape[2:]),
        weight.flatten(0, 1),
        None if bias is None else bias.reshape(-1),
        *geometry,
        groups * batch,
    )
    return y.view(batch, out_channels, *y.shape[2:])


def _multiply_pixels(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int], groups: int
) -> Tensor:
    """Pointwise kernels are matrices: one product a sample and group, from any memory format."""
    if stride != (1, 1):
        x = x[:, :, :: stride[0], :: stride[1]]
    matrix, pixels = weight.flatten(2), x.flatten(2)
    if groups > 1:
        matrix = matrix.unflatten(1, (groups, -1))
        y = (matrix @ pixels.unflatten(1, (groups, -1))).flatten(1, 2)
        y = y if bias is None else y + bias.to(y.dtype)[:, :, None]
    elif bias is None:
        y = matrix @ pixels
    else:
        y = torch.baddbmm(bias[:, :, None], matrix, pixels)
    return y.unflatten(2, x.shape[2:])


def _one_by_one_is_faster(x: Tensor, weight: Tensor) -> bool:
    """Whether a convolution for each sample beats one with a group for each, to be decided eagerly.

    On a CPU it does where a kernel holds many more values than the images around it, by up to three
    times; a compiler or an exporter gets the one whose graph does not depend on the batch.
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    kernel, pixels = weight[0].numel(), x.shape[2] * x.shape[3]
    return kernel >= 4 * (weight.shape[1] + x.shape[1]) * pixels


def gate_features(x: Tensor, gate: Tensor, *, in_place: bool = False) -> Tensor:
    """Multiply each channel by its gate, in the precision of ``x``.

    In place, without gradients, where nobody else has the features.

    Shape:
        x (B, I, H, W), gate (B or 1, I) -> (B, I, H, W)
    """
    gate = gate if gate.dtype == x.dtype else gate.to(x.dtype)
    scale = gate.view(*gate.shape, 1, 1)
    return x.mul_(scale) if in_place else x * scale


# Composing kernels.


def mix_kernels(shares: Tensor, kernels: Tensor) -> Tensor:
    """Sums of parallel kernels, one sum for each row of ``shares``.

    Shape:
        shares (B, N), kernels (N O, I/G, K, L) -> (B, O, I/G, K, L), in the memory format of
        ``kernels``
    """
    batch, num_kernels = shares.shape
    rows, *rest = kernels.shape
    out_channels = rows // num_kernels
    if kernels.is_contiguous() or not kernels.is_contiguous(memory_format=torch.channels_last):
        mixed = torch.mm(shares, kernels.reshape(num_kernels, -1))
        return mixed.view(batch, out_channels, *rest)
    # a view again, with the channels last
    last = kernels.permute(0, 2, 3, 1)
    mixed = torch.mm(shares, last.reshape(num_kernels, -1))
    return mixed.view(batch, out_channels, *last.shape[1:]).permute(0, 1, 4, 2, 3)


def pointwise_after(kernel: Tensor, pointwise: Tensor, groups: int = 1) -> Tensor:
    """Kernel of ``pointwise(kernel(x))``; stride, padding and dilation are those of ``kernel``.

    Shape:
        kernel (..., M, I/G, K, L), pointwise (..., O, M/G, 1, 1) -> (..., O, I/G, K, L)
    """
    left, right = pointwise.flatten(-3), kernel.flatten(-3)
    if groups == 1:
        if all(size == 1 for size in (*left.shape[:-2], *right.shape[:-2])):
            composed = (left.view(left.shape[-2:]) @ right.view(right.shape[-2:])).view(
                *(left if left.dim() >= right.dim() else right).shape[:-2], left.shape[-2], -1
            )
        else:
            composed = left @ right
        return composed.view(*composed.shape[:-1], *kernel.shape[-3:])
    composed = left.unflatten(-2, (groups, -1)) @ right.unflatten(-2, (groups, -1))
    return composed.flatten(-3, -2).unflatten(-1, kernel.shape[-3:])


def pointwise_before(pointwise: Tensor, kernel: Tensor, groups: int = 1) -> Tensor:
    """Kernel of ``kernel(pointwise(x))``; stride, padding and dilation are those of ``kernel``.

    A constant that is added between the two must be padded by itself, not by zero.

    Shape:
        pointwise (..., M, I/G, 1, 1), kernel (..., O, M/G, K, L) -> (..., O, I/G, K, L)
    """
    if kernel.shape[-2:] == (1, 1):
        return pointwise_after(pointwise, kernel, groups)
    taps = kernel.shape[-2:]
    left = kernel.flatten(-2).unflatten(-3, (groups, -1))
    right = pointwise.flatten(-3).unflatten(-2, (groups, -1))
    composed = torch.einsum("...gomt,...gmi->...goit", left, right)
    return composed.flatten(-4, -3).unflatten(-1, taps)


def compose(first: Tensor, second: Tensor, groups: int = 1) -> Tensor:
    """Kernel of ``second(first(x))`` for two kernels of any size, by their full convolution.

    The taps of both must lie on one grid: the dilation of ``second`` times the stride of
    ``first`` equals the dilation of ``first``, and is that of the result too; otherwise
    :func:`spread_taps` them. Strides multiply. The padding of the result is that of ``first``,
    and ``second`` pads nothing.

    Shape:
        first (..., M, I/G, K, L), second (..., O, M/G, K', L') -> (..., O, I/G, K+K'-1, L+L'-1)
    """
    if second.shape[-2:] == (1, 1):
        return pointwise_after(first, second, groups)
    if first.shape[-2:] == (1, 1):
        return pointwise_before(first, second, groups)
    if first.dim() > 4 or second.dim() > 4:  # a batch of kernels is so many groups more
        lead = torch.broadcast_shapes(first.shape[:-4], second.shape[:-4])
        first = first.expand(*lead, *first.shape[-4:]).reshape(-1, *first.shape[-3:])
        out_channels, batch = second.shape[-4], lead.numel()
        second = second.expand(*lead, *second.shape[-4:]).reshape(-1, *second.shape[-3:])
        composed = compose(first, second, groups * batch)
        return composed.view(*lead, out_channels, *composed.shape[1:])
    # ``first`` as an image: its inputs are the batch. ``conv2d`` correlates, hence the flip.
    image = first.unflatten(0, (groups, -1)).flatten(0, 1).transpose(0, 1)
    padding = (second.shape[-2] - 1, second.shape[-1] - 1)
    return F.conv2d(image, second.flip(-2, -1), None, 1, padding, 1, groups).transpose(0, 1)


def constant_through(constant: Tensor, kernel: Tensor, groups: int = 1) -> Tensor:
    """What a constant image, one value a channel, becomes under ``kernel`` away from any border.

    Shape:
        constant (..., I), kernel (..., O, I/G, K, L) -> (..., O)
    """
    taps = kernel.sum((-2, -1)).unflatten(-2, (groups, -1))
    return (taps @ constant.unflatten(-1, (groups, -1)).unsqueeze(-1)).squeeze(-1).flatten(-2)


def add_kernels(*kernels: Tensor) -> Tensor:
    """Kernel of the sum of parallel convolutions: each embedded in the largest, then added.

    Raises:
        ValueError: Two sizes have no common centre, such as 2 and 3.

    Shape:
        each (..., O, I/G, K, L) with its own K and L -> (..., O, I/G, max K, max L)
    """
    size = (max(k.shape[-2] for k in kernels), max(k.shape[-1] for k in kernels))
    first, *others = (embed_kernel(kernel, size) for kernel in kernels)
    return sum(others, start=first)


# Moving taps.


def spread_taps(kernel: Tensor, dilation: Pair) -> Tensor:
    """The same convolution at dilation 1: zeros between the taps.

    Shape:
        (..., K, L) -> (..., dilation (K - 1) + 1, dilation (L - 1) + 1)
    """
    high, wide = _pair(dilation)
    if (high, wide) == (1, 1):
        return kernel
    rows, columns = kernel.shape[-2:]
    spread = kernel.new_zeros(*kernel.shape[:-2], high * (rows - 1) + 1, wide * (columns - 1) + 1)
    spread[..., ::high, ::wide] = kernel
    return spread


def embed_kernel(
    kernel: Tensor, kernel_size: Pair, dilation: Pair = 1, into_dilation: Pair = 1
) -> Tensor:
    """The same convolution as a larger kernel with the same centre, zero elsewhere.

    With it the padding grows by ``(into_dilation (K' - 1) - dilation (K - 1)) / 2`` a side.

    Args:
        kernel: Has taps ``dilation`` apart.
        kernel_size: Size of the result, whose taps are ``into_dilation`` apart.

    Raises:
        ValueError: A tap falls outside the larger kernel or between its taps.

    Shape:
        (..., K, L) -> (..., *kernel_size)
    """
    steps, margins = [], []
    for old, new, step, grid in zip(
        kernel.shape[-2:], _pair(kernel_size), _pair(dilation), _pair(into_dilation), strict=True
    ):
        spare = grid * (new - 1) - step * (old - 1)
        if spare < 0 or spare % (2 * grid) or (old > 1 and step % grid):
            raise ValueError(
                f"{old} taps at dilation {step} do not lie on {new} taps at dilation {grid}"
                " around one centre"
            )
        steps.append(step // grid if old > 1 else 1)
        margins.append(spare // (2 * grid))
    high, wide = margins
    return F.pad(spread_taps(kernel, steps), (wide, wide, high, high))


def scale_output(kernel: Tensor, scale: Tensor) -> Tensor:
    """Kernel of the convolution whose outputs are scaled.

    Shape:
        kernel (..., O, I/G, K, L), scale (..., O) -> (..., O, I/G, K, L)
    """
    return kernel * scale.view(*scale.shape, 1, 1, 1)


def scale_input(kernel: Tensor, scale: Tensor, groups: int = 1) -> Tensor:
    """Kernel of the convolution whose inputs are scaled.

    Shape:
        kernel (..., O, I/G, K, L), scale (..., I) -> (..., O, I/G, K, L)
    """
    if groups == 1:
        return kernel * scale.view(*scale.shape[:-1], 1, scale.shape[-1], 1, 1)
    scale = scale.unflatten(-1, (groups, -1))[..., None, :, None, None]
    return (kernel.unflatten(-4, (groups, -1)) * scale).flatten(-5, -4)


def scale_taps(kernel: Tensor, scale: Tensor) -> Tensor:
    """Kernel with its taps scaled, alike for all channels.

    Shape:
        kernel (..., O, I/G, K, L), scale (..., K, L) -> (..., O, I/G, K, L)
    """
    return kernel * scale[..., None, None, :, :]


# Operations that are convolutions.


def identity_kernel(
    channels: int,
    kernel_size: Pair = 1,
    groups: int = 1,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Kernel that returns its input under ``padding="same"``, also where a side is even.

    Shape:
        (channels, channels/G, *kernel_size)
    """
    high, wide = _pair(kernel_size)
    eye = torch.eye(channels // groups, dtype=dtype, device=device).repeat(groups, 1)
    kernel = eye.new_zeros(*eye.shape, high, wide)
    kernel[:, :, (high - 1) // 2, (wide - 1) // 2] = eye
    return kernel


def average_kernel(
    channels: int,
    kernel_size: Pair,
    groups: int = 1,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Kernel of average pooling that counts the padding, torch's default.

    Shape:
        (channels, channels/G, *kernel_size)
    """
    high, wide = _pair(kernel_size)
    eye = torch.eye(channels // groups, dtype=dtype, device=device).repeat(groups, 1)
    return (eye / (high * wide))[:, :, None, None].repeat(1, 1, high, wide)


# Batch norm.


def norm_as_affine(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Scale and shift, one a channel, that ``norm`` applies in evaluation mode.

    Raises:
        ValueError: ``norm`` is training, or keeps no running statistics.
    """
    if norm.training or norm.running_mean is None or norm.running_var is None:
        raise ValueError(f"{norm} normalises by the batch: only eval() statistics are affine")
    scale = (norm.running_var + norm.eps).rsqrt()
    if norm.affine:
        scale = scale * norm.weight
    shift = -norm.running_mean * scale
    return scale, shift + norm.bias if norm.affine else shift


def fold_norm_after(kernel: Tensor, bias: Tensor | None, norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Kernel and bias of ``norm(kernel(x) + bias)``; see :func:`norm_as_affine` for errors.

    Shape:
        kernel (..., O, I/G, K, L), bias (..., O) -> the same
    """
    scale, shift = norm_as_affine(norm)
    return scale_output(kernel, scale), shift if bias is None else bias * scale + shift


def fold_norm_before(
    norm: nn.BatchNorm2d, kernel: Tensor, bias: Tensor | None, groups: int = 1
) -> tuple[Tensor, Tensor]:
    """Kernel and bias of ``kernel(norm(x)) + bias``; see :func:`norm_as_affine` for errors.

    Exact without padding. With it, exact if the normalised image was padded by the image of zero
    under ``norm``, its shift: only then does padding ``x`` by zero do the same.

    Shape:
        kernel (..., O, I/G, K, L), bias (..., O) -> the same
    """
    scale, shift = norm_as_affine(norm)
    through = constant_through(shift, kernel, groups)
    return scale_input(kernel, scale, groups), through if bias is None else through + bias
