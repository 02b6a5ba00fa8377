"""Every layer in every geometry of a grid: exact, or refused, with the reason.

Each layer is built in each geometry, in float64 and away from neutral values. Deployed, it has to
compute what it does in ``eval()``; made of a plain convolution, what that computes. What a layer
refuses is compared with :data:`REASONS`: an error that no reason explains is an error here, and so
is a case of :data:`ATTEMPTS` that is no longer refused. That each layer computes its definition,
written out in loops, is for ``tests/operators``.
"""

import itertools
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmark.tables import markdown, record
from benchmark.traits import normalises_one_value
from benchmark.variants import Layer, layers, randomise
from overconv.operators.dbb import DBBConv2d
from overconv.operators.dcd import DCDConv2d
from overconv.operators.doconv import DOConv2d
from overconv.operators.expand import ExpandConv2d
from overconv.operators.maconv import MAConv2d
from overconv.operators.mdconv import MDConv2d
from overconv.operators.weightnet import WeightNetConv2d

COMMAND = "python -m benchmark geometries"

CHANNELS = {"ungrouped": (4, 6, 1), "grouped": (4, 6, 2), "depthwise": (4, 4, 4), "x 2": (4, 8, 4)}
GRID: dict[str, tuple[Any, ...]] = {
    "channels": tuple(CHANNELS),
    "kernel_size": (1, 3, 5, (2, 4), (1, 5), (3, 2)),
    "stride": (1, (2, 1)),
    "padding": (0, (1, 2), "same"),
    "dilation": (1, (1, 2)),
    "padding_mode": ("zeros", "reflect", "replicate", "circular"),
}
# Of the grid, each so many-th: prime to the number of values on each axis, so that all are met.
STEP = 5
_IMAGE = (10, 12)


