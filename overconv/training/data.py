"""Small data sets as tensors on the device, and their augmentation as tensor functions.

Axes: N examples, B batch, C channels, H x W image.
"""

import gzip
import hashlib
import itertools
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

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


# Augmentation.


@dataclass(frozen=True)
class Augmentation:
    """Random crops and flips of one epoch: a row of draws for each example, by its number.

    Attributes:
        shifts: (N, 2), from 0 to twice the padding: where the crop begins in the padded image.
        flips: (N,), whether the image is mirrored, before the crop.
    """

    shifts: Tensor
    flips: Tensor

    @classmethod
    def draw(
        cls, block: int, epoch: int, num_examples: int, *, crop_padding: int, flip: bool
    ) -> "Augmentation":
        """The draws of an epoch of a block, for all ``num_examples`` of the training part."""
        shifts = stream(block, "augment", "shift", epoch).integers(
            0, 2 * crop_padding + 1, size=(num_examples, 2)
        )
        flips = stream(block, "augment", "flip", epoch).random(num_examples) < 0.5
        return cls(torch.from_numpy(shifts), torch.from_numpy(flips & flip))

    def to(self, device: str | torch.device) -> "Augmentation":
        """The draws on ``device``."""
        return Augmentation(self.shifts.to(device), self.flips.to(device))


# Batches that are cut at a time: a step evicts the code and data of cutting from the caches.
AHEAD = 8


