"""One table, told to a terminal, to Markdown, to a spreadsheet and to a page."""

import csv
import io
import math
import re
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Column:
    """A column: key of its cells, name, whether it holds text rather than numbers, and a unit."""

    key: str
    name: str
    is_text: bool = False
    unit: str = ""

    @property
    def heading(self) -> str:
        """
        >>> Column("t", "time", unit="ms").heading
        'time, ms'
        """
        return f"{self.name}, {self.unit}" if self.unit else self.name


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells to read (``rows``, by column) and the numbers behind them (``data``, for CSV).

    ``best``: places, by row and key, that are better than all others of their column, as far as
    their intervals allow to say so. Bold; in a terminal a star.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[dict[str, str], ...]
    data: tuple[dict[str, Any], ...]
    footnotes: tuple[str, ...] = ()
    best: frozenset[tuple[int, str]] = frozenset()

    def marked(self, mark: str, end: str = "") -> list[dict[str, str]]:
        """The rows, what is best between ``mark`` and ``end``."""
        return [
            {
                key: f"{mark}{cell}{end}" if (index, key) in self.best else cell
                for key, cell in row.items()
            }
            for index, row in enumerate(self.rows)
        ]

    def to_text(self) -> str:
        """The table for a terminal."""
        rows = self.marked("*")
        widths = {
            c.key: max([len(c.heading), *(len(row[c.key]) for row in rows)]) for c in self.columns
        }

        def line(cells: dict[str, str]) -> str:
            return "  ".join(
                f"{cells[c.key]:{'<' if c.is_text else '>'}{widths[c.key]}}" for c in self.columns
            ).rstrip()

        rule = "  ".join("-" * width for width in widths.values())
        headings = {c.key: c.heading for c in self.columns}
        notes = [textwrap.fill(note, 100) for note in self.footnotes]
        return "\n".join([self.title, "", line(headings), rule, *map(line, rows), "", *notes])

    def to_markdown(self) -> str:
        """The table in Markdown, its title as a heading."""

        def line(cells: Iterable[str]) -> str:
            return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"

        return "\n".join(
            [
                f"### {self.title}",
                "",
                line(c.heading for c in self.columns),
                line(":--" if c.is_text else "--:" for c in self.columns),
                *(line(row[c.key] for c in self.columns) for row in self.marked("**", "**")),
                "",
                *(f"{footnote}\n" for footnote in self.footnotes),
            ]
        )

    def to_latex(self) -> str:
        """The table for a paper, in the rules of the package booktabs; notes stand below it."""

        def line(cells: Iterable[str]) -> str:
            return " & ".join(cells) + r" \\"

        bold = [
            {
                key: rf"\textbf{{{_latex(cell)}}}" if (index, key) in self.best else _latex(cell)
                for key, cell in row.items()
            }
            for index, row in enumerate(self.rows)
        ]
        return "\n".join(
            [
                r"% needs \usepackage{booktabs}",
                r"\begin{table}",
                r"\centering",
                rf"\caption{{{_latex(self.title)}}}",
                rf"\begin{{tabular}}{{{''.join('l' if c.is_text else 'r' for c in self.columns)}}}",
                r"\toprule",
                line(_latex(c.heading) for c in self.columns),
                r"\midrule",
                *(line(row[c.key] for c in self.columns) for row in bold),
                r"\bottomrule",
                r"\end{tabular}",
                *(rf"\par\footnotesize {_latex(note)}" for note in self.footnotes),
                r"\end{table}",
                "",
            ]
        )

    def to_csv(self) -> str:
        """The numbers, unrounded but for the last of their sixteen digits; nothing is empty."""
        file = io.StringIO()
        names = list(self.data[0]) if self.data else [column.key for column in self.columns]
        writer = csv.DictWriter(file, fieldnames=names, lineterminator="\n")
        writer.writeheader()
        for row in self.data:
            writer.writerow({key: _raw(value) for key, value in row.items()})
        return file.getvalue()


_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", '"': r"\textquotedbl{}",
    **{sign: "\\" + sign for sign in "&%$#_{}"},
}  # fmt: skip


def _latex(text: str) -> str:
    """``text`` with what LaTeX would take for commands told as signs, and its minus as one.

    >>> _latex("-0.5 to +1.2 % of a_b")
    '$-$0.5 to +1.2 \\\\% of a\\\\_b'
    """
    escaped = "".join(_LATEX.get(sign, sign) for sign in text)
    return re.sub(r"(^|[ (])-(?=\d)", r"\1$-$", escaped)


def _raw(value: Any) -> Any:
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return "NA"
    # Other versions of numpy may add in another order, and so give another last digit.
    return f"{value:.12g}" if isinstance(value, float) else value
