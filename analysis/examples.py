"""Two noises told apart: that of the seed, and that of the test set. From one bit an example."""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from analysis.frames import Frames
from analysis.statistics import CONFIDENCE
from records.record import unpack_bits

BOOTSTRAP_SEED, NUM_RESAMPLES = 20220227, 2000
_CHUNK = 100


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


@dataclass(frozen=True, kw_only=True)
class NewData:
    """A difference in accuracy, and what it is worth on other examples.

    Args:
        noise: Components of ``arm - against``, example by example.
        low, high: ``mean +- t * error_on_new_data``, at blocks - 1 degrees of freedom: the blocks
            are the fewer of the two.
        boot_low, boot_high: Percentiles of means over blocks and examples that were both drawn
            with replacement: ``resamples`` times, with ``seed``. Over few blocks it is too narrow
            (84 % at five), so it is shown beside, and decides nothing.
        better, worse: Pairs of block and example that only ``arm``, only ``against`` classified
            rightly.
        p: By example, as McNemar's test asks, over all blocks: whether the mean over the blocks
            of ``arm - against`` has expectation zero over examples, for these trained networks.
    """

    noise: Noise
    low: float
    high: float
    boot_low: float
    boot_high: float
    resamples: int
    seed: int
    better: int
    worse: int
    p: float


def outcomes(frames: Frames, label: str) -> dict[int, np.ndarray]:
    """Whether each test example was classified rightly, by block; blocks without bits are absent.

    Raises:
        ValueError: A record does not say how many bits it holds.
    """
    cell, found = frames.plan.cell_id(label), {}
    for record in frames.records:
        if record.cell != cell or record.correct is None:
            continue
        size = (record.configuration.get("data") or {}).get("num_test")
        if not isinstance(size, int):
            raise ValueError(f"trial {record.trial}: data.num_test is {size!r}; allowed: a number")
        block = record.configuration["block"]
        found[block] = np.array(unpack_bits(record.correct, size))
    return dict(sorted(found.items()))


def paired_outcomes(frames: Frames, arm: str, against: str) -> np.ndarray | None:
    """``arm - against`` for each block and example: 1, 0 or -1; None: no two blocks have both."""
    one, other = outcomes(frames, arm), outcomes(frames, against)
    blocks = sorted(one.keys() & other.keys())
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


def on_new_data(table: np.ndarray, confidence: float = CONFIDENCE) -> NewData:
    """What the paired outcomes of :func:`paired_outcomes` say of other seeds and examples."""
    found = noise(table)
    half_width = stats.t.ppf((1 + confidence) / 2, len(table) - 1) * found.error_on_new_data
    means = _resampled(table, NUM_RESAMPLES, BOOTSTRAP_SEED)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    by_example = table.mean(axis=0)
    error = by_example.std(ddof=1) / math.sqrt(table.shape[1])
    # Of one block it is McNemar's chi-square; its examples are many, so the normal law serves.
    p = 2 * stats.norm.sf(abs(found.mean) / error) if error > 0 else 1.0
    return NewData(
        noise=found,
        low=float(found.mean - half_width),
        high=float(found.mean + half_width),
        boot_low=float(low),
        boot_high=float(high),
        resamples=NUM_RESAMPLES,
        seed=BOOTSTRAP_SEED,
        better=int((table > 0).sum()),
        worse=int((table < 0).sum()),
        p=float(p),
    )


def _resampled(table: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Means of ``size`` resamples of rows and columns of ``table``, each with replacement."""
    draw = np.random.Generator(np.random.PCG64(seed))
    num_blocks, num_examples = table.shape
    values, means = table.astype(np.float64), []
    for start in range(0, size, _CHUNK):
        count = min(_CHUNK, size - start)
        rows = draw.multinomial(num_blocks, np.full(num_blocks, 1 / num_blocks), count)
        columns = draw.multinomial(num_examples, np.full(num_examples, 1 / num_examples), count)
        means.append(((rows @ values) * columns).sum(axis=1) / (num_blocks * num_examples))
    return np.concatenate(means)
