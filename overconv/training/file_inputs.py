"""Inputs of image files, decoded by processes of their own, whose number changes no bit."""

import os
import signal
import threading
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from overconv.training.augmentation import Normalization
from overconv.training.decoding import Decoder, Example
from overconv.training.image_files import ImageFiles
from overconv.training.inputs import Batch, Finish, Shape, draw_order, rows_of_steps
from overconv.training.recipe import Recipe
from overconv.training.splits import draw_split
from overconv.training.world import ALONE, World

EVALUATION_BATCH = 128
PREFETCHED = 2  # batches that each process loads ahead
VARIABLE = "OVERCONV_LOADERS"


def num_loaders(world: World = ALONE) -> int:
    """Processes that decode: ``$OVERCONV_LOADERS``, else this rank's share of the cores, up to 16.

    Raises:
        ValueError: The variable is no number.
    """
    text = os.environ.get(VARIABLE)
    if text is None:
        return min(16, max(1, num_cores() // world.size))
    if not text.isdecimal():
        raise ValueError(f"{VARIABLE}={text!r}; allowed: whole numbers from 0")
    return int(text)


def num_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Wanted:
    """The lists of examples that a loader is to load next, set before each pass."""

    def __init__(self) -> None:
        self.lists: Iterable[list[Example]] = ()

    def __iter__(self) -> Iterator[list[Example]]:
        return iter(self.lists)


class FileInputs:
    """Files of a training and a test part. An :class:`overconv.training.inputs.Inputs`.

    Args:
        train, test: The files.
        normalization: Of the channels.
        num_classes: Of the data.
        shape: (3, S, S) of what the network is given.
        recipe, block, device, world: As in :meth:`overconv.training.inputs.DataSource.inputs`.
        loaders: Processes that decode; 0: this one does. Default: :func:`num_loaders`.

    Raises:
        ValueError: The ranks do not divide the batch; nothing is left to train on.
    """

    def __init__(
        self,
        train: ImageFiles,
        test: ImageFiles,
        normalization: Normalization,
        num_classes: int,
        shape: Shape,
        recipe: Recipe,
        block: int,
        device: str,
        world: World = ALONE,
        *,
        loaders: int | None = None,
    ) -> None:
        self.recipe, self.block, self.device, self.world = recipe, block, device, world
        world.rows(recipe.batch_size)  # refuses ranks that do not divide it
        self.trained, validated = draw_split(block, len(train), recipe)
        self.validated = validated[world.share(len(validated))]
        self.tested = torch.arange(len(test))[world.share(len(test))]
        self.steps = len(self.trained) // recipe.batch_size
        self.num_validation, self.num_test = len(validated), len(test)
        self.finish = Finish(recipe, block, normalization.to(device), num_classes)
        loaders = num_loaders(world) if loaders is None else loaders
        self.wanted = _Wanted()
        self.loader: DataLoader = DataLoader(
            Decoder(
                {"train": train, "test": test}, block, shape[1], recipe.resized_crop, recipe.flip
            ),  # type: ignore[arg-type]  # it is indexed by examples, and has no length
            batch_sampler=self.wanted,
            num_workers=loaders,
            persistent_workers=loaders > 0,
            prefetch_factor=PREFETCHED if loaders else None,
            # Not forked: this process has threads, and may have a CUDA context.
            multiprocessing_context="spawn" if loaders else None,
            worker_init_fn=leave_signals_to_parent,
            pin_memory=device.startswith("cuda"),
            generator=torch.Generator(),  # of seeds that nobody uses, but from no global one
        )

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """As :meth:`overconv.training.inputs.Inputs.epoch`."""
        order = self.trained[draw_order(self.block, epoch, len(self.trained))]
        rows = rows_of_steps(order, self.recipe, self.world, first_step)
        lists = ([Example("train", n, epoch) for n in step.tolist()] for step in rows)
        for step, (images, labels) in enumerate(self._load(lists), first_step):
            yield self.finish.batch(images, labels, epoch, step)

    def validation(self) -> Iterator[tuple[Tensor, Tensor]]:
        """As :meth:`overconv.training.inputs.Inputs.validation`."""
        return self._evaluated("train", self.validated)

    def test(self) -> Iterator[tuple[Tensor, Tensor]]:
        """As :meth:`overconv.training.inputs.Inputs.test`."""
        return self._evaluated("test", self.tested)

    def _evaluated(self, part: str, numbers: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        lists = (
            [Example(part, n, None) for n in some.tolist()]
            for some in numbers.split(EVALUATION_BATCH)
            if len(some)
        )
        for images, labels in self._load(lists):
            yield self.finish.evaluated(images), labels

    def _load(self, lists: Iterable[list[Example]]) -> Iterator[tuple[Tensor, Tensor]]:
        self.wanted.lists = lists
        for images, labels in self.loader:
            yield (
                images.to(self.device, non_blocking=True),
                labels.to(self.device, non_blocking=True),
            )


def leave_signals_to_parent(_: int) -> None:
    """In a process that loads: end when the parent says so, and by no other SIGTERM or SIGINT.

    A terminal and a scheduler signal the whole group, in which the parent may wish to train to its
    next step and keep a checkpoint; without the processes that load it could not.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on a Mac
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
