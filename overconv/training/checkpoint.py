"""Checkpoints of one training in a folder of its own: whole, checked, the two newest."""

import contextlib
import hashlib
import io
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from overconv.training import durable

# The first line of a file: these two, SHA-256 and number of the bytes behind the line.
MAGIC = b"overconv-checkpoint"
SCHEMA = 1

KEPT = 2
_NAME = re.compile(r"(\d{1,18})\.checkpoint", re.ASCII)
_LINE = re.compile(rb"(\S+) (\d{1,9}) ([0-9a-f]{64}) (\d{1,18})\n")
_LINE_MAX = 128
_ARCHIVE = b"PK\x03\x04"


class CheckpointFolder:
    """The checkpoints of one training, the files ``<step>.checkpoint`` of ``folder``.

    A file is one line of text (magic, schema, SHA-256 and length of the rest) and what
    :func:`torch.save` made of identity, step and state. Nothing but tensors and plain values is
    ever unpickled, and that only after the checksum.

    Args:
        folder: Its own; made by the first :meth:`save`.
        identity: Names the training; a file that holds another one is passed over.
        every: Steps between two checkpoints within an epoch.
        warn: Called with a line of text where something was passed over or failed.

    Raises:
        ValueError: ``every`` is no whole number from 1.
    """

    def __init__(
        self, folder: Path, identity: str, *, every: int = 200, warn: Callable[[str], None]
    ) -> None:
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ValueError(f"every={every!r}; allowed: whole numbers from 1")
        self.folder, self.identity, self.every, self.warn = Path(folder), identity, every, warn
        self._passed_over: set[int] = set()

    def due(self, step: int) -> bool:
        """Whether a checkpoint is wanted after ``step`` steps."""
        return step % self.every == 0

    def save(self, state: dict[str, Any]) -> None:
        """Write ``state``, durably, and remove all but the two newest.

        ``state["step"]`` names the file. If it cannot be written, that is said, and those before
        it stay: a training should not end because a disk is full.
        """
        step = state["step"]
        content = io.BytesIO()
        torch.save({"identity": self.identity, "step": step, "state": state}, content)
        payload = content.getbuffer()
        try:
            if self.folder.is_symlink():
                raise OSError(f"{self.folder} is a symbolic link")
            durable.make_folder(self.folder)
            durable.write_file(self._path(step), _line(payload), payload)
        except OSError as error:
            self.warn(f"no checkpoint at step {step}, training goes on: {error}")
            return
        self._passed_over.discard(step)
        # What was passed over counts for nothing: two that can be read are to be there.
        whole = [found for found in self._steps() if found not in self._passed_over]
        for gone in {*self._passed_over, *whole[:-KEPT]}:
            self._remove(self._path(gone))
        self._passed_over.clear()

    def newest(self) -> dict[str, Any] | None:
        """The newest state that is whole and of this training; None if there is none.

        What is passed over is told to ``warn``. Files that a writer left unfinished are removed,
        so only who holds the training may ask.
        """
        for path in self._unfinished():
            self._remove(path)
        for step in reversed(self._steps()):
            try:
                return self._read(step)
            except (OSError, ValueError) as error:
                self._passed_over.add(step)
                self.warn(f"{self._path(step)} is passed over: {error}")
        return None

    def discard(self) -> None:
        """Remove all of it."""
        for path in [*map(self._path, self._steps()), *self._unfinished()]:
            self._remove(path)
        with contextlib.suppress(OSError):  # not there, or it holds what is not ours
            durable.call(os.rmdir, self.folder)

    def _path(self, step: int) -> Path:
        return self.folder / f"{step}.checkpoint"

    def _steps(self) -> list[int]:
        """Steps of the files in the folder, rising."""
        matches = (_NAME.fullmatch(name) for name in self._names())
        steps = {int(match[1]): match[0] for match in matches if match}
        return sorted(step for step, name in steps.items() if name == self._path(step).name)

    def _unfinished(self) -> list[Path]:
        return [self.folder / n for n in self._names() if n.endswith(durable.TEMPORARY)]

    def _names(self) -> list[str]:
        if self.folder.is_symlink():  # perhaps to somebody's folder: not ours to read or remove
            return []
        try:
            return [path.name for path in self.folder.iterdir()]
        except (FileNotFoundError, NotADirectoryError):  # not made yet, or discarded meanwhile
            return []

    def _remove(self, path: Path) -> None:
        try:
            durable.remove(path)
        except OSError as error:
            self.warn(f"{path} could not be removed: {error}")

    def _read(self, step: int) -> dict[str, Any]:
        """The state after ``step`` steps.

        Raises:
            OSError: The file cannot be read.
            ValueError: It is damaged, or of something else.
        """
        payload = _payload(self._path(step))
        if not payload.startswith(_ARCHIVE):  # other formats begin by unpickling
            raise ValueError("it holds no archive of tensors")
        try:
            held = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:  # its text tells how to load the file all the same
            raise ValueError("it holds something else than tensors and plain values") from None
        except Exception as error:  # made by somebody, not damaged: it may raise anything
            raise ValueError(f"it cannot be loaded ({type(error).__name__})") from error
        if not isinstance(held, dict) or held.keys() != {"identity", "step", "state"}:
            raise ValueError("it holds no checkpoint")
        if held["identity"] != self.identity:
            raise ValueError(f"it is of another training, {held['identity']!r:.200}")
        if held["step"] != step or not isinstance(held["state"], dict):
            raise ValueError(f"it is of another step, {held['step']!r:.200}")
        return held["state"]


def _line(payload: bytes | memoryview) -> bytes:
    return b"%s %d %s %d\n" % (
        MAGIC, SCHEMA, hashlib.sha256(payload).hexdigest().encode(), len(payload),
    )  # fmt: skip


def _payload(path: Path) -> bytes:
    """What stands behind the first line of a file, once that line is found to be true of it.

    Raises:
        OSError: The file cannot be read.
        ValueError: Line and content disagree.
    """
    with os.fdopen(durable.open_plain(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        line = file.readline(_LINE_MAX)
        match = _LINE.fullmatch(line)
        if match is None or match[1] != MAGIC:
            raise ValueError("it does not begin as a checkpoint does")
        if int(match[2]) != SCHEMA:
            raise ValueError(f"its schema is {int(match[2])}, and {SCHEMA} is known")
        if size - len(line) != int(match[4]):
            raise ValueError(f"it has {size - len(line)} of {int(match[4])} bytes")
        payload = file.read()
    if _line(payload) != line:
        raise ValueError("its checksum is wrong")
    return payload
