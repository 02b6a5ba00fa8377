"""A made data set that a small network learns in an epoch or two."""

import pytest
import torch

from overconv.training.data import Dataset

collect_ignore_glob = ["ranks*.py"]  # started as processes of their own, side by side


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    """Three classes, told apart by where a noisy 6 x 6 image is brightest."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (250,), generator=generator)
    images = torch.randint(0, 120, (250, 1, 6, 6), generator=generator)
    for index, label in enumerate(labels.tolist()):
        images[index, :, 2 * label : 2 * label + 2] += 100
    images = images.to(torch.uint8)
    return Dataset("made", images[:180], labels[:180], images[180:], labels[180:], 3, "made")
