"""Charges what a network calls while it runs: layers by their own formulas, the rest by torch's.

Charged are this library's layers, whatever else has a method ``macs(image) -> Macs``, convolutions
and linear layers. What a layer costs is written in the layer
(:meth:`overconv.operators.base.OverConv2d.macs_backward` explains the backward pass).
"""

import math
from typing import Any

from torch import Tensor, nn

from overconv.operators.macs import Macs, is_frozen

# Their work is elementwise and at inference an affine map, for which nothing is charged.
_FREE = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.GroupNorm,
    nn.LayerNorm,
)

_UNKNOWN = ("refuse", "list")


class Charges:
    """Charges what a network calls while it runs, for a batch of images of known size.

    Attributes:
        forward, backward: Multiply-accumulates of one image by the name of the module; the second
            is empty where no backward pass is asked for.
        uncounted: What no formula covers, in words.
    """

    def __init__(self, model: nn.Module, batch: int, unknown: str, backward: bool) -> None:
        modules, self.uncounted = charged(model, unknown)
        self.batch, self.unknown, self.trains = batch, unknown, backward
        self.forward: dict[str, Macs] = {}
        self.backward: dict[str, Macs] = {}
        self.names = list(modules)
        self.handles = [
            module.register_forward_hook(self._hook(name)) for name, module in modules.items()
        ]

    def _hook(self, name: str) -> Any:
        def count(module: nn.Module, inputs: Any, output: Tensor) -> None:
            x = inputs[0]
            if x.shape[0] != self.batch:
                why = f"its input {tuple(x.shape)} has no batch of {self.batch} as its first axis"
                if self.unknown == "refuse":
                    raise ValueError(f"cannot count the cost of {name!r}: {why}")
                self.uncounted[name] = why
                return
            self.forward[name] = self.forward.get(name, Macs()) + _macs(module, x, output)
            if not self.trains:
                return
            try:
                backward = _backward(module, x, output)
            except ValueError as error:
                self.uncounted[name] = str(error)
            else:
                self.backward[name] = self.backward.get(name, Macs()) + backward

        return count

    def uncalled(self) -> list[str]:
        """The modules that are charged when called, and were not."""
        return [n for n in self.names if n not in self.forward and n not in self.uncounted]

    def remove(self) -> None:
        """Take the hooks away again."""
        for handle in self.handles:
            handle.remove()


def charged(model: nn.Module, unknown: str) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """The modules that are charged by name, and what owns parameters and is not.

    Raises:
        ValueError: There is such, and ``unknown`` is ``"refuse"``; or it is unknown itself.
    """
    if unknown not in _UNKNOWN:
        raise ValueError(f"unknown must be one of {_UNKNOWN}, got {unknown!r}")
    counted: dict[str, nn.Module] = {}
    uncounted: dict[str, str] = {}
    inside: set[nn.Module] = set()
    for name, module in model.named_modules():
        if module in inside:
            continue
        if callable(getattr(module, "macs", None)):
            counted[name] = module
            inside.update(module.modules())
        elif _computes_as(module, nn.Conv2d, "_conv_forward") or _computes_as(module, nn.Linear):
            counted[name] = module
        elif list(module.parameters(recurse=False)) and not isinstance(module, _FREE):
            if unknown == "refuse":
                raise ValueError(
                    f"cannot count the cost of {name or 'the model'!r}, a {type(module).__name__}"
                    " with parameters: give it a method macs(image) that returns"
                    " overconv.operators.macs.Macs"
                )
            uncounted[name] = f"a {type(module).__name__} with parameters has no formula"
    return counted, uncounted


def _computes_as(module: nn.Module, kind: type[nn.Module], *methods: str) -> bool:
    """Whether ``module`` is of a kind and has not changed what that computes."""
    return isinstance(module, kind) and all(
        getattr(type(module), method) is getattr(kind, method) for method in ("forward", *methods)
    )


def _positions(module: Any, output: Tensor) -> int:
    """How many times an image multiplies by the whole weight."""
    shape = output.shape[1:-1] if isinstance(module, nn.Linear) else output.shape[2:]
    return math.prod(shape)


def _macs(module: Any, x: Tensor, output: Tensor) -> Macs:
    """Charge for one call of ``module``."""
    if callable(getattr(module, "macs", None)):
        return module.macs((x.shape[2], x.shape[3]))
    return Macs(convolution=module.weight.numel() * _positions(module, output))


def _backward(module: Any, x: Tensor, output: Tensor) -> Macs:
    """Charge for the backward pass of one call.

    Raises:
        ValueError: The module has a formula for its forward pass alone, and which of its products
            needs no gradient is not known.
    """
    if not callable(getattr(module, "macs", None)):
        operands = int(x.requires_grad) + int(module.weight.requires_grad)
        return operands * _macs(module, x, output)
    image = (x.shape[2], x.shape[3])
    if callable(getattr(module, "macs_backward", None)):
        return module.macs_backward(image, x.requires_grad)
    if is_frozen(module, x.requires_grad):
        return Macs()
    if x.requires_grad:
        return 2 * module.macs(image)
    raise ValueError(
        f"no formula for the backward pass of a {type(module).__name__} whose input needs no"
        " gradient: give it a method macs_backward(image, input_gradient)"
    )
