"""Drawings within a page: in its colours, sharing what they have in common, ids their own."""

import re

from analysis.drawing import FAINT, INK, PALETTE, RULE, SOFT, ZONE

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


class Shared:
    """What drawings have in common: outlines of letters, words of them, styles. Each is there once.

    They come last on a page, when all drawings have been made.
    """

    def __init__(self) -> None:
        self._outlines: dict[str, str] = {}
        self._words: dict[str, str] = {}
        self._classes: dict[str, str] = {}
        self._names: dict[str, str] = {}

    def short(self, name: str) -> str:
        """A few letters that stand for ``name`` where it is repeated a thousand times."""
        return self._names.setdefault(name, f"g{len(self._names)}")

    def without_outlines(self, svg: str) -> str:
        """``svg`` without the outlines that it defines, which it refers to by shorter names.

        Raises:
            ValueError: One of them is another than that of the same name before.
        """

        def take(path: re.Match[str]) -> str:
            if self._outlines.setdefault(path[1], path[2]) != path[2]:
                raise ValueError(f"two outlines are named {path[1]!r}; allowed: one a name")
            return ""

        bare = re.sub(rf'<path id="({GLYPH}[^"]*)" ?([^>]*)/>\s*', take, svg)
        names = {name: f"l{index}" for index, name in enumerate(self._outlines)}
        bare = re.sub(rf'(?<=href="#)({GLYPH}[^"]*)', lambda name: names[name[1]], bare)
        return re.sub(r"<defs>\s*</defs>\s*", "", bare)

    def without_words(self, svg: str) -> str:
        """``svg`` with one reference in place of the letters of each word."""

        def take(word: re.Match[str]) -> str:
            name = self._words.setdefault(word[2], f"t{len(self._words)}")
            return f'<use href="#{name}"{word[1]}/>'

        return re.sub(r'<g((?: \w+="[^"]*")*)>((?:<use href="#l\d+"[^>]*/>)+)</g>', take, svg)

    def without_styles(self, svg: str) -> str:
        """``svg`` with classes in place of its styles."""

        def name(style: re.Match[str]) -> str:
            return f'class="{self._classes.setdefault(style[1], f"k{len(self._classes)}")}"'

        return re.sub(r'style="([^"]*)"', name, svg)

    def to_svg(self) -> str:
        """A drawing that shows nothing, and holds all of it."""
        styles = "".join(f".{name}{{{style}}}" for style, name in self._classes.items())
        paths = "".join(
            f'<path id="l{index}" {path}/>' for index, path in enumerate(self._outlines.values())
        )
        words = "".join(f'<g id="{name}">{word}</g>' for word, name in self._words.items())
        hidden = 'id="shared" aria-hidden="true" width="0" height="0" class="nothing"'
        return (
            f'<svg {hidden} xmlns="http://www.w3.org/2000/svg">'
            f"<style>{styles}</style><defs>{paths}{words}</defs></svg>"
        )


def inline(svg: bytes, prefix: str, label: str, shared: Shared) -> str:
    """``svg`` as an element of a page: as wide as its place, ids of its own, a label to be read.

    Its colours become those of the page; numbers lose what is below a hundredth of a point, and
    what nobody refers to its id. Dozens of them are on a page, so each is written as short as it
    goes without being another drawing.
    """
    text = svg.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*|<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = _renamed(text, prefix)
    text = shared.without_outlines(text)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    # Not sizes of letters, which have three decimals.
    text = re.sub(r"\d+\.\d{4,}", lambda number: f"{float(number[0]):.2f}", text)
    text = re.sub(r"(?<=\d)\.0+(?=\D)|(?<=\.\d)0(?=[^\d.])", "", text)
    text = re.sub(r'(?<= d=")[^"]*', lambda path: _tight(path[0]), text)
    text = re.sub(r">\s+<", "><", text).replace(' xlink:href="', ' href="')
    text = re.sub(r' transform="translate\((-?[\d.]+) 0\)"(?=/>)', r' x="\1"', text)
    text = shared.without_words(text)
    while (bare := re.sub(r"<g></g>|<g/>|<g>(<(?:path|use)[^>]*/>)</g>", r"\1", text)) != text:
        text = bare
    text = re.sub(r"<g((?: clip-path=\"[^\"]*\")?)>((?:<use [^>]*/>){2,})</g>", _one_style, text)
    for colour, name in COLOURS.items():
        text = text.replace(f": {colour}", f": var({name})")
    head, _, body = text.partition(">")
    label = label.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    head = head.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
    return f"{head}>{shared.without_styles(body)}"


