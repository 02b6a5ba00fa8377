"""Mixup: convex combinations of two examples and of their labels.

Source: H. Zhang, M. Cisse, Y. N. Dauphin, D. Lopez-Paz, "mixup: beyond empirical risk
minimization", ICLR 2018; one share a batch, as in its section 2.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from overconv.training.streams import stream


def draw_share(alpha: float, block: int, epoch: int, step: int) -> float:
    """The share of each example in its mixture, of Beta(alpha, alpha), in one step of an epoch."""
    return float(stream(block, "mixup", epoch, step).beta(alpha, alpha))


def mix(
    images: Tensor, labels: Tensor, share: float, num_classes: int, out: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    r"""Each row but the first, mixed with the one before it.

    .. math:: x_i' = \lambda x_i + (1 - \lambda) x_{i-1}, \qquad
              t_i = \lambda e_{y_i} + (1 - \lambda) e_{y_{i-1}}

    With the last row of a batch put in front of the first, that is the batch and itself rolled by
    one; a process that holds part of a batch needs but one row more.

    Shape:
        images (B + 1, C, H, W), labels (B + 1,) -> (B, C, H, W), into ``out`` if it is given, and
        probabilities (B, num_classes)
    """
    mixed = torch.mul(images[1:], share, out=out).add_(images[:-1], alpha=1 - share)
    certain = F.one_hot(labels, num_classes).to(images.dtype)
    return mixed, share * certain[1:] + (1 - share) * certain[:-1]
