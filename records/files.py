"""Files that are whole or not there, and stay as they were published.

Every system call that changes a results folder passes :func:`call`, the one place from which a
test can see them all, and end the process at each.
"""

import contextlib
import errno
import os
import re
import stat
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ParamSpec, TypeVar

Given = ParamSpec("Given")
Found = TypeVar("Found")

LARGEST = 16 * 2**20  # bytes; a record of a million test examples has less than one
LAST_NUMBER = 10**9 - 1  # of a file that is named by a number


def call(function: Callable[Given, Found], *given: Given.args, **named: Given.kwargs) -> Found:
    """What ``function`` gives, a call of the system that changes something."""
    return function(*given, **named)


def publish_once(path: Path, content: bytes, root: Path) -> bool:
    """Make ``content`` the file ``path`` unless there is one; returns whether it is new.

    Whoever reads ``path`` finds nothing or all of the first writer's bytes, whenever a process
    dies and however many write at once: a link never replaces a file. Durable once this returns.

    Raises:
        OSError: It cannot be written; ``path`` is as it was.
        ValueError: A folder on the way from ``root`` to ``path`` is a symbolic link.
    """
    make_folder(path.parent, root)
    with _temporary(path, content) as temporary:
        new = _link(temporary, path)
    sync_folder(path.parent)
    return new


def replace_file(path: Path, content: bytes) -> None:
    """Make ``content`` the file ``path``, in place of what was there, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _temporary(path, content) as temporary:
        call(os.replace, temporary, path)


def overwrite(path: Path, content: bytes) -> None:
    """As :func:`replace_file`, in a folder that must be there, and not synced: for signs of life.

    Others see it at once, and nobody needs it after the machine has lost its power.

    Raises:
        FileNotFoundError: The folder is gone; it is not made again.
    """
    with _temporary(path, content, synced=False) as temporary:
        call(os.replace, temporary, path)


def read_file(path: Path, root: Path) -> bytes:
    """The bytes of the plain file ``path`` below ``root``.

    Raises:
        ValueError: It, or a folder on the way to it, is a symbolic link; it is no plain file, or
            larger than ``LARGEST``. The message does not name it.
        OSError: It is not there, or cannot be read.
    """
    check_folders(path.parent, root)
    # Without waiting for the other end of a pipe.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ValueError("is a symbolic link; allowed: plain files") from None
        if error.errno in (errno.ENXIO, errno.ENODEV):  # a socket
            raise ValueError("is no plain file") from None
        raise
    with os.fdopen(descriptor, "rb") as file:
        about = os.fstat(descriptor)
        if stat.S_ISDIR(about.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(about.st_mode):
            raise ValueError("is no plain file")
        if about.st_size > LARGEST:
            raise ValueError(f"has {about.st_size:,} bytes; allowed: {LARGEST:,}")
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"grew beyond {LARGEST:,} bytes while it was read")
    return content


def make_folder(folder: Path, root: Path) -> None:
    """Make ``folder``, durably: the entries of its parents are synced, up to ``root``.

    Above it, those are synced in which a folder was made.

    Raises:
        ValueError: A folder below ``root`` on the way is a symbolic link.
        OSError: A folder cannot be made.
    """
    changed = set()
    for part in reversed((folder, *folder.parents)):
        if not part.is_dir():
            changed.add(part.parent)
            try:
                call(os.mkdir, part)
            except FileExistsError:
                if not part.is_dir():  # or another process was faster
                    raise
    check_folders(folder, root)
    for parent in folder.parents:
        # Above the root only what was changed: folders of others may not be ours to read.
        if parent == root or root in parent.parents or parent in changed:
            sync_folder(parent)


def check_folders(folder: Path, root: Path) -> None:
    """Refuse a way from ``root`` to ``folder`` that leads elsewhere; ``root`` itself may.

    Raises:
        ValueError: A folder below ``root`` is a symbolic link.
    """
    for part in (folder, *folder.parents):
        if part == root:
            break
        if part.is_symlink():
            raise ValueError(f"{part} is a symbolic link; allowed: folders of this results folder")


def remove_folder(folder: Path, root: Path) -> bool:
    """Remove a folder of plain files, as far as can be; returns whether it is gone.

    Whatever another process adds or removes meanwhile is no error, and folders in it stay.
    """
    try:
        check_folders(folder, root)
        with os.scandir(folder) as entries:
            paths = [entry.path for entry in entries]
    except FileNotFoundError:
        return True
    except (ValueError, OSError):
        return False
    for path in paths:
        with contextlib.suppress(OSError):
            call(os.unlink, path)
    with contextlib.suppress(OSError):
        call(os.rmdir, folder)
    return not os.path.lexists(folder)


def numbered(folder: Path) -> list[int]:
    """Numbers of the files ``<number>.json`` in ``folder``; none where there is no folder."""
    try:
        names = [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []
    return [int(name[:-5]) for name in names if re.fullmatch(r"[1-9][0-9]{0,8}\.json", name)]


def numbered_path(folder: Path, number: int) -> Path:
    """The file ``<number>.json`` in ``folder``.

    Raises:
        ValueError: :func:`numbered` would not find it. Only somebody else can have come so far.
    """
    if number > LAST_NUMBER:
        raise ValueError(f"{folder} holds {LAST_NUMBER}.json, which none can follow")
    return folder / f"{number}.json"


def sync_folder(folder: Path) -> None:
    """Make the entries of ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        call(os.fsync, descriptor)
    finally:
        os.close(descriptor)


def _link(temporary: Path, path: Path) -> bool:
    try:
        call(os.link, temporary, path)
    except OSError as error:
        # A network file system may repeat a link that succeeded and then call it a failure, or
        # lose the answer.
        if _is_one_file(temporary, path):
            return True
        if isinstance(error, FileExistsError):
            return False
        raise
    return True


def _is_one_file(one: Path, other: Path) -> bool:
    try:
        return os.path.samestat(os.lstat(one), os.lstat(other))
    except OSError:
        return False


@contextlib.contextmanager
def _temporary(path: Path, content: bytes, *, synced: bool = True) -> Iterator[Path]:
    """A file beside ``path`` that holds ``content``; it is gone afterwards."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        try:
            _write(temporary, content, synced)
        except OSError as error:  # a full disk names no file, and nobody knows the temporary one
            raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from None
        yield temporary
    finally:
        # What was published stays published; a file that is left over is found by `verify`.
        with contextlib.suppress(OSError):
            call(os.unlink, temporary)


def _write(path: Path, content: bytes, synced: bool) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = call(os.open, path, flags, 0o666)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[call(os.write, descriptor, rest) :]
        if synced:
            call(os.fsync, descriptor)
    finally:
        call(os.close, descriptor)
