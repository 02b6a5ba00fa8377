"""Published parameters and multiply-accumulates of networks, against ours.

A figure is compared at its own precision: ``11.69M`` stands for all between 11.685 and 11.695
million, and what counts is the difference from the nearer end. Where that is more than
``TOLERANCE``, the row needs a reason that is itself a count: what the source's counter counts, of
the same network.
"""

import sys
import time
from collections.abc import Iterable
from functools import partial
from typing import Any

import timm
import torch
import torchvision

from benchmark.published.counters import EXAMPLE, Why
from benchmark.published.rows import ROWS, Figure, Row
from benchmark.tables import markdown, record
from overconv.costs import count_costs
from overconv.surgery import replace_convs

TOLERANCE = 0.005


def measure_row(row: Row) -> dict[str, Any]:
    """A row of the table: the published figures against those of :func:`count_costs`."""
    network, name = row.build(), "-"
    if row.layer is not None:
        name = _named(row.layer)
        with torch.device("meta"):
            network = replace_convs(network, row.layer, row.where)
    costs = count_costs(network, EXAMPLE)
    cost = costs.deployed if row.deployed else costs.training

    def compared(written: str | None, ours: int, why: Why | None) -> dict[str, Any] | None:
        if written is None:
            return None
        figure = Figure(written)
        other = None if why is None else why.count(network, cost)
        return {
            "published": written,
            "ours": ours,
            "difference": ours / figure.value - 1,
            "beyond_rounding": figure.beyond_rounding(ours),
            "why": None if why is None else why.words,
            "counted_so": other,
            "left": None if other is None else figure.beyond_rounding(other),
        }

    return {
        "network": row.network,
        "layer": name,
        "replaced": row.replaced,
        "form": "deployed" if row.deployed else "training",
        "source": row.source,
        "parameters": compared(row.parameters, cost.parameters, row.why_parameters),
        "macs": compared(row.macs, cost.macs.total, row.why_macs),
    }


def _named(layer: Any) -> str:
    if not isinstance(layer, partial):
        return layer.__name__
    return f"{layer.func.__name__}({', '.join(f'{k}={v!r}' for k, v in layer.keywords.items())})"


def holds(found: dict[str, Any] | None) -> bool:
    """Whether a figure is ours within the tolerance, or what its source's counter gives is."""
    if found is None or abs(found["beyond_rounding"]) <= TOLERANCE:
        return True
    return found["left"] is not None and abs(found["left"]) <= TOLERANCE


def measure(rows: Iterable[Row] = ROWS) -> dict[str, Any]:
    """The record of the table; says how long it took, since no weight is ever in memory."""
    start = time.perf_counter()
    measured = [measure_row(row) for row in rows]
    taken = time.perf_counter() - start
    print(f"{len(measured)} networks counted in {taken:.1f} s", file=sys.stderr)
    versions = {"timm": timm.__version__, "torchvision": torchvision.__version__}
    more = {"tolerance": TOLERANCE, "side": EXAMPLE.shape[-1]}
    return record("python -m benchmark published", measured, **more, **versions)


COLUMNS = ["network", "layer", "replaced", "form", "parameters", "ours", "differs by", "MACs",
           "ours", "differs by", "source", "counted as there"]  # fmt: skip
_KINDS = ("parameters", "macs")


def text(found: dict[str, Any]) -> str:
    """The table, what its marks mean, and what stays unexplained."""
    rows = found["rows"]
    figures = [(row, row[kind]) for row in rows for kind in _KINDS if row[kind] is not None]
    sources = list(dict.fromkeys(row["source"] for row in rows))
    whys = list(dict.fromkeys(figure["why"] for _, figure in figures if figure["why"]))

    def reason(figure: dict[str, Any] | None) -> str:
        if figure is None or figure["why"] is None:
            return ""
        off = _percent(figure["counted_so"] / Figure(figure["published"]).value - 1)
        return f"{chr(ord('a') + whys.index(figure['why']))} {figure['counted_so']:,} ({off})"

    lines = [
        [
            *(row[column] for column in ("network", "layer", "replaced", "form")),
            *_cells(row["parameters"]),
            *_cells(row["macs"]),
            sources.index(row["source"]) + 1,
            ", ".join(filter(None, (reason(row[kind]) for kind in _KINDS))) or "-",
        ]
        for row in rows
    ]
    within = sum(abs(figure["beyond_rounding"]) <= found["tolerance"] for _, figure in figures)
    left = [(row, figure) for row, figure in figures if not holds(figure)]
    share = f"{100 * found['tolerance']:g} %"
    parts = [
        markdown(COLUMNS, lines),
        f"Images of {found['side']} x {found['side']}. A figure stands for all that rounds to it."
        f" Of {len(figures)} published figures {within} are ours within {share} beyond rounding,"
        f" {len(figures) - within - len(left)} more are once we count as their source does, and"
        f" {len(left)} are not.\n",
        *(
            f"Not explained: {row['network']} with {row['layer']}, {figure['published']}.\n"
            for row, figure in left
        ),
        "Counted as there, of the same network:\n",
        "".join(f"- {chr(ord('a') + number)}: {why}\n" for number, why in enumerate(whys)),
        "Sources:\n",
        "".join(f"{number}. {source}\n" for number, source in enumerate(sources, 1)),
    ]
    return "\n".join(parts)


def _cells(figure: dict[str, Any] | None) -> list[str]:
    if figure is None:
        return ["-", "-", "-"]
    return [figure["published"], f"{figure['ours']:,}", _percent(figure["difference"])]


def _percent(share: float) -> str:
    return f"{100 * share:+.2f} %"
