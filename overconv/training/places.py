"""Where the files of data sets are looked for."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

Root = str | os.PathLike[str] | None


class MissingData(ValueError):
    """A data set whose files are nowhere; says where they were looked for, and how to get them."""


def bases(root: Root, system: str | None = None) -> list[Path]:
    """The folders that may hold data sets, in the order of search.

    ``root``, ``$OVERCONV_DATA``, ``system`` (where a distribution puts this set), and the user's
    cache folder, into which what is fetched may be put.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "overconv"
    named = [root, os.environ.get("OVERCONV_DATA"), system, cache]
    return list(dict.fromkeys(Path(base) for base in named if base))


def find(
    name: str,
    folders: Sequence[Path],
    below: Sequence[str],
    holds: Callable[[Path], bool],
    how: Callable[[Path], str],
) -> Path:
    """The first folder, ``below`` one of ``folders``, of which ``holds`` is true.

    Args:
        name: Of the data set.
        folders: As :func:`bases` gives them.
        below: Names of folders, of each of ``folders``; ``""`` is the folder itself.
        holds: Whether a folder holds the data set.
        how: How to get the files, given the folder to put them in.

    Raises:
        MissingData: There is none.
    """
    for folder in folders:
        for part in below:
            if holds(folder / part):
                return folder / part
    looked = ", ".join(map(str, folders))
    raise MissingData(f"{name} is in none of {looked}. To get it: {how(folders[-1])}")
