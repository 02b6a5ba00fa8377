"""Small data sets as tensors, their fingerprint and their splits.

Axes: N examples, C channels, H x W image.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from overconv.training.fashion_mnist import Parts, Root, read_fashion_mnist
from overconv.training.streams import stream


@dataclass(frozen=True)
class Split:
    """Examples, and their numbers in the part of the data set that they come from.

    Attributes:
        images: (N, C, H, W), uint8.
        labels: (N,), int64.
        numbers: (N,), int64: by them an example finds its draws of augmentation.
    """

    images: Tensor
    labels: Tensor
    numbers: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: str | torch.device) -> "Split":
        """The split on ``device``."""
        return Split(*(t.to(device) for t in (self.images, self.labels, self.numbers)))


@dataclass(frozen=True)
class Splits:
    """What a block trains on, what it may select on, and what it is tested on."""

    train: Split
    validation: Split
    test: Split


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

    def split(self, block: int, num_validation: int) -> Splits:
        """The split of ``block``: which training examples are set aside. The test set is fixed.

        Raises:
            ValueError: ``num_validation`` leaves nothing to train on.
        """
        total = len(self.labels_train)
        if not 0 <= num_validation < total:
            raise ValueError(f"num_validation={num_validation}; allowed: from 0 to {total - 1}")
        order = torch.from_numpy(stream(block, "split").permutation(total))
        validation, train = order[:num_validation].sort()[0], order[num_validation:].sort()[0]
        return Splits(
            train=self._take(train),
            validation=self._take(validation),
            test=Split(self.images_test, self.labels_test, torch.arange(len(self.labels_test))),
        )

    def _take(self, numbers: Tensor) -> Split:
        return Split(self.images_train[numbers], self.labels_train[numbers], numbers)


def load(name: str, root: Root = None) -> Dataset:
    """The data set ``name``, decoded.

    Files are looked for at ``root``, at ``$OVERCONV_DATA``, where Debian puts them, and in the
    user's cache folder, in this order.

    Raises:
        ValueError: ``name`` is unknown; its files are nowhere, are cut short or corrupt.
    """
    if name not in DATASETS:
        raise ValueError(f"no data set {name!r}; allowed: {', '.join(DATASETS)}")
    *arrays, num_classes = DATASETS[name](root)
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


DATASETS: dict[str, Callable[[Root], Parts]] = {
    "digits": _digits,
    "fashion_mnist": read_fashion_mnist,
}
