"""Multiply-accumulates of a chain in every order of evaluation, and the cheapest orders."""

import math
from collections.abc import Callable

from overconv.operators.chain import ChainConv2d
from overconv.operators.macs import Macs
from overconv.operators.order import (
    IMAGE,
    Order,
    cheapest,
    expanding,
    is_gate,
    leaves,
    segmentations,
)

Factors = tuple[str, ...]


class ChainMacs:
    """What it costs to multiply neighbouring factors of a chain on an image of a given size.

    ``padded`` says that the image is padded ahead of the chain (:meth:`ChainConv2d.pads_first`).
    """

    def __init__(self, chain: ChainConv2d, image: tuple[int, int], padded: bool = False) -> None:
        self.chain = chain
        left, right, top, bottom = chain.pad_amounts if padded else (0, 0, 0, 0)
        self.pixels_in = (image[0] + top + bottom) * (image[1] + left + right)
        self.pixels_out = math.prod(chain.output_size(image))
        self.spatial = f"A{chain.spatial_index + 1}"
        self.per_sample = chain.gate is not None and chain.gate.per_sample
        self.adds_constants = len(chain.behind) > 0

    def multiply(self, left: Factors, right: Factors) -> Macs:
        """Cost of the product of two products."""
        if right[-1] == IMAGE:
            pixels = self.pixels_out if self._is_behind_spatial((*left, *right)) else self.pixels_in
            if is_gate(left[0]) and len(left) == 1:
                return Macs(other=self._width(left) * pixels)
            return Macs(convolution=self._numel(left) * pixels)
        if len(left) == 1 and is_gate(left[0]):
            constant = self._width(left) if self._adds_constant(right) else 0
            return self._spent(Macs(other=self._numel(right) + constant), left)
        if len(right) == 1 and is_gate(right[0]):
            return self._spent(Macs(other=self._numel(left)), right)
        taps = self._taps((*left, *right))
        composing = Macs(compose=self._matrix(left) * self._matrix_inputs(right) * taps)
        cost = self._spent(composing, (*left, *right))
        if self._adds_constant(right):  # it goes through the kernel behind it
            behind = right[:-1] if is_gate(right[-1]) else right  # a gate in front is not in it
            cost += self._spent(Macs(compose=self._matrix(left)), (*left, *behind))
        return cost

    def _spent(self, cost: Macs, product: Factors) -> Macs:
        """The cost for each sample if a gate of the product is, otherwise once a batch."""
        gated = any(map(is_gate, product))
        return cost if self.per_sample and gated else Macs(shared=cost.total)

    def _is_behind_spatial(self, product: Factors) -> bool:
        return self.spatial in product

    def _adds_constant(self, kernel: Factors) -> bool:
        """Whether a kernel has a constant behind it: all layers do, once norms are folded."""
        layers = [int(factor[1:]) for factor in kernel if not is_gate(factor)]
        return any(layer <= len(self.chain.behind) for layer in layers)

    def _width(self, product: Factors) -> int:
        """Output channels of a product, or the channels of a gate."""
        return self.chain.width(int(product[0][1:]))

    def _matrix_inputs(self, kernel: Factors) -> int:
        """Input channels a group."""
        position = int(kernel[-1][1:]) - (0 if is_gate(kernel[-1]) else 1)
        return self.chain.width(position) // self.chain.groups

    def _taps(self, kernel: Factors) -> int:
        return math.prod(self.chain.kernel_size) if self.spatial in kernel else 1

    def _matrix(self, kernel: Factors) -> int:
        return self._width(kernel) * self._matrix_inputs(kernel)

    def _numel(self, kernel: Factors) -> int:
        return self._matrix(kernel) * self._taps(kernel)

    def total(self, order: Order) -> Macs:
        """Cost of all products of an order, and of folding norms where kernels are composed."""
        if isinstance(order, str):
            return Macs()
        left, right = order
        total = self.total(left) + self.total(right) + self.multiply(leaves(left), leaves(right))
        for side, other in ((left, right), (right, left)):
            folds = isinstance(side, str) and not is_gate(side) and side != IMAGE
            if folds and leaves(other)[-1] != IMAGE and int(str(side)[1:]) <= len(self.chain.norms):
                total += Macs(shared=self._numel((str(side),)))
        return total


