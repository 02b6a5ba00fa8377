"""The processes that share one training: who of how many this is, and what all must agree on."""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class World:
    """Process ``rank`` of ``size``; of one, every method gives back what it is given.

    All ranks call ``mean``, ``stack``, ``gather``, ``any`` and ``meet`` in the same order. They get
    the same bits, and the same again when repeated.

    Raises:
        ValueError: ``rank`` is none of the ``size`` ranks.
    """

    rank: int = 0
    size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size:
            raise ValueError(f"rank={self.rank}; allowed: from 0 to {self.size - 1}")

    def rows(self, n: int) -> slice:
        """This rank's rows of a global batch of ``n``.

        Raises:
            ValueError: ``n`` does not divide by the number of ranks.
        """
        if n % self.size:
            raise ValueError(f"a batch of {n} does not divide by {self.size} ranks")
        return slice(self.rank * (n // self.size), (self.rank + 1) * (n // self.size))

    def share(self, n: int) -> slice:
        """This rank's rows of ``n`` that are to be seen once each: sizes differ by one at most."""
        return slice(self.rank * n // self.size, (self.rank + 1) * n // self.size)

    def mean(self, value: Tensor) -> Tensor:
        """The mean over all ranks of a ``value`` of one shape; no gradient flows through it."""
        if self.size == 1:
            return value
        total = value.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total / self.size

    def stack(self, value: Tensor) -> Tensor:
        """(size, ...): the values of all ranks, all of one shape, in order; no gradient flows."""
        value = value.detach().contiguous()
        if self.size == 1:
            return value[None]
        # as bytes: not all backends know all types, such as bool
        raw = value.flatten().view(torch.uint8)
        parts = [torch.empty_like(raw) for _ in range(self.size)]
        dist.all_gather(parts, raw)
        return torch.stack([part.view(value.dtype) for part in parts]).view(self.size, *value.shape)

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all ranks, in their order; their numbers may differ."""
        if self.size == 1:
            return rows
        counts = self.stack(torch.tensor(len(rows))).tolist()
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: len(rows)] = rows
        return torch.cat([part[:n] for part, n in zip(self.stack(padded), counts, strict=True)])

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is true on any rank."""
        return flag if self.size == 1 else bool(self.stack(torch.tensor(flag)).any())

    def meet(self) -> None:
        """Wait until all ranks are here."""
        self.any(False)


ALONE = World()
