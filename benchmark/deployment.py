"""Where each layer can be used: compilers, exporters, precisions, memory formats, many processes.

Every cell of the matrix is a check that was run (:mod:`benchmark.checks`). Where a check cannot
succeed, a :class:`Limit` says why, and what holds instead; it is an error if the check succeeds.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import nn

from benchmark import checks, traits
from benchmark.checks import Network, Subject
from benchmark.distributed import differences
from benchmark.tables import markdown, record
from benchmark.variants import Variant, layers, variants

COMMAND = "python -m benchmark deployment"


def _differences_of(subject: Subject) -> str | float:
    return _all_differences()[str(subject)]


@cache
def _all_differences() -> dict[str, str | float]:
    """Of all variants and of a network of each row; two processes are started once."""
    return differences([*variants(), *map(Network, rows())])


def runs_distributed(subject: Subject) -> None:
    """In two processes, without ``find_unused_parameters``."""
    found = _differences_of(subject)
    assert not isinstance(found, str), found


def trains_distributed(subject: Subject) -> None:
    """In two processes, with the gradients of one process that sees the whole batch."""
    runs_distributed(subject)
    error = float(_differences_of(subject))
    assert error < 1e-9, f"gradients differ by {error:.2g} of the largest"


LAYER: dict[str, Callable[[Any], None]] = {
    "train()": checks.trains,
    "compile": checks.compiles,
    "inductor": checks.compiles_to_machine_code,
    "export": checks.exports,
    "ONNX": checks.exports_to_onnx,
    "autocast": checks.autocasts,
    "float16": checks.float16,
    "bfloat16": checks.bfloat16,
    "float64": checks.float64,
    "channels_last": checks.takes_channels_last,
    "keeps it": checks.keeps_channels_last,
    "strides": checks.takes_strided_inputs,
    "deepcopy": checks.copies,
    "pickle": checks.pickles,
    "state_dict": checks.round_trips,
    "meta": checks.builds_without_values,
    "DDP": trains_distributed,
    "two derivatives": checks.differentiates_twice,
    "no image": checks.takes_no_images,
    "no image, train()": checks.trains_on_no_images,
    "one pixel, train()": checks.trains_on_one_pixel,
}
NETWORK = {name: LAYER[name] for name in ("compile", "export", "ONNX")}
STATES = ("trained", "deployed")
EXPENSIVE = ("compile", "inductor", "export", "ONNX")


# What cannot be.


@dataclass(frozen=True)
class Limit:
    """Why a check fails for some, what it says then, and what is checked instead.

    Attributes:
        column: The check.
        applies: Whether a module is one of those.
        cell: What the matrix says; ``REASONS`` has a sentence for it.
        error: Found in the error, or in one that it was raised from.
        instead: Has to succeed.
    """

    column: str
    applies: Callable[[nn.Module], bool]
    cell: str
    error: str
    instead: Callable[[Any], None] | None = None


REASONS = {
    "eval() only": (
        "This form composes the kernel through a batch norm, which is a constant in eval() alone."
        " The layer refuses it in train() and names the form to train in."
    ),
    "own part": (
        "In train() the layer normalises or gates by the batch, of which each process sees its own"
        " part, as with torch's batch norm. It runs, with the gradients of that."
    ),
    "fixed batch": (
        "One convolution runs all samples, each as a group of its own, and ONNX wants the number of"
        " groups as a constant: the layer exports for one size of the batch. Forms that act on"
        " features export for any."
    ),
    "contiguous": (
        "The layer takes the format and gives an output with the channels first, since each sample"
        " has a kernel or a mixture of its own, and what computes it lays images out that way."
    ),
    "one value": (
        "A batch norm behind a convolution gets a single value a channel, which torch's refuses to"
        " normalise."
    ),
    "not the statistics": (
        "In train() a branch pads by what its running statistics make of zero, as the authors'"
        " code does, and no gradient runs through those. In eval() there are two derivatives."
    ),
    "dead bias": (
        "The bias of a norm is a constant that the next norm removes, as in the authors' design;"
        " all other parameters are reached."
    ),
}

LIMITS = (
    Limit("train()", traits.composes_in_training, "eval() only", "while training"),
    Limit("no image, train()", traits.composes_in_training, "eval() only", "while training"),
    Limit("one pixel, train()", traits.composes_in_training, "eval() only", "while training"),
    Limit("DDP", traits.composes_in_training, "eval() only", "while training"),
    Limit("DDP", traits.looks_at_the_batch, "own part", "gradients differ", runs_distributed),
    Limit(
        "ONNX",
        traits.groups_by_sample,
        "fixed batch",
        "Unsupported attribute type",
        checks.exports_to_onnx_for_one_batch_size,
    ),
    Limit("keeps it", traits.ends_by_sample, "contiguous", "the output is contiguous"),
    Limit("one pixel, train()", traits.normalises_one_value, "one value", "more than 1 value per"),
    Limit(
        "two derivatives",
        traits.reads_running_statistics,
        "not the statistics",
        "Jacobian mismatch",
        checks.differentiates_twice_in_eval,
    ),
    Limit(
        "train()",
        traits.has_norms_in_a_row,
        "dead bias",
        r"the gradient of \['(behind\.0|inner\.norm)\.bias'.*\] is zero",
    ),
)


def evaluate(column: str, subject: Subject) -> str:
    """The cell of a column: ``"yes"``, or that of the limit, once both are found to be true.

    Raises:
        AssertionError: The check fails and no limit says so, or it succeeds in spite of one.
    """
    check = (NETWORK if isinstance(subject, Network) and column in NETWORK else LAYER)[column]
    limit = limit_of(column, subject)
    try:
        check(subject)
    except Exception as error:
        if limit is None or not re.search(limit.error, _told(error)):
            raise
    else:
        if limit is not None:
            raise AssertionError(f"it is no longer so that {limit.cell!r}: {subject}, {column}")
        return "yes"
    if limit.instead is not None:
        limit.instead(subject)
    return limit.cell


def limit_of(column: str, subject: Subject) -> Limit | None:
    for limit in LIMITS:
        if limit.column == column and limit.applies(subject.build()):
            return limit
    return None


def _told(error: BaseException | None) -> str:
    """An error and those that it was raised from."""
    text = ""
    while error is not None:
        text += f"{type(error).__name__}: {error}\n"
        error = error.__cause__ or error.__context__
    return text


# The matrix.


@cache
def rows() -> tuple[Variant, ...]:
    """Each layer as it is, and in the other forms that it can be built in."""
    return tuple(
        variant
        for layer in layers()
        for variant in variants()
        if variant.layer is layer
        and not variant.geometry
        and set(variant.options) <= {layer.form_option}
    )


def measure() -> dict[str, Any]:
    """Run every check on every layer, and some on networks, trained and deployed."""
    found = []
    for variant in rows():
        networks = {
            "trained": Network(variant),
            "deployed": Network(variant, deployed=True),
        }
        found.append(
            {
                "layer": variant.layer.__name__,
                "options": variant.options,
                "cells": {column: _cell(column, variant) for column in LAYER},
                "network": {
                    f"{column}, {state}": _cell(column, network)
                    for column in NETWORK
                    for state, network in networks.items()
                },
            }
        )
    return record(COMMAND, found, reasons=REASONS)


def _cell(column: str, subject: Subject) -> str:
    try:
        return evaluate(column, subject)
    except Exception as error:  # the matrix says it, the tests say it in full
        return f"FAILS: {type(error).__name__}"


def text(found: dict[str, Any]) -> str:
    """The matrix: layers down, checks across; then networks; then the reasons."""
    parts = []
    # a record is stored with its keys sorted
    orders = {"cells": list(LAYER), "network": [f"{n}, {w}" for n in NETWORK for w in STATES]}
    for key, order in orders.items():
        columns = sorted(found["rows"][0][key], key=order.index)
        table = [[_name(row), *(row[key][column] for column in columns)] for row in found["rows"]]
        parts.append(markdown(["layer" if key == "cells" else "network of", *columns], table))
    used = {
        cell for row in found["rows"] for key in ("cells", "network") for cell in row[key].values()
    }
    parts.append(
        "".join(f"- **{cell}**: {found['reasons'][cell]}\n" for cell in REASONS if cell in used)
    )
    return "\n".join(parts)


def _name(row: dict[str, Any]) -> str:
    options = "".join(f", {name}={value!r}" for name, value in row["options"].items())
    return row["layer"] + options
