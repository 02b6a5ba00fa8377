"""The exact test: sign flips of whole blocks, and the largest of all contrasts."""

import itertools
from collections.abc import Iterator

import numpy as np

MOST_EXACT = 16  # blocks whose sign patterns are all counted: 32,768 of them
NUM_DRAWS, SEED = 2**16 - 1, 20220227
_CHUNK = 4096


def max_t(differences: np.ndarray) -> tuple[float, ...]:
    """The p of each contrast by a step-down max-T test of mean differences.

    The chance, if no arm differed, that any contrast of the family is as far from zero as this one:
    two-sided, adjusted for the family. Exact up to ``MOST_EXACT`` blocks; beyond, patterns are
    drawn with ``SEED``, and p is a little too large.

    If no arm differs from another, what a block says is as likely with all its signs turned round.
    The signs of all contrasts of a block turn together, so that whatever their spread and
    correlation, the error holds over the family. The contrast farthest from zero has as p the share
    of the ``2**n`` patterns in which the largest ``|mean|`` of all contrasts reaches its own; the
    next is compared with the largest of those that are left, and so on, no p below the one before:
    a real effect, whose flips are as wide as itself, would hide the smaller ones otherwise.
    Patterns come in pairs that differ in every sign, and give the same ``|mean|``: half of them
    are counted.

    Args:
        differences: A row a block, a column a contrast; none is missing.

    Raises:
        ValueError: Not two axes, no block, or a value that is not finite.

    Source:
        P. H. Westfall and S. S. Young, "Resampling-Based Multiple Testing", 1993, algorithm 2.8;
        the group here is that of the blocks' signs.
    """
    if differences.ndim != 2 or not differences.size or not np.isfinite(differences).all():
        raise ValueError(
            f"differences of shape {differences.shape}; allowed: (blocks, contrasts), all finite"
        )
    n = len(differences)
    seed = None if n <= MOST_EXACT else SEED
    order = np.argsort(np.abs(differences.mean(axis=0)), kind="stable")  # nearest to zero first
    ordered = differences[:, order]
    # Equal but for rounding is equal: accuracies on a test set are multiples of one number.
    reached = np.abs(ordered.mean(axis=0)) - 1e-12 * np.abs(differences).max()
    counts, num_patterns = np.zeros(len(reached), int), 0
    for signs in _patterns(n, seed):
        largest = np.maximum.accumulate(np.abs(signs @ ordered / n), axis=1)
        counts += (largest >= reached).sum(axis=0)
        num_patterns += len(signs)
    drawn = 0 if seed is None else 1  # what was observed is a pattern too
    ordered_p = (counts + drawn) / (num_patterns + drawn)
    p = np.empty(len(order))
    p[order] = np.maximum.accumulate(ordered_p[::-1])[::-1]
    return tuple(p.tolist())


def smallest_p(num_blocks: int) -> float:
    """The smallest p that as many blocks can give.

    >>> smallest_p(5), smallest_p(6)
    (0.0625, 0.03125)
    """
    if num_blocks > MOST_EXACT:
        return 1 / (NUM_DRAWS + 1)
    return 2.0 ** (1 - num_blocks)


def _patterns(n: int, seed: int | None) -> Iterator[np.ndarray]:
    """Sign patterns in chunks: all whose first sign is positive, or as many as are drawn."""
    if seed is None:
        rest = itertools.product((1.0, -1.0), repeat=n - 1)
        while chunk := list(itertools.islice(rest, _CHUNK)):
            yield np.column_stack([np.ones(len(chunk)), np.array(chunk).reshape(len(chunk), n - 1)])
        return
    draw = np.random.Generator(np.random.PCG64(seed))
    left = NUM_DRAWS
    while left:
        size = min(left, _CHUNK)
        yield draw.integers(0, 2, (size, n)) * 2.0 - 1.0
        left -= size
