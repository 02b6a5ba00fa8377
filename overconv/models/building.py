"""What the networks have in common: their arguments, and where a layer goes."""

import math
from operator import index

from torch import nn

from overconv.surgery import Layer, Where, replace_convs, select_convs


def at_least(name: str, value: int, minimum: int) -> int:
    """``value`` as an int, or a ValueError that names it."""
    try:
        number = index(value)
    except TypeError:
        raise ValueError(f"{name} must be an integer, got {value!r}") from None
    if number < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value!r}")
    return number


def positive(name: str, value: float) -> float:
    """``value``, or a ValueError that names it."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a positive number, got {value!r}")
    return value


def put_layers(network: nn.Module, conv: Layer, where: Where) -> None:
    """Put a ``conv`` in the place of each convolution of ``network`` that ``where`` selects.

    A network under construction is the one that may be changed in place. ``nn.Conv2d`` itself
    leaves it as it is; ``where`` is checked all the same.
    """
    if conv is nn.Conv2d:
        select_convs(network, where)
        return
    for name, child in replace_convs(network, conv, where).named_children():
        setattr(network, name, child)
