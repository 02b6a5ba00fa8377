"""What a network of torchvision or timm costs, counted without weights and without computing.

Parameters and multiply-accumulates by formula (:mod:`overconv.costs`), what torch's corrected
counter sees of a training step and of a deployed forward pass, and what neither could see.
"""

import argparse
import difflib
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import nn
from torch.overrides import TorchFunctionMode

from benchmark.latency.options import chosen
from benchmark.tables import markdown
from overconv.costs import KINDS, Cost, Costs, count_cost
from overconv.crosscheck import CountersDisagree, CrossCheck, cross_check
from overconv.forms import plan_forms
from overconv.surgery import replace_convs, to_inference

HELP = "Parameters, MACs, FLOPs, peak bytes and operations of networks, without weights."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "network", nargs="?", metavar="NETWORK", help="a name of torchvision's, or timm:NAME"
    )
    parser.add_argument("--all", action="store_true", help="all classifiers of torchvision")
    parser.add_argument(
        "--layer",
        metavar="NAME[:OPTION=VALUE..]",
        help="put it in the place of convolutions; such as MDConv2d:depth=3",
    )
    parser.add_argument(
        "--where", default="all_but_stem", help="which convolutions (default: all_but_stem)"
    )
    parser.add_argument("--image", type=int, metavar="PIXELS", help="default: 224, or its own")
    parser.add_argument("--batch", type=int, default=2, metavar="B", help="default: 2")
    parser.add_argument("--modules", action="store_true", help="module by module too")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all figures to it")


def run(options: argparse.Namespace) -> int:
    """The command; raises a ValueError for bad input, and returns 1 if counters disagree."""
    if bool(options.network) == options.all:
        raise ValueError("give the name of a network, or --all")
    if options.batch < 2:
        raise ValueError(f"--batch must be at least 2, for batch norms, got {options.batch}")
    if options.image is not None and options.image < 1:
        raise ValueError(f"--image must be at least 1, got {options.image}")
    layer = None
    if options.layer is not None:
        found, *more = chosen(options.layer)
        if more:
            raise ValueError(f"--layer takes one layer, got {options.layer!r}")
        layer = found.factory
    names = classifiers() if options.all else [options.network]
    try:
        found = [measure(n, layer, options.where, options.image, options.batch) for n in names]
    except CountersDisagree as error:
        print(f"python -m benchmark costs: counters disagree: {error}", file=sys.stderr)
        return 1
    if options.all:
        print(summary(found))
    else:
        print(text(found[0]))
        if options.modules:
            print(found[0]["modules"])
    if options.json:
        written = json.dumps(found, indent=1, sort_keys=True, allow_nan=False)
        options.json.write_text(written + "\n", encoding="utf-8")
    return 0


def classifiers() -> list[str]:
    """Names of torchvision's classifiers of images."""
    return torchvision.models.list_models(torchvision.models)


# Building.