def order_macs(chain: ChainConv2d, image: tuple[int, int], order: Order) -> Macs:
    """Cost of a forward pass in an order, the gates included."""
    cost = ChainMacs(chain, image, padded=chain.pads_first(order))
    return gate_macs(chain, image) + cost.total(order)


def gate_macs(chain: ChainConv2d, image: tuple[int, int]) -> Macs:
    """Cost of pooling and of the gates' linear layers; nothing where the gates are constant."""
    if chain.gate is None:
        return Macs()
    linear, pooling = chain.gate.macs(image)
    if chain.gate.per_sample:
        return Macs(gate=linear, other=pooling)
    return Macs(other=pooling, shared=linear)


def macs_on_input(chain: ChainConv2d, image: tuple[int, int]) -> Macs:
    """What of :func:`order_macs` multiplies the input: the kernel applied to it, and the gate's
    first layer.

    A gate that scales the input convolves nothing.
    """
    order = chain.order
    while order[1] != IMAGE:
        order = order[1]
    cost = ChainMacs(chain, image, padded=chain.pads_first(chain.order))
    first = Macs(convolution=cost.multiply(leaves(order[0]), (IMAGE,)).convolution)
    if chain.gate is None:
        return first
    values = chain.gate.macs_on_pooled()
    return first + (Macs(gate=values) if chain.gate.per_sample else Macs(shared=values))


# The best orders.


def compact(chain: ChainConv2d) -> Order:
    """The cheapest way to compose the whole kernel first; it depends on no image."""
    *kernel, image = chain.product

    def allowed(left: Factors, right: Factors) -> bool:
        return right[-1] != image or list(left) == kernel

    return cheapest(chain.product, _per_image(ChainMacs(chain, (1, 1)), 1), allowed)


def best_orders(chain: ChainConv2d, image: tuple[int, int], batch: int = 1) -> list[Order]:
    """For each way to cut the chain into kernels the cheapest orders, cheapest first.

    Cheapest for an image of a batch, which share what is done once. The folding of norms, done
    once too and only before :meth:`to_inference`, is left out of the search. Twice for each cut:
    the gates between the kernels on whatever is smaller, and on the features, where they leave a
    kernel the same for all samples.
    """
    found: dict[Order, int] = {expanding(chain.product): 0}
    for runs in segmentations(chain.product):
        for gates_on_features in (True, False):
            found[_within(chain, image, batch, runs, gates_on_features)] = 0
    return sorted(found, key=lambda order: order_macs(chain, image, order).per_image(batch))


def _within(
    chain: ChainConv2d,
    image: tuple[int, int],
    batch: int,
    runs: tuple[tuple[str, ...], ...],
    gates_on_features: bool,
) -> Order:
    """The cheapest order in which each run of layers becomes one kernel."""
    spatial = f"A{chain.spatial_index + 1}"
    padded = chain.spatial_index > 0 and len(chain.behind) > 0 and spatial not in runs[-1]
    cost = ChainMacs(chain, image, padded)
    run_of = {layer: run for run in runs for layer in run}

    def allowed(left: Factors, right: Factors) -> bool:
        layers = [factor for factor in (*left, *right) if factor in run_of]
        kernel = [factor for factor in left if factor in run_of]
        if right[-1] == IMAGE:  # a kernel that is applied is a whole run
            return not kernel or tuple(kernel) == run_of[kernel[0]]
        inside = len({run_of[layer] for layer in layers}) == 1
        between = len(left) == 1 and is_gate(left[0]) or len(right) == 1 and is_gate(right[0])
        if between and gates_on_features:
            gate = left if is_gate(left[0]) else right
            position = int(gate[0][1:])
            neighbours = [run_of.get(f"A{position}"), run_of.get(f"A{position + 1}")]
            inside = inside and neighbours[0] == neighbours[1]
        return inside

    return cheapest(chain.product, _per_image(cost, batch), allowed)


def _per_image(cost: ChainMacs, batch: int) -> Callable[[Factors, Factors], float]:
    return lambda left, right: cost.multiply(left, right).per_image(batch)
