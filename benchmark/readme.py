"""The tables in README.md, written from the committed records of ``benchmark/tables``.

A table stands between ``<!-- table: NAME -->`` and ``<!-- end of table -->``. ``NAME-short`` is
what is said of a table that is too long for the page.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmark.tables import FOLDER, load

README = Path(__file__).parents[1] / "README.md"
_PLACE = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)

Text = Callable[[dict[str, Any]], str]


def filled(readme: str, texts: Mapping[str, Text], folder: Path = FOLDER) -> str:
    """``readme`` with every table made anew.

    Raises:
        ValueError: A place names a table that does not exist.
    """

    def fill(place: re.Match[str]) -> str:
        name = place[2]
        if name not in texts:
            raise ValueError(f"README.md names the table {name!r}; there are {', '.join(texts)}")
        record = name.removesuffix("-short")
        found = load(record, folder)
        environment = found["environment"]
        records = [found, *found.get("others", [])]
        processors = " and ".join(sorted(one["environment"]["processor"] for one in records))
        origin = (
            f"*`{found['command']}`, torch {environment['torch']}, {environment['threads']} thread,"
            f" {processors}: `benchmark/tables/{record}.json`.*"
        )
        return f"{place[1]}{texts[name](found).strip()}\n\n{origin}\n{place[3]}"

    return _PLACE.sub(fill, readme)
