"""Trains by the loop as one of several processes, for ``test_distributed.py``.

Not a test file: ``torchrun ... ranks_loop.py FILE`` runs it. Each rank writes the results of the
same training by one process, by all ranks, and by all ranks that are stopped again and again.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from overconv.operators.dbb import DBBConv2d
from overconv.operators.maconv import MAConv2d
from overconv.training.checkpoint import CheckpointFolder
from overconv.training.data import Dataset
from overconv.training.distributed import joined
from overconv.training.loop import Stopped, train
from overconv.training.recipe import Recipe
from overconv.training.streams import seeded
from overconv.training.world import ALONE, World

# 41 to validate and 71 to test: neither divides by two or by three.
RECIPE = Recipe(
    epochs=2, batch_size=24, lr=0.05, crop_padding=1, flip=True, num_validation=41,
    ema=0.8, mixup=0.4, label_smoothing=0.1, warmup_epochs=0.5,
)  # fmt: skip
RECIPES = {
    "plain": replace(RECIPE, ema=0.0, mixup=0.0),
    "all": RECIPE,
    "float16": replace(RECIPE, amp="float16", channels_last=True),
    "diverging": replace(RECIPE, ema=0.0, lr=1e30),
}


def made_data() -> Dataset:
    """Three classes, told apart by where a noisy 6 x 6 image is brightest."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (232,), generator=generator)
    images = torch.randint(0, 120, (232, 1, 6, 6), generator=generator)
    for index, label in enumerate(labels.tolist()):
        images[index, :, 2 * label : 2 * label + 2] += 40
    images = images.to(torch.uint8)
    return Dataset("made", images[:161], labels[:161], images[161:], labels[161:], 3, "made")


class Network(nn.Module):
    """Dropout, batch norms, a gate of the batch, diverse branches."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        factory: dict[str, Any] = {"dtype": dtype}
        self.layers = nn.Sequential(
            DBBConv2d(1, 4, 3, padding=1, **factory),
            nn.ReLU(),
            nn.Dropout2d(0.2),
            MAConv2d(4, 6, 3, padding=1, middle="norm+gate", **factory),
            nn.BatchNorm2d(6, **factory),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(216, 3, **factory),
        )
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x.to(self.dtype))
        return logits


def trained(recipe: Recipe, world: World, dtype: torch.dtype, **options: Any) -> dict[str, Any]:
    """All that comes of a training, ``resumed`` apart from the rest."""
    with seeded(0, "init"):
        network = Network(dtype)
    recipe = replace(recipe, ranks=world.size)
    result = train(network, made_data(), recipe, block=0, world=world, **options)
    return {
        "outcome": result.outcome,
        "metrics": result.metrics,
        "curves": result.curves,
        "diverged_at": result.diverged_at,
        "correct": None if result.correct is None else torch.from_numpy(result.correct),
        "state": network.state_dict(),
        "resumed": result.resumed,
    }


def stopped_often(recipe: Recipe, world: World, dtype: torch.dtype, folder: Path) -> dict[str, Any]:
    """Wished by the last rank alone: an end before the first step, then after one, two, ..."""
    stops: list[int] = []
    while True:
        asked = 0

        def stop() -> bool:
            nonlocal asked
            asked += 1
            return world.rank == world.size - 1 and asked > len(stops)

        checkpoints = CheckpointFolder(folder, "made/here", every=1000, warn=print)
        try:
            found = trained(recipe, world, dtype, checkpoints=checkpoints, stop=stop)
        except Stopped as error:
            stops.append(error.step)
        else:
            return found | {"stops": stops}


def main(path: str) -> None:
    found: dict[str, Any] = {}
    with joined(int(os.environ["WORLD_SIZE"])) as world:
        for name, recipe in RECIPES.items():
            dtype = torch.float64 if recipe.amp == "none" else torch.float32
            found[name] = {
                "alone": trained(recipe, ALONE, dtype),
                "together": trained(recipe, world, dtype),
                "stopped": stopped_often(recipe, world, dtype, Path(f"{path}.{name}")),
            }
    torch.save(found, f"{path}.{world.size}.{world.rank}")


if __name__ == "__main__":
    main(sys.argv[1])
