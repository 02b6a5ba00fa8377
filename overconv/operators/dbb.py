"""Diverse branch block (DBB): four branches of different make, each behind a batch norm."""

import math
from collections.abc import Iterator
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from overconv.checks import IntPair
from overconv.functional import (
    constant_through,
    fold_norm_after,
    identity_kernel,
    pointwise_before,
)
from overconv.operators.branches import is_factor, scale_channels
from overconv.operators.macs import Macs
from overconv.operators.normed import Branch, NormedBranchesConv2d, work


class DBBConv2d(NormedBranchesConv2d):
    r"""Convolution by four branches: square, pointwise, pointwise then square, then average.

    .. math::
        y = norm(W * x) + norm(P * x) + norm(V * norm(Q * x)) + norm(A * norm(R * x)) + b

    with :math:`W` and :math:`V` of size K x L, :math:`P, Q, R` of 1 x 1, the average :math:`A` over
    K x L taps, and a batch norm of its own in each place. In ``eval()`` that is one K x L
    convolution, to which :meth:`to_inference` folds.

    Between the two layers of a branch are ``middle_channels``. If they are as many as the input's,
    :math:`Q` is the identity plus a kernel that starts at zero, else a kernel like any other.

    A depthwise layer (as many groups as input and output channels) has neither :math:`P` nor
    :math:`norm(R * x)`, for which it takes :math:`x`: they could do no more than scale a channel.

    *The border.* The inner norm sees the image without its padding. What it gives is then padded:
    in the mode of the layer, or with ``padding_mode="zeros"`` by what it makes of zero in
    ``eval()``, ``beta - mean * gamma / sigma`` with its running statistics. So in ``eval()`` the
    two layers see what they would see behind a padded ``x``, and fold exactly. In ``train()`` the
    running statistics include the batch, and are constants to the gradient. A ``beta`` inside gets
    none there: it moves image and border alike, which the norm behind undoes.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
        padding_mode, device, dtype: As in :class:`torch.nn.Conv2d`. Every layer has ``groups``
            groups. The bias is added to the sum; each norm has one of its own.
        middle_channels: Channels between :math:`Q` and :math:`V`, all groups together. None: as
            many as the input has, and twice as many in a depthwise layer.

    Attributes:
        branches: ``"square"`` and ``"point"``; see :class:`overconv.operators.normed.Branch`.
        inner, outer: The two layers of the third branch.
        mixed: The first layer of the fourth branch; None in a depthwise layer.
        averaged: The norm behind the average.

    Shape:
        (B, in_channels, H, W) -> (B, out_channels, H', W') as in :class:`torch.nn.Conv2d`

    Cost:
        With M ``middle_channels``: ``(K L + 2) O I/G + M I/G + K L O M/G + 10 O + 2 M`` parameters.
        Multiply-accumulates: what the kernels have at each output position, but :math:`Q` and
        :math:`R` at each pixel of the input, and ``K L O`` an output position for the average.
        Folded: a plain convolution.

    Raises:
        ValueError: ``middle_channels`` do not split into ``groups``, or an argument is out of its
            range. In ``forward``: the input's shape is wrong, or the norms are training on a single
            value a channel.

    ``from_conv2d`` preserves the function in ``eval()``: the square kernel takes the convolution's
    minus the other branches. In ``train()`` each branch is normalised by the batch.

    Source:
        X. Ding, X. Zhang, J. Han and G. Ding, "Diverse branch block: building a convolution as an
        inception-like unit", CVPR 2021. Differs in that ``gamma`` and ``beta`` have the gradient of
        the border too, which the authors leave out.

    Example:
        >>> layer = DBBConv2d(64, 64, 3, padding=1, bias=False)
        >>> sum(parameter.numel() for parameter in layer.parameters())
        86784
        >>> layer.to_inference()
        Conv2d(64, 64, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
    """

    mixed: Branch | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntPair,
        stride: IntPair = 1,
        padding: IntPair | str = 0,
        dilation: IntPair = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        middle_channels: int | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )
        factory = {"device": device, "dtype": dtype}
        wide_in, wide_out, groups = self.in_channels, self.out_channels, self.groups
        depthwise = wide_in == wide_out == groups
        if middle_channels is None:
            middle_channels = 2 * wide_in if depthwise else wide_in
        middle = self.middle_channels = self._divisible("middle_channels", middle_channels)
        self.add_branches(
            {"square": self.kernel_size} | ({} if depthwise else {"point": (1, 1)}), identity=False
        )
        self.inner = Branch((middle, wide_in // groups, 1, 1), **factory)
        self.outer = Branch((wide_out, middle // groups, *self.kernel_size), **factory)
        self.mixed = None if depthwise else Branch((wide_out, wide_in // groups, 1, 1), **factory)
        self.averaged = nn.BatchNorm2d(wide_out, **factory)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw each kernel as a :class:`torch.nn.Conv2d` does, but zero beside the identity."""
        super().reset_parameters()
        if self.middle_channels == self.in_channels:
            nn.init.zeros_(self.inner.weight)

    def _inner_weight(self) -> Tensor:
        weight = self.inner.weight
        if self.middle_channels != self.in_channels:
            return weight
        return weight + self._identity()

    def _identity(self) -> Tensor:
        like = self.inner.weight
        return identity_kernel(self.in_channels, 1, self.groups, like.dtype, like.device)

    # Evaluation.

    def terms(self, x: Tensor, padded: Tensor) -> Iterator[Tensor]:
        yield from super().terms(x, padded)
        outer, mixed = self.outer, self.mixed
        seen, zero = self._inside(x, self._inner_weight(), self.inner.norm)
        yield outer.norm(self._outer(seen, zero))
        seen, zero = padded, None
        if mixed is not None:
            seen, zero = self._inside(x, mixed.weight, mixed.norm)
        # as a depthwise convolution, which takes half the time of torch's pooling and has dilation
        average = seen.new_full((self.out_channels, 1, *self.kernel_size), 1 / self._taps)
        yield self.averaged(self._convolve(seen, average, zero, self.out_channels))

    def _outer(self, x: Tensor, zero: Tensor | None) -> Tensor:
        """The square layer of the third branch; with one output a group, by depthwise kernels.

        The channels of each are then added, which takes a third of the time.
        """
        weight: Tensor = self.outer.weight
        groups, inputs = self.groups, weight.shape[1]
        apart = groups == self.out_channels and inputs > 1
        if apart:
            weight, groups = weight.flatten(0, 1).unsqueeze(1), groups * inputs
        constant = None if zero is None else constant_through(zero, weight, groups)
        y = self._convolve(x, weight, constant, groups)
        if not apart:
            return y
        first, *others = y.unflatten(1, (-1, inputs)).unbind(2)
        return sum(others, start=first)

    @property
    def _border_is_constant(self) -> bool:
        return self.padding_mode == "zeros" and any(self.pad_amounts)

    @property
    def _taps(self) -> int:
        return math.prod(self.kernel_size)

    def _inside(
        self, x: Tensor, weight: Tensor, norm: nn.BatchNorm2d
    ) -> tuple[Tensor, Tensor | None]:
        """The first layer of a branch, padded but for what is left to torch, minus a constant.

        To pad by a constant is to pad the image minus the constant by zero, and to add the constant
        everywhere, of which the next layer makes another constant.
        """
        if is_factor(weight):
            x = norm(scale_channels(x, weight))
        else:
            x = norm(F.conv2d(x, weight, None, 1, 0, 1, self.groups))
        if not self._border_is_constant:
            return self.pad(x), None
        zero = image_of_zero(norm).to(x.dtype)
        # plus the negative: a difference would negate the gradient of the whole image
        return self.pad(x + (-zero)[:, None, None]), zero

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
        return F.conv2d(x, weight, bias, self.stride, self.conv_padding, self.dilation, groups)

    # Conversion.

    def folded_terms(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from super().folded_terms()
        inner, shift = fold_norm_after(self._inner_weight(), None, self.inner.norm)
        kernel, bias = self.outer.fold()
        bias = bias + constant_through(shift, kernel, self.groups)
        yield pointwise_before(inner, kernel, self.groups), bias
        if self.mixed is None:
            kernel, bias = fold_norm_after(self._identity(), None, self.averaged)
        else:
            kernel, bias = fold_norm_after(*self.mixed.fold(), self.averaged)
        yield (kernel / self._taps).expand(-1, -1, *self.kernel_size), bias

    def macs(self, image: tuple[int, int]) -> Macs:
        pixels, everywhere = math.prod(self.output_size(image)), math.prod(image)
        inner, outer, mixed = self.inner.weight, self.outer.weight, self.mixed
        total = super().macs(image) + work(inner, everywhere) + self._outer_macs(image)
        if mixed is not None:
            total += work(mixed.weight, everywhere)
        # what the border's constant becomes behind the outer kernel, whose taps are added up
        shared = outer[:, :, 0, 0].numel() if self._border_is_constant else 0
        additions = 2 * self.out_channels * pixels
        average = self.out_channels * self._taps * pixels
        return total + Macs(convolution=average, other=additions, shared=shared)

    def _outer_macs(self, image: tuple[int, int]) -> Macs:
        """The outer kernel is always convolved by, even where it is a factor a channel."""
        return Macs(convolution=self.outer.weight.numel() * math.prod(self.output_size(image)))

    def macs_on_constants(self, image: tuple[int, int]) -> Macs:
        """The average, written as a depthwise convolution."""
        values = self.out_channels * self._taps
        return Macs(convolution=values * math.prod(self.output_size(image)))

    def macs_on_input(self, image: tuple[int, int]) -> Macs:
        """All convolving but the outer kernel; the average where nothing is mixed before it."""
        behind = self._outer_macs(image)
        if self.mixed is not None:
            behind += self.macs_on_constants(image)
        return super().macs_on_input(image) - behind


def image_of_zero(norm: nn.BatchNorm2d) -> Tensor:
    """What ``norm`` makes of zero by its running statistics, one value a channel."""
    mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    ratio = mean * (variance + norm.eps).rsqrt()  # a value of its own: the statistics move in place
    if norm.training:
        # Compiled by torch's inductor, a backward pass computes anew what is cheap, here from
        # statistics that have moved once more by then. A reduction it saves: the largest of equals.
        ratio = ratio.expand(8, -1).amax(0)
    return norm.bias - norm.weight * ratio
