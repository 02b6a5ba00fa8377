"""Scoring a network: every example counts once, whatever the size of a batch."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from overconv.training.augmentation import Normalization
from overconv.training.data import Split

EVALUATION_BATCH = 500


@torch.no_grad()
def evaluate(model: nn.Module, split: Split, normalization: Normalization) -> tuple[float, Tensor]:
    """Mean cross-entropy, and for each example whether it was classified rightly, on the CPU.

    Leaves ``model`` in evaluation mode. An empty split has a loss of NaN.
    """
    model.eval()
    total = torch.zeros((), dtype=torch.float64, device=split.labels.device)
    correct = []
    for start in range(0, len(split), EVALUATION_BATCH):
        labels = split.labels[start : start + EVALUATION_BATCH]
        logits = model(normalization.apply(split.images[start : start + EVALUATION_BATCH]))
        total += F.cross_entropy(logits, labels, reduction="sum").double()
        correct.append(logits.argmax(1) == labels)
    if not correct:
        return float("nan"), torch.zeros(0, dtype=torch.bool)
    return total.item() / len(split), torch.cat(correct).cpu()


def accuracy(correct: Tensor) -> float:
    """The share of examples that are ``correct``; NaN of none."""
    return correct.double().mean().item() if len(correct) else float("nan")
