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

from benchmark import checks
from benchmark.checks import Network, Subject
from benchmark.distributed import differences
from benchmark.tables import markdown, record
from benchmark.variants import Variant, layers, variants

COMMAND = "python -m benchmark deployment"


def _differences_of(subject: Subject) -> str | float:
    return _all_differences()[str(subject)]


@cache
def _all_differences() -> dict[str, str | float]:
    chosen: list[Subject] = [v for v in variants() if not checks.composes_in_training(v.build())]
    return differences([*chosen, *(Network(v) for v in rows() if v in chosen)])


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
EXPENSIVE = ("compile", "inductor", "export", "ONNX")


# What cannot be.


@dataclass(frozen=True)
class Limit:
    """Why a check fails for some, what it says then, and what is checked instead.

    Attributes:
        column: The check.
        applies: Whether a module is one of those.
        cell: A word or two for the matrix.
        reason: A sentence.
        error: Found in the error, or in one that it was raised from.
        instead: Has to succeed.
    """

    column: str
    applies: Callable[[nn.Module], bool]
    cell: str
    reason: str
    error: str
    instead: Callable[[Subject], None] | None = None


EVAL_ONLY = {
    "cell": "eval() only",
    "reason": (
        "This form composes the kernel through a batch norm, which is a constant in eval() alone;"
        " the layer refuses it in train() and names the form to train in."
    ),
    "error": "while training",
}


LIMITS = (
    *(
        Limit(column, checks.composes_in_training, **EVAL_ONLY)
        for column in ("train()", "no image, train()", "one pixel, train()")
    ),
    Limit(
        "DDP",
        checks.composes_in_training,
        "eval() only",
        EVAL_ONLY["reason"],
        "KeyError",
    ),
    Limit(
        "DDP",
        checks.looks_at_the_batch,
        "own part",
        "In train() it normalises or gates by the batch, of which each process sees its own part,"
        " as with torch's batch norm: it runs, with the gradients of that.",
        "gradients differ",
        runs_distributed,
    ),
    Limit(
        "ONNX",
        checks.groups_by_sample,
        "fixed batch",
        "One convolution runs all samples, each as a group, and ONNX wants the number of groups"
        " as a constant: it exports for one size of the batch. The forms that act on features"
        " export for any.",
        "Unsupported attribute type",
        checks.exports_to_onnx_for_one_batch_size,
    ),
    Limit(
        "keeps it",
        checks.ends_by_sample,
        "contiguous",
        "Each sample has a kernel or a mixture of its own, and what computes it lays the output"
        " out with the channels first, whatever the input; the values are the same.",
        "the output is contiguous",
    ),
    Limit(
        "one pixel, train()",
        checks.normalises_one_value,
        "refused",
        "A batch norm behind a convolution has a single value a channel to normalise; torch's"
        " refuses that.",
        "Expected more than 1 value per channel when training",
    ),
    Limit(
        "train()",
        lambda module: getattr(module, "depth", 0) > 2 and type(module).__name__ == "MAConv2d",
        "a dead bias",
        "The bias of a norm is a constant that the next norm removes.",
        r"the gradient of \['middle.0.bias'\] is zero",
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
            raise AssertionError(f"{subject}, {column}: it is not so any more: {limit.reason}")
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
    reasons = {limit.cell: limit.reason for limit in LIMITS}
    return record(COMMAND, found, reasons=reasons)


def _cell(column: str, subject: Subject) -> str:
    try:
        return evaluate(column, subject)
    except Exception as error:  # the matrix says it, the tests say it in full
        return f"FAILS: {type(error).__name__}"


def text(found: dict[str, Any]) -> str:
    """The matrix: layers down, checks across; then networks; then the reasons."""
    parts = []
    for key in ("cells", "network"):
        columns = list(found["rows"][0][key])
        table = [[_name(row), *(row[key][column] for column in columns)] for row in found["rows"]]
        parts.append(markdown(["layer" if key == "cells" else "network of", *columns], table))
    used = {
        cell for row in found["rows"] for key in ("cells", "network") for cell in row[key].values()
    }
    parts.append(
        "".join(
            f"- **{cell}**: {reason}\n" for cell, reason in found["reasons"].items() if cell in used
        )
    )
    return "\n".join(parts)


def _name(row: dict[str, Any]) -> str:
    options = "".join(f", {name}={value!r}" for name, value in row["options"].items())
    return row["layer"] + options
