"""One table, told to a terminal, to Markdown, to a spreadsheet and to a page."""

import csv
import io
import math
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Column:
    """A column: key of its cells, heading, and whether it holds text rather than numbers."""

    key: str
    heading: str
    is_text: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells to read (``rows``, by column) and the numbers behind them (``data``, for CSV)."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[dict[str, str], ...]
    data: tuple[dict[str, Any], ...]
    footnotes: tuple[str, ...] = ()

    def to_text(self) -> str:
        """The table for a terminal."""
        widths = {
            c.key: max([len(c.heading), *(len(row[c.key]) for row in self.rows)])
            for c in self.columns
        }

        def line(cells: dict[str, str]) -> str:
            return "  ".join(
                f"{cells[c.key]:{'<' if c.is_text else '>'}{widths[c.key]}}" for c in self.columns
            ).rstrip()

        rule = "  ".join("-" * width for width in widths.values())
        headings = {c.key: c.heading for c in self.columns}
        notes = [textwrap.fill(note, 100) for note in self.footnotes]
        return "\n".join([self.title, "", line(headings), rule, *map(line, self.rows), "", *notes])

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
                *(line(row[c.key] for c in self.columns) for row in self.rows),
                "",
                *(f"{footnote}\n" for footnote in self.footnotes),
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


def _raw(value: Any) -> Any:
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return "NA"
    # Other versions of numpy may add in another order, and so give another last digit.
    return f"{value:.12g}" if isinstance(value, float) else value
