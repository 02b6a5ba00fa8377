"""How drawings and cells become parts of a page."""

import re

from analysis.table import Column


def inline(svg: bytes, prefix: str, label: str) -> str:
    """``svg`` as an element of a page: as wide as its place, ids of its own, a label to be read."""
    text = svg.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{prefix}-", text)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    escaped = label.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return text.replace("<svg", f'<svg role="img" aria-label="{escaped}"', 1)


def results_first(columns: tuple[Column, ...]) -> list[Column]:
    """``columns`` with counts and costs last: a narrow screen shows what is asked for first."""

    def rank(column: Column) -> int:
        return 2 if column.key.startswith(("parameters", "macs")) else int(column.key == "n")

    return sorted(columns, key=rank)


def minus(cell: str) -> str:
    """``cell`` with typographic signs: a minus before digits, a dash where there is nothing."""
    return "–" if cell == "-" else re.sub(r"(^| )-(?=\d)", "\\1\N{MINUS SIGN}", cell)
