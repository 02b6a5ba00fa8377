"""Multi-layer dynamic convolution: over-parameters in depth instead of side by side."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from overconv.checks import IntPair
from overconv.inference_gate import InferenceGate
from overconv.operators.chain import ChainConv2d
from overconv.operators.chain_macs import best_orders, compact, macs_on_input, order_macs
from overconv.operators.macs import Macs
from overconv.operators.order import Order, expanding, leaves, parse, write


class MDConv2d(ChainConv2d):
    r"""Convolution made of ``depth`` linear layers, gated by what the input looks like.

    The kernel that one sample sees is

    .. math::
        W(x) = D_L(x) A_L \, D_{L-1}(x) A_{L-1} \cdots D_1(x) A_1 \, D_0(x), \qquad
        y = W(x) * x + b

    with :math:`A_1` of size ``kernel_size`` and the other layers 1 x 1, and diagonal gates
    :math:`D_l(x)` computed from the globally pooled input (:class:`overconv.gates.PooledGate`).
    Nothing non-linear lies between the layers. The bias is added last and is not gated.

    The same parameters are evaluated in one of several forms, and ``form`` may be set at any time.
    All give the same outputs and gradients:

    - ``"expanding"`` runs the chain on feature maps, where a gate multiplies features;
    - ``"compact"`` composes the kernel of each sample, where a gate multiplies weights, and then
      convolves once;
    - any other order of the product, such as ``"(A2 D1) (A1 x)"``, in the notation of
      :mod:`overconv.operators.order`. :func:`overconv.forms.plan_forms` finds the best.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
        padding_mode, device, dtype: As in :class:`torch.nn.Conv2d`. All layers have ``groups``
            groups; stride, padding and dilation are those of the spatial layer.
        depth: Number of layers. With 1, the end of an axis, what is about the middle is allowed and
            does nothing: ``middle_channels``, its gate, ``middle_norm`` and ``spatial``.
        middle_channels: Channels between the layers, all groups together. None: the fewest that
            take no rank from the kernel, and at least 2 a group: a group
            ``min(in * taps, out)``, or ``min(in, out * taps)`` with the spatial layer last.
        placement: Which places are gated: any of ``"input"`` (before the first layer), ``"middle"``
            (between the layers) and ``"output"`` (after the last). Empty: no gates, and no option
            of them, which are ``when``, ``squash``, ``reduction`` and ``temperature``.
        when: ``"sample"``: a gate for each sample. ``"batch"``: one for the batch, of its mean
            pooled features; ``eval()`` uses a running mean. ``"training"``: for each sample while
            training; ``eval()`` uses a running mean.
        form: ``"expanding"``, ``"compact"`` or an order.
        middle_norm: Batch norm after each layer but the last, before the gate. While training it
            needs a form that runs each layer but the last by itself, such as the expanding one, and
            more than one value a channel.
        spatial: Whether the ``"first"`` or the ``"last"`` layer is the spatial one. With the last
            and a middle norm, the input is padded ahead of the chain, so the norm's statistics
            include the padded border.
        squash: What turns logits into gates: ``"2sigmoid"`` (1 at the start), ``"sigmoid"``, or
            ``"softmax"`` over the channels of a place.
        reduction: The gates' hidden layer has ``max(4, in_channels // reduction)`` units.
        temperature: Divides the gates' logits; see :class:`overconv.gates.TemperatureSchedule`.

    Shape:
        (B, in_channels, H, W) -> (B, out_channels, H', W') as in :class:`torch.nn.Conv2d`

    Raises:
        ValueError: An argument is out of its range, channels do not split into ``groups``, a
            softmax has a single channel, or nothing is gated and an option of the gates is given.
            In ``forward``: the input's shape is wrong, or a middle norm is training in a form that
            composes its layer.

    ``from_conv2d`` preserves the function in ``eval()``, and without ``middle_norm`` in ``train()``
    too. It raises a ValueError where ``middle_channels`` is below the rank of the kernel.

    Source:
        C. Luo and J. Zhan, "Multi-layer dynamic and asymmetric convolutions", High Technology
        Letters 2022(3), 227-236. Only its abstract is public: it fixes the two forms and the
        scattering over layers; all else is our reading.

    Example:
        >>> import torch
        >>> layer = MDConv2d(8, 16, 3, padding=1, depth=3)
        >>> layer(torch.zeros(2, 8, 5, 5)).shape
        torch.Size([2, 16, 5, 5])
    """

    form_option = "form"

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
        placement: Sequence[str] = ("middle",),
        when: str = "sample",
        form: str = "expanding",
        middle_norm: bool = False,
        spatial: str = "first",
        squash: str = "2sigmoid",
        reduction: int = 16,
        temperature: float = 1.0,
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
            depth=depth,
            middle_channels=middle_channels,
            placement=placement,
            when=when,
            middle_norm=middle_norm,
            spatial=spatial,
            squash=squash,
            reduction=reduction,
            temperature=temperature,
        )
        self.when = when
        self.form = form
        self.refuse_without_gate(
            f"placement={self.placement}",
            when=when,
            squash=squash,
            reduction=reduction,
            temperature=temperature,
        )

    @property
    def form(self) -> str:
        """``"expanding"``, ``"compact"`` or an order; the parameters are the same."""
        return self._form

    @form.setter
    def form(self, form: str) -> None:
        self.order = self._parsed(form)
        self._form = form

    def _parsed(self, form: str) -> Order:
        if form == "expanding":
            return expanding(self.product)
        if form == "compact":
            return compact(self)
        product = " ".join(self.product)
        allowed = f"'expanding', 'compact' or an order of {product}"
        if not isinstance(form, str):
            raise ValueError(f"form must be {allowed}, got {form!r}")
        try:
            order = parse(form)
        except ValueError as error:
            raise ValueError(f"form must be {allowed}: {error}") from None
        if leaves(order) != self.product:
            raise ValueError(f"form must be {allowed}, got {form!r}")
        return order

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        return self.run(x)

    def to_inference(self) -> nn.Module:
        """One :class:`torch.nn.Conv2d` where no gate depends on the input in ``eval()``.

        Otherwise a layer with its norms folded: compact, or where only the input and the output
        are gated, expanding, which needs no kernel of its own for each sample. What is best depends
        on the image: see :func:`overconv.forms.plan_forms`, whose choice a further call keeps.
        """
        folded = self.folded()
        if isinstance(self.gate, InferenceGate):  # it is at inference already
            return folded
        if isinstance(folded, MDConv2d):
            folded.form = (
                "compact" if "middle" in folded.placement and self.depth > 1 else "expanding"
            )
        return folded

    def forms(self, image: tuple[int, int], batch: int = 1) -> dict[str, Macs]:
        if any(norm.training for norm in self.norms):
            return {"expanding": order_macs(self, image, expanding(self.product))}
        names = {expanding(self.product): "expanding", compact(self): "compact"}
        orders = dict.fromkeys([*names, *best_orders(self, image, batch)])
        return {
            names.get(order) or write(order): order_macs(self, image, order) for order in orders
        }

    def macs(self, image: tuple[int, int]) -> Macs:
        return order_macs(self, image, self.order)

    def macs_on_input(self, image: tuple[int, int]) -> Macs:
        return macs_on_input(self, image)
