"""Files that are whole or not there, and stay as they were published."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path


def publish_once(path: Path, content: bytes, root: Path) -> bool:
    """Make ``content`` the file ``path`` unless there is one; returns whether it is new.

    Whoever reads ``path`` finds nothing or all of the first writer's bytes, whenever a process
    dies and however many write at once: a link never replaces a file. Durable once this returns.
    """
    make_folder(path.parent, root)
    with _temporary(path, content) as temporary:
        try:
            os.link(temporary, path)
            new = True
        except FileExistsError:
            # A network file system may repeat a link that succeeded and then call it a failure.
            new = path.samefile(temporary)
    sync_folder(path.parent)
    return new


def replace_file(path: Path, content: bytes) -> None:
    """Make ``content`` the file ``path``, in place of what was there, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _temporary(path, content) as temporary:
        temporary.replace(path)


def make_folder(folder: Path, root: Path) -> None:
    """Make ``folder``, durably: the entries of its parents, up to that of ``root``, are synced."""
    folder.mkdir(parents=True, exist_ok=True)
    for parent in folder.parents:
        sync_folder(parent)
        if parent == root.parent:
            break


def sync_folder(folder: Path) -> None:
    """Make the entries of ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _temporary(path: Path, content: bytes) -> Iterator[Path]:
    """A synced file beside ``path`` that holds ``content``; it is gone afterwards."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
