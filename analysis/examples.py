"""Two noises told apart: that of the seed, and that of the test set. From one bit an example."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from analysis.frames import Frames
from analysis.statistics import CONFIDENCE
from records.record import unpack_bits


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Variance components of outcomes, a row a block and a column a test example.

    ``x_bi = mean + block_b + example_i + rest_bi``; the three are variances of one outcome, and 0
    where their estimate came out below it. ``between`` is the variance of the blocks' means on
    this test set, ``block + rest / num_examples``.

    ``seed``      standard deviation of the accuracy over blocks, on endlessly many examples
    ``test_set``  standard deviation of the accuracy over test sets as large, of endless blocks
    """

    num_blocks: int
    num_examples: int
    mean: float
    between: float
    block: float
    example: float
    rest: float

    @property
    def seed(self) -> float:
        return math.sqrt(self.block)

    @property
    def test_set(self) -> float:
        return math.sqrt(self.example / self.num_examples)

    @property
    def error_here(self) -> float:
        """Standard error of the mean over blocks, on this test set."""
        return math.sqrt(self.between / self.num_blocks)

    @property
    def error_on_new_data(self) -> float:
        """Standard error of the mean, were both the blocks and the test set drawn anew."""
        return math.sqrt(self.error_here**2 + self.example / self.num_examples)


def outcomes(frames: Frames, label: str) -> dict[int, np.ndarray]:
    """Whether each test example was classified rightly, by block; blocks without bits are absent.

    A diverged trial has none: it was not tested.

    Raises:
        ValueError: A record does not say how many bits it holds.
    """
    found = {}
    for record in frames.records_of(label):
        if record.correct is None:
            continue
        size = (record.configuration.get("data") or {}).get("num_test")
        if not isinstance(size, int):
            raise ValueError(f"trial {record.trial}: data.num_test is {size!r}; allowed: a number")
        block = record.configuration["block"]
        found[block] = np.array(unpack_bits(record.correct, size))
    return found


def paired_outcomes(
    frames: Frames, arm: str, against: str, blocks: Sequence[int]
) -> np.ndarray | None:
    """``arm - against`` for each of ``blocks`` and example: 1, 0 or -1.

    Of the blocks that have both; None: there are no two.
    """
    one, other = outcomes(frames, arm), outcomes(frames, against)
    blocks = sorted(one.keys() & other.keys() & set(blocks))
    if len(blocks) < 2:
        return None
    return np.stack([one[b].astype(np.int8) - other[b].astype(np.int8) for b in blocks])


def noise(table: np.ndarray) -> Noise:
    """Components of a (blocks, examples) table, by the mean squares of its two-way layout.

    Raises:
        ValueError: Fewer than two blocks or examples.
    """
    num_blocks, num_examples = table.shape
    if num_blocks < 2 or num_examples < 2:
        raise ValueError(f"{num_blocks} blocks, {num_examples} examples; allowed: two or more")
    values = table.astype(float)
    mean = values.mean()
    by_block, by_example = values.mean(axis=1) - mean, values.mean(axis=0) - mean
    of_blocks = num_examples * (by_block**2).sum() / (num_blocks - 1)
    of_examples = num_blocks * (by_example**2).sum() / (num_examples - 1)
    total = ((values - mean) ** 2).sum()
    left = total - num_examples * (by_block**2).sum() - num_blocks * (by_example**2).sum()
    rest = left / ((num_blocks - 1) * (num_examples - 1))
    return Noise(
        num_blocks=num_blocks,
        num_examples=num_examples,
        mean=float(mean),
        between=float(of_blocks) / num_examples,
        block=max(0.0, float(of_blocks - rest) / num_examples),
        example=max(0.0, float(of_examples - rest) / num_blocks),
        rest=max(0.0, float(rest)),
    )


def on_new_data(found: Noise, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Interval of a difference, were both the blocks and the test examples drawn anew.

    ``mean +- t * error_on_new_data``, at blocks - 1 degrees of freedom: the blocks are the fewer of
    the two. (To resample few blocks would be too narrow: 84 % at five.)

    Args:
        found: Components of ``arm - against``, example by example.
    """
    quantile = stats.t.ppf((1 + confidence) / 2, found.num_blocks - 1)
    half_width = float(quantile * found.error_on_new_data)
    return found.mean - half_width, found.mean + half_width
