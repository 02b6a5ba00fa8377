"""Multiply-accumulates of the backward pass, by formula.

A product of n multiply-accumulates costs n more for each of its two operands that needs a
gradient: ``dA = dC B'`` and ``dB = A' dC`` for ``C = A B``, and the like for a convolution. So a
backward pass is twice the forward pass, less what needs no gradient: kernels that are constant, and
the image before the first layer that trains. Elementwise work is charged by the same rule, as if
each value were a product of two; pooling and additions, which are not, make that an upper bound.
"""

import math
from dataclasses import astuple
from typing import Any

from torch import Tensor

from overconv.inference_gate import InferenceGate
from overconv.operators.base import Macs, OverConv2d
from overconv.operators.chain import ChainConv2d
from overconv.operators.chain_macs import ChainMacs
from overconv.operators.dbb import DBBConv2d
from overconv.operators.dcd import DCDConv2d
from overconv.operators.expand import ExpandConv2d
from overconv.operators.odconv import ODConv2d
from overconv.operators.order import IMAGE, leaves
from overconv.operators.se import SEConv2d


def scaled(macs: Macs, factor: int) -> Macs:
    """So many times each kind."""
    return Macs(*(factor * n for n in astuple(macs)))


def layer_backward(layer: Any, image: tuple[int, int], input_gradient: bool = True) -> Macs:
    """Cost of the backward pass of a layer all of whose parameters get a gradient.

    Args:
        layer: One of this library, or any module with ``macs(image) -> Macs``; one with a method
            ``macs_backward(image, input_gradient) -> Macs`` is asked instead.
        image: Height and width of its input.
        input_gradient: Whether the input needs a gradient; the first layer's does not.

    Raises:
        ValueError: The layer is not of this library, says nothing of its backward pass, and gets an
            input without gradient or owns parameters without one: which of its products that
            touches is not known. Also for a layer of this library that is frozen in part or whole.
    """
    own = getattr(layer, "macs_backward", None)
    if callable(own):
        return own(image, input_gradient)
    name = type(layer).__name__
    frozen = [key for key, value in layer.named_parameters() if not value.requires_grad]
    if frozen and (input_gradient or len(frozen) < len(list(layer.parameters()))):
        raise ValueError(
            f"no formula for the backward pass of a {name} whose {frozen[0]!r} is frozen: that is"
            " known where all of its parameters train, or nothing does"
        )
    if frozen:
        return Macs()
    whole = scaled(layer.macs(image), 2)
    if not isinstance(layer, OverConv2d):
        if input_gradient:
            return whole
        raise ValueError(
            f"no formula for the backward pass of a {name} whose input needs no gradient: give it a"
            " method macs_backward(image, input_gradient)"
        )
    saved = _constants(layer, image)
    if not input_gradient:
        saved += _on_image(layer, image)
    return whole + scaled(saved, -1)


def convolution_backward(weight: Tensor, positions: int, input_gradient: bool) -> Macs:
    """The same for a kernel or a matrix at so many positions, frozen or not."""
    operands = int(input_gradient) + int(weight.requires_grad)
    return Macs(convolution=operands * weight.numel() * positions)


def _constants(layer: OverConv2d, image: tuple[int, int]) -> Macs:
    """Products one of whose operands is neither computed nor a parameter."""
    if isinstance(layer, DBBConv2d):  # the average, written as a depthwise convolution
        values = layer.out_channels * math.prod(layer.kernel_size)
        return Macs(convolution=values * math.prod(layer.output_size(image)))
    return Macs()


def _on_image(layer: OverConv2d, image: tuple[int, int]) -> Macs:
    """Products one of whose operands is the input itself, pooled or padded at the most."""
    gate = Macs() if isinstance(layer, SEConv2d) else _on_pooled(getattr(layer, "gate", None))
    return gate + Macs(convolution=_convolving(layer, image))


def _on_pooled(gate: Any) -> Macs:
    """The first linear layer of a gate; nothing where the gate is constant."""
    if gate is None or getattr(gate, "constant", False):
        return Macs()
    if isinstance(gate, InferenceGate):
        values = gate.get_parameter("matrix0").numel()
    else:
        values = (gate.excite if gate.squeeze is None else gate.squeeze).weight.numel()
    return Macs(gate=values) if getattr(gate, "per_sample", True) else Macs(shared=values)


def _convolving(layer: Any, image: tuple[int, int]) -> int:
    pixels, everywhere = math.prod(layer.output_size(image)), math.prod(image)
    if isinstance(layer, ChainConv2d):
        return _first_of_chain(layer, image)
    if isinstance(layer, DBBConv2d):
        # all but the outer kernel; the average sees the image where nothing is mixed before it
        inside = layer.outer.weight.numel() * pixels
        if layer.mixed is not None:
            inside += layer.out_channels * math.prod(layer.kernel_size) * pixels
        return layer.macs(image).convolution - inside
    if isinstance(layer, DCDConv2d) and layer.on == "features":
        return (layer.weight.numel() + layer.compress.numel()) * pixels
    if isinstance(layer, ODConv2d) and layer.on == "features":
        return 0  # the input is gated first
    if isinstance(layer, ExpandConv2d) and layer.on == "features":
        first = layer.weights[0]
        if len(layer.weights) == 1:
            return layer.macs(image).convolution
        if layer._first == 0:  # spatial, so its image is padded
            left, right, top, bottom = layer.pad_amounts
            high, wide = (
                size + more - step * (taps - 1)
                for size, more, step, taps in zip(
                    image,
                    (top + bottom, left + right),
                    layer.dilation,
                    first.shape[2:],
                    strict=True,
                )
            )
            return first.numel() * (pixels if layer._last == 0 else high * wide)
        return first.numel() * everywhere
    return layer.macs(image).convolution


def _first_of_chain(chain: ChainConv2d, image: tuple[int, int]) -> int:
    """The kernel that is applied to the image; a gate convolves nothing."""
    order = chain.order
    while order[1] != IMAGE:
        order = order[1]
    cost = ChainMacs(chain, image, padded=chain.pads_first(chain.order))
    return cost.multiply(leaves(order[0]), (IMAGE,)).convolution
