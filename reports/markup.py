"""How drawings, cells and numbers become parts of a page."""

import hashlib
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

GLYPH = "DejaVuSans-"  # what matplotlib's names of outlines begin with


class Glyphs:
    """Outlines of letters, which drawings of a page share: each is there once, at its end."""

    def __init__(self) -> None:
        self._paths: dict[str, str] = {}

    def taken_from(self, svg: str) -> str:
        """``svg`` without the outlines that it defines.

        Raises:
            ValueError: One of them is another than that of the same name before.
        """

        def take(path: re.Match[str]) -> str:
            if self._paths.setdefault(path[1], path[0].strip()) != path[0].strip():
                raise ValueError(f"two outlines are named {path[1]!r}; allowed: one a name")
            return ""

        bare = re.sub(rf'<path id="({GLYPH}[^"]*)"[^>]*/>\s*', take, svg)
        return re.sub(r"<defs>\s*</defs>\s*", "", bare)

    def to_svg(self) -> str:
        """A drawing that shows nothing, and holds all outlines."""
        paths = "".join(path for _, path in sorted(self._paths.items()))
        hidden = 'id="glyphs" aria-hidden="true" width="0" height="0" style="position: absolute"'
        return f'<svg {hidden} xmlns="http://www.w3.org/2000/svg"><defs>{paths}</defs></svg>'


def inline(svg: bytes, prefix: str, label: str, glyphs: Glyphs | None = None) -> str:
    """``svg`` as an element of a page: as wide as its place, ids of its own, a label to be read.

    Its colours become those of the page; paths lose what is below a hundredth of a point, and
    outlines of letters go to ``glyphs``.
    """
    text = svg.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*|<!--.*?-->\s*", "", text, flags=re.DOTALL)
    shared = ""
    if glyphs is not None:
        text, shared = glyphs.taken_from(text), f"(?!{GLYPH})"
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(rf'(xlink:href="#|url\(#){shared}', rf"\g<1>{prefix}-", text)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    text = re.sub(r' d="[^"]*"', lambda path: _shortened(path[0]), text)
    text = re.sub(r">\s+<", "><", text)
    for colour, name in COLOURS.items():
        text = text.replace(f": {colour}", f": var({name})")
    return text.replace("<svg", f'<svg role="img" aria-label="{_escaped(label)}"', 1)


def short(name: str) -> str:
    """A few letters that stand for ``name`` where it is repeated a thousand times."""
    return "g" + hashlib.sha256(name.encode()).hexdigest()[:7]


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
    return "–" if cell == "-" else re.sub(r"(^|[ (])-(?=\d)", "\\1\N{MINUS SIGN}", cell)


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