class _EmptyOnMeta(TorchFunctionMode):
    """Parameters, which torch makes by ``empty``, without values; what is reckoned with keeps them.

    A network that reads values while it is built, as RegNet does for its widths, cannot be built
    on the meta device as a whole.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def build(name: str) -> tuple[nn.Module, int]:
    """A network without values, and the side of the images that it was made for."""
    library, _, rest = name.rpartition(":")
    if library not in ("", "torchvision", "timm"):
        raise ValueError(f"networks are of torchvision or timm, got {name!r}")
    with _EmptyOnMeta(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of initialising what has no values
        if library == "timm":
            if not timm.is_model(rest):
                near = difflib.get_close_matches(rest, timm.list_models(), 5, 0.0)
                raise ValueError(f"timm has no network {rest!r}; near are {', '.join(near)}")
            model: Any = timm.create_model(rest, pretrained=False)
            return model.to("meta"), model.default_cfg["input_size"][-1]
        if rest not in classifiers():
            near = difflib.get_close_matches(rest, classifiers(), 5, 0.0)
            raise ValueError(
                f"torchvision has no classifier {rest!r}; near are {', '.join(near)}, and timm:NAME"
                " is one of timm's"
            )
        model = torchvision.models.get_model(rest, weights=None)
        return model.to("meta"), 299 if rest == "inception_v3" else 224


def measure(
    name: str,
    layer: Any = None,
    where: str = "all_but_stem",
    image: int | None = None,
    batch: int = 2,
) -> dict[str, Any]:
    """All figures of a network; ``cpu_seconds`` is what they took."""
    start = time.process_time()
    model, side = build(name)
    side = side if image is None else image
    if layer is not None:
        model = replace_convs(model, layer, where)
    x = torch.empty(batch, 3, side, side, device="meta")
    deployed = plan_forms(to_inference(model), x[:1])
    costs = Costs(
        count_cost(model.train(), x, unknown="list"),
        count_cost(deployed, x, backward=False, unknown="list"),
    )
    training = cross_check(model, x, unknown="list")
    inference = cross_check(deployed, x, unknown="list", backward=False)
    return {
        "network": name,
        "image": side,
        "batch": batch,
        "training": _figures(costs.training, training),
        "deployed": _figures(costs.deployed, inference),
        "over_parameters": costs.over_parameters,
        "modules": str(costs),
        "cpu_seconds": time.process_time() - start,
    }


def _figures(cost: Cost, check: CrossCheck) -> dict[str, Any]:
    """By formula an image, as dispatched the whole batch."""
    counts = check.counts
    return {
        **cost.figures(),
        "flops": cost.flops,
        "flops_backward": cost.flops_backward,
        "counted": counts.forward.macs,
        "counted_backward": counts.backward.macs,
        "without_formula": sum(check.only_counted.values()),
        "peak_bytes": counts.peak_bytes,
        "operations": counts.operations,
        "copies": counts.copies,
        "not_seen": check.not_seen,
    }


# In words.


def text(found: dict[str, Any]) -> str:
    """The tables of one network, and what was not seen."""
    batch = found["batch"]
    parts = [f"{found['network']} at {found['image']} x {found['image']}, batch {batch}"]
    rows = []
    for form in ("training", "deployed"):
        figures = found[form]
        for direction in ("", "_backward"):
            macs = [figures[f"macs{direction}.{kind}"] for kind in KINDS]
            if direction and not sum(macs):
                continue
            rows.append(
                [
                    form + direction.replace("_", ", "),
                    *(f"{n:,}" for n in (*macs, sum(macs), figures[f"flops{direction}"])),
                    f"{figures[f'counted{direction}']:,}",
                ]
            )
    columns = ["by formula, an image", *KINDS[:-1], "once a batch", "MACs", "FLOPs"]
    parts.append(markdown([*columns, f"counted MACs, batch {batch}"], rows))
    names = ["parameters", "peak_bytes", "operations", "copies", "without_formula"]
    titles = ["", "parameters", "peak bytes", "operations", "copies", "MACs without a formula"]
    rows = [
        [form, *(f"{found[form][name]:,}" for name in names)] for form in ("training", "deployed")
    ]
    rows.append(["over-parameters", f"{found['over_parameters']:,}", "", "", "", ""])
    parts.append(markdown(titles, rows))
    parts.append(agreement([found]))
    for form in ("training", "deployed"):
        for counter, missed in found[form]["not_seen"].items():
            if missed:
                parts.append(f"{form}: {counter} could not see")
                parts += _together(missed)
    return "\n".join(parts)


def agreement(found: list[dict[str, Any]]) -> str:
    """What was compared: a measurement with a disagreement ends before there is anything to say."""
    whole = [row for row in found if "backward pass" not in row["training"]["not_seen"]["formulas"]]
    return (
        f"0 disagreements between formulas and torch's corrected counter: forward passes of"
        f" {len(found)} in training and deployed, backward passes of {len(whole)}"
    )


def _together(missed: dict[str, str]) -> list[str]:
    """A line for all that is not seen for one reason."""
    names: dict[str, list[str]] = {}
    for name, why in missed.items():
        names.setdefault(why, []).append(name or "(the model)")
    return [
        f"  {first}{f' and {len(more)} more' if more else ''}: {why}"
        for why, (first, *more) in names.items()
    ]


def summary(found: list[dict[str, Any]]) -> str:
    """A line a network."""
    rows = []
    for row in found:
        training, deployed = row["training"], row["deployed"]
        rows.append(
            [
                row["network"],
                row["image"],
                f"{training['parameters']:,}",
                f"{deployed['parameters']:,}",
                f"{deployed['counted'] // row['batch']:,}",
                f"{2 * deployed['counted'] // row['batch']:,}",
                f"{deployed['without_formula'] // row['batch']:,}",
                f"{training['counted_backward'] // row['batch']:,}",
                f"{training['peak_bytes']:,}",
                training["operations"],
                f"{row['cpu_seconds']:.1f}",
            ]
        )
    columns = [
        "network",
        "image",
        "parameters",
        "deployed",
        "MACs",
        "FLOPs",
        "of it without formula",
    ]
    more = ["backward MACs", "peak bytes, a step", "operations", "CPU seconds"]
    return f"{markdown([*columns, *more], rows)}\n{agreement(found)}"
