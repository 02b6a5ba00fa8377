"""What every layer of the library has in common: conversion, forms, cost."""

import inspect
from collections.abc import Callable
from copy import deepcopy
from functools import wraps
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from overconv.operators.geometry import ConvGeometry
from overconv.operators.macs import Macs, is_frozen


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


class OverConv2d(ConvGeometry):
    """Base of all layers: the geometry of a :class:`torch.nn.Conv2d`, and what can be done to it.

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

    def own(self, name: str) -> Any:
        """A parameter or a child, as ``getattr`` finds it, in less time than a small step takes.

        Torch looks attributes up in three dictionaries, after all else has failed.
        """
        state = self.__dict__
        for kind in ("_parameters", "_modules"):
            if name in state[kind]:
                return state[kind][name]
        return getattr(self, name)  # None; or what stands there, if parametrised or a replica

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

    def macs_backward(self, image: tuple[int, int], input_gradient: bool = True) -> Macs:
        """Cost of the backward pass that belongs to :meth:`macs`.

        A product of n multiply-accumulates costs n more for each of its two operands that needs a
        gradient: ``dA = dC B'`` and ``dB = A' dC`` for ``C = A B``, and the like for a convolution.
        So it is twice the forward pass, less :meth:`macs_on_constants`, and less
        :meth:`macs_on_input` where the input needs no gradient. Elementwise work is charged by the
        same rule, as if each value were a product of two; pooling and additions, which are not,
        make that an upper bound.

        Args:
            image: Height and width of the input.
            input_gradient: Whether the input needs a gradient; that of a first layer does not.

        Raises:
            ValueError: The layer is frozen in part, or whole with an input that needs a gradient.
        """
        if is_frozen(self, input_gradient):
            return Macs()
        cost = 2 * self.macs(image) - self.macs_on_constants(image)
        return cost if input_gradient else cost - self.macs_on_input(image)

    def macs_on_constants(self, image: tuple[int, int]) -> Macs:
        """Products of :meth:`macs` one of whose operands is no parameter and not computed."""
        return Macs()

    def macs_on_input(self, image: tuple[int, int]) -> Macs:
        """Products of :meth:`macs` one of whose operands is the input, or made of it without
        parameters, such as by pooling and padding.

        Here all convolving, and what the layer's ``gate`` says, if it has one.

        Raises:
            ValueError: It has a gate that does not say.
        """
        convolving = Macs(convolution=self.macs(image).convolution)
        gate = getattr(self, "gate", None)
        if gate is None:
            return convolving
        if not hasattr(gate, "macs_on_pooled"):
            raise ValueError(
                f"no formula for the backward pass of a {type(self).__name__} whose input needs no"
                f" gradient: its gate, a {type(gate).__name__}, has no method macs_on_pooled()"
            )
        return convolving + Macs(gate=gate.macs_on_pooled())

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