def grid(step: int = STEP) -> Iterator[dict[str, Any]]:
    """Arguments of :class:`torch.nn.Conv2d`: each ``step``-th geometry; every other has a bias."""
    for number, values in enumerate(itertools.product(*GRID.values())):
        if number % step == 0:
            chosen = dict(zip(GRID, values, strict=True))
            inside, outside, groups = CHANNELS[chosen.pop("channels")]
            yield {
                "in_channels": inside,
                "out_channels": outside,
                "groups": groups,
                "bias": (number // step) % 2 == 0,
                **chosen,
            }


@dataclass(frozen=True)
class Reason:
    """Why something is refused: what the error says, and what is behind it."""

    error: str
    why: str


REASONS = (
    Reason(
        "padding='same' needs stride 1",
        "The padding that keeps an image's size is defined for stride 1 alone, as in torch.",
    ),
    Reason("channels=.* does not split into groups", "Groups have equally many channels."),
    Reason(
        "gates_per_channel=.* does not split into groups_per_channel",
        "The gates of a channel are dealt out to its parts, equally many to each.",
    ),
    Reason(
        "groups_per_channel=.* does not split the .* values",
        "The kernel of an output channel is cut into that many equal parts, each mixed by itself;"
        " `groups_per_channel=1` fits any kernel.",
    ),
    Reason(
        "variant='CK' makes a kernel of layers of 3 x 3",
        "Layers of 3 x 3 reach odd sizes only, and a single one would expand nothing.",
    ),
    Reason(
        "depth_multiplier must be at least the .* taps",
        "With fewer, the composed kernel could not be any kernel.",
    ),
    Reason(
        "is below the rank .* of the kernel",
        "A product through so narrow a middle cannot be the convolution: it would start as another."
        " Without `preserve` it is allowed.",
    ),
    Reason(
        "expansion=.* is too small",
        "Layers so narrow cannot hold the convolution's kernel. Without `preserve` they are"
        " allowed.",
    ),
    Reason(
        "squash='softmax' over a single value is constant",
        "A gate that is always one gates nothing.",
    ),
    Reason("has no effect with", "Nothing is gated, so that the option would be ignored."),
    Reason(
        "cannot (be )?composed? ?.*while training",
        "A norm between the layers normalises by the features of the batch, which a composed kernel"
        " never makes. The form on features trains, and in `eval()` all forms work.",
    ),
    Reason(
        "Expected more than 1 value per channel when training",
        "Torch's batch norm, behind a convolution, refuses to normalise a single value.",
    ),
)


def reason_of(message: str) -> Reason:
    """The reason for an error.

    Raises:
        ValueError: There is none, or there are several.
    """
    found = [reason for reason in REASONS if re.search(reason.error, message)]
    if len(found) != 1:
        raise ValueError(f"{len(found)} reasons are known for: {message}")
    return found[0]


# What is refused outside of the grid.


@dataclass(frozen=True)
class Attempt:
    """Something that a layer refuses, with options of its own.

    Attributes:
        layer: The class.
        options: Its own.
        arguments: Of :class:`torch.nn.Conv2d`, beside 4 and 8 channels and a kernel of 3.
        stage: ``"build"``, ``"from_conv2d"``, ``"train()"`` or ``"one value"`` (in training).
    """

    layer: Layer
    options: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    stage: str = "build"

    def geometry(self) -> dict[str, Any]:
        return {"in_channels": 4, "out_channels": 8, "kernel_size": 3, **self.arguments}

    def __str__(self) -> str:
        given = ", ".join(f"{n}={v!r}" for n, v in {**self.arguments, **self.options}.items())
        call = f"{self.layer.__name__}({given})"
        return call if self.stage == "build" else f"{call}, {self.stage}"

    def __call__(self) -> None:
        build: Any = self.layer
        if self.stage == "from_conv2d":
            self.layer.from_conv2d(nn.Conv2d(**self.geometry()), **self.options)
            return
        layer = build(**{"padding": 1, **self.geometry()}, **self.options)
        if self.stage != "build":
            size = (1, 4, 1, 1) if self.stage == "one value" else (2, 4, *_IMAGE)
            layer.train()(torch.randn(size))


ATTEMPTS = (
    *(Attempt(layer, arguments={"padding": "same", "stride": 2}) for layer in layers()),
    *(Attempt(layer, arguments={"groups": 3}) for layer in layers()),
    Attempt(MDConv2d, {"middle_channels": 3}, {"groups": 2}),
    Attempt(MAConv2d, {"middle_channels": 3}, {"groups": 2}),
    Attempt(DBBConv2d, {"middle_channels": 3}, {"groups": 2}),
    Attempt(DCDConv2d, {"latent_channels": 3}, {"groups": 2}),
    Attempt(WeightNetConv2d, {"gates_per_channel": 3, "groups_per_channel": 2}),
    Attempt(WeightNetConv2d, {"groups_per_channel": 5, "gates_per_channel": 5}),
    Attempt(ExpandConv2d, {"variant": "CK"}),
    Attempt(ExpandConv2d, {"variant": "CK"}, {"kernel_size": (5, 4)}),
    Attempt(DOConv2d, {"depth_multiplier": 8}),
    Attempt(MDConv2d, {"middle_channels": 3}, stage="from_conv2d"),
    Attempt(MAConv2d, {"middle_channels": 3}, stage="from_conv2d"),
    Attempt(MDConv2d, {"squash": "softmax", "middle_channels": 1}),
    Attempt(MDConv2d, {"placement": (), "squash": "sigmoid"}),
    Attempt(MDConv2d, {"depth": 1, "reduction": 8}),
    Attempt(MAConv2d, {"middle": "norm", "squash": "sigmoid"}),
    Attempt(MDConv2d, {"form": "compact", "middle_norm": True}, stage="train()"),
    Attempt(DCDConv2d, {"on": "weights"}, stage="train()"),
    Attempt(
        ExpandConv2d, {"variant": "CK", "expansion": 1}, {"kernel_size": 5}, stage="from_conv2d"
    ),
    *(
        Attempt(layer, stage="one value")
        for layer in layers()
        if normalises_one_value(layer(4, 8, 3, padding=1))
    ),
)


# What is measured.


def _errors(layer: Layer, arguments: dict[str, Any], seed: int) -> tuple[float, float]:
    """Largest error of ``from_conv2d`` and of ``to_inference``, of the largest output each."""
    build: Any = layer
    torch.manual_seed(seed)
    x = torch.randn(2, arguments["in_channels"], *_IMAGE, dtype=torch.float64)
    made = randomise(build(**arguments, dtype=torch.float64)).eval()
    conv = nn.Conv2d(**arguments, dtype=torch.float64).eval()
    pairs = [(layer.from_conv2d(conv), conv), (made.to_inference(), made)]
    with torch.no_grad():
        first, second = (_error(ours(x), theirs(x)) for ours, theirs in pairs)
    return first, second


def _error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


def measure(*, step: int = STEP, only: Sequence[Layer] | None = None) -> dict[str, Any]:
    """Every layer on each ``step``-th geometry of the grid, and every attempt.

    Raises:
        ValueError: Something is refused for which there is no reason, or no longer refused.
    """
    rows, refused = [], []
    chosen = layers() if only is None else only
    for layer in chosen:
        worst, exact, reasons = [0.0, 0.0], 0, Counter[str]()
        for number, arguments in enumerate(grid(step)):
            try:
                errors = _quietly(partial(_errors, layer, arguments, number))
            except ValueError as error:
                reasons[reason_of(str(error)).error] += 1
                refused.append(_refused(Attempt(layer, arguments=arguments), error))
                continue
            exact += 1
            worst = [max(pair) for pair in zip(worst, errors, strict=True)]
        rows.append(
            {
                "layer": layer.__name__,
                "geometries": exact + reasons.total(),
                "exact": exact,
                "refused": dict(reasons),
                "from_conv2d": worst[0],
                "to_inference": worst[1],
            }
        )
    for attempt in ATTEMPTS:
        if attempt.layer in chosen:
            refused.append(_attempted(attempt))
    return record(COMMAND, rows, refused=_merged(refused))


def _quietly(call: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():  # torch, of its own way to pad evenly sized kernels
        warnings.filterwarnings("ignore", "Using padding='same' with even kernel")
        return call()


def _attempted(attempt: Attempt) -> dict[str, str]:
    try:
        attempt()
    except ValueError as error:
        return _refused(attempt, error)
    raise ValueError(f"it is no longer refused: {attempt}")


def _refused(attempt: Attempt, error: ValueError) -> dict[str, str]:
    return {
        "layer": attempt.layer.__name__,
        "case": str(attempt),
        "message": str(error),
        "reason": reason_of(str(error)).error,
    }


def _merged(refused: list[dict[str, str]]) -> list[dict[str, Any]]:
    """By reason: the layers, how many cases, and the first of them with its message."""
    merged: dict[str, dict[str, Any]] = {}
    for case in refused:
        row = merged.setdefault(case["reason"], {**case, "layers": [], "cases": 0})
        row["cases"] += 1
        if case["layer"] not in row["layers"]:
            row["layers"].append(case["layer"])
    return list(merged.values())


def text(found: dict[str, Any]) -> str:
    """Layers with their geometries and errors; then what is refused, and why."""
    lines = [
        [
            row["layer"],
            row["geometries"],
            row["exact"],
            sum(row["refused"].values()),
            f"{row['from_conv2d']:.0e}",
            f"{row['to_inference']:.0e}",
        ]
        for row in found["rows"]
    ]
    columns = ["layer", "geometries", "exact", "refused", "from_conv2d", "to_inference"]
    whys = {reason.error: reason.why for reason in REASONS}
    everyone = len(found["rows"])
    refused = [
        [
            "all" if len(row["layers"]) == everyone else ", ".join(row["layers"]),
            f"`{row['message']}`",
            whys[row["reason"]],
        ]
        for row in found["refused"]
    ]
    return "\n".join(
        [
            markdown(columns, lines),
            "Errors in float64, of the largest output, away from neutral values: the layer made of"
            " a convolution against that one, and deployed against itself.\n",
            "Each refusal is a `ValueError`; one example of each:\n",
            markdown(["layers", "what it says", "why"], refused),
        ]
    )
