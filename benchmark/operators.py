"""What layers cost in time, against the plain convolution of their shape, beside their counts."""

import argparse
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmark.latency import options as situating
from benchmark.latency import runs, table
from benchmark.latency.options import PLAIN, Choice, chosen
from benchmark.latency.runs import Built
from benchmark.latency.situations import Situation
from benchmark.shapes import Shape
from benchmark.variants import layers, randomise
from records.benchmark import Measurement

HELP = "time of each layer against the plain convolution of its shape"
DEFAULT_SHAPE = "64,64,3,56"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--layers",
        metavar="NAME[:OPTION=VALUE..],..",
        help="such as MDConv2d:depth=3,SEConv2d; default: all, as they are by default",
    )
    parser.add_argument(
        "--shape",
        action="append",
        metavar="IN,OUT,KERNEL,IMAGE[,STRIDE[,GROUPS]]",
        help=f"may be given several times; default: {DEFAULT_SHAPE}",
    )
    parser.add_argument(
        "--image",
        type=situating.sizes,
        metavar="SIDE,..",
        help="sides of the image, in place of those of the shapes",
    )
    situating.add_arguments(parser, state="folded", seconds=5.0)


def run(options: argparse.Namespace) -> int:
    shapes = [parsed(text) for text in options.shape or [DEFAULT_SHAPE]]
    choices = (
        chosen(options.layers) if options.layers else [Choice(layer, {}) for layer in layers()]
    )
    wanted = [
        (shape, situation)
        for shape in shapes
        for situation in situating.situations(options, options.image or [shape.image])
    ]
    return table.report(_measured(wanted, choices, options), options.out)


def parsed(text: str) -> Shape:
    """The shape ``IN,OUT,KERNEL,IMAGE[,STRIDE[,GROUPS]]``, padded to keep its side.

    Raises:
        ValueError: It is none.

    >>> str(parsed("8,16,3,14,2"))
    '8-16 3x3 s2 at 14'
    """
    try:
        sizes = [int(part) for part in text.split(",")]
        if not 4 <= len(sizes) <= 6 or min(sizes) < 1:
            raise ValueError
    except ValueError:
        raise ValueError(
            f"shape={text!r}; allowed: in,out,kernel,image[,stride[,groups]], whole numbers from 1"
        ) from None
    inputs, outputs, kernel, image, *rest = sizes
    stride, groups = [*rest, 1, 1][:2] if len(rest) < 2 else rest
    return Shape("given", inputs, outputs, kernel, stride, kernel // 2, groups, image)


def _measured(
    wanted: list[tuple[Shape, Situation]], choices: list[Choice], options: argparse.Namespace
) -> Iterator[Measurement]:
    for shape, situation in wanted:
        subject = {
            name: getattr(shape, name)
            for name in ("in_channels", "out_channels", "kernel_size", "stride", "groups")
        }
        yield from runs.run(
            "operator",
            subject,
            built(Choice(None, {}), shape),
            [partial(built, choice, shape) for choice in choices],
            situation,
            shape.in_channels,
            options,
        )


def built(choice: Choice, shape: Shape) -> Built:
    """A layer with random gates, branches and statistics; the same at each call."""
    make: Any = choice.factory
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module: nn.Module = randomise(make(*shape.arguments))
    arm = {"layer": choice.described(), "where": None if choice.layer is None else "all"}
    return Built(PLAIN if choice.layer is None else str(choice), arm, module, form=choice.form)
