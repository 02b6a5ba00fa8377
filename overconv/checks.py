"""Checks of what users give: the value in its normal form, or a ValueError that names it."""

import math
from operator import index

IntPair = int | tuple[int, int]


def at_least(name: str, value: int, minimum: int) -> int:
    """``value`` as an int, or a ValueError that names it."""
    try:
        number = index(value)
    except TypeError:
        raise ValueError(f"{name} must be an integer, got {value!r}") from None
    if number < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value!r}")
    return number


def int_pair(name: str, value: IntPair, minimum: int) -> tuple[int, int]:
    """``value`` as a pair (height, width), or a ValueError that names it."""
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ValueError(f"{name} must be an integer or a pair of them, got {value!r}")
        return at_least(name, value[0], minimum), at_least(name, value[1], minimum)
    number = at_least(name, value, minimum)
    return number, number


def one_of(name: str, value: str, allowed: tuple[str, ...]) -> str:
    """``value``, or a ValueError that lists what is allowed."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")
    return value


def positive(name: str, value: float) -> float:
    """``value``, or a ValueError that names it."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a positive number, got {value!r}")
    return value
