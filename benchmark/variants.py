"""The layers of the library, found by themselves, and the variants in which each is checked."""

import inspect
import pkgutil
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from overconv.operators.base import OverConv2d, own_options
from overconv.operators.branches import BranchedConv2d

Layer = type[OverConv2d]

# The geometry of a layer that has no other: kernel, and what else of nn.Conv2d's arguments.
PLAIN: dict[str, Any] = {"kernel_size": 3, "padding": 1}
GEOMETRIES: dict[str, dict[str, Any]] = {
    "groups": {
        "kernel_size": 3,
        "padding": 1,
        "stride": 2,
        "groups": 2,
        "padding_mode": "circular",
        "bias": False,
    },
    "depthwise": {"kernel_size": 3, "padding": (1, 2), "dilation": (1, 2)},
    "pointwise": {"kernel_size": 1},
    "large": {"kernel_size": 5, "padding": 2},
    "oblong": {"kernel_size": (2, 3), "padding": "same", "padding_mode": "replicate"},
}

# Beside the variants that follow from the constructors.
EXTRAS: dict[str, tuple[dict[str, Any], ...]] = {
    "ACConv2d": ({"gamma": 0.5},),
    "CondConv2d": ({"num_kernels": 1}, {"num_kernels": 3}),
    "DBBConv2d": ({"middle_channels": 6},),
    "DCDConv2d": (
        {"on": "weights", "gate_norm": False},
        {"pool": 1, "latent_channels": 6, "reduction": 2},
    ),
    "DOConv2d": ({"depth_multiplier": 12},),
    "DyConv2d": ({"num_kernels": 3, "reduction": 1, "temperature": 3.0},),
    "DyNetConv2d": ({"num_kernels": 1}, {"reduction": 1}),
    "ExpandConv2d": ({"expansion": 2},),
    "MAConv2d": (
        {"depth": 3, "spatial": "last", "middle": "norm+gate", "middle_channels": 8},
        {"middle": "gate", "squash": "softmax", "reduction": 1, "temperature": 3.0},
    ),
    "MDConv2d": (
        {"depth": 3, "form": "compact", "placement": ("input", "middle", "output")},
        {"depth": 3, "form": "(A3 D2) ((A2 D1) (A1 x))", "middle_channels": 8},
        {"placement": ("input", "output"), "middle_norm": True, "spatial": "last"},
        {"placement": ()},
        {"reduction": 1, "temperature": 3.0},
        {"when": "batch", "form": "compact"},
    ),
    "MobileOneConv2d": ({"num_kernels": 1},),
    "ODConv2d": (
        {"num_kernels": 1, "min_hidden": 4, "reduction": 1, "temperature": 3.0},
        {"on": "weights", "gate_norm": False},
    ),
    "OREPAConv2d": ({"expansion": 2},),
    "SEConv2d": ({"reduction": 1},),
    "WeightNetConv2d": (
        {"gates_per_channel": 4},
        {"groups_per_channel": 1, "reduction": 1},
    ),
}

# What an option that is changed by itself has no effect without, so that the layer refuses it.
NEEDS: dict[tuple[str, str], dict[str, Any]] = {("MAConv2d", "squash"): {"middle": "gate"}}


@dataclass(frozen=True)
class Variant:
    """A layer with options of its own, in a geometry.

    Attributes:
        layer: The class.
        options: Its keyword-only options that differ from the default.
        geometry: A name in ``GEOMETRIES``, or empty for the plain one.
    """

    layer: Layer
    options: dict[str, Any] = field(default_factory=dict)
    geometry: str = ""

    def __str__(self) -> str:
        options = [f"{name}={value!r}" for name, value in self.options.items()]
        more = ", ".join([*([self.geometry] if self.geometry else []), *options])
        return self.layer.__name__ + (f"({more})" if more else "")

    def arguments(self, in_channels: int = 4) -> dict[str, Any]:
        """Arguments of :class:`torch.nn.Conv2d`."""
        geometry = GEOMETRIES.get(self.geometry, PLAIN)
        if self.geometry == "depthwise":
            groups = in_channels
            return {"in_channels": groups, "out_channels": groups, "groups": groups, **geometry}
        return {"in_channels": in_channels, "out_channels": 6, **geometry}

    def build(
        self, in_channels: int = 4, *, device: Any = None, dtype: Any = None, **more: Any
    ) -> OverConv2d:
        """A layer in ``train()``, all of it off its neutral start; the same at each call."""
        build: Any = self.layer
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(zlib.crc32(str(self).encode()))
            arguments = {**self.arguments(in_channels), **self.options, **more}
            return randomise(build(**arguments, device=device, dtype=dtype))

    def images(self, batch: int = 3, size: tuple[int, int] = (6, 5), **more: Any) -> Tensor:
        """Images for a layer of four input channels, each channel with a mean of its own."""
        return torch.randn(batch, 4, *size, **more) + torch.randn(batch, 4, 1, 1, **more)


