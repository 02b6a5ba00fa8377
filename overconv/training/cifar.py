"""CIFAR-10 and CIFAR-100 in their binary version: bytes with no code in them.

Source: A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009;
https://www.cs.toronto.edu/~kriz/cifar.html. The version "for Python" holds pickles, and loading
one may run whatever its author, or who changed it since, put there; it is not read.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from overconv.training.fashion_mnist import Parts
from overconv.training.places import MissingData, Root, bases, find

SITE = "https://www.cs.toronto.edu/~kriz"
SIDE = 32
PIXELS = 3 * SIDE * SIDE


@dataclass(frozen=True)
class Format:
    """How one of the two is stored: files of records, each its labels, a byte each, and pixels.

    Attributes:
        name, num_classes: Of the data set.
        folder, archive: Of the binary version.
        python: Folder of the version that is not read.
        train, test: Files; those for training are of equal length.
        test_share: Records of all training files together, for one of the test file.
        labels: Bytes of labels before the pixels, the last of which is the class.
    """

    name: str
    num_classes: int
    folder: str
    archive: str
    python: str
    train: tuple[str, ...]
    test: str
    test_share: int
    labels: int


CIFAR10 = Format(
    name="cifar10",
    num_classes=10,
    folder="cifar-10-batches-bin",
    archive="cifar-10-binary.tar.gz",
    python="cifar-10-batches-py",
    train=tuple(f"data_batch_{n}.bin" for n in range(1, 6)),
    test="test_batch.bin",
    test_share=5,
    labels=1,
)
CIFAR100 = Format(
    name="cifar100",
    num_classes=100,
    folder="cifar-100-binary",
    archive="cifar-100-binary.tar.gz",
    python="cifar-100-python",
    train=("train.bin",),
    test="test.bin",
    test_share=5,
    labels=2,  # of a superclass, then of the class
)


def read_cifar10(root: Root) -> Parts:
    """50,000 and 10,000 photographs in ten classes; as :func:`read_cifar`."""
    return read_cifar(CIFAR10, root)


def read_cifar100(root: Root) -> Parts:
    """50,000 and 10,000 photographs in a hundred classes; as :func:`read_cifar`."""
    return read_cifar(CIFAR100, root)


def read_cifar(stored: Format, root: Root) -> Parts:
    """Images (N, 3, 32, 32), uint8, and labels of both parts, and the number of classes.

    Raises:
        MissingData: The binary version is nowhere.
        ValueError: A file is missing, is cut short or corrupt; names it.
    """
    folder = _find(stored, root)
    parts = [_read(stored, folder / name) for name in (*stored.train, stored.test)]
    counts = [len(labels) for _, labels in parts]
    per_file = stored.test_share / len(stored.train)
    for name, count in zip(stored.train, counts, strict=False):
        if count != per_file * counts[-1]:
            raise ValueError(
                f"{folder / name} holds {count} images, and {stored.test} {counts[-1]}; published "
                f"are {per_file:g} to one"
            )
    train_images, train_labels = (
        np.concatenate(arrays) for arrays in zip(*parts[:-1], strict=True)
    )
    return train_images, train_labels, *parts[-1], stored.num_classes


def _find(stored: Format, root: Root) -> Path:
    folders = bases(root)

    def holds(folder: Path) -> bool:
        return (folder / stored.train[0]).is_file()

    def how(folder: Path) -> str:
        return f"`mkdir -p {folder} && curl -L {SITE}/{stored.archive} | tar -xz -C {folder}`"

    try:
        return find(stored.name, folders, ("", stored.folder, stored.name), holds, how)
    except MissingData as error:
        for folder in folders:
            for found in (folder, folder / stored.python, folder / stored.name / stored.python):
                if found.name == stored.python and found.is_dir():
                    raise MissingData(
                        f"{found} holds {stored.name} as pickles, which are not read, since "
                        f"loading them may run code. To get the binary version: {how(found.parent)}"
                    ) from None
        raise error


def _read(stored: Format, path: Path) -> tuple[np.ndarray, np.ndarray]:
    if not path.is_file():
        raise ValueError(f"{path} is missing")
    content = np.fromfile(path, np.uint8)
    length = stored.labels + PIXELS
    if len(content) == 0 or len(content) % length:
        raise ValueError(
            f"{path} is cut short or corrupt: {len(content)} bytes are no images of {length}"
        )
    records = content.reshape(-1, length)
    labels = records[:, stored.labels - 1].astype(np.int64)
    if labels.max() >= stored.num_classes:
        raise ValueError(
            f"{path}: a label is {labels.max()}; allowed: 0 to {stored.num_classes - 1}"
        )
    return records[:, stored.labels :].reshape(-1, 3, SIDE, SIDE), labels
