"""A short training whose bits tell apart machines that call themselves the same."""

import hashlib

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from overconv.training.streams import seeded, stream


class _Network(nn.Module):
    """The kinds of layer that trainings are made of, small."""

    def __init__(self) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.pointwise = nn.Conv2d(16, 24, 1)
        self.grouped = nn.Conv2d(24, 24, 3, padding=1, groups=24)
        self.linear = nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.spatial(x)))
        x = self.grouped(self.pointwise(x) * x.mean((2, 3)).sigmoid().mean(1)[:, None, None, None])
        return self.linear(F.relu(x).mean((2, 3)))


def probe(device: str = "cpu", steps: int = 10) -> str:
    """Digest of the weights after a training of ``steps`` steps on made data."""
    with seeded(0, "probe"):
        model = _Network().to(device)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=1e-3)
    generator = stream(0, "probe", "data")
    for _ in range(steps):
        images = torch.from_numpy(generator.standard_normal((32, 3, 14, 14), dtype=np.float32))
        labels = torch.from_numpy(generator.integers(0, 10, 32))
        optimizer.zero_grad()
        F.cross_entropy(model(images.to(device)), labels.to(device)).backward()
        optimizer.step()
    hashed = hashlib.sha256()
    for value in model.state_dict().values():
        hashed.update(value.cpu().contiguous().numpy())
    return hashed.hexdigest()[:16]
