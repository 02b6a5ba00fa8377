"""What networks cost in time with layers in the place of convolutions, against the plain ones."""

import argparse
import warnings
from collections.abc import Iterator
from copy import deepcopy
from functools import partial
from typing import Any

import timm
import torch
import torchvision
from torch import nn

from benchmark.latency import options as situating
from benchmark.latency import runs, table
from benchmark.latency.options import Choice, chosen
from benchmark.latency.runs import Built
from benchmark.latency.situations import Situation
from benchmark.variants import moved_statistics
from overconv.models.mobilenet import MobileNetV2
from overconv.models.resnet import ResNet
from overconv.selection import WHERES
from overconv.surgery import replace_convs, select_convs
from records.benchmark import Measurement

HELP = "time of networks with each layer against the plain network"
OWN = {
    "overconv.ResNet": ResNet,
    "overconv.ResNet-8": partial(ResNet, depth=8, width=8, stem_stride=2),  # of small ablations
    "overconv.MobileNetV2": MobileNetV2,
}
DEFAULT_LAYERS = "MDConv2d,DyConv2d,CondConv2d,ODConv2d,SEConv2d,MAConv2d"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    own = ", ".join(OWN)
    parser.add_argument(
        "--networks",
        default=["mobilenet_v2"],
        type=situating.listed,
        metavar="NAME,..",
        help=f"of torchvision, of timm, or {own}; default: mobilenet_v2",
    )
    parser.add_argument(
        "--layers",
        default=DEFAULT_LAYERS,
        metavar="NAME[:OPTION=VALUE..],..",
        help=f"such as MDConv2d:depth=3,SEConv2d; default: {DEFAULT_LAYERS}",
    )
    parser.add_argument(
        "--where",
        default="all_but_stem",
        help=f"which convolutions are replaced, of {', '.join(WHERES)}; default: all_but_stem",
    )
    parser.add_argument(
        "--image",
        type=situating.sizes,
        metavar="SIDE,..",
        help="sides of the image; default: 32 for our networks, 224 for others",
    )
    situating.add_arguments(parser, state="folded", seconds=15.0)


def run(options: argparse.Namespace) -> int:
    choices = chosen(options.layers)
    if options.where not in WHERES:
        raise ValueError(f"where={options.where!r}; allowed: {', '.join(WHERES)}")
    wanted = []
    for name in options.networks:
        select_convs(network(name), options.where)  # told before anything is timed
        images = options.image or [32 if name in OWN else 224]
        wanted += [(name, situation) for situation in situating.situations(options, images)]
    return table.report(_measured(wanted, choices, options), options.out)


def network(name: str) -> nn.Module:
    """A network of ours, of torchvision or of timm, with random weights; the same at each call.

    Statistics of its batch norms are as after some training, so that folding has something to
    fold, and nothing is dropped, so that its output can be compared.

    Raises:
        ValueError: Nobody has it.
    """
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what they would initialise otherwise
        torch.manual_seed(0)
        if name in OWN:
            model: nn.Module = OWN[name]()
        elif name in torchvision.models.list_models():
            model = torchvision.models.get_model(name, weights=None)
        elif timm.is_model(name):
            model = timm.create_model(name, pretrained=False)
        else:
            raise ValueError(
                f"no network {name!r}; allowed: {', '.join(OWN)}, those of"
                " torchvision.models.list_models() and of timm.list_models()"
            )
        for module in moved_statistics(model).modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    return model


def _measured(
    wanted: list[tuple[str, Situation]], choices: list[Choice], options: argparse.Namespace
) -> Iterator[Measurement]:
    for name, situation in wanted:
        plain = network(name)
        yield from runs.run(
            "network",
            {"network": name},
            Built("plain", {"layer": None, "where": None}, plain),
            [
                partial(_built, choice, plain, options.where, situation.mode)
                for choice in choices
            ],
            situation,
            3,
            options,
        )  # fmt: skip


def _built(choice: Choice, plain: nn.Module, where: str, mode: str) -> Built:
    """The network with a layer that starts as what it replaces: in ``eval()`` it has to put out
    what the plain network does.
    """
    layer: Any = choice.factory
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = replace_convs(plain, layer, where, preserve=True)
    arm = {"layer": choice.described(), "where": where}
    exact = deepcopy(plain) if mode == "inference" else None
    return Built(str(choice), arm, module, exact, choice.form)
