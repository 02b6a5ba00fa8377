"""Multiply-accumulates of a chain, by formula, for both of its forms."""

import math

from overconv.operators.base import Macs
from overconv.operators.chain import ChainConv2d


def expanding_macs(chain: ChainConv2d, image: tuple[int, int]) -> Macs:
    """Cost of running the chain on features: each layer convolves, each gate multiplies."""
    pixels, pixels_out = math.prod(image), math.prod(chain.output_size(image))
    if chain.pads_first:
        left, right, top, bottom = chain.pad_amounts
        pixels = (image[0] + top + bottom) * (image[1] + left + right)
    sizes = [pixels] * (chain.spatial_index + 1)  # pixels at each position
    sizes += [pixels_out] * (chain.depth + 1 - len(sizes))
    convolution = sum(
        weight.numel() * size for weight, size in zip(chain.weights, sizes[1:], strict=True)
    )
    gating = sum(chain.width(position) * sizes[position] for position in chain.gated)
    return gate_macs(chain, image) + Macs(convolution=convolution, other=gating)


def composed_macs(chain: ChainConv2d, image: tuple[int, int]) -> Macs:
    """Cost of composing the kernel and convolving by it once."""
    taps = math.prod(chain.kernel_size)
    per_input = chain.in_channels // chain.groups
    per_sample = chain.gate is not None and chain.gate.per_sample
    total = gate_macs(chain, image)
    kernel, kernel_taps = chain.weights[0].numel(), chain.weights[0].shape[2:].numel()
    gated_so_far = False
    for position, weight in enumerate(chain.weights[1:], start=1):
        gated = position in chain.gated
        gated_so_far |= gated
        kernel_taps *= weight.shape[2:].numel()
        macs = weight.numel() * per_input * (taps if chain.spatial == "first" else 1)
        if chain.middle:  # the constant behind the layer before goes through this one
            macs += weight.shape[:2].numel()
        cost = Macs(compose=macs, other=min(weight.numel(), kernel) if gated else 0)
        total += cost if per_sample and gated_so_far else shared(cost)
        kernel = weight.shape[0] * per_input * kernel_taps
    for position in {0, chain.depth} & set(chain.gated):
        cost = Macs(other=kernel + (chain.out_channels if position and chain.middle else 0))
        total += cost if per_sample else shared(cost)
    folding = sum(weight.numel() for weight, _ in zip(chain.weights, chain.norms, strict=False))
    convolution = kernel * math.prod(chain.output_size(image))
    return total + Macs(convolution=convolution, shared=folding)


def gate_macs(chain: ChainConv2d, image: tuple[int, int]) -> Macs:
    """Cost of pooling and of the gates' linear layers; nothing where the gates are constant."""
    if chain.gate is None:
        return Macs()
    linear, pooling = chain.gate.macs(image)
    if chain.gate.per_sample:
        return Macs(gate=linear, other=pooling)
    return Macs(other=pooling, shared=linear)


def shared(macs: Macs) -> Macs:
    """The same work done once a batch."""
    return Macs(shared=macs.total)
