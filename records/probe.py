"""What a results folder asks of its file system, tried out before anything is trained for it.

Local disks offer all of it, and so do NFS, Lustre and CephFS. What a file system of objects or an
old Windows share does not offer is said by name.

- A hard link that fails where there is a file already: by it a record, or a claim, is published by
  exactly one of several processes.
- A rename that replaces a file in one step, for heartbeats and checkpoints.
- Files and folders that can be synced, so that what is published outlives a loss of power.
- What was written is read back, by name and in the listing of its folder. Between machines this
  may take as long as their mounts keep attributes (``actimeo`` of NFS, a minute at most by
  default): a lease has to be longer than that. Where it is not, two machines may train a trial at
  once; the record is published once all the same.
"""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from records.files import make_folder, remove_folder, sync_folder


def check(root: Path) -> None:
    """Try everything in a folder of its own below ``root``, which is made if need be.

    Raises:
        OSError: ``root`` cannot be made or written.
        ValueError: Something is lacking, and what for it is needed.
    """
    make_folder(root, root)
    folder = root / f".probe-{uuid.uuid4().hex}"
    folder.mkdir()
    try:
        _check(folder)
    finally:
        remove_folder(folder, root)


def _check(folder: Path) -> None:
    first, second, name = (folder / name for name in ("first", "second", "name"))
    for path, content in ((first, b"1"), (second, b"2")):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            os.write(descriptor, content)
            with _needed("files that can be synced, to keep records when the power fails"):
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
    with _needed("hard links, by which a record is published exactly once"):
        os.link(first, name)
    try:
        os.link(second, name)
    except FileExistsError:
        pass
    else:
        _lacks("hard links that replace no file, by which a record is published exactly once")
    if name.read_bytes() != b"1" or name not in folder.iterdir():
        _lacks("files that can be read as soon as they are written")
    with _needed("renames that replace a file in one step, for heartbeats and checkpoints"):
        second.replace(name)
    if name.read_bytes() != b"2" or second in folder.iterdir():
        _lacks("renames that replace a file in one step, for heartbeats and checkpoints")
    with _needed("folders that can be synced, to keep records when the power fails"):
        sync_folder(folder)


@contextlib.contextmanager
def _needed(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        _lacks(f"{what} ({error.strerror})")


def _lacks(what: str) -> None:
    raise ValueError(f"its file system does not offer {what}") from None
