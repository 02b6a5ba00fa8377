"""What every layer of the library has in common: geometry, padding, conversion, forms, cost."""

import inspect
from collections.abc import Callable
from copy import deepcopy
from dataclasses import astuple, dataclass
from functools import wraps
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import skip_init

from overconv.checks import IntPair, at_least, int_pair, one_of

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates of one forward pass, by kind.

    The first four are counted for one image; ``shared`` is spent once a batch, however large.
    A bias and a normalisation count as zero: the first is an addition, the second folds away.

    Attributes:
        gate: The linear layers that turn pooled features into gates.
        compose: Building one kernel a sample.
        convolution: Convolving.
        other: Elementwise work, one a value: pooling, gating features, scaling or adding kernels.
        shared: Work of any kind whose result serves the whole batch, such as composing a kernel
            whose gates do not depend on the sample.
    """

    gate: int = 0
    compose: int = 0
    convolution: int = 0
    other: int = 0
    shared: int = 0

    def __add__(self, other: "Macs") -> "Macs":
        return Macs(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def per_image(self, batch: int) -> float:
        """All kinds together for one image of a batch, which share what is done once."""
        return self.total - self.shared + self.shared / batch

    @property
    def total(self) -> int:
        """All kinds together, for a batch of one image."""
        return self.gate + self.compose + self.convolution + self.other + self.shared


def own_options(layer: type) -> dict[str, Any]:
    """A layer's own options, keyword-only, each with its default; those of its bases too."""
    found: dict[str, Any] = {}
    for cls in reversed(layer.__mro__):
        if "__init__" in vars(cls):
            parameters = inspect.signature(vars(cls)["__init__"]).parameters.values()
            own = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
            # one without a default is between a layer and its base, and nothing that users give
            found |= {p.name: p.default for p in own if p.default is not p.empty}
    return found


def _as_frozen(to_inference: Callable[[Any], nn.Module]) -> Callable[[Any], nn.Module]:
    """``to_inference`` of a layer, such that nothing trains of what nothing trained of."""

    @wraps(to_inference)
    def deploy(layer: nn.Module) -> nn.Module:
        deployed = to_inference(layer)
        frozen = not any(parameter.requires_grad for parameter in layer.parameters())
        return deployed.requires_grad_(False) if frozen else deployed

    return deploy


