"""What happens in a folder, as it happens: told by the kernel, not found by looking."""

import ctypes
import os
import select
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CREATED, MOVED_IN, DELETED, IS_FOLDER = 0x100, 0x80, 0x200, 0x40000000
WRITTEN = 0x8  # closed, after having been open for writing
_HEADER = struct.Struct("iIII")


@dataclass(frozen=True)
class Event:
    """``kind`` is one of the constants above; ``path`` is of what it happened to."""

    kind: int
    path: Path


class Watch:
    """The events of all folders from ``root`` down, those that are made later included.

    Raises:
        OSError: The kernel has no inotify, or no more watches to give.
    """

    def __init__(self, root: Path):
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self._folders: dict[int, Path] = {}
        self._add(root)

    def close(self) -> None:
        os.close(self._descriptor)

    def events(self, seconds: float) -> Iterator[Event]:
        """The events of the next ``seconds``, each as soon as it is known."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self._descriptor], [], [], left)[0]:
                yield from self._parse(os.read(self._descriptor, 65536))

    def _parse(self, content: bytes) -> Iterator[Event]:
        start = 0
        while start < len(content):
            number, mask, _, length = _HEADER.unpack_from(content, start)
            name = content[start + _HEADER.size : start + _HEADER.size + length]
            start += _HEADER.size + length
            folder = self._folders.get(number)
            if folder is None:  # its watch is gone
                continue
            path = folder / os.fsdecode(name.rstrip(b"\0"))
            if mask & IS_FOLDER and mask & (CREATED | MOVED_IN):
                yield from self._add(path)
            for kind in (CREATED, MOVED_IN, DELETED, WRITTEN):
                if mask & kind:
                    yield Event(kind, path)

    def _add(self, folder: Path) -> list[Event]:
        """Watch ``folder`` and what is in it; what was made before that counts as made now."""
        mask = CREATED | MOVED_IN | DELETED | WRITTEN
        number = self._libc.inotify_add_watch(self._descriptor, os.fsencode(folder), mask)
        if number < 0:
            if ctypes.get_errno() == 2:  # it is gone already
                return []
            raise OSError(ctypes.get_errno(), f"inotify_add_watch {folder}")
        self._folders[number] = folder
        found: list[Event] = []
        for entry in sorted(folder.iterdir()):
            found.append(Event(CREATED, entry))
            if entry.is_dir() and not entry.is_symlink():
                found += self._add(entry)
        return found
