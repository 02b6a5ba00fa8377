"""DCD: a kernel scaled by a gate, plus a dynamic matrix between few latent channels.

Axes: B batch, I input, J latent and O output channels, K x L kernel, G groups, H x W image.
"""

import math
from copy import deepcopy
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from overconv.checks import IntPair, at_least, one_of
from overconv.functional import (
    constant_through,
    conv2d_per_sample,
    fold_norm_after,
    gate_features,
    norm_as_affine,
    pointwise_after,
    scale_output,
)
from overconv.operators.base import OverConv2d
from overconv.operators.dcdgate import SQUASHES, DCDGate
from overconv.operators.macs import Macs
from overconv.operators.mixture import PLACES
from overconv.operators.odgate import GateNorm2d


class DCDConv2d(OverConv2d):
    r"""Dynamic channel decomposition: a static kernel, its rows gated, plus a dynamic matrix.

    .. math:: W(x) = \Lambda(x) W_0 + P \, (\Phi(x) + 1) \, Q^T \text{ on the centre tap}, \qquad
              y = W(x) * x + b

    with a diagonal :math:`\Lambda(x)` and a small matrix :math:`\Phi(x)` of the pooled input
    (:class:`overconv.operators.dcdgate.DCDGate`). As in the authors' code there are batch norms
    behind :math:`Q` and :math:`\Phi`, and the latent channels also pass by the matrix:

    .. math:: z = \mathrm{norm}(Q^T x), \qquad
              y = \Lambda(x) (W_0 * x) + P \, (\mathrm{norm}(\Phi(x) z) + z) + b

    The centre tap is number ``(K - 1) // 2`` of a row, ``(L - 1) // 2`` of a column. Where it lies
    on padding, so does :math:`Q`: the input is padded ahead of it, and the statistics of the norms
    include those positions. With groups, :math:`Q`, :math:`\Phi` and :math:`P` have as many blocks
    and no entries between them.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
        padding_mode, device, dtype: As in :class:`torch.nn.Conv2d`.
        latent_channels: Channels between :math:`Q` and :math:`P`, all groups together. None:
            ``floor(sqrt(4 I))`` for the ``I`` inputs of each group, which is the rule of the
            authors' basic block of ResNet. (Their bottleneck has ``floor(sqrt(I))``, their
            MobileNetV2 one that depends on the outputs too.)
        pool: The gate sees the means of ``pool * pool`` cells of the image: 2 as in the authors'
            basic block, or 1.
        on: ``"features"``: run the branch on the features. ``"weights"``: compose the kernel of
            each sample, then convolve once; not while the norms are training. May be set at any
            time; outputs and gradients are the same.
        squash: Maps the gate's logits to [0, 2], zero to one: ``"hsigmoid"``,
            ``relu6(x + 3) / 3``, or ``"2sigmoid"``.
        reduction: The gate's hidden layer is that many times narrower than the wider of the pooled
            features and the entries of :math:`\Phi`, but at least 4.
        gate_norm: Whether the branch has its norms. While training on a single position, a 1 x 1
            map of one image, they apply their running statistics and leave them as they are.

    Shape:
        (B, in_channels, H, W) -> (B, out_channels, H', W') as in :class:`torch.nn.Conv2d`

    Raises:
        ValueError: An argument is out of its range, or ``latent_channels`` do not split into
            ``groups``. In ``forward``: the input's shape is wrong, or a norm is training with
            ``on="weights"``.

    ``from_conv2d`` preserves the function in ``eval()`` and in ``train()``: the gate of the rows
    starts at one, and ``P`` at zero.

    Source:
        Y. Li et al., "Revisiting dynamic convolution via matrix decomposition", ICLR 2021, and the
        authors' code, which runs on the features only.

    Example:
        >>> import torch
        >>> DCDConv2d(8, 16, 3, padding=1)(torch.zeros(2, 8, 5, 5)).shape
        torch.Size([2, 16, 5, 5])
    """

    form_option = "on"
    bias: Tensor | None
    latent_shift: Tensor | None

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
        latent_channels: int | None = None,
        pool: int = 2,
        on: str = "features",
        squash: str = "hsigmoid",
        reduction: int = 16,
        gate_norm: bool = True,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode
        )
        self.on = on
        factory = {"device": device, "dtype": dtype}
        per_group = self.in_channels // self.groups
        if latent_channels is None:
            latent_channels = self.groups * math.isqrt(4 * per_group)
        self.latent_channels = self._divisible("latent_channels", latent_channels)
        latent_group = self.latent_channels // self.groups
        self.weight = nn.Parameter(
            torch.empty(self.out_channels, per_group, *self.kernel_size, **factory)
        )
        # Q and P: from the input to the latent channels, and from there to the output
        self.compress = nn.Parameter(torch.empty(self.latent_channels, per_group, 1, 1, **factory))
        self.expand = nn.Parameter(torch.empty(self.out_channels, latent_group, 1, 1, **factory))
        self.bias = nn.Parameter(torch.empty(self.out_channels, **factory)) if bias else None
        self.compress_norm, self.mix_norm = (
            GateNorm2d(self.latent_channels, **factory) if gate_norm else None for _ in range(2)
        )
        self.register_parameter("latent_shift", None)  # left by the first norm once it is folded
        entries = self.latent_channels * latent_group
        self.pool, self.gate_norm = at_least("pool", pool, 1), bool(gate_norm)
        self.squash = one_of("squash", squash, tuple(SQUASHES))
        self.reduction = at_least("reduction", reduction, 1)
        widest = max(self.pool**2 * self.in_channels, entries)
        self.gate = DCDGate(
            self.in_channels,
            (self.out_channels, entries),
            hidden=max(4, widest // self.reduction),
            pool=self.pool,
            squash=self.squash,
            **factory,
        )
        self.reset_parameters()

    @property
    def on(self) -> str:
        """Where the branch is: on the ``"weights"`` or on the ``"features"``."""
        return self._on

    @on.setter
    def on(self, on: str) -> None:
        self._on = one_of("on", on, PLACES)

    def reset_parameters(self) -> None:
        """Draw kernels as the authors do: normal, by the fan out, for a ReLU; the rest as torch."""
        for weight in (self.weight, self.compress, self.expand):
            nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")
        if self.bias is not None:
            bound = self.weight[0].numel() ** -0.5
            nn.init.uniform_(self.bias, -bound, bound)
        for norm in (self.compress_norm, self.mix_norm):
            if norm is not None:
                norm.reset_parameters()
        self.gate.reset_parameters()

    def start_from(self, weight: Tensor, bias: Tensor | None) -> None:
        """The kernel itself, its rows times one; a branch that ends in zero and begins at random.

        So ``P`` learns from the first step on, and with it all of the branch.
        """
        self.reset_parameters()
        self.weight.copy_(weight)
        if self.bias is not None and bias is not None:
            self.bias.copy_(bias)
        self.expand.zero_()
        self.gate.excite.weight[: self.out_channels].zero_()

    def centre(self, x: Tensor) -> Tensor:
        """What the centre tap passes over, at stride 1: ``x``, cut or padded at its sides."""
        amounts = []
        for size, step in zip(self.kernel_size[::-1], self.dilation[::-1], strict=True):
            before = (size - 1) // 2
            amounts += [-step * before, -step * (size - 1 - before)]
        padding = list(self.pad_amounts)
        sums = [pad + amount for pad, amount in zip(padding, amounts, strict=True)]
        if self.padding_mode == "zeros" or max(sums) <= 0:  # no other padding is ever seen
            amounts = sums
        else:
            x = self.pad_fully(x)
        return F.pad(x, amounts) if any(amounts) else x  # a negative amount cuts

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        if self.on == "weights":
            kernels, bias = self.kernels(x)
            return conv2d_per_sample(self.pad(x), kernels, bias, *self.geometry)
        factors, entries = self.gate(x)
        y = F.conv2d(self.pad(x), self.weight, None, *self.geometry)
        z = F.conv2d(
            self.centre(x), self.compress, self.latent_shift, self.stride, 0, 1, self.groups
        )
        if self.compress_norm is not None:
            z = self.compress_norm(z)
        # a product a sample and group, not a convolution: that would fix the batch of an export
        blocks = self._matrix(entries).flatten(2).unflatten(1, (self.groups, -1))
        mixed = (blocks @ z.flatten(2).unflatten(1, (self.groups, -1))).view_as(z)
        if self.mix_norm is not None:
            mixed = self.mix_norm(mixed)
        branch = F.conv2d(mixed + z, self.expand, self.bias, groups=self.groups)
        return gate_features(y, factors) + branch

    @property
    def _normalises_by_the_batch(self) -> bool:
        """Whether a norm of the branch is training, so that no kernel can be composed."""
        norms = self.compress_norm, self.mix_norm
        return any(norm is not None and norm.training for norm in norms)

    def kernels(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        if self._normalises_by_the_batch:
            raise ValueError(
                "a layer with gate_norm=True cannot compose its kernel while training, since it"
                " normalises by the batch: use on='features', or eval()"
            )
        factors, entries = self.gate(x)
        matrix, shift = self._matrix(entries), self.latent_shift
        compress: Tensor = self.compress
        if self.compress_norm is not None:
            compress, shift = fold_norm_after(compress, None, self.compress_norm)
        behind = None  # the constant behind the matrix
        if self.mix_norm is not None:
            scale, behind = norm_as_affine(self.mix_norm)
            matrix = scale_output(matrix, scale)
        inner = pointwise_after(compress, matrix, self.groups) + compress
        update = pointwise_after(inner, self.expand, self.groups)
        kernels = scale_output(self.weight, factors)
        high, wide = ((size - 1) // 2 for size in self.kernel_size)
        kernels[..., high, wide] += update[..., 0, 0]
        if shift is None:
            return kernels, self.bias
        constant = constant_through(shift, matrix, self.groups) + shift
        constant = constant if behind is None else constant + behind
        bias = constant_through(constant, self.expand, self.groups)
        return kernels, bias if self.bias is None else bias + self.bias

    def _matrix(self, entries: Tensor) -> Tensor:
        """The dynamic matrix of each sample as a pointwise kernel, (B, J, J/G, 1, 1)."""
        return entries.unflatten(1, (self.latent_channels, -1, 1, 1))

    def to_inference(self) -> Self:
        """A copy in ``eval()`` with its norms folded; ``on`` stays, see :meth:`forms`.

        The scale of the second norm goes into the gate's last layer, its shift into the bias.
        """
        copy = deepcopy(self).eval()
        with torch.no_grad():
            if copy.compress_norm is not None:
                folded = fold_norm_after(copy.compress, None, copy.compress_norm)
                copy.compress, copy.latent_shift = map(nn.Parameter, folded)
            if copy.mix_norm is not None:
                scale, shift = norm_as_affine(copy.mix_norm)
                rows = copy.gate.excite.weight[self.out_channels :].unflatten(0, (len(scale), -1))
                rows.mul_(scale[:, None, None])
                constant = constant_through(shift, copy.expand, self.groups)
                bias = constant if copy.bias is None else copy.bias + constant
                copy.bias = nn.Parameter(bias)
        copy.compress_norm, copy.mix_norm, copy.gate_norm = None, None, False
        return copy

    def absorb_affine(self, scale: Tensor, shift: Tensor) -> bool:
        for weight in (self.weight, self.expand):
            weight.mul_(scale[:, None, None, None])
        bias = shift if self.bias is None else self.bias * scale + shift
        self.bias = nn.Parameter(bias.to(self.weight.dtype))
        return True

    def kernel_dimension(self) -> int:
        """See the base: a row each, and outer products of the columns of ``P`` and ``Q``, a group.

        They are dependent only where the kernel has a single tap, and then fill all of it.
        """
        wide_out, per_group = self.out_channels // self.groups, self.weight.shape[1]
        latent = self.latent_channels // self.groups
        products = min(latent, wide_out) * min(latent, per_group)
        return self.groups * min(products + wide_out, self.weight.numel() // self.groups)

    def forms(self, image: tuple[int, int], batch: int = 1) -> dict[str, Macs]:
        places = ("features",) if self._normalises_by_the_batch else PLACES
        return {on: self._macs(image, on) for on in places}

    def macs(self, image: tuple[int, int]) -> Macs:
        return self._macs(image, self.on)

    def _macs(self, image: tuple[int, int], on: str) -> Macs:
        linear, pooling = self.gate.macs(image)
        pixels = math.prod(self.output_size(image))
        static, compress, expand = (
            weight.numel() for weight in (self.weight, self.compress, self.expand)
        )
        matrix = self.gate.widths[1]
        total = Macs(gate=linear, convolution=static * pixels, other=pooling)
        if on == "features":
            branch = (compress + matrix + expand) * pixels
            # a multiplication by the gate and an addition of the branch for each output
            elementwise = (self.out_channels + self.latent_channels) * pixels
            return total + Macs(convolution=branch, other=elementwise)
        norms = [norm is not None for norm in (self.compress_norm, self.mix_norm)]
        per_group, latent_group = self.weight.shape[1], self.expand.shape[1]
        compose = (matrix + self.out_channels * latent_group) * per_group
        if norms[0] or self.latent_shift is not None:
            compose += matrix + expand  # the constant behind the first norm
        elementwise = static + compress + self.out_channels * per_group
        elementwise += norms[0] * compress + norms[1] * matrix
        return total + Macs(compose=compose, other=elementwise)

    def macs_on_input(self, image: tuple[int, int]) -> Macs:
        """On the features, the branch is convolved by ``Q`` alone."""
        on_weights = super().macs_on_input(image)
        if self.on == "weights":
            return on_weights
        values = self.weight.numel() + self.compress.numel()
        convolution = values * math.prod(self.output_size(image))
        return Macs(gate=on_weights.gate, convolution=convolution)
