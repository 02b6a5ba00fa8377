"""Fashion-MNIST's files: where they may lie, and what they hold."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from overconv.training.places import Root, bases, find

Parts = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]  # with the number of classes

DEBIAN = "/usr/share/datasets/fashion-mnist"
FASHION_MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def read_fashion_mnist(root: Root) -> Parts:
    """60,000 and 10,000 photographs of clothes, 28 x 28 pixels.

    Source: H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST", arXiv:1708.07747.

    Raises:
        ValueError: The files are nowhere, are cut short or corrupt, or do not belong together.
    """
    folder = _find(root)
    arrays = [read_idx(_existing(folder / name)) for name in FASHION_MNIST_FILES]
    for images, labels, name in zip(
        arrays[::2], arrays[1::2], FASHION_MNIST_FILES[::2], strict=True
    ):
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise ValueError(
                f"{folder / name}: images {images.shape} do not fit labels {labels.shape}"
            )
        if len(labels) == 0:
            raise ValueError(f"{folder / name} holds no image")
        if labels.max() > 9:
            raise ValueError(f"{folder}: a label is {labels.max()}; allowed: 0 to 9")
    train, train_labels, test, test_labels = arrays
    return (
        train[:, None],
        train_labels.astype(np.int64),
        test[:, None],
        test_labels.astype(np.int64),
        10,
    )


def _find(root: Root) -> Path:
    def holds(folder: Path) -> bool:
        name = FASHION_MNIST_FILES[0]
        return any((folder / f"{name}{end}").is_file() for end in ("", ".gz"))

    def how(folder: Path) -> str:
        return (
            "on Debian, `apt-get install dataset-fashion-mnist`; elsewhere, "
            f"`python -c \"import torchvision; torchvision.datasets.FashionMNIST('{folder}', "
            'download=True)"`'
        )

    # torchvision keeps its downloads two folders below.
    below = ("", "fashion_mnist", "fashion-mnist", "FashionMNIST/raw")
    return find("fashion_mnist", bases(root, DEBIAN), below, holds, how)


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
    if len(shape) < content[3] or len(content) - start != math.prod(shape):
        raise ValueError(
            f"{path} is cut short or corrupt: {max(0, len(content) - start)} values for {shape}"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()
