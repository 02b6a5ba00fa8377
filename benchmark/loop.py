"""Overhead of the training loop over the bare step: a ratio, measured in one interleaved run.

Both sides train the same network on the same batches. The bare side holds them ready, normalised
and augmented; the loop draws, gathers, augments, normalises, sets rates, and keeps its curves.
"""

import itertools
import random
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from overconv.models.resnet import ResNet
from overconv.training.data import Dataset, Normalization
from overconv.training.environment import configure, facts
from overconv.training.loop import Inputs, Tally, TrainState, train_step
from overconv.training.recipe import Recipe
from overconv.training.streams import seeded

STEPS = 64  # an epoch of the made data


def measure(*, rounds: int, width: float = 8.0, batch_size: int = 128) -> dict:
    """Ratio of the loop's step to the bare one, by minimum and by 20th percentile.

    Raises:
        ValueError: Fewer than three rounds.
    """
    if rounds < 3:
        raise ValueError(f"rounds={rounds}; allowed: whole numbers from 3")
    configure(threads=1)
    dataset = _made(batch_size)
    recipe = Recipe(epochs=10**6, batch_size=batch_size, lr=1e-3, crop_padding=2, flip=True)
    sides = {"loop": _loop(dataset, recipe, width), "bare": _bare(dataset, recipe, width)}
    for run in sides.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    shuffled = random.Random(0)
    for _ in range(rounds):
        for name in shuffled.sample(sorted(sides), len(sides)):
            start = time.perf_counter()
            sides[name]()
            seconds[name].append(time.perf_counter() - start)
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
        return ResNet(depth=8, width=width, stem_stride=2, in_channels=1)


def _loop(dataset: Dataset, recipe: Recipe, width: float) -> Callable[[], None]:
    """One step of the loop a call."""
    model = _network(width).train()
    state = TrainState(model, recipe.build_optimizer(model), [])
    inputs = Inputs(dataset, dataset.split(0, 0).train, recipe, 0, "cpu")

    def steps() -> Iterator[None]:
        while True:
            tally = Tally(inputs)
            for index, (images, labels) in enumerate(inputs.epoch(state.epoch)):
                loss, logits = train_step(state, inputs, images, labels)
                tally.note(index, loss, logits, labels, model)
                yield
            state.epoch += 1

    running = steps()
    return lambda: next(running)


def _bare(dataset: Dataset, recipe: Recipe, width: float) -> Callable[[], None]:
    """One forward, backward and step of the optimiser a call."""
    model = _network(width).train()
    optimizer = recipe.build_optimizer(model)
    images = Normalization.of(dataset).apply(dataset.images_train)
    size = recipe.batch_size
    batches = zip(images.split(size), dataset.labels_train.split(size), strict=True)
    running = itertools.cycle(list(batches))

    def run() -> None:
        x, labels = next(running)
        loss = F.cross_entropy(model(x), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return run
