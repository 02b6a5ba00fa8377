"""Scoring a network: every example counts once, whatever the size of a batch."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from overconv.training.world import ALONE, World


@torch.no_grad()
def evaluate(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], world: World = ALONE
) -> tuple[float, Tensor]:
    """Mean cross-entropy, and for each example whether it was classified rightly, on the CPU.

    Of no examples the loss is NaN.

    Args:
        model: Is left in evaluation mode.
        batches: This rank's share: images (B, C, H, W) and labels (B,), in order.
        world: The ranks; each gets what all of them found.
    """
    model.eval()
    losses: list[Tensor] = []
    right: list[Tensor] = []
    for images, labels in batches:
        logits = model(images)
        losses.append(F.cross_entropy(logits, labels, reduction="sum").double())
        right.append(logits.argmax(1) == labels)
    # A rank may have nothing to score, and then nothing that tells it of a device.
    loss = torch.stack(losses).sum().cpu() if losses else torch.zeros((), dtype=torch.float64)
    correct = world.gather(torch.cat(right).cpu() if right else torch.zeros(0, dtype=torch.bool))
    total = world.stack(loss).sum().item()
    return total / len(correct) if len(correct) else float("nan"), correct


def accuracy(correct: Tensor) -> float:
    """The share of examples that are ``correct``; NaN of none."""
    return correct.double().mean().item() if len(correct) else float("nan")
