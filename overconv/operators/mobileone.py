"""MobileOne: several kernels of one size, with a 1 x 1 kernel and the identity beside them."""

from typing import Any

from overconv.checks import IntPair, at_least
from overconv.operators.normed import NormedBranchesConv2d


class MobileOneConv2d(NormedBranchesConv2d):
    r"""Convolution by the sum of several normalised kernels, a pointwise one and the input itself.

    .. math:: y = \sum_n norm_n(W_n * x) + norm(P * x) + norm(x) + b

    with ``num_kernels`` kernels :math:`W_n` of size K x L and :math:`P` of 1 x 1, each with a batch
    norm of its own. The pointwise branch is there if the kernel is larger than 1 x 1; the last one,
    the identity, if the layer has as many output as input channels and stride 1. In ``eval()`` that
    is one K x L convolution, to which :meth:`to_inference` folds.

    The 1 x 1 branches look at tap ``((K - 1) // 2, (L - 1) // 2)`` of the large kernel, whatever
    the dilation and the padding; see :class:`overconv.operators.repvgg.RepVGGConv2d`.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
        padding_mode, device, dtype: As in :class:`torch.nn.Conv2d`. The bias is added to the sum;
            each norm has one of its own.
        num_kernels: Number of K x L kernels. The authors have 4 in the smallest network (S0) and 1
            in the others.

    Attributes:
        branches: ``"kernel0"``, ``"kernel1"``, ... and ``"point"``; see
            :class:`overconv.operators.normed.Branch`.
        identity: The batch norm of the identity, or None.

    Shape:
        (B, in_channels, H, W) -> (B, out_channels, H', W') as in :class:`torch.nn.Conv2d`

    Cost:
        ``(num_kernels K L + 1) O I/G`` parameters and ``2 O`` for each branch, and
        ``(num_kernels K L + 1) O I/G`` multiply-accumulates an output position. Folded: a plain
        convolution.

    Raises:
        ValueError: An argument is out of its range. In ``forward``: the input's shape is wrong, or
            the norms are training on a single value a channel.

    ``from_conv2d`` preserves the function in ``eval()``: the kernels share the convolution's minus
    the other branches, with random differences that cancel. In ``train()`` each branch is
    normalised by the batch.

    Source:
        P. K. A. Vasu et al., "MobileOne: an improved one millisecond mobile backbone", CVPR 2023,
        section 3. There an activation follows the sum; here it does not.

    Example:
        >>> layer = MobileOneConv2d(64, 64, 3, padding=1, groups=64, bias=False)
        >>> sum(parameter.numel() for parameter in layer.parameters())
        3136
        >>> layer.to_inference()
        Conv2d(64, 64, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), groups=64)
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
        num_kernels: int = 4,
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
        self.num_kernels = at_least("num_kernels", num_kernels, 1)
        # Run one after the other. As one convolution of num_kernels times the channels, a training
        # step on a CPU takes as long for dense kernels, and two to eight times as long for
        # depthwise ones or in channels_last.
        sizes = {f"kernel{number}": self.kernel_size for number in range(self.num_kernels)}
        if self.kernel_size != (1, 1):
            sizes["point"] = (1, 1)
        self.add_branches(sizes, identity=True)
        self.reset_parameters()
