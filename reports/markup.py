"""How drawings, cells and numbers become parts of a page."""

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from analysis.drawing import FAINT, INK, PALETTE, RULE, SOFT, ZONE
from analysis.table import Column

# What a colour of a drawing is called in page.css, where a dark page gives it another value.
COLOURS = {
    INK: "--ink",
    SOFT: "--soft",
    FAINT: "--faint",
    RULE: "--rule",
    ZONE: "--zone",
    "#ffffff": "--paper",
    **{colour: f"--p{index}" for index, colour in enumerate(PALETTE) if colour != SOFT},
}


def inline(svg: bytes, prefix: str, label: str) -> str:
    """``svg`` as an element of a page: as wide as its place, ids of its own, a label to be read.

    Its colours become those of the page; paths lose what is below a hundredth of a point.
    """
    text = svg.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*|<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{prefix}-", text)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    text = re.sub(r' d="[^"]*"', lambda path: _shortened(path[0]), text)
    for colour, name in COLOURS.items():
        text = text.replace(f": {colour}", f": var({name})")
    return text.replace("<svg", f'<svg role="img" aria-label="{_escaped(label)}"', 1)


def light_colours() -> dict[str, str]:
    """The colours that drawings are downloaded in, by their name on the page."""
    return {name: colour for colour, name in COLOURS.items()}


def as_json(value: Any) -> str:
    """``value`` for a script element: no text in it can end that element."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def data_link(text: str, kind: str) -> str:
    """``text`` as an address, so that a page alone can give it away as a file."""
    return f"data:text/{kind};charset=utf-8,{quote(text, safe='')}"


def results_first(columns: tuple[Column, ...]) -> list[Column]:
    """``columns`` with counts and costs last: a narrow screen shows what is asked for first."""

    def rank(column: Column) -> int:
        return 2 if column.key.startswith(("parameters", "macs")) else int(column.key == "n")

    return sorted(columns, key=rank)


def minus(cell: str) -> str:
    """``cell`` with typographic signs: a minus before digits, a dash where there is nothing."""
    return "–" if cell == "-" else re.sub(r"(^| )-(?=\d)", "\\1\N{MINUS SIGN}", cell)


def sort_value(cell: str) -> str:
    """The number that a cell begins with, for sorting; nothing if it begins with none.

    >>> [sort_value(cell) for cell in ("+0.3", "27,000", "1.25 M", "-0.5 to +4.5", "-", "1 lost")]
    ['0.3', '27000.0', '1250000.0', '-0.5', '', '']
    """
    found = re.match(r"([+-]?[\d,]*\.?\d+)( [kMG]\b)?(?= to |$)", cell)
    if not found:
        return ""
    scale: Mapping[str, float] = {" k": 1e3, " M": 1e6, " G": 1e9}
    return str(float(found[1].replace(",", "")) * scale.get(found[2] or "", 1.0))


def _shortened(path: str) -> str:
    return re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", path)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