LONG = 6  # points from which a line of a curve is told by its steps


def _tight(path: str) -> str:
    """A path without the blanks that nothing needs; a long one of straight lines by its steps.

    >>> _tight("M 10.1 -5 \\nL 3 0 z")
    'M10.1-5L3 0z'
    """
    words = path.split()
    end = "z" if words[-1:] == ["z"] and words.count("M") == 1 else ""  # the rim of a band
    lines = words[:-1] if end else words
    if len(lines) >= 3 * LONG and set(lines[::3]) == {"M", "L"}:
        return _stepwise(lines) + end
    return re.sub(r" ?([A-Za-z]) ?| (?=-)", r"\1", " ".join(words))


def _stepwise(words: list[str]) -> str:
    """Lines ``M x y L x y ...`` with steps in place of points, all to a tenth of a point.

    Steps are between rounded points, so that no error adds up along a curve.

    >>> _stepwise("M 10.12 5 L 13.26 4.51 L 13.3 14.5 M 0 0 L 1 -1".split())
    'M10.1 5l3.2-.5 0 10M0 0l1-1'
    """
    told, here = "", (0, 0)
    for place in range(0, len(words), 3):
        command, x, y = words[place : place + 3]
        there = round(10 * float(x)), round(10 * float(y))
        if command == "M":
            told += f"M{_joined(there)}"
        else:
            step = _joined((there[0] - here[0], there[1] - here[1]))
            first = words[place - 3] == "M"
            told += ("l" if first else "" if step.startswith("-") else " ") + step
        here = there
    return told


def _joined(tenths: tuple[int, int]) -> str:
    """Two numbers of a path; a minus needs no blank before it."""
    x, y = (re.sub(r"^(-?)0(?=\.)", r"\1", f"{n / 10:.1f}".removesuffix(".0")) for n in tenths)
    return f"{x}{y}" if y.startswith("-") else f"{x} {y}"


def _one_style(marks: re.Match[str]) -> str:
    """Marks of one style, which their group has in their place; opacity is no matter of a group."""
    styles = set(re.findall(r' style="[^"]*"', marks[2]))
    if len(styles) != 1 or marks[2].count(" style=") != marks[2].count("<use "):
        return marks[0]
    [style] = styles
    if re.search(r"(?<![-\w])opacity", style):
        return marks[0]
    return f"<g{marks[1]}{style}>{marks[2].replace(style, '')}</g>"


def _renamed(svg: str, prefix: str) -> str:
    """``svg`` with ids that begin with ``prefix``, and only where something refers to them."""
    used = re.findall(r'(?:href="#|url\(#)([^")]+)', svg)
    names = {
        name: f"{prefix}{index}"
        for index, name in enumerate(dict.fromkeys(used))
        if not name.startswith(GLYPH)
    }
    svg = re.sub(
        rf' id="(?!{GLYPH})([^"]*)"', lambda i: f' id="{names[i[1]]}"' if i[1] in names else "", svg
    )
    return re.sub(r'(href="#|url\(#)([^")]+)', lambda i: i[1] + names.get(i[2], i[2]), svg)


def light_colours() -> dict[str, str]:
    """The colours that drawings are downloaded in, by their name on the page."""
    return {name: colour for colour, name in COLOURS.items()}


def without_drawings(page: bytes) -> bytes:
    """``page`` without its drawings, whose bytes depend on versions of packages."""
    return re.sub(rb'<svg (?:role="img"|id="shared").*?</svg>', b"", page, flags=re.DOTALL)
