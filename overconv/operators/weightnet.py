"""WeightNet: the kernel of each sample is the output of a grouped linear layer.

Axes: B batch, I input and O output channels, K x L kernel, G groups.
"""

import math
from copy import deepcopy
from typing import Any, Self

import torch
from torch import Tensor, nn

from overconv.checks import IntPair, at_least
from overconv.functional import conv2d_per_sample
from overconv.gates import Squash
from overconv.operators.base import OverConv2d
from overconv.operators.macs import Macs
from overconv.operators.parallel import mix_rows, parallel_rows


class LinearGate(nn.Module):
    """Gates from globally pooled features: ``pool -> Linear -> Linear -> sigmoid``.

    Unlike in :class:`overconv.gates.PooledGate` nothing stands between the linear layers. The last
    one starts at zero, so every gate starts at one half.

    Shape:
        (B, in_channels, H, W) -> one (B, width)
    """

    squeeze: nn.Linear | None

    def __init__(
        self, in_channels: int, width: int, hidden: int, *, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        self.squeeze = nn.Linear(in_channels, hidden, device=device, dtype=dtype)
        self.excite = nn.Linear(hidden, width, device=device, dtype=dtype)
        self.squash = Squash("sigmoid", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the first layer anew and make the gates neutral."""
        if self.squeeze is not None:
            self.squeeze.reset_parameters()
        nn.init.zeros_(self.excite.weight)
        nn.init.zeros_(self.excite.bias)

    @property
    def neutral(self) -> float:
        """The gate that a fresh layer gives."""
        return self.squash.neutral(self.excite.out_features)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        pooled = x.mean((2, 3))
        if self.squeeze is not None:
            pooled = self.squeeze(pooled)
        return (self.squash(self.excite(pooled)),)

    @torch.no_grad()
    def fold(self) -> None:
        """Make one layer of the two where that is the smaller; in place, for inference."""
        first, last = self.squeeze, self.excite
        if first is None or last.out_features * first.in_features > (
            first.weight.numel() + last.weight.numel()
        ):
            return
        last.bias = nn.Parameter(last(first.bias))
        last.weight = nn.Parameter(last.weight @ first.weight)
        last.in_features, self.squeeze = first.in_features, None

    def macs(self, image: tuple[int, int]) -> tuple[int, int]:
        """Multiply-accumulates of the linear layers and of the pooling."""
        first = self.excite if self.squeeze is None else self.squeeze
        linear = self.excite.weight.numel()
        if self.squeeze is not None:
            linear += self.squeeze.weight.numel()
        return linear, first.in_features * image[0] * image[1]

    def macs_on_pooled(self) -> int:
        """Multiply-accumulates of the linear layer that reads the pooled features."""
        return (self.excite if self.squeeze is None else self.squeeze).weight.numel()


class WeightNetConv2d(OverConv2d):
    r"""Convolution whose kernel is emitted by a grouped linear layer, from gates.

    .. math:: \alpha(x) = \sigma(F_1 (R \, \mathrm{pool}(x) + r) + f), \qquad
              \mathrm{vec}\, W(x) = F_2 \, \alpha(x), \qquad y = W(x) * x + b

    Each output channel has ``gates_per_channel`` gates, :math:`M` in the paper, and
    ``groups_per_channel`` groups of :math:`F_2`, :math:`G` in the paper: its kernel, a list of
    values with the taps of the first input channel first, is cut into so many parts, and each part
    is a mixture of :math:`M/G` vectors by as many gates. No kernel is stored but in :math:`F_2`,
    which has no bias.

    A kernel of one input channel (depthwise) is not cut. As the authors have it, there an output
    channel has :math:`M/G` gates and one group, so that it too is a mixture of :math:`M/G` kernels.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
        padding_mode, device, dtype: As in :class:`torch.nn.Conv2d`. The bias is a constant.
        gates_per_channel: :math:`M`, a multiple of :math:`G`.
        groups_per_channel: :math:`G`. With one group the layer is a mixture of kernels with
            coefficients for each output channel; with as many as gates every gate scales a part of
            its own.
        reduction: Between the pooled features and the gates lie
            ``max(16, in_channels // reduction)`` units.

    Attributes:
        weight: (parts of the kernel, vectors a part, values a part), :math:`F_2`; the parts are
            output channel by output channel.

    Shape:
        (B, in_channels, H, W) -> (B, out_channels, H', W') as in :class:`torch.nn.Conv2d`

    Cost:
        ``M/G P + M O (h + 1) + I h + h`` parameters, where a convolution has ``P`` and ``h`` is the
        number of units; for a depthwise kernel with ``M/G`` in the place of ``M``.
        Multiply-accumulates an image: the convolution's, and one for each of these but the biases.

    Raises:
        ValueError: An argument is out of its range; ``groups_per_channel`` does not split
            ``gates_per_channel``, or the values of an output channel's kernel. In ``forward``: the
            input's shape is wrong.

    ``from_conv2d`` preserves the function in ``eval()`` and in ``train()``. The vectors of a part
    start different, and twice the convolution's scale over their number, since the gates start at
    one half.

    Source:
        N. Ma, X. Zhang, J. Huang and J. Sun, "WeightNet: revisiting the design space of weight
        networks", ECCV 2020, section 3. Differs in that each layer reduces its own input (the
        authors' layers of a block share that), that the gates start at zero, and that the kernel
        starts with the variance of a plain convolution's.

    Example:
        >>> import torch
        >>> WeightNetConv2d(8, 16, 3, padding=1)(torch.zeros(2, 8, 5, 5)).shape
        torch.Size([2, 16, 5, 5])
    """

    bias: Tensor | None

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
        gates_per_channel: int = 2,
        groups_per_channel: int = 2,
        reduction: int = 16,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode
        )
        factory = {"device": device, "dtype": dtype}
        self.gates_per_channel = at_least("gates_per_channel", gates_per_channel, 1)
        self.groups_per_channel = at_least("groups_per_channel", groups_per_channel, 1)
        if self.gates_per_channel % self.groups_per_channel:
            raise ValueError(
                f"gates_per_channel={gates_per_channel} does not split into"
                f" groups_per_channel={groups_per_channel}"
            )
        per_group = self.in_channels // self.groups
        values = per_group * math.prod(self.kernel_size)
        parts = 1 if per_group == 1 else self.groups_per_channel
        if values % parts:
            raise ValueError(
                f"groups_per_channel={groups_per_channel} does not split the {values} values of an"
                " output channel's kernel"
            )
        vectors = self.gates_per_channel // self.groups_per_channel
        rows = self.out_channels * parts
        # three axes: nothing that channels_last could permute
        self.weight = nn.Parameter(torch.empty(rows, vectors, values // parts, **factory))
        self.bias = nn.Parameter(torch.empty(self.out_channels, **factory)) if bias else None
        self.reduction = at_least("reduction", reduction, 1)
        hidden = max(16, self.in_channels // self.reduction)
        self.gate = LinearGate(self.in_channels, rows * vectors, hidden, **factory)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start with the variance of a :class:`torch.nn.Conv2d` and neutral gates."""
        bound = (self.in_channels // self.groups * math.prod(self.kernel_size)) ** -0.5
        spread = bound / (self.gate.neutral * math.sqrt(self.weight.shape[1]))
        nn.init.uniform_(self.weight, -spread, spread)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)
        self.gate.reset_parameters()

    def start_from(self, weight: Tensor, bias: Tensor | None) -> None:
        """Different vectors in each part, scaled so that their neutral mixture is ``weight``."""
        parts, vectors, values = self.weight.shape
        kernels = parallel_rows(weight, vectors) / (self.gate.neutral * vectors)
        cut = kernels.unflatten(2, (parts // self.out_channels, values)).transpose(1, 2)
        self.weight.copy_(cut.flatten(0, 1))
        if self.bias is not None and bias is not None:
            self.bias.copy_(bias)
        self.gate.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        kernels, bias = self.kernels(x)
        return conv2d_per_sample(self.pad(x), kernels, bias, *self.geometry)

    def kernels(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        (gates,) = self.gate(x)
        parts = mix_rows(gates.unflatten(1, self.weight.shape[:2]), self.weight)
        per_group = self.in_channels // self.groups
        shape = (parts.shape[0], self.out_channels, per_group, *self.kernel_size)
        return parts.reshape(shape), self.bias

    def to_inference(self) -> Self:
        """A copy in ``eval()``; the linear layers ahead of the gates are one where that is less."""
        copy = deepcopy(self).eval()
        copy.gate.fold()
        return copy

    def absorb_affine(self, scale: Tensor, shift: Tensor) -> bool:
        parts = self.weight.shape[0] // self.out_channels
        self.weight.mul_(scale.repeat_interleave(parts)[:, None, None])
        shift = shift if self.bias is None else shift + scale * self.bias
        self.bias = nn.Parameter(shift.to(self.weight.dtype))
        return True

    def kernel_dimension(self) -> int:
        """Each part moves by itself, in the span of its own vectors."""
        parts, vectors, values = self.weight.shape
        return parts * min(vectors, values)

    def macs(self, image: tuple[int, int]) -> Macs:
        linear, pooling = self.gate.macs(image)
        vectors, values = self.weight.shape[1], self.weight.numel()
        # a single vector is not mixed but scaled
        mixing = Macs(other=values) if vectors == 1 else Macs(compose=values)
        convolution = values // vectors * math.prod(self.output_size(image))
        return mixing + Macs(gate=linear, convolution=convolution, other=pooling)
