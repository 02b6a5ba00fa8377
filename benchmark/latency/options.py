"""What the commands ``operators`` and ``models`` are asked for: layers, situations, limits."""

import argparse
import ast
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from benchmark.latency.situations import DTYPES, FORMATS, MODES, PASSES, STATES, Situation
from benchmark.variants import Layer, layers
from overconv.operators.base import own_options
from records.canonical import plain

PLAIN = "Conv2d"
# At once no more than this, so that one round is short beside what disturbs a machine.
AT_ONCE = 3


@dataclass(frozen=True)
class Choice:
    """A layer with options of its own.

    Attributes:
        layer: The class; None: the plain convolution.
        options: Those that differ from the default.
    """

    layer: Layer | None
    options: Mapping[str, Any]

    def __str__(self) -> str:
        name = PLAIN if self.layer is None else self.layer.__name__
        return " ".join([name, *(f"{key}={value}" for key, value in self.options.items())])

    @property
    def factory(self) -> Callable[..., nn.Module]:
        return nn.Conv2d if self.layer is None else partial(self.layer, **self.options)

    @property
    def form(self) -> str | None:
        """The form that the options ask for."""
        name = None if self.layer is None else self.layer.form_option
        return None if name is None else self.options.get(name)

    def described(self) -> dict[str, Any] | None:
        """By its public name and all options of its own, as arms are recorded."""
        if self.layer is None:
            return None
        return {
            "class": f"overconv.{self.layer.__name__}",
            "options": plain(own_options(self.layer) | dict(self.options)),
        }


def chosen(text: str) -> list[Choice]:
    """The layers of ``NAME[:option=value...],...``.

    Raises:
        ValueError: There is no such layer, or it has no such option.

    >>> [str(choice) for choice in chosen("MDConv2d:depth=3:form=compact,SEConv2d")]
    ['MDConv2d depth=3 form=compact', 'SEConv2d']
    """
    known = {layer.__name__: layer for layer in layers()}
    found = []
    for part in re.split(r",(?![^(]*\))", text):  # not those of a tuple
        name, *settings = part.strip().split(":")
        if name not in known:
            raise ValueError(f"no layer {name!r}; there are: {', '.join(known)}")
        given = {}
        for setting in settings:
            key, equals, value = setting.partition("=")
            if not equals or key not in own_options(known[name]):
                own = ", ".join(own_options(known[name])) or "none"
                raise ValueError(f"{name} has no option {setting!r}; it has, as name=value: {own}")
            given[key] = _value(value)
        found.append(Choice(known[name], given))
    return found


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text  # a word, such as compact


# Options of the command line.


def listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def sizes(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}; allowed: whole numbers from 1, with commas between them"
        ) from None


def add_arguments(parser: argparse.ArgumentParser, state: str, seconds: float) -> None:
    """What both commands take, with a default for the states and the seconds."""

    def several(name: str, default: str, allowed: Sequence[str]) -> None:
        text = f"of {', '.join(allowed)}; default: {default}"
        parser.add_argument(f"--{name}", default=default, type=listed, metavar="A,B", help=text)

    several("mode", "inference", MODES)
    several("state", state, STATES)
    several("pass", "forward", PASSES)
    several("dtype", "float32", list(DTYPES))
    several("memory-format", "contiguous", list(FORMATS))
    parser.add_argument(
        "--batch", default=[1], type=sizes, metavar="B,..", help="images a batch; default: 1"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N; default: cpu")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of torch; default: 1")
    parser.add_argument(
        "--seconds",
        type=float,
        default=seconds,
        metavar="S",
        help=f"at most so long for {AT_ONCE} alternatives and the plain one; default: {seconds:g}",
    )
    parser.add_argument(
        "--precision",
        type=float,
        default=0.01,
        metavar="P",
        help="stop before, if all ratios are known to this share of themselves; default: 0.01",
    )
    parser.add_argument(
        "--memory",
        action="store_true",
        help="peak bytes too, in a run of its own: counted on a CPU, torch's own on a GPU",
    )
    parser.add_argument("--out", type=Path, metavar="FILE.jsonl", help="append all samples to it")


def situations(options: argparse.Namespace, images: Sequence[int]) -> list[Situation]:
    """All combinations that are asked for.

    Raises:
        ValueError: One of them cannot be, or is not known.
    """
    combined = itertools.product(
        options.mode,
        options.state,
        getattr(options, "pass"),
        options.batch,
        images,
        options.dtype,
        options.memory_format,
    )
    return [Situation(*values, options.device, options.threads) for values in combined]
