"""Data sets by name: small ones as tensors, with their fingerprint and their splits.

Axes: N examples, C channels, H x W image.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from overconv.training.augmentation import Normalization
from overconv.training.cifar import read_cifar10, read_cifar100
from overconv.training.fashion_mnist import Parts, read_fashion_mnist
from overconv.training.imagenet import read_imagenet
from overconv.training.inputs import (
    DataSource,
    Inputs,
    Shape,
    check_enough,
    input_shape,
)
from overconv.training.memory_inputs import MemoryInputs
from overconv.training.places import MissingData, Root
from overconv.training.recipe import Recipe
from overconv.training.splits import Split, Splits, draw_split
from overconv.training.world import ALONE, World


@dataclass(frozen=True)
class Dataset:
    """A data set, decoded.

    Attributes:
        name: One of :data:`DATASETS`, or the user's own.
        images_train, images_test: (N, C, H, W), uint8.
        labels_train, labels_test: (N,), int64, in [0, num_classes).
        fingerprint: Digest of the decoded tensors; part of every trial's identity.
    """

    name: str
    images_train: Tensor
    labels_train: Tensor
    images_test: Tensor
    labels_test: Tensor
    num_classes: int
    fingerprint: str
    decoder: ClassVar[str] = ""  # the fingerprint is of what was decoded

    @property
    def num_train(self) -> int:
        """Examples of the training part, those that a block sets aside included."""
        return len(self.labels_train)

    @property
    def num_test(self) -> int:
        """Examples of the test part."""
        return len(self.labels_test)

    @property
    def image_shape(self) -> Shape:
        """(C, H, W) of an image."""
        channels, high, wide = self.images_train.shape[1:]
        return channels, high, wide

    def input_shape(self, recipe: Recipe) -> Shape:
        """As :meth:`overconv.training.inputs.DataSource.input_shape`."""
        return input_shape(self.name, self.image_shape, recipe)

    def inputs(self, recipe: Recipe, block: int, device: str, world: World = ALONE) -> MemoryInputs:
        """As :meth:`overconv.training.inputs.DataSource.inputs`."""
        self.input_shape(recipe)
        splits = self.split(block, recipe)
        check_enough(self.name, len(splits.train), recipe)
        normalization = Normalization.of(self.images_train)
        return MemoryInputs(
            splits, self.num_train, normalization, self.num_classes, recipe, block, device, world
        )

    def split(self, block: int, recipe: Recipe) -> Splits:
        """The split of ``block``: which training examples are set aside. The test set is fixed.

        Raises:
            ValueError: As :func:`overconv.training.splits.num_trained`.
        """
        train, validation = draw_split(block, self.num_train, recipe)
        return Splits(
            train=self._take(train),
            validation=self._take(validation),
            test=Split(self.images_test, self.labels_test, torch.arange(len(self.labels_test))),
        )

    def _take(self, numbers: Tensor) -> Split:
        return Split(self.images_train[numbers], self.labels_train[numbers], numbers)


@dataclass(frozen=True)
class Outline:
    """What is known of a data set whose files are not here: enough to plan by, not to train on.

    A :class:`overconv.training.inputs.DataSource` without inputs.
    """

    name: str
    num_classes: int
    num_train: int
    num_test: int
    image_shape: Shape
    fingerprint: str = "absent"
    decoder: str = ""

    def input_shape(self, recipe: Recipe) -> Shape:
        """As :meth:`overconv.training.inputs.DataSource.input_shape`."""
        return input_shape(self.name, self.image_shape, recipe)

    def inputs(self, recipe: Recipe, block: int, device: str, world: World = ALONE) -> Inputs:
        """Refuses.

        Raises:
            MissingData: Always.
        """
        raise MissingData(f"the files of {self.name} are not here; only its outline is known")


def load(name: str, root: Root = None) -> DataSource:
    """The data set ``name``: in memory, or its files' names.

    Files are looked for at ``root``, at ``$OVERCONV_DATA``, where Debian puts them, and in the
    user's cache folder, in this order.

    Raises:
        MissingData: Its files are nowhere.
        ValueError: ``name`` is unknown; files are missing, cut short or corrupt.
    """
    return DATASETS[_known(name)](root)


def outline(name: str) -> Outline:
    """What is known of the data set ``name`` without its files, as published.

    Raises:
        ValueError: ``name`` is unknown.
    """
    return OUTLINES[_known(name)]


def _known(name: str) -> str:
    if name not in DATASETS:
        raise ValueError(f"no data set {name!r}; allowed: {', '.join(DATASETS)}")
    return name


def _in_memory(name: str, read: Callable[[Root], Parts], root: Root) -> Dataset:
    *arrays, num_classes = read(root)
    train, train_labels, test, test_labels = (
        torch.from_numpy(np.ascontiguousarray(array)) for array in arrays
    )
    return Dataset(
        name=name,
        images_train=train,
        labels_train=train_labels,
        images_test=test,
        labels_test=test_labels,
        num_classes=num_classes,
        fingerprint=fingerprint(train, train_labels, test, test_labels),
    )


def fingerprint(*tensors: Tensor) -> str:
    """Digest of shapes, types and values."""
    hashed = hashlib.sha256()
    for tensor in tensors:
        hashed.update(f"{tensor.dtype} {tuple(tensor.shape)};".encode())
        hashed.update(tensor.contiguous().numpy().data)
    return hashed.hexdigest()[:16]


def _digits(root: Root) -> Parts:
    """1,797 digits of 8 x 8 pixels, inside scikit-learn; every fourth is for testing."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = (bunch.images * 15).astype(np.uint8)[:, None]  # 0 to 16 in the source
    labels = bunch.target.astype(np.int64)
    test = np.arange(len(labels)) % 4 == 0
    return images[~test], labels[~test], images[test], labels[test], 10


_READERS: dict[str, Callable[[Root], Parts]] = {
    "digits": _digits,
    "fashion_mnist": read_fashion_mnist,
    "cifar10": read_cifar10,
    "cifar100": read_cifar100,
}
DATASETS: dict[str, Callable[[Root], DataSource]] = {
    **{name: partial(_in_memory, name, read) for name, read in _READERS.items()},
    "imagenet": read_imagenet,
}
OUTLINES = {
    outline.name: outline
    for outline in (
        Outline("digits", 10, 1347, 450, (1, 8, 8)),
        Outline("fashion_mnist", 10, 60_000, 10_000, (1, 28, 28)),
        Outline("cifar10", 10, 50_000, 10_000, (3, 32, 32)),
        Outline("cifar100", 100, 50_000, 10_000, (3, 32, 32)),
        Outline("imagenet", 1000, 1_281_167, 50_000, (3, 0, 0)),
    )
}
