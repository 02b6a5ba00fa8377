"""RepVGG: a 3 x 3 kernel with a 1 x 1 kernel and the identity beside it."""

from typing import Any

from overconv.checks import IntPair
from overconv.operators.normed import NormedBranchesConv2d


class RepVGGConv2d(NormedBranchesConv2d):
    r"""Convolution with a pointwise branch and, where it can be, the input itself beside it.

    .. math:: y = norm(W * x) + norm(P * x) + norm(x) + b

    with :math:`W` of size K x L and :math:`P` of 1 x 1, each with a batch norm of its own. The last
    branch, the identity, is there if the layer has as many output as input channels and stride 1.
    In ``eval()`` that is one K x L convolution, to which :meth:`to_inference` folds.

    The 1 x 1 branches look at tap ``((K - 1) // 2, (L - 1) // 2)`` of the large kernel, whatever
    the dilation and the padding. That is the pixel of the output where the padding keeps the size
    of the image; under less padding they see that much less of it, and under more its padding too.
    A 1 x 1 kernel has two branches of 1 x 1. The authors have 3 x 3 kernels only.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
        padding_mode, device, dtype: As in :class:`torch.nn.Conv2d`. The bias is added to the sum;
            each norm has one of its own.

    Attributes:
        branches: ``"square"`` and ``"point"``; see
            :class:`overconv.operators.normed.Branch`.
        identity: The batch norm of the identity, or None.

    Shape:
        (B, in_channels, H, W) -> (B, out_channels, H', W') as in :class:`torch.nn.Conv2d`

    Cost:
        ``(K L + 1) O I/G`` parameters and ``2 O`` for each branch, and ``(K L + 1) O I/G``
        multiply-accumulates an output position. Folded: a plain convolution.

    Raises:
        ValueError: An argument is out of its range. In ``forward``: the input's shape is wrong, or
            the norms are training on a single value a channel.

    ``from_conv2d`` preserves the function in ``eval()``: the large kernel takes the convolution's
    minus the other branches. In ``train()`` each branch is normalised by the batch.

    Source:
        X. Ding et al., "RepVGG: making VGG-style ConvNets great again", CVPR 2021, section 3. There
        an activation follows the sum; here it does not.

    Example:
        >>> layer = RepVGGConv2d(64, 64, 3, padding=1, bias=False)
        >>> sum(parameter.numel() for parameter in layer.parameters())
        41344
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
        self.add_branches({"square": self.kernel_size, "point": (1, 1)}, identity=True)
        self.reset_parameters()