@torch.no_grad()
def randomise(module: nn.Module) -> Any:
    """Move parameters, statistics and temperatures off the values at which they do nothing."""
    for parameter in module.parameters():
        if parameter.is_meta:
            return module
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 4
        parameter.normal_(std=fan_in**-0.5)
    for part in module.modules():
        if isinstance(part, _BatchNorm):
            if part.weight is not None:
                part.weight.normal_(1, 0.3)
            assert part.running_mean is not None and part.running_var is not None
            part.running_mean.normal_(std=0.5)
            part.running_var.uniform_(0.5, 1.5)
        if isinstance(getattr(part, "running", None), Tensor):
            part.running.normal_(0.7, 0.3)
        if isinstance(getattr(part, "temperature", None), Tensor):
            part.temperature.fill_(0.8)
    return module


@torch.no_grad()
def moved_statistics(model: nn.Module) -> nn.Module:
    """``model`` with statistics as after some training, so that folding has something to fold."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.get_buffer("running_mean").uniform_(-0.1, 0.1)
            module.get_buffer("running_var").uniform_(0.8, 1.2)
    return model


# Finding.


@cache
def classes() -> tuple[Layer, ...]:
    """All that derives from :class:`OverConv2d` in the package ``overconv.operators``."""
    package = OverConv2d.__module__.rpartition(".")[0]
    modules = [
        import_module(info.name)
        for info in pkgutil.walk_packages(import_module(package).__path__, package + ".")
    ]
    found = [
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, OverConv2d)
        and value.__module__ == module.__name__
    ]
    return tuple(sorted(found, key=lambda layer: layer.__name__))


@cache
def layers() -> tuple[Layer, ...]:
    """The layers: what has a ``forward`` and is built by the arguments of ``nn.Conv2d`` alone."""
    return tuple(layer for layer in classes() if _is_complete(layer))


def _is_complete(layer: Layer) -> bool:
    if layer.forward is nn.Module.forward:
        return False
    arguments = list(inspect.signature(layer).parameters.values())
    optional = [p.default is not p.empty or p.kind is p.VAR_KEYWORD for p in arguments[3:]]
    return all(optional)


def allowed(layer: Layer, option: str) -> list[str]:
    """The strings that an option may be, in the words of the layer's own error."""
    build: Any = layer
    try:
        build(4, 6, 3, **{option: "?"})
    except ValueError as error:
        listed, _, _ = str(error).partition(", got ")
        return re.findall(r"'(\w[\w+ ]*)'", listed.partition(" or an order")[0])
    raise AssertionError(f"{layer.__name__} takes {option}='?'")


@cache
def variants() -> tuple[Variant, ...]:
    """Each layer as it is, with each option changed where that is possible, in each geometry."""
    return tuple(variant for variant in _candidates() if refusal(variant) is None)


@cache
def refused() -> tuple[Variant, ...]:
    """The variants of the same making that their layers refuse."""
    return tuple(variant for variant in _candidates() if refusal(variant) is not None)


def refusal(variant: Variant) -> str | None:
    """The words with which a layer refuses a variant."""
    try:
        variant.build(device="meta")
    except ValueError as error:
        return str(error)
    return None


@cache
def _candidates() -> tuple[Variant, ...]:
    return tuple(variant for layer in layers() for variant in _variants(layer))


def _variants(layer: Layer) -> Iterator[Variant]:
    yield Variant(layer)
    defaults = own_options(layer)
    changed: list[dict[str, Any]] = []
    for option, default in defaults.items():
        if isinstance(default, bool):
            changed.append({option: not default})
        elif isinstance(default, str):
            others = [value for value in allowed(layer, option) if value != default]
            needs = NEEDS.get((layer.__name__, option), {})
            changed += [{**needs, option: value} for value in others]
    for more in [*changed, *EXTRAS.get(layer.__name__, ())]:
        variant = Variant(layer, more)
        yield variant if refusal(variant) is None else Variant(layer, more, "large")
    form = layer.form_option
    for geometry in GEOMETRIES:
        # for those that want a large kernel (above), and those with smaller ones among its taps
        if geometry == "large" and not issubclass(layer, BranchedConv2d):
            continue
        yield Variant(layer, {}, geometry)
        if form is not None and form in defaults:
            for value in allowed(layer, form):
                if value != defaults[form]:
                    yield Variant(layer, {form: value}, geometry)
