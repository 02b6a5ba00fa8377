"""Overhead of the training loop over the bare step: a ratio, measured in one interleaved run.

Both sides train the same network on the same batches, to the same bits. The bare side holds them
ready, augmented and normalised; the loop draws, gathers, augments, normalises, sets rates, and
keeps its curves.
"""

import random
import statistics
import time
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from overconv.models.resnet import ResNet
from overconv.training.conditions import Conditions
from overconv.training.data import Dataset
from overconv.training.environment import configure, facts
from overconv.training.inputs import Inputs
from overconv.training.loop import train_step
from overconv.training.recipe import Recipe
from overconv.training.state import Tally, TrainState
from overconv.training.streams import seeded

STEPS = 64  # an epoch of the made data


def measure(*, rounds: int, width: float = 8.0, batch_size: int = 128) -> dict:
    """Ratio of the loop's step to the bare one, by minimum and by 20th percentile.

    Raises:
        ValueError: Fewer than three rounds; a network or a batch of no size.
    """
    if rounds < 3:
        raise ValueError(f"rounds={rounds}; allowed: whole numbers from 3")
    configure(threads=1)
    # At a constant rate, since the bare side sets none.
    recipe = Recipe(
        epochs=10**6, batch_size=batch_size, lr=1e-3, schedule="constant", crop_padding=2, flip=True
    )
    dataset = _made(batch_size)
    loop, bare = Loop(dataset, recipe, width), Bare(dataset, recipe, width)
    seconds: dict[str, list[float]] = {"loop": [], "bare": []}
    shuffled = random.Random(0)
    for round_ in range(rounds + 1):
        bare.make_ready()
        for name, side in shuffled.sample([("loop", loop), ("bare", bare)], 2):
            start = time.perf_counter()
            side.step()
            if round_ > 0:  # the first warms up
                seconds[name].append(time.perf_counter() - start)
    for name, value in bare.model.state_dict().items():
        assert torch.equal(loop.state.model.state_dict()[name], value), (
            f"{name} trained differently"
        )
    p20 = {name: float(np.quantile(values, 0.2)) for name, values in seconds.items()}
    return {
        "what": f"training loop against bare step, ResNet-8 of width {width}, 28 x 28",
        "batch_size": batch_size,
        "rounds": rounds,
        "ratio_minimum": min(seconds["loop"]) / min(seconds["bare"]),
        "ratio_p20": p20["loop"] / p20["bare"],
        # What is done for several steps at once is in this one alone.
        "ratio_mean": statistics.fmean(seconds["loop"]) / statistics.fmean(seconds["bare"]),
        "milliseconds_bare": 1e3 * min(seconds["bare"]),
        "seconds": seconds,
        "torch": torch.__version__,
        "threads": 1,
        **facts(),
    }


def _made(batch_size: int) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    count = STEPS * batch_size
    images = torch.randint(0, 256, (count, 1, 28, 28), generator=generator).to(torch.uint8)
    labels = torch.randint(10, (count,), generator=generator)
    return Dataset("made", images, labels, images[:1], labels[:1], 10, "made")


def _network(width: float) -> nn.Module:
    with seeded(0, "init"):
        return ResNet(depth=8, width=width, stem_stride=2, in_channels=1).train()


class Loop:
    """The training loop, step by step."""

    def __init__(self, dataset: Dataset, recipe: Recipe, width: float) -> None:
        self.conditions = Conditions(recipe, dataset.inputs(recipe, 0, "cpu"))
        self.state = TrainState.start(_network(width), recipe, steps=STEPS)
        self._steps = self._run()

    def step(self) -> None:
        next(self._steps)

    def _run(self) -> Iterator[None]:
        while True:
            for batch in self.conditions.inputs.epoch(self.state.epoch):
                train_step(self.state, self.conditions, batch)
                yield
            self.state.tally = Tally(STEPS, "cpu")
            self.state.epoch += 1


class Bare:
    """Forward, backward and step of the optimiser, on batches that lie ready."""

    def __init__(self, dataset: Dataset, recipe: Recipe, width: float) -> None:
        self.model = _network(width)
        self.optimizer = recipe.build_optimizer(self.model)
        self.inputs: Inputs = dataset.inputs(recipe, 0, "cpu")
        self.epoch = 0
        self.ready: list[tuple[Tensor, Tensor]] = []

    def make_ready(self) -> None:
        """Make the batches of the next epoch, once those of the last are used up."""
        if not self.ready:
            made = [(b.images.clone(), b.labels) for b in self.inputs.epoch(self.epoch)]
            self.ready = made[::-1]
            self.epoch += 1

    def step(self) -> None:
        images, labels = self.ready.pop()
        loss = F.cross_entropy(self.model(images), labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
