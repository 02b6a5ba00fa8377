"""Parallel kernels: how they start, different from one another, and how they are mixed.

Equal kernels under equal gates would get equal gradients for ever. So those that stand in for one
kernel differ from it by random amounts as large as itself, which cancel in their mean.

Axes: B batch, N parallel kernels, I input and O output channels, K x L kernel, G groups.
"""

import torch
from torch import Tensor

# Torch's CPU multiplies matrices of fewer products by plain loops, which elementwise work outruns
# up to eight times.
SMALL = 400


def mix_rows(shares: Tensor, rows: Tensor) -> Tensor:
    """Sums of N parallel rows, for each of R places and each sample.

    Shape:
        shares (B, R, N), rows (R, N, F) -> (B, R, F)
    """
    if shares.shape[0] == 1 or rows.shape[1] == 1:
        return weighted_sum(shares, rows)
    return (shares.transpose(0, 1) @ rows).transpose(0, 1)  # one product a place, no copy of rows


def weighted_sum(shares: Tensor, rows: Tensor) -> Tensor:
    """(..., N), (..., N, F) -> (..., F)"""
    number, values = rows.shape[-2:]
    if number == 1:
        return shares * rows.squeeze(-2)
    if isinstance(values, int) and number * values < SMALL:  # what an export leaves open is no int
        return (shares.unsqueeze(-1) * rows).sum(-2)
    return (shares.unsqueeze(-2) @ rows).squeeze(-2)


def parallel_kernels(weight: Tensor, number: int) -> Tensor:
    """``number`` different kernels whose mean is ``weight``; a single one is ``weight``.

    Shape:
        (O, I/G, K, L) -> (N, O, I/G, K, L)
    """
    size = weight.square().mean().sqrt()
    size = torch.where(size > 0, size, (3 * weight[0].numel()) ** -0.5)  # as a fresh layer's
    noise = torch.randn_like(weight.expand(number, *weight.shape).contiguous()) * size
    return weight + noise - noise.mean(0)


def parallel_rows(weight: Tensor, number: int) -> Tensor:
    """The same kernel by kernel of each output channel, (O, I/G, K, L) -> (O, N, I/G K L)."""
    return parallel_kernels(weight, number).flatten(2).transpose(0, 1).contiguous()
