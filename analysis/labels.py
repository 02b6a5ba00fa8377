"""Names beside marks, so that they cover as little as can be: in a fixed order, so always alike."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from analysis.drawing import FAINT

SIZE = 7.0  # of the letters, in points
_WIDE, _HIGH = 0.62 * SIZE, 1.25 * SIZE  # of a letter, about; of a line
# Steps from a mark to its name: around it, then farther off, where a line leads back.
_AROUND = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
_RADII = (6.0, 14.0, 24.0, 36.0, 50.0)


@dataclass(frozen=True)
class Box:
    """A rectangle, in points from the lower left corner of a figure."""

    x0: float
    y0: float
    x1: float
    y1: float

    def shared(self, other: "Box") -> float:
        """Area of both."""
        wide = min(self.x1, other.x1) - max(self.x0, other.x0)
        high = min(self.y1, other.y1) - max(self.y0, other.y0)
        return max(0.0, wide) * max(0.0, high)

    @property
    def area(self) -> float:
        return (self.x1 - self.x0) * (self.y1 - self.y0)


def places(
    marks: Sequence[tuple[float, float]],
    names: Sequence[str],
    inside: Box,
    taken: Sequence[Box] = (),
    others: Sequence[tuple[float, float]] = (),
) -> list[tuple[float, float, Box]]:
    """A step from each mark to its name, and the box of the name; all in points.

    Of the steps around a mark, and of ever longer ones, the one is taken whose name covers the
    least: of names that have their place, of marks and ``others``, of what else is ``taken``, of
    what is not ``inside``. The longer the step, the more it has to save.
    """
    points = [Box(x - 3.5, y - 3.5, x + 3.5, y + 3.5) for x, y in (*marks, *others)]
    found: list[tuple[float, float, Box]] = []
    for (x, y), name in zip(marks, names, strict=True):
        tried: list[tuple[float, int, tuple[float, float], Box]] = []
        for ring, radius in enumerate(_RADII):
            for across, up in _AROUND:
                shorter = 0.75 if across and up else 1.0
                step = (radius * across * shorter, radius * up * shorter)
                box = _box(x + step[0], y + step[1], len(name), across)
                covered = 3 * sum(box.shared(other) for *_, other in found)
                covered += 2 * sum(box.shared(point) for point in points)
                covered += sum(box.shared(other) for other in taken)
                covered += 10 * (box.area - box.shared(inside))
                tried.append((covered + 12.0 * ring, len(tried), step, box))
        _, _, step, box = min(tried)
        found.append((*step, box))
    return found


def label_marks(
    axes: Axes,
    marks: Sequence[tuple[float, float, str, str]],
    lines: Sequence[tuple[float, float, float, float]] = (),
    others: Sequence[tuple[float, float]] = (),
) -> None:
    """Write names beside marks.

    Args:
        marks: x, y, name and colour of each.
        lines: Upright and level ones that are better not written over: x and y of both ends.
        others: Marks without a name.
    """
    scale = 72 / axes.figure.dpi

    def at(x: float, y: float) -> tuple[float, float]:
        a, b = axes.transData.transform((x, y))
        return scale * float(a), scale * float(b)

    frame = axes.get_window_extent()
    inside = Box(*(scale * float(edge) for edge in (frame.x0, frame.y0, frame.x1, frame.y1)))
    ends = [(*at(x0, y0), *at(x1, y1)) for x0, y0, x1, y1 in lines]
    taken = [Box(min(a, c) - 1, min(b, d) - 1, max(a, c) + 1, max(b, d) + 1) for a, b, c, d in ends]
    found = places(
        [at(x, y) for x, y, *_ in marks],
        [name for *_, name, _ in marks],
        inside,
        taken,
        [at(x, y) for x, y in others],
    )
    for (x, y, name, colour), (across, up, _) in zip(marks, found, strict=True):
        far = max(abs(across), abs(up)) > _RADII[0]
        axes.annotate(
            name,
            xy=(x, y),
            xytext=(across, up),
            textcoords="offset points",
            ha="left" if across > 0 else "right" if across < 0 else "center",
            va="center",
            fontsize=SIZE,
            color=colour,
            arrowprops={"arrowstyle": "-", "color": FAINT, "lw": 0.5, "shrinkA": 0, "shrinkB": 3}
            if far
            else None,
        )


def _box(x: float, y: float, letters: int, across: int) -> Box:
    wide = _WIDE * letters
    left = {1: x, -1: x - wide, 0: x - wide / 2}[across]
    return Box(left, y - _HIGH / 2, left + wide, y + _HIGH / 2)
