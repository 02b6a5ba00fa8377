"""Why trials failed: what a trial said last is kept in its folder, an attempt a file."""

import time
from pathlib import Path

from records.files import numbered, numbered_path, publish_once, read_file
from records.process import Process
from records.value import Moment, VersionedValue

MOST = 64 * 2**10  # characters of a text, whose beginning and end say most


class Failure(VersionedValue):
    """An attempt at a trial that ended in an error.

    Args:
        schema_version: Of this class.
        process: Whose attempt it was.
        time: In seconds since 1970.
        text: What it said: a traceback.
    """

    schema_version: int = 1
    process: Process
    time: Moment
    text: str

    @property
    def reason(self) -> str:
        """The last line of the text that is not indented: of a traceback, the error."""
        lines = [line for line in self.text.splitlines() if line[:1].strip()]
        return lines[-1].strip() if lines else "it said nothing"


def note(folder: Path, root: Path, text: str) -> Path | None:
    """Keep ``text`` as the newest failure in ``folder``; returns its file.

    None if it cannot be kept, for instance on a full disk: who reports a failure has the text and
    shows it, and must not fail over it a second time.
    """
    failure = Failure(process=Process.current(), time=time.time(), text=_shortened(text))
    content = failure.to_bytes()
    try:
        while True:
            path = numbered_path(folder, max(numbered(folder), default=0) + 1)
            if publish_once(path, content, root):
                return path
    except (OSError, ValueError):
        return None


def read(folder: Path, root: Path) -> list[Failure]:
    """The failures in ``folder``, the newest last.

    Raises:
        ValueError: A file cannot be read, or is no failure; the message names it.
    """
    found = []
    for number in sorted(numbered(folder)):
        path = folder / f"{number}.json"
        try:
            found.append(Failure.from_bytes(read_file(path, root)))
        except OSError as error:
            raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
        except RecursionError:
            raise ValueError(f"{path}: is nested too deep") from None
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    return found


def _shortened(text: str) -> str:
    # What no file can hold must not cost the rest.
    text = text.encode("utf-8", "backslashreplace").decode()
    if len(text) <= MOST:
        return text
    half = MOST // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"
