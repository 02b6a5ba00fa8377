"""How cells and numbers become parts of a page."""

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from analysis.table import Column

# What the data of an address may hold as it is. A blank is none of it, whatever browsers allow.
PLAIN = "!$()*+,-./:;=?@_~|"


def as_json(value: Any) -> str:
    """``value`` for a script element: no text in it can end that element."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def data_link(text: str, kind: str) -> str:
    """``text`` as an address, so that a page alone can give it away as a file."""
    return f"data:text/{kind};charset=utf-8,{quote(text, safe=PLAIN)}"


def results_first(columns: tuple[Column, ...]) -> list[Column]:
    """``columns`` with counts and costs last: a narrow screen shows what is asked for first."""

    def rank(column: Column) -> int:
        return 2 if column.key.startswith(("parameters", "macs")) else int(column.key == "n")

    return sorted(columns, key=rank)


def minus(cell: str) -> str:
    """``cell`` with typographic signs: a minus before digits, a dash where there is nothing."""
    return "–" if cell == "-" else re.sub(r"(^|[ (])-(?=\d)", "\\1\N{MINUS SIGN}", cell)


def sort_value(cell: str) -> str:
    """The number that a cell begins with, for sorting; nothing if it begins with none.

    >>> [sort_value(cell) for cell in ("+0.3", "27,000", "1.25 M", "-0.5 to +4.5", "-", "1 lost")]
    ['0.3', '27000.0', '1250000.0', '-0.5', '', '']
    >>> [sort_value(cell) for cell in ("+0.3 (-0.1 to +0.7)", "5 of 10")]
    ['0.3', '5.0']
    """
    found = re.match(r"([+-]?[\d,]*\.?\d+)( [kMG]\b)?(?= to | of | \(|$)", cell)
    if not found:
        return ""
    scale: Mapping[str, float] = {" k": 1e3, " M": 1e6, " G": 1e9}
    return str(float(found[1].replace(",", "")) * scale.get(found[2] or "", 1.0))