class Feed:
    """A split, padded once by zeros, from which augmented batches are cut.

    Args:
        split: On any device.
        crop_padding: Pixels of zeros around each image.
    """

    def __init__(self, split: Split, crop_padding: int = 0) -> None:
        self.split, self.padding = split, crop_padding
        high, wide = split.images.shape[2:]
        padded = torch.nn.functional.pad(split.images, (crop_padding,) * 4)
        # (N, C, shifts down, shifts right, H, W): every crop of every image, as a view
        self.crops = padded.unfold(2, high, 1).unfold(3, wide, 1)
        # On the CPU numpy cuts the same bytes in a third of the time.
        self.crops_numpy = self.crops.numpy() if self.crops.device.type == "cpu" else None

    def batches(self, places: Tensor, draws: Augmentation, size: int) -> Iterator[Tensor]:
        """The examples at ``places`` of the split, augmented by their draws, ``size`` at a time.

        Examples that fill no batch are left out.

        Shape:
            places (P,) -> P // size times (size, C, H, W), uint8
        """
        places = places[: len(places) // size * size]
        numbers = self.split.numbers[places]
        mirrored = draws.flips[numbers]
        down, right = draws.shifts[numbers].unbind(1)
        # Mirroring a crop is cropping the mirrored image from the other side.
        right = torch.where(mirrored, 2 * self.padding - right, right)
        cut = self._cut if self.crops_numpy is None else self._cut_by_numpy
        several = (tensor.split(size * AHEAD) for tensor in (places, down, right, mirrored))
        for images in itertools.starmap(cut, zip(*several, strict=True)):
            yield from images.split(size)

    def _cut(self, places: Tensor, down: Tensor, right: Tensor, mirrored: Tensor) -> Tensor:
        images = self.crops[places, :, down, right]
        return torch.where(mirrored[:, None, None, None], images.flip(-1), images)

    def _cut_by_numpy(self, *chosen: Tensor) -> Tensor:
        assert self.crops_numpy is not None
        places, down, right, mirrored = (tensor.numpy() for tensor in chosen)
        images = self.crops_numpy[places, :, down, right]
        images[mirrored] = images[mirrored][..., ::-1]
        return torch.from_numpy(images)


@dataclass(frozen=True)
class Normalization:
    """Standardises each channel by mean and standard deviation of the training part."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, dataset: Dataset) -> "Normalization":
        """That of ``dataset``, exact: from integer sums."""
        images = dataset.images_train
        values = torch.arange(256, dtype=torch.float64)
        means, stds = [], []
        for channel in images.unbind(1):
            counts = torch.bincount(channel.flatten(), minlength=256).double()
            mean = (counts * values).sum() / counts.sum()
            variance = (counts * (values - mean) ** 2).sum() / counts.sum()
            means.append(mean.item())
            stds.append(max(variance.sqrt().item(), 1.0))  # a constant channel stays finite
        shape = (1, -1, 1, 1)
        return cls(torch.tensor(means).view(shape), torch.tensor(stds).view(shape))

    def to(self, device: str | torch.device) -> "Normalization":
        """The same on ``device``."""
        return Normalization(self.mean.to(device), self.std.to(device))

    def apply(self, images: Tensor, out: Tensor | None = None) -> Tensor:
        """uint8 (B, C, H, W) -> float32 (B, C, H, W), into ``out`` if it is given."""
        return torch.sub(images, self.mean, out=out).div_(self.std)


# Finding and reading.


def load(name: str, root: str | os.PathLike[str] | None = None) -> Dataset:
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


Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]


def _digits(root: str | os.PathLike[str] | None) -> Arrays:
    """1,797 digits of 8 x 8 pixels, inside scikit-learn; every fourth is for testing."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = (bunch.images * 15).astype(np.uint8)[:, None]  # 0 to 16 in the source
    labels = bunch.target.astype(np.int64)
    test = np.arange(len(labels)) % 4 == 0
    return images[~test], labels[~test], images[test], labels[test], 10


FASHION_MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def _fashion_mnist(root: str | os.PathLike[str] | None) -> Arrays:
    """60,000 and 10,000 photographs of clothes, 28 x 28 pixels."""
    folder = _find("fashion_mnist", root)
    arrays = [read_idx(_existing(folder / name)) for name in FASHION_MNIST_FILES]
    for images, labels, name in zip(
        arrays[::2], arrays[1::2], FASHION_MNIST_FILES[::2], strict=True
    ):
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise ValueError(
                f"{folder / name}: images {images.shape} do not fit labels {labels.shape}"
            )
        if len(labels) and labels.max() > 9:
            raise ValueError(f"{folder}: a label is {labels.max()}; allowed: 0 to 9")
    train, train_labels, test, test_labels = arrays
    return (
        train[:, None],
        train_labels.astype(np.int64),
        test[:, None],
        test_labels.astype(np.int64),
        10,
    )


DATASETS: dict[str, Callable[[str | os.PathLike[str] | None], Arrays]] = {
    "digits": _digits,
    "fashion_mnist": _fashion_mnist,
}


def places(root: str | os.PathLike[str] | None) -> list[Path]:
    """The folders in which Fashion-MNIST's files may lie, in the order of search."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "overconv"
    bases = [root, os.environ.get("OVERCONV_DATA"), "/usr/share/datasets/fashion-mnist", cache]
    # torchvision keeps its downloads two folders below.
    return [
        Path(base) / below
        for base in bases
        if base
        for below in ("", "fashion_mnist", "fashion-mnist", "FashionMNIST/raw")
    ]


def _find(name: str, root: str | os.PathLike[str] | None) -> Path:
    looked = places(root)
    for folder in looked:
        if any((folder / f"{FASHION_MNIST_FILES[0]}{end}").is_file() for end in ("", ".gz")):
            return folder
    bases = dict.fromkeys(str(folder) for folder in looked[::4])
    raise ValueError(
        f"{name} is in none of {', '.join(bases)}. To get it: on Debian, "
        "`apt-get install dataset-fashion-mnist`; elsewhere, "
        f"`python -c \"import torchvision; torchvision.datasets.FashionMNIST('{list(bases)[-1]}', "
        'download=True)"`'
    )


def _existing(path: Path) -> Path:
    for candidate in (path, path.with_name(path.name + ".gz")):
        if candidate.is_file():
            return candidate
    raise ValueError(f"{path} is missing, with and without .gz")


def read_idx(path: Path) -> np.ndarray:
    """The uint8 array in an idx file, compressed or not.

    The format: two zero bytes, the type (8: unsigned byte), the number of axes; each axis as a
    big-endian 32-bit integer; then the values.

    Raises:
        ValueError: The file is corrupt or cut short; names it.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is cut short or corrupt: {error}") from None
    if len(content) < 4 or content[:3] != b"\x00\x00\x08" or not 1 <= content[3] <= 4:
        raise ValueError(f"{path} is no idx file of bytes: it begins with {content[:4].hex()!r}")
    start = 4 + 4 * content[3]
    shape = tuple(int(n) for n in np.frombuffer(content[4:start], ">u4"))
    if len(shape) < content[3] or len(content) - start != int(np.prod(shape, dtype=np.int64)):
        raise ValueError(
            f"{path} is cut short or corrupt: {max(0, len(content) - start)} values for {shape}"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()
