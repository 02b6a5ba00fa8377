"""The gate of DCD: factors and matrix entries from features pooled to a few cells."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SQUASHES: dict[str, Callable[[Tensor], Tensor]] = {
    "hsigmoid": lambda logits: F.relu6(logits + 3) / 3,
    "2sigmoid": lambda logits: 2 * logits.sigmoid(),
}


class DCDGate(nn.Module):
    r"""Factors and matrix entries from features pooled to a few cells; no layer has a bias.

    .. math:: z = V \, \mathrm{pool}(x), \qquad h = z \odot q(S z), \qquad
              \lambda = q(U_\lambda h), \quad \phi = U_\phi h

    where ``q`` maps to [0, 2] and zero to one.

    Args:
        in_channels: Channels of the features that are read.
        widths: Numbers of factors and of matrix entries.
        hidden: Width of the hidden layer.
        pool: The image is averaged over ``pool * pool`` cells.
        squash: ``q``, a name in ``SQUASHES``.

    Shape:
        (B, in_channels, H, W) -> one (B, width) for each of ``widths``
    """

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int],
        *,
        hidden: int,
        pool: int,
        squash: str,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        factory = {"device": device, "dtype": dtype}
        self.widths, self.pool, self.squash = list(widths), pool, squash
        self.squeeze = nn.Linear(pool**2 * in_channels, hidden, bias=False, **factory)
        self.select = nn.Linear(hidden, hidden, bias=False, **factory)
        self.excite = nn.Linear(hidden, sum(widths), bias=False, **factory)

    def reset_parameters(self) -> None:
        """Draw each layer as a :class:`torch.nn.Linear` does."""
        for layer in (self.squeeze, self.select, self.excite):
            layer.reset_parameters()

    def cells(self, size: int) -> list[slice]:
        """Where the cells of a side lie; they overlap where it does not divide, as in torch."""
        return [
            slice(size * cell // self.pool, -(-size * (cell + 1) // self.pool))
            for cell in range(self.pool)
        ]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        # by slices: torch's adaptive pooling has no deterministic gradient on a GPU
        rows, columns = self.cells(x.shape[2]), self.cells(x.shape[3])
        means = [x[:, :, row, column].mean((2, 3)) for row in rows for column in columns]
        hidden = self.squeeze(torch.cat(means, 1))
        squash = SQUASHES[self.squash]
        hidden = hidden * squash(self.select(hidden))
        factors, entries = self.excite(hidden).split(self.widths, 1)
        return squash(factors), entries

    def macs(self, image: tuple[int, int]) -> tuple[int, int]:
        """Multiply-accumulates of the linear layers, and of pooling and the hidden product."""
        layers = self.squeeze, self.select, self.excite
        high, wide = (sum(cell.stop - cell.start for cell in self.cells(size)) for size in image)
        channels = self.squeeze.in_features // self.pool**2
        return sum(layer.weight.numel() for layer in layers), channels * high * wide

    def macs_on_pooled(self) -> int:
        """Multiply-accumulates of the linear layer that reads the pooled features."""
        return self.squeeze.weight.numel()

    def extra_repr(self) -> str:
        return f"widths={self.widths}, pool={self.pool}, squash={self.squash!r}"