class OverConv2d(nn.Module):
    """Base of all layers: the geometry of a :class:`torch.nn.Conv2d` without its weights.

    A layer derives from it, owns the parameters, and defines :meth:`forward`,
    :meth:`to_inference`, :meth:`macs` and :meth:`start_from`. A layer that folds derives from
    :class:`FoldingConv2d`. A dynamic one also defines :meth:`kernels`, :meth:`kernel_dimension` and
    :meth:`absorb_affine`, and where it can be evaluated in several ways, :meth:`forms`.

    A layer's own options are keyword-only and kept as attributes of their names, but for a
    temperature, which is a buffer of the gate.

    Attributes:
        form_option: Name of the attribute that chooses among :meth:`forms`; None without a choice.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode:
            As in :class:`torch.nn.Conv2d`.

    Raises:
        ValueError: An argument is not what :class:`torch.nn.Conv2d` allows.
    """

    form_option: str | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "to_inference" in vars(cls):  # here, since what it creates anew would train
            # mypy allows no method to be replaced
            cls.to_inference = _as_frozen(cls.to_inference)  # type: ignore[assignment, method-assign]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntPair,
        stride: IntPair = 1,
        padding: IntPair | str = 0,
        dilation: IntPair = 1,
        groups: int = 1,
        padding_mode: str = "zeros",
    ) -> None:
        super().__init__()
        self.groups = at_least("groups", groups, 1)
        self.in_channels = self._divisible("in_channels", in_channels)
        self.out_channels = self._divisible("out_channels", out_channels)
        self.kernel_size = int_pair("kernel_size", kernel_size, 1)
        self.stride = int_pair("stride", stride, 1)
        self.dilation = int_pair("dilation", dilation, 1)
        self.padding_mode = one_of("padding_mode", padding_mode, PADDING_MODES)
        self.padding: tuple[int, int] | str
        if isinstance(padding, str):
            self.padding = one_of("padding", padding, ("same", "valid"))
            if padding == "same" and self.stride != (1, 1):
                raise ValueError(f"padding='same' needs stride 1, got stride={self.stride}")
        else:
            self.padding = int_pair("padding", padding, 0)
        left, right, top, bottom = self.pad_amounts = self._pad_amounts()
        self._native = padding_mode == "zeros" and left == right and top == bottom

    def _divisible(self, name: str, channels: int) -> int:
        channels = at_least(name, channels, 1)
        if channels % self.groups:
            raise ValueError(f"{name}={channels} does not split into groups={self.groups}")
        return channels

    def _pad_amounts(self) -> tuple[int, int, int, int]:
        """Left, right, top and bottom padding; an odd remainder of "same" goes right and down."""
        if self.padding == "valid":
            return (0, 0, 0, 0)
        if isinstance(self.padding, tuple):
            high, wide = self.padding
            return (wide, wide, high, high)
        high, wide = (d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True))
        return (wide // 2, wide - wide // 2, high // 2, high - high // 2)

    # Padding. Torch's convolution pads by zeros and evenly; all else is padded here, so that
    # every form of a layer sees the same borders.

    @property
    def conv_padding(self) -> tuple[int, int]:
        """The padding left to torch's convolution once :meth:`pad` has done its part."""
        return (self.pad_amounts[2], self.pad_amounts[0]) if self._native else (0, 0)

    def pad(self, x: Tensor) -> Tensor:
        """``x`` padded by what torch's convolution cannot do; ``x`` itself where it can do all."""
        return x if self._native else self.pad_fully(x)

    def pad_fully(self, x: Tensor) -> Tensor:
        """``x`` with all of the layer's padding, for a convolution that then pads nothing."""
        if not any(self.pad_amounts):
            return x
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        return F.pad(x, self.pad_amounts, mode=mode)

    def output_size(self, image: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the output for an input of height and width ``image``."""
        left, right, top, bottom = self.pad_amounts
        padded = (image[0] + top + bottom, image[1] + left + right)
        high, wide = (
            max(0, (size - d * (k - 1) - 1) // s + 1)
            for size, k, s, d in zip(
                padded, self.kernel_size, self.stride, self.dilation, strict=True
            )
        )
        return high, wide

    def own(self, name: str) -> Any:
        """A parameter or a child, as ``getattr`` finds it, in less time than a small step takes.

        Torch looks attributes up in three dictionaries, after all else has failed.
        """
        state = self.__dict__
        found = state["_parameters"].get(name)
        if found is None:
            found = state["_modules"].get(name)
        return getattr(self, name) if found is None else found

    # Conversion.

    @classmethod
    def from_conv2d(cls, conv: nn.Conv2d, **options: Any) -> Self:
        """A layer that computes what ``conv`` computes, on its device, in its dtype and mode.

        Exact in ``eval()`` always, and in ``train()`` too unless the layer normalises by the
        batch. What is free of this condition, such as the differences between parallel kernels,
        is drawn from torch's global generator.

        Args:
            conv: Stays untouched.
            options: The layer's own keyword-only options.

        Raises:
            ValueError: ``conv`` is not exactly a :class:`torch.nn.Conv2d` (a subclass may compute
                something else), or the layer with these options cannot hold its kernel.
        """
        if type(conv) is not nn.Conv2d:
            raise ValueError(f"conv must be exactly a torch.nn.Conv2d, got {type(conv).__name__}")
        build: Any = cls  # every layer takes the arguments of nn.Conv2d in its order
        layer: Self = build(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            conv.stride,
            conv.padding,
            conv.dilation,
            conv.groups,
            conv.bias is not None,
            conv.padding_mode,
            conv.weight.device,
            conv.weight.dtype,
            **options,
        )
        with torch.no_grad():
            layer.start_from(conv.weight, conv.bias)
        return layer.train(conv.training)

    def start_from(self, weight: Tensor, bias: Tensor | None) -> None:
        """Set the parameters so that the layer computes the convolution by ``weight``.

        Called without recording gradients.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no start_from()")

    def to_inference(self) -> nn.Module:
        """A new module in ``eval()`` that computes what this one computes in ``eval()``.

        A :class:`torch.nn.Conv2d` where the layer folds into one, else a copy of the layer in
        its best form for inference. The layer itself stays as it is. If all of its parameters have
        ``requires_grad=False``, so have those of the new module.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no to_inference()")

    def absorb_affine(self, scale: Tensor, shift: Tensor) -> bool:
        """Compute ``scale * y + shift`` from now on, in place; one value an output channel each.

        How a batch norm behind the layer disappears at inference. Called on what
        :meth:`to_inference` returned, without recording gradients.

        Returns:
            Whether the layer did so; False leaves it as it was, and the batch norm in its place.
        """
        return False

    def as_conv2d(self, weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
        """A plain convolution of this layer's geometry with the given values, in ``eval()``."""
        conv = skip_init(  # leaves the global generator alone
            nn.Conv2d,
            self.in_channels,
            self.out_channels,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            bias is not None,
            self.padding_mode,
            device=weight.device,
            dtype=weight.dtype,
        )
        with torch.no_grad():
            conv.weight.copy_(weight)
            if bias is not None:
                conv.bias.copy_(bias)
        return conv.eval()

    # The kernel that a sample sees.

    def kernels(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Kernel and bias that each sample of ``x`` is convolved with, in the present mode.

        Shape:
            x (B, I, H, W) -> (B or 1, O, I/G, K, L), and (B or 1, O) or (O) or None
        """
        conv = self.to_inference()
        assert isinstance(conv, nn.Conv2d), f"{type(self).__name__} is dynamic: it defines kernels"
        return conv.weight[None], conv.bias

    def kernel_dimension(self) -> int:
        """Dimension of the span of the kernel over all values of the gates; 1 for a static layer.

        For weights in general position, and gates that are free of one another.
        """
        return 1

    # Forms and cost.

    def forms(self, image: tuple[int, int], batch: int = 1) -> dict[str, Macs]:
        """The ways to evaluate the layer on such images, with the cost of each.

        Each is a value of the attribute that :attr:`form_option` names, and all give the same
        outputs. Empty where there is no choice.
        """
        return {}

    def macs(self, image: tuple[int, int]) -> Macs:
        """Cost of one forward pass on an image of (height, width), in the present form and mode."""
        raise NotImplementedError(f"{type(self).__name__} defines no macs()")

    def check_input(self, x: Tensor) -> None:
        """Raise a ValueError unless ``x`` has the shape (B, in_channels, H, W)."""
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"input must be (batch, {self.in_channels}, height, width), got {tuple(x.shape)}"
            )

    def extra_repr(self) -> str:
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"]
        defaults: dict[str, Any] = {
            "stride": (1, 1),
            "padding": (0, 0),
            "dilation": (1, 1),
            "groups": 1,
            "padding_mode": "zeros",
        }
        for name, default in defaults.items():
            if getattr(self, name) != default:
                parts.append(f"{name}={getattr(self, name)!r}")
        if getattr(self, "bias", None) is None:
            parts.append("bias=False")
        parts += [f"{name}={value!r}" for name, value in self.shown_options().items()]
        return ", ".join(parts)

    def shown_options(self) -> dict[str, Any]:
        """The layer's own options that ``repr`` shows: the form, and what is not the default."""
        options = own_options(type(self)).items()
        present = {name: getattr(self, name, default) for name, default in options}
        return {
            name: present[name]
            for name, default in options
            if name == self.form_option or present[name] != default
        }


class FoldingConv2d(OverConv2d):
    """Base of the layers that are one plain convolution in ``eval()``.

    A layer derives from it and defines :meth:`fold` beside ``forward``, ``start_from`` and
    ``macs``.
    """

    def fold(self) -> tuple[Tensor, Tensor | None]:
        """Kernel (O, I/G, K, L) and bias (O) of the one convolution, in ``eval()``."""
        raise NotImplementedError(f"{type(self).__name__} defines no fold()")

    def to_inference(self) -> nn.Conv2d:
        """The one convolution that computes what the layer computes in ``eval()``."""
        copy = deepcopy(self).eval()
        with torch.no_grad():
            return copy.as_conv2d(*copy.fold())
