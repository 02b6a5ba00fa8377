"""`ablations run --dry-run`: what would be run, and what it would take. Nothing is written."""

import argparse
from collections.abc import Iterator, Mapping

from ablations import memory
from ablations.estimates import A100, Estimate, estimate
from ablations.progress import duration
from ablations.schedule import Schedule
from ablations.trial import Cell, Setting
from overconv.training.data import Outline, load, outline
from overconv.training.file_inputs import PREFETCHED, num_loaders
from overconv.training.inputs import DataSource
from overconv.training.places import MissingData, Root
from overconv.training.world import World


def find_data(name: str, root: Root = None) -> DataSource:
    """The data set ``name``, or what is known of it if its files are not here.

    Raises:
        ValueError: ``name`` is unknown; files are cut short or corrupt.
    """
    try:
        return load(name, root)
    except MissingData:
        return outline(name)


def show(
    cells: Mapping[str, Cell], work: Schedule, setting: Setting, options: argparse.Namespace
) -> None:
    """Print a line an arm, each after a step of it on made images, and the sums."""
    for line in lines(cells, work, setting, options.device, options.workers or 1):
        print(line, flush=True)


def lines(
    cells: Mapping[str, Cell], work: Schedule, setting: Setting, device: str, workers: int
) -> Iterator[str]:
    """What :func:`show` prints.

    Raises:
        ValueError: An arm cannot be trained under its recipe; names it.
    """
    data, base = setting.dataset, memory.used()
    yield (
        f"{data.name}: {data.num_train:,} examples and {data.num_test:,} for testing, "
        f"{data.num_classes} classes, images of "
        f"{' x '.join(map(str, data.input_shape(setting.recipe)))}"
    )
    if isinstance(data, Outline):
        yield f"the files of {data.name} are not here: planned as published; a run needs them"
    width = max(len("arm"), *(len(label) for label in cells))
    yield (
        f"{'arm':{width}}  parameters  MACs (training)  done  to do  a trial here, about  "
        f"{'on an ' + A100.name:>11}    memory"
    )
    estimates: dict[str, Estimate] = {}
    todo = {label: sum(job.label == label for job in work.todo) for label in cells}
    for label, cell in cells.items():
        try:
            found = estimates[label] = estimate(cell, data, device)
        except ValueError as error:
            raise ValueError(f"arm {label!r}: {error}") from error
        done = sum(job.label == label for job in work.done)
        yield (
            f"{label:{width}}  {cell.costs['parameters_training']:10,}  "
            f"{cell.costs['macs_training']:15,}  {done:4}  {todo[label]:5}  "
            f"{duration(found.seconds):>19}  {duration(found.gpu_seconds):>11}  "
            f"{gibibytes(found.memory):>8}"
        )
    yield from _sums(estimates, todo, setting, device, workers, base)


def _sums(
    estimates: Mapping[str, Estimate],
    todo: Mapping[str, int],
    setting: Setting,
    device: str,
    workers: int,
    base: int,
) -> Iterator[str]:
    def total(field: str) -> float:
        return sum(getattr(found, field) * todo[label] for label, found in estimates.items())

    recipe = setting.recipe
    here = "GPU" if device.startswith("cuda") else "core"
    per_trial = recipe.ranks * (1 if here == "GPU" else recipe.threads)
    yield (
        f"{sum(todo.values())} trials, in all about {hours(total('seconds') * per_trial)} "
        f"{here}-hours here, by a step on made images, or about "
        f"{hours(total('gpu_seconds') * recipe.ranks)} GPU-hours of an {A100.name}, by counted cost"
    )
    needed = [found for label, found in estimates.items() if todo[label]]
    checkpoints = max((found.checkpoints for found in needed), default=0)
    yield (
        f"disk: {megabytes(total('record'))} of records, and {megabytes(checkpoints * workers)} of "
        f"checkpoints while {workers} at a time are trained"
    )
    most, there = max((found.memory for found in needed), default=0), memory.available()
    yield (
        f"memory of a worker: {gibibytes(base + most)}, of which {gibibytes(most)} are the GPU's "
        f"if it trains on one{'' if there is None else f'; {gibibytes(there)} are available here'}"
    )
    if not any(setting.dataset.image_shape[1:]):
        channels, high, wide = setting.dataset.input_shape(recipe)
        ahead = PREFETCHED * recipe.batch_size // recipe.ranks * channels * high * wide
        yield (
            f"processes that decode beside it: {num_loaders(World(0, recipe.ranks))} "
            f"(OVERCONV_LOADERS), each of up to {gibibytes(base + ahead)}"
        )
    yield "nothing was trained or written"


def hours(seconds: float) -> str:
    """``seconds`` in hours, to three digits or more.

    >>> [hours(seconds) for seconds in (4.5, 5400, 4.2e6)]
    ['0.00125', '1.5', '1,167']
    """
    value = seconds / 3600
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def megabytes(size: float) -> str:
    """``size`` in bytes, in MB, to three digits or more.

    >>> [megabytes(size) for size in (3210, 5.75e8)]
    ['0.00321 MB', '575 MB']
    """
    value = size / 1e6
    return f"{value:,.0f} MB" if value >= 100 else f"{value:.3g} MB"


def gibibytes(size: float) -> str:
    """``size`` in bytes, in GiB, to two decimals.

    >>> gibibytes(3 * 2**29)
    '1.50 GiB'
    """
    return f"{size / memory.GIB:.2f} GiB"
