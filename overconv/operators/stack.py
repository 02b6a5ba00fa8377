"""Writing one kernel as a stack of smaller ones, for layers that start from a given convolution.

Axes: I input and O output channels, K x L kernel, G groups. A reach is how often a channel can be
shifted, down and right; a shift is by two taps.
"""

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

Reach = tuple[int, ...]


def stack_of(weight: Tensor, layers: Sequence[Tensor], groups: int = 1) -> list[Tensor]:
    """Layers which, run one after the other without padding, compute what ``weight`` computes.

    One layer holds all taps of ``weight``, cut into blocks of its own size. A layer of 3 x 3 ahead
    of it hands each channel on as it is and shifted by two taps, so that each block sees its part
    of the image; one behind it adds what the blocks give, shifted likewise. A 1 x 1 layer hands on.
    Channels that this leaves over are produced by the rows that ``layers`` hold, and read by zeros:
    they cannot be seen, yet what reads them has a gradient.

    Args:
        weight: (O, I/G, K, L).
        layers: Kernels of the sizes wanted, first to last: of one size and otherwise 1 x 1, or
            with sides of 1 and 3 that make K x L together. They stay as they are.

    Raises:
        ValueError: The layers are too narrow for this.
    """
    wide_in, wide_out = weight.shape[1], weight.shape[0] // groups
    for block in range(len(layers)):
        inputs = [_reach(layers[:place]) for place in range(block + 1)]
        outputs = [_reach(layers[place:]) for place in range(block + 1, len(layers) + 1)]
        used = [len(_shifts(reach)) * wide_in for reach in inputs]
        used += [len(_shifts(reach)) * wide_out for reach in outputs]
        shifted = [before + after for before, after in zip(inputs[-1], outputs[0], strict=True)]
        sides = zip(layers[block].shape[2:], weight.shape[2:], shifted, strict=True)
        holds_all = all(
            side + 2 * shift == whole and (side > 1 or not shift) for side, whole, shift in sides
        )
        widths = [layer.shape[0] // groups for layer in layers]
        if holds_all and all(have >= need for have, need in zip(widths, used[1:], strict=True)):
            break
    else:
        raise ValueError(
            f"layers of {', '.join(str(layer.shape[0]) for layer in layers[:-1])} channels are too"
            f" narrow to start from a kernel of size {tuple(weight.shape[2:])}"
        )
    reaches, stack = [*inputs, *outputs], []
    for place, layer in enumerate(layers):
        kernel = layer.unflatten(0, (groups, -1)).clone()
        kernel[:, : used[place + 1]] = 0
        ends = reaches[place], reaches[place + 1]
        if place == block:
            _hold(kernel, weight.unflatten(0, (groups, -1)), *ends)
        else:
            _hand_on(kernel, wide_in if place < block else wide_out, *ends)
        stack.append(kernel.flatten(0, 1))
    return stack


def _reach(layers: Sequence[Tensor]) -> Reach:
    """How often a stack of layers can shift."""
    return tuple(sum((layer.shape[axis] - 1) // 2 for layer in layers) for axis in (2, 3))


def _shifts(reach: Reach) -> list[Reach]:
    """All shifts within a reach, in the order in which channels have them."""
    return list(product(*(range(steps + 1) for steps in reach)))


def _least(shift: Reach, reach: Reach) -> Reach:
    """What of a shift is within a reach."""
    return tuple(min(steps, most) for steps, most in zip(shift, reach, strict=True))


def _channels(shift: Reach, reach: Reach, number: int) -> slice:
    """The channels of a shift."""
    start = _shifts(reach).index(shift) * number
    return slice(start, start + number)


def _hand_on(kernel: Tensor, number: int, start: Reach, end: Reach) -> None:
    """Let ``number`` channels through, from the shifts within ``start`` to those within ``end``."""
    same = torch.eye(number, dtype=kernel.dtype, device=kernel.device)
    for shift in _shifts(max(start, end)):
        source, target = _least(shift, start), _least(shift, end)
        row, column = (2 * abs(a - b) for a, b in zip(source, target, strict=True))
        rows, columns = _channels(target, end, number), _channels(source, start, number)
        kernel[:, rows, columns, row, column] = same


def _hold(kernel: Tensor, weight: Tensor, start: Reach, end: Reach) -> None:
    """Put each tap of ``weight`` where the shifts before and after it make up for its place."""
    wide_out, wide_in, *size = weight.shape[1:]
    most = tuple(before + after for before, after in zip(start, end, strict=True))
    for tap in product(*map(range, size)):
        shift = _least(tuple(place // 2 for place in tap), most)
        source = _least(shift, start)
        target = tuple(all_steps - done for all_steps, done in zip(shift, source, strict=True))
        row, column = (place - 2 * steps for place, steps in zip(tap, shift, strict=True))
        rows, columns = _channels(target, end, wide_out), _channels(source, start, wide_in)
        kernel[:, rows, columns, row, column] = weight[..., tap[0], tap[1]]
