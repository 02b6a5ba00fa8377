"""Files that are whole or not there, whenever the process or the machine stops.

Every system call that changes something passes :func:`call`, the one place from which a test can
see them all, and end the process at each.
"""

import contextlib
import os
import stat
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

Given = ParamSpec("Given")
Found = TypeVar("Found")

TEMPORARY = ".tmp"  # ending of a file that its writer has not finished


def call(function: Callable[Given, Found], *given: Given.args, **named: Given.kwargs) -> Found:
    """What ``function`` gives, a call of the system that changes something."""
    return function(*given, **named)


def write_file(path: Path, *parts: bytes | memoryview) -> None:
    """Make ``parts``, one behind the other, the file ``path``, in place of what was there.

    Whoever reads ``path``, after a crash too, finds all of the old bytes or all of the new ones.
    Durable once this returns.

    Raises:
        OSError: It could not be written, or not durably; no unfinished file stays behind.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{TEMPORARY}")
    try:
        _write_synced(temporary, parts)
        call(os.replace, temporary, path)
    except BaseException:  # whatever ends the writing, an interrupt too
        with contextlib.suppress(OSError):
            call(os.unlink, temporary)
        raise
    sync_folder(path.parent)


def _write_synced(path: Path, parts: tuple[bytes | memoryview, ...]) -> None:
    descriptor = call(os.open, path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        for part in parts:
            rest = memoryview(part)
            while rest:  # a write may take less than it is given
                rest = rest[call(os.write, descriptor, rest) :]
        call(os.fsync, descriptor)
    finally:
        call(os.close, descriptor)


def make_folder(folder: Path) -> None:
    """Make ``folder`` and those above it that are missing, durably."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with contextlib.suppress(FileExistsError):  # another made it meanwhile
        call(os.mkdir, folder)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the entries of ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        call(os.fsync, descriptor)
    finally:
        os.close(descriptor)


def open_plain(path: Path) -> int:
    """A descriptor to read the file ``path`` by, which is no link, pipe or device.

    Raises:
        OSError: There is no such file, or it is of another kind.
    """
    # Not blocking: to open a pipe would wait for its writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("it is no plain file")
    return descriptor


def remove(path: Path) -> None:
    """Remove the file ``path`` if it is there."""
    with contextlib.suppress(FileNotFoundError):
        call(os.unlink, path)
