"""How figures look, and how they become bytes: equal numbers give equal bytes in every process."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import font_manager, ft2font, style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# The files that come with matplotlib, under a name of their own: another DejaVu Sans, which a
# system may have, numbers its glyphs differently.
FONT = "DejaVu Sans of matplotlib"
for _file, _weight in (("DejaVuSans.ttf", "normal"), ("DejaVuSans-Bold.ttf", "bold")):
    font_manager.fontManager.ttflist.append(
        font_manager.FontEntry(
            fname=str(Path(matplotlib.get_data_path(), "fonts", "ttf", _file)),
            name=FONT,
            style="normal",
            variant="normal",
            weight=_weight,
            stretch="normal",
            size="scalable",
        )
    )

INK, SOFT, FAINT, RULE, ZONE = "#22272b", "#5f6b73", "#a9b3b9", "#e3e7ea", "#f1ede2"
# Each can be read as text on white; where lines cross, marks tell them apart in grey too.
PALETTE = ("#5f6b73", "#0b6aa2", "#b84c16", "#47752a", "#7a4a95", "#7d650c", "#0d736d")
MARKS = ("o", "s", "^", "D", "v", "P", "X")

# Complete with rcdefaults: a user's matplotlibrc must not reach the report.
STYLE = {
    "font.family": FONT,
    "font.size": 8.0,
    "text.color": INK,
    "text.hinting": "none",  # so that letters are as wide on every canvas
    "axes.titlesize": 8.0,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelsize": 8.0,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.unicode_minus": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "xtick.major.size": 2.5,
    "ytick.major.size": 0.0,
    "xtick.major.width": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "path",  # letters as outlines: no reader needs the font
    "svg.hashsalt": "overconv",
}
PNG_DPI = 200


def look(index: int) -> tuple[str, str]:
    """Colour and mark of the line of that number, from 0; the mark tells it in grey."""
    return PALETTE[1 + index % (len(PALETTE) - 1)], MARKS[index % len(MARKS)]


@dataclass(frozen=True)
class Drawing:
    """A figure for a page, and in another layout for a narrow screen; the PNG is of the first.

    ``narrow`` None: it is as it is, and a narrow screen scrolls.
    """

    wide: bytes
    narrow: bytes | None
    png: bytes


def draw(make: Callable[[bool], Figure], narrow: bool = True) -> Drawing:
    """The bytes of the figure that ``make`` returns, given whether it is to be narrow.

    Args:
        narrow: Whether to make the narrow one.
    """
    svg: dict[str, Any] = {"format": "svg", "metadata": {"Date": None, "Creator": None}}
    png: dict[str, Any] = {"format": "png", "dpi": PNG_DPI, "metadata": {"Software": None}}
    with style.context(STYLE, after_reset=True):
        wide = _laid_out(make(False))
        return Drawing(
            wide=_bytes(FigureCanvasSVG(wide), **svg),
            narrow=_bytes(FigureCanvasSVG(_laid_out(make(True))), **svg) if narrow else None,
            png=_bytes(FigureCanvasAgg(wide), **png),
        )


def versions() -> dict[str, str]:
    """What decides a figure's bytes besides its numbers."""
    return {
        "matplotlib": matplotlib.__version__,
        "freetype": ft2font.__freetype_version__,
        "pillow": version("pillow"),
    }


def _laid_out(figure: Figure) -> Figure:
    """``figure`` with everything in its place, once for all: to find it takes half of the time."""
    if figure.get_layout_engine() is None:
        return figure
    figure.set_dpi(PNG_DPI)  # at a screen's, letters are rounded to less than they take
    for _ in range(2):  # marks of axes change with the size that the first pass gives them
        figure.draw_without_rendering()
    figure.set_layout_engine(None)  # "none" would have it drawn once more for each file
    return figure


def _bytes(canvas: FigureCanvasAgg | FigureCanvasSVG, **options: Any) -> bytes:
    file = io.BytesIO()
    canvas.figure.savefig(file, **options)
    return file.getvalue()
