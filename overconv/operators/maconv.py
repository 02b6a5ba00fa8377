"""Multi-layer asymmetric convolution: a gated or normalised chain that folds away."""

from typing import Any

from torch import Tensor, nn

from overconv.checks import IntPair, one_of
from overconv.operators.chain import ChainConv2d
from overconv.operators.chain_macs import macs_on_input, order_macs
from overconv.operators.macs import Macs

MIDDLES = ("norm", "gate", "norm+gate")


class MAConv2d(ChainConv2d):
    r"""Chain of linear layers whose middle is a constant in evaluation: it folds to one kernel.

    In training

    .. math:: y = A_L \, T_{L-1}( A_{L-1} \cdots T_1( A_1 * x ) ) + b

    with :math:`A_1` of size ``kernel_size``, the other layers 1 x 1, and :math:`T_l` a batch norm,
    a gate of the batch, or the one after the other. In ``eval()`` each :math:`T_l` is affine with
    running statistics, so that :meth:`to_inference` gives a plain :class:`torch.nn.Conv2d`.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
        padding_mode, device, dtype, depth, middle_channels, spatial, squash, reduction,
        temperature: As in :class:`overconv.operators.mdconv.MDConv2d`.
        middle: What lies between the layers. ``"norm"``: a batch norm. ``"gate"``: one gate a
            channel for the whole batch, from its mean pooled features, of which ``eval()`` uses a
            running mean. ``"norm+gate"``: the norm, then the gate. A norm alone has no use for
            ``squash``, ``reduction`` and ``temperature``.

    Shape:
        (B, in_channels, H, W) -> (B, out_channels, H', W') as in :class:`torch.nn.Conv2d`

    Raises:
        ValueError: As in :class:`overconv.operators.mdconv.MDConv2d`, or ``middle`` is unknown.

    ``from_conv2d`` preserves the function in ``eval()``, and with ``middle="gate"`` in ``train()``
    too. It raises a ValueError where ``middle_channels`` is below the rank of the kernel.

    Source:
        C. Luo and J. Zhan, "Multi-layer dynamic and asymmetric convolutions", High Technology
        Letters 2022(3), 227-236. Only its abstract is public: it fixes that training and inference
        differ and that inference costs what a plain convolution does; all else is our reading.

    Example:
        >>> MAConv2d(8, 16, 3, padding=1).to_inference()
        Conv2d(8, 16, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
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
        depth: int = 2,
        middle_channels: int | None = None,
        middle: str = "norm",
        spatial: str = "first",
        squash: str = "2sigmoid",
        reduction: int = 16,
        temperature: float = 1.0,
    ) -> None:
        one_of("middle", middle, MIDDLES)
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
            depth=depth,
            middle_channels=middle_channels,
            placement=("middle",) if "gate" in middle else (),
            when="batch",
            middle_norm="norm" in middle,
            spatial=spatial,
            squash=squash,
            reduction=reduction,
            temperature=temperature,
        )
        self.middle = middle
        self.refuse_without_gate(
            f"middle={middle!r}", squash=squash, reduction=reduction, temperature=temperature
        )

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        return self.run(x)

    def to_inference(self) -> nn.Conv2d:
        """The one convolution that computes what the chain computes in ``eval()``.

        With a norm in the middle it has a bias even where the layer has none: the constant that the
        norm adds. A batch norm behind the layer can absorb it.
        """
        folded = self.folded()
        assert isinstance(folded, nn.Conv2d), "the middle is constant in eval()"
        return folded

    def macs(self, image: tuple[int, int]) -> Macs:
        return order_macs(self, image, self.order)

    def macs_on_input(self, image: tuple[int, int]) -> Macs:
        return macs_on_input(self, image)
