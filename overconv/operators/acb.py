"""ACB: a square kernel with a row and a column beside it, each behind a batch norm of its own."""

from typing import Any

from overconv.checks import IntPair, positive
from overconv.operators.normed import NormedBranchesConv2d


class ACConv2d(NormedBranchesConv2d):
    r"""Asymmetric convolution: the kernel's central row and column have kernels of their own.

    .. math:: y = norm(W * x) + norm(R * x) + norm(C * x) + b

    with :math:`W` of size K x L, the row :math:`R` of size 1 x L and the column :math:`C` of size
    K x 1, each with a batch norm of its own. In ``eval()`` that is one K x L convolution, to which
    :meth:`to_inference` folds.

    The row lies on the taps of row ``(K - 1) // 2`` of the large kernel and the column on those of
    column ``(L - 1) // 2``, whatever the dilation and the padding; an even side has no centre.
    Where K or L is 1 a branch is as large as the whole kernel, and a 1 x 1 kernel has three
    branches of 1 x 1. The authors replace kernels of 3 and 5 only.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
        padding_mode, device, dtype: As in :class:`torch.nn.Conv2d`. The bias is added to the sum;
            each norm has one of its own.
        gamma: What the norms' scales start at: with the authors 1 on ImageNet, 1/3 on CIFAR.

    Attributes:
        branches: ``"square"``, ``"row"`` and ``"column"``; see
            :class:`overconv.operators.normed.Branch`.

    Shape:
        (B, in_channels, H, W) -> (B, out_channels, H', W') as in :class:`torch.nn.Conv2d`

    Cost:
        ``(K L + K + L) O I/G + 6 O`` parameters, and ``(K L + K + L) O I/G`` multiply-accumulates
        an output position. Folded: a plain convolution.

    Raises:
        ValueError: An argument is out of its range. In ``forward``: the input's shape is wrong, or
            the norms are training on a single value a channel.

    ``from_conv2d`` preserves the function in ``eval()``: the square kernel takes the convolution's
    minus the row and the column. In ``train()`` each branch is normalised by the batch.

    Source:
        X. Ding, Y. Guo, G. Ding and J. Han, "ACNet: strengthening the kernel skeletons for powerful
        CNN via asymmetric convolution blocks", ICCV 2019.

    Example:
        >>> layer = ACConv2d(64, 64, 3, padding=1, bias=False)
        >>> sum(parameter.numel() for parameter in layer.parameters())
        61824
        >>> layer.to_inference()
        Conv2d(64, 64, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
    """

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
        gamma: float = 1.0,
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
        self.gamma = positive("gamma", gamma)
        high, wide = self.kernel_size
        sizes = {"square": (high, wide), "row": (1, wide), "column": (high, 1)}
        self.add_branches(sizes, identity=False)
        self.reset_parameters()
