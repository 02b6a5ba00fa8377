"""Image files in one folder a class, found and named in order, held in little memory."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SUFFIXES = (".jpeg", ".jpg", ".png", ".webp")


@dataclass(frozen=True)
class ImageFiles:
    """Files of one part of a data set, by number: classes in order, and in each class its names.

    A million names as one text: a list of them would be copied to every process that decodes.

    Attributes:
        root: The folder of the part.
        names: All names below it, ``class/file``, one after another, as the system encodes them.
        ends: (N,), where each name ends.
        labels: (N,), int64: the number of the class.
        sizes: (N,), int64, bytes.
    """

    root: str
    names: bytes
    ends: np.ndarray
    labels: np.ndarray
    sizes: np.ndarray

    def __len__(self) -> int:
        return len(self.ends)

    def path(self, number: int) -> Path:
        """The file of an example."""
        start = int(self.ends[number - 1]) if number else 0
        return Path(self.root) / os.fsdecode(self.names[start : int(self.ends[number])])

    def update(self, hashed: "hashlib._Hash") -> None:
        """Feed names, sizes and their places into a digest."""
        hashed.update(f"{len(self)};".encode())
        for content in (self.names, self.ends.tobytes(), self.sizes.tobytes()):
            hashed.update(content)


def class_names(folder: Path) -> list[str]:
    """The classes in ``folder``, a folder each, in order; what is hidden is left out."""
    with os.scandir(folder) as found:
        names = [e.name for e in found if e.is_dir() and not e.name.startswith(".")]
    return sorted(names, key=os.fsencode)


def list_images(folder: Path, classes: list[str]) -> ImageFiles:
    """The images of ``classes`` in ``folder``. Hidden files are left out.

    Raises:
        ValueError: A class is not there, or holds no image, or something that is none; names it.
    """
    names, sizes, labels = [], [], []
    for label, name in enumerate(classes):
        found = _files(folder / name)
        names += [os.fsencode(f"{name}/{file}") for file, _ in found]
        sizes += [size for _, size in found]
        labels += [label] * len(found)
    return ImageFiles(
        root=str(folder),
        names=b"".join(names),
        ends=np.cumsum([len(name) for name in names], dtype="<i8"),
        labels=np.array(labels, "<i8"),
        sizes=np.array(sizes, "<i8"),
    )


def _files(folder: Path) -> list[tuple[str, int]]:
    """Names and sizes of the images in ``folder``, in order."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is missing")
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if not entry.name.lower().endswith(SUFFIXES) or not entry.is_file():
                raise ValueError(
                    f"{folder / entry.name} is no image; allowed: {', '.join(SUFFIXES)}"
                )
            found.append((entry.name, entry.stat().st_size))
    if not found:
        raise ValueError(f"{folder} holds no image")
    return sorted(found, key=lambda pair: os.fsencode(pair[0]))


def fingerprint(classes: list[str], *parts: ImageFiles) -> str:
    """Digest of the names and sizes of all files; what they hold is not read."""
    hashed = hashlib.sha256(repr(classes).encode("utf-8", "surrogateescape"))
    for part in parts:
        part.update(hashed)
    return hashed.hexdigest()[:16]
