"""What a module is like, as far as it decides what can be expected of it; found by running it."""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode

from overconv.operators.base import OverConv2d

aten = torch.ops.aten
PRODUCTS = (aten.bmm.default, aten.baddbmm.default)


def layers_of(module: nn.Module) -> list[OverConv2d]:
    return [part for part in module.modules() if isinstance(part, OverConv2d)]


def normalises(module: nn.Module) -> bool:
    """Whether it normalises by the batch in ``train()``."""
    return any(isinstance(part, _BatchNorm) for part in module.modules())


def gates_by_the_batch(module: nn.Module) -> bool:
    """Whether it computes gates from all of the batch in ``train()``."""
    return any(getattr(part, "when", None) == "batch" for part in module.modules())


def looks_at_the_batch(module: nn.Module) -> bool:
    return normalises(module) or gates_by_the_batch(module)


def composes_in_training(module: nn.Module) -> bool:
    """Whether its form composes a kernel through a norm: what it refuses in ``train()``."""
    try:
        with torch.no_grad():
            copy.deepcopy(module).train()(torch.zeros(2, 4, 8, 8, dtype=dtype_of(module)))
    except ValueError as error:
        if "while training" in str(error):
            return True
        raise
    return False


def dtype_of(module: nn.Module) -> torch.dtype:
    return next(module.parameters()).dtype


class Spatial(TorchDispatchMode):
    """Notes the operations that mix channels of images: convolutions, and products over pixels.

    Attributes:
        groups: Of each convolution; None for a product.
    """

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.pixels = pixels
        self.groups: list[int | None] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is aten.convolution.default:
            self.groups.append(args[8])
        elif func in PRODUCTS and args[-1].shape[-1] % self.pixels == 0:
            self.groups.append(None)
        return func(*args, **(kwargs or {}))


def groups_by_sample(module: nn.Module) -> bool:
    """Whether the number of groups of a convolution in ``eval()`` grows with the batch."""
    return _spatial(module, 2) != _spatial(module, 3)


def ends_by_sample(module: nn.Module) -> bool:
    """Whether the last such operation works sample by sample: a product, or grown groups."""
    two, three = _spatial(module, 2), _spatial(module, 3)
    return two[-1] is None or two[-1] != three[-1]


def _spatial(module: nn.Module, batch: int) -> list[int | None]:
    size = 26  # so that no other size is a multiple of the number of pixels, at stride 2 either
    layers = layers_of(module)
    pixels = math.prod(layers[-1].output_size((size, size))) if layers else 1
    with Spatial(pixels) as seen, torch.no_grad():
        copy.deepcopy(module).eval()(torch.zeros(batch, 4, size, size, dtype=dtype_of(module)))
    return seen.groups


def normalises_one_value(module: nn.Module) -> bool:
    """Whether a norm of torch gets one value a channel from one image of one pixel."""
    seen: list[Tensor] = []
    for part in module.modules():
        if type(part) in (nn.BatchNorm1d, nn.BatchNorm2d):
            part.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        module.eval()(torch.zeros(1, 4, 1, 1, dtype=dtype_of(module)))
    return any(x.numel() == x.shape[1] for x in seen)


def reads_running_statistics(module: nn.Module) -> bool:
    """Whether running statistics decide the output in ``train()`` too."""
    if composes_in_training(module):
        return False
    x = torch.linspace(-1, 1, 2 * 4 * 8 * 8, dtype=dtype_of(module)).view(2, 4, 8, 8).cos()
    outputs = []
    for value in (0.5, 2.0):
        other = copy.deepcopy(module).train()
        for part in other.modules():
            if isinstance(part, _BatchNorm) and part.running_mean is not None:
                part.running_mean.fill_(value)
        with torch.no_grad():
            outputs.append(other(x))
    return not torch.equal(*outputs)


def has_norms_in_a_row(module: nn.Module) -> bool:
    """Whether a norm's output reaches another norm through nothing but linear layers."""
    for layer in layers_of(module):
        name = type(layer).__name__
        if name == "DBBConv2d":
            return True
        if name == "MAConv2d" and getattr(layer, "depth", 0) > 2 and normalises(layer):
            return True
    return False
