"""Orders of evaluation of a chain: a product of factors and gates, ended by the image.

A gated chain of layers, applied to an image, is a matrix product

    D3 A3 D2 A2 D1 A1 D0 x

of layers ``A`` (kernels), gates ``D`` (diagonal) and the image ``x``. It can be multiplied in any
order. ``A2 (D1 (A1 x))`` runs layer by layer on feature maps, ``((A2 D1) A1) x`` composes one
kernel and convolves once, ``(A2 D1) (A1 x)`` scales the second layer's weights and convolves twice.
An order is written in that notation, each product with its two factors.
"""

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

Order = str | tuple["Order", "Order"]

IMAGE = "x"


def factors(depth: int, gated: Sequence[int]) -> tuple[str, ...]:
    """The factors of a chain from left to right, whose gated positions are ``gated``.

    >>> factors(2, [1])
    ('A2', 'D1', 'A1', 'x')
    """
    found = [IMAGE]
    for position in range(depth + 1):
        if position:
            found.append(f"A{position}")
        if position in gated:
            found.append(f"D{position}")
    return tuple(reversed(found))


def is_gate(order: Order) -> bool:
    """Whether an order is a gate by itself."""
    return isinstance(order, str) and order.startswith("D")


def expanding(product: Sequence[str]) -> Order:
    """Right to left: everything happens on feature maps."""
    order: Order = product[-1]
    for factor in reversed(product[:-1]):
        order = (factor, order)
    return order


class Step(NamedTuple):
    """One multiplication of features from the left, by a gate or by a kernel.

    Attributes:
        gate: Name of the gate; None for a kernel.
        kernel: The order in which the kernel is composed, a single layer's name included.
        layer: Index of that layer if it is a single one.
        spatial: Whether the spatial layer is part of the kernel.
    """

    gate: str | None
    kernel: Order
    layer: int | None
    spatial: bool


def steps(order: Order, spatial: str) -> tuple[Step, ...]:
    """What happens to the image in an order, first to last; ``spatial`` names that layer."""
    found: list[Step] = []
    while not isinstance(order, str):
        left, order = order
        if is_gate(left):
            found.append(Step(str(left), left, None, False))
        else:
            layer = int(left[1:]) - 1 if isinstance(left, str) else None
            found.append(Step(None, left, layer, spatial in leaves(left)))
    return tuple(reversed(found))


@cache
def parse(text: str) -> Order:
    """The order that ``text`` writes.

    >>> parse("A2 (D1 (A1 x))")
    ('A2', ('D1', ('A1', 'x')))

    Raises:
        ValueError: ``text`` is no product in which each pair of parentheses holds two factors.
    """
    tokens = re.findall(r"[()]|[^\s()]+", text)
    try:
        order, rest = _product(text, tokens)
    except RecursionError:
        raise _malformed(text[:50] + "...") from None
    if rest:
        raise _malformed(text)
    return order


def _product(text: str, tokens: list[str]) -> tuple[Order, list[str]]:
    """The two factors that ``tokens`` start with, and what follows them."""
    pair: list[Order] = []
    while tokens and tokens[0] != ")":
        token, *tokens = tokens
        if token == "(":
            inner, tokens = _product(text, tokens)
            if not tokens:
                raise _malformed(text)
            pair.append(inner)
            tokens = tokens[1:]
        else:
            pair.append(token)
    if len(pair) != 2:
        raise _malformed(text)
    return (pair[0], pair[1]), tokens


def _malformed(text: str) -> ValueError:
    return ValueError(
        f"an order is a product of two factors, each a name or a product in parentheses, such as"
        f" 'A2 (D1 (A1 x))'; got {text!r}"
    )


def write(order: Order) -> str:
    """The text of an order, which :func:`parse` reads.

    >>> write(((("A2", "D1"), "A1"), "x"))
    '((A2 D1) A1) x'
    """
    if isinstance(order, str):
        return order
    return " ".join(f"({write(side)})" if isinstance(side, tuple) else side for side in order)


def leaves(order: Order) -> tuple[str, ...]:
    """The factors of an order from left to right."""
    return (order,) if isinstance(order, str) else leaves(order[0]) + leaves(order[1])


def cheapest(
    product: Sequence[str],
    cost: Callable[[tuple[str, ...], tuple[str, ...]], float],
    allowed: Callable[[tuple[str, ...], tuple[str, ...]], bool] = lambda left, right: True,
) -> Order:
    """The order of least cost, by dynamic programming over all ways to put the parentheses.

    Ties go to the order that splits further left, hence to the one that is nearer to running
    layer by layer.

    Args:
        product: The factors from left to right.
        cost: Of multiplying two neighbouring products, given as their factors.
        allowed: Whether that multiplication may take place.
    """
    best: dict[tuple[str, ...], tuple[float, Order]] = {(f,): (0, f) for f in product}
    for length in range(2, len(product) + 1):
        for start in range(len(product) - length + 1):
            whole = tuple(product[start : start + length])
            for split in range(1, length):
                left, right = whole[:split], whole[split:]
                if left not in best or right not in best or not allowed(left, right):
                    continue
                (left_cost, left_order), (right_cost, right_order) = best[left], best[right]
                total = left_cost + right_cost + cost(left, right)
                if whole not in best or total < best[whole][0]:
                    best[whole] = (total, (left_order, right_order))
    return best[tuple(product)][1]


def segmentations(product: Sequence[str]) -> list[tuple[tuple[str, ...], ...]]:
    """All ways to cut the layers of a product into runs that each become one kernel.

    Given as the runs of layers alone, left to right, from each layer by itself to all in one.

    >>> segmentations(("A2", "D1", "A1", "x"))
    [(('A2',), ('A1',)), (('A2', 'A1'),)]
    """
    layers = [factor for factor in product if factor.startswith("A")]
    found: list[tuple[tuple[str, ...], ...]] = []
    for cuts in range(2 ** (len(layers) - 1) - 1, -1, -1):
        runs, run = [], [layers[0]]
        for place, layer in enumerate(layers[1:]):
            if cuts >> place & 1:
                runs.append(tuple(run))
                run = []
            run.append(layer)
        found.append((*runs, tuple(run)))
    return found
