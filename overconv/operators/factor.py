"""Writing one kernel as the product of two, for chains that start from a given convolution."""

import torch
import torch.nn.functional as F
from torch import Tensor


def factor_matrices(matrix: Tensor, spare_rows: Tensor) -> tuple[Tensor, Tensor]:
    """Left and right factor of each matrix, through a middle as wide as ``spare_rows`` has rows.

    One factor is the identity where the middle is wide enough for that. A middle wider than needed
    takes its further rows of the right factor from ``spare_rows``, and zero columns on the left.

    Raises:
        ValueError: The middle is narrower than the rank of a matrix.

    Shape:
        matrix (G, R, C), spare_rows (G, M, C) -> (G, R, M), (G, M, C)
    """
    (groups, rows, columns), middle = matrix.shape, spare_rows.shape[1]
    if middle >= rows:
        left = torch.eye(rows, middle, dtype=matrix.dtype, device=matrix.device)
        return left.expand(groups, -1, -1), torch.cat([matrix, spare_rows[:, rows:]], 1)
    if middle >= columns:
        right = torch.eye(columns, dtype=matrix.dtype, device=matrix.device)
        right = torch.cat([right.expand(groups, -1, -1), spare_rows[:, columns:]], 1)
        return F.pad(matrix, (0, middle - columns)), right
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    precision = torch.finfo(matrix.dtype).eps
    if precision < 1e-5:  # a narrow type's is as large as what rounding does to all of a matrix
        precision *= max(rows, columns)
    used = values > precision * values.amax(1, keepdim=True)
    rank = int(used.sum(1).max())
    if rank > middle:
        raise ValueError(
            f"middle_channels={middle * groups} ({middle} a group) is below the rank {rank} of the"
            " kernel, which it would have to cut"
        )
    root, used = values[:, :middle].sqrt(), used[:, :middle]
    left = left[:, :, :middle] * (root * used)[:, None, :]
    right = torch.where(used[:, :, None], right[:, :middle] * root[:, :, None], spare_rows)
    return left.to(matrix), right.to(matrix)


def factor_kernel(
    kernel: Tensor, first: Tensor, last: Tensor, groups: int, spatial: str
) -> tuple[Tensor, Tensor]:
    """First and last layer of a chain whose product is ``kernel``.

    Middle channels that the product does not need keep the random rows that they have in ``first``,
    and get zeros in ``last``: they cannot be seen, yet the last layer has a gradient there.

    Args:
        kernel: (O, I/G, K, L).
        first, last: The layers as they are, for their shapes and those rows.
        spatial: Which of them, ``"first"`` or ``"last"``, has the taps.

    Raises:
        ValueError: The middle is narrower than the rank of the kernel.

    Shape:
        -> as ``first``, as ``last``
    """
    wide_in, wide_out = kernel.shape[1], kernel.shape[0] // groups
    taps = kernel.shape[2:].numel()
    matrix = kernel.reshape(groups, wide_out, wide_in * taps)
    if spatial == "last":
        matrix = kernel.reshape(groups, wide_out, wide_in, taps).mT.flatten(1, 2)
    left, right = factor_matrices(matrix, first.reshape(groups, -1, matrix.shape[2]))
    if spatial == "last":
        left = left.unflatten(1, (wide_out, taps)).mT
    return right.reshape_as(first), left.reshape_as(last)
