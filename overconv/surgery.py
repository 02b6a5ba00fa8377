"""Surgery on whole networks: put layers in the place of convolutions, and fold them for inference.

Nothing is changed in place: every function returns a new network, and the given one stays as it is.
"""

import inspect
import logging
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from overconv.operators.base import OverConv2d

logger = logging.getLogger("overconv")

Layer = Callable[..., nn.Module]
Where = str | Callable[[str, nn.Conv2d], bool]

WHERES: dict[str, Callable[[nn.Conv2d], bool]] = {
    "all": lambda conv: True,
    "all_but_stem": lambda conv: True,
    "spatial": lambda conv: conv.kernel_size != (1, 1),
    "pointwise": lambda conv: conv.kernel_size == (1, 1) and conv.groups == 1,
    "depthwise": lambda conv: conv.groups == conv.in_channels > 1,
}

# What a layer may lack among its arguments as long as the convolution does not use it.
_UNUSED: dict[str, Any] = {
    "stride": (1, 1),
    "padding": (0, 0),
    "dilation": (1, 1),
    "groups": 1,
    "padding_mode": "zeros",
}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def select_convs(model: nn.Module, where: Where = "all_but_stem") -> dict[str, nn.Conv2d]:
    """The convolutions of ``model`` that ``where`` selects, by name, in order of registration.

    Only modules that are exactly :class:`torch.nn.Conv2d` can be selected: a subclass may compute
    something else. Names pass over subclasses; a predicate that selects one is an error. A layer
    of this library is not searched for convolutions inside. A shared convolution goes by the first
    of its names.

    Args:
        model: A network, or a single convolution (whose name is empty).
        where: ``"all"``; ``"all_but_stem"``: all but the first convolution in order of
            registration; ``"spatial"``: kernels larger than 1 x 1, the stem's and depthwise ones
            included; ``"pointwise"``: 1 x 1, ungrouped; ``"depthwise"``: as many groups as input
            channels, more than one; or a predicate ``(name, conv) -> bool``.

    Raises:
        ValueError: ``where`` is unknown, selects nothing, or is a predicate that selects a
            subclass of :class:`torch.nn.Conv2d`.
    """
    convs = _convolutions(model)
    if callable(where):
        chosen = {
            name: conv
            for name, conv in convs.items()
            if isinstance(conv, nn.Conv2d) and where(name, conv)
        }
        for name, conv in chosen.items():
            if type(conv) is not nn.Conv2d:
                raise ValueError(
                    f"where selects {name!r}, a {type(conv).__name__}; only a module that is"
                    " exactly a torch.nn.Conv2d can be replaced"
                )
    elif isinstance(where, str) and where in WHERES:
        stem = next(iter(convs), None) if where == "all_but_stem" else None
        chosen = {
            name: conv
            for name, conv in convs.items()
            if type(conv) is nn.Conv2d and name != stem and WHERES[where](conv)
        }
    else:
        names = ", ".join(map(repr, WHERES))
        raise ValueError(f"where must be one of {names} or a predicate, got {where!r}")
    if not chosen:
        num_plain = sum(type(conv) is nn.Conv2d for conv in convs.values())
        raise ValueError(
            f"where={where!r} selects none of the {num_plain} plain convolutions of"
            f" {type(model).__name__}"
        )
    return chosen


def _convolutions(model: nn.Module) -> dict[str, nn.Conv2d | OverConv2d]:
    """All convolutions, of whatever kind, that are no part of another one."""
    found: dict[str, nn.Conv2d | OverConv2d] = {}
    inside: set[nn.Module] = set()
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, OverConv2d)) and module not in inside:
            found[name] = module
            inside.update(module.modules())
    return found


def convert(layer: Layer, conv: nn.Conv2d, *, preserve: bool) -> nn.Module:
    """A ``layer`` for the place of ``conv``, with its geometry, device, dtype and training mode.

    Args:
        layer: A class that takes the arguments of :class:`torch.nn.Conv2d` by their names, or a
            :func:`functools.partial` of one with options of its own. A class may lack arguments
            that ``conv`` does not use, such as ``padding_mode``.
        conv: Stays untouched.
        preserve: Whether the layer computes what ``conv`` computes, by the class's
            ``from_conv2d``, or starts as it would by itself.

    Raises:
        ValueError: ``conv`` is not exactly a :class:`torch.nn.Conv2d`; ``layer`` lacks an argument
            that ``conv`` uses, sets one that ``conv`` decides, or cannot preserve its function.
    """
    if type(conv) is not nn.Conv2d:
        raise ValueError(f"conv must be exactly a torch.nn.Conv2d, got {type(conv).__name__}")
    target, options = _unwrap(layer)
    if preserve and target is nn.Conv2d:
        return deepcopy(conv)
    if preserve:
        from_conv2d = getattr(target, "from_conv2d", None)
        if from_conv2d is None:
            raise ValueError(
                f"{_name(layer)} has no from_conv2d, so that it cannot start as the convolution"
                " that it replaces: use preserve=False"
            )
        built = from_conv2d(conv, **options)
    else:
        built = target(**_arguments(target, conv), **options)
    if not isinstance(built, nn.Module):
        raise ValueError(f"{_name(layer)} must give a module, got {type(built).__name__}")
    return built.to(conv.weight.device, conv.weight.dtype).train(conv.training)


def _unwrap(layer: Layer) -> tuple[Any, dict[str, Any]]:
    """The class of ``layer`` and the options that a ``partial`` gives it."""
    if not isinstance(layer, partial):
        return layer, {}
    decided = set(inspect.signature(nn.Conv2d).parameters)
    if layer.args or decided & set(layer.keywords):
        given = list(layer.args) or sorted(decided & set(layer.keywords))
        raise ValueError(
            f"layer must not set {given[0]!r}: the convolution that it replaces decides the"
            " arguments of torch.nn.Conv2d; set the layer's own options by name"
        )
    return layer.func, dict(layer.keywords)


def _arguments(target: Layer, conv: nn.Conv2d) -> dict[str, Any]:
    """The arguments that make ``target`` a layer of the geometry of ``conv``."""
    arguments: dict[str, Any] = {
        name: getattr(conv, name)
        for name in ("in_channels", "out_channels", "kernel_size", *_UNUSED)
    }
    arguments["bias"] = conv.bias is not None
    takes = inspect.signature(target).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes.values()):
        takes = dict.fromkeys([*arguments, "device", "dtype"])  # type: ignore[assignment]
    for name in set(arguments) - set(takes):
        if name not in _UNUSED or arguments[name] != _UNUSED[name]:
            raise ValueError(
                f"{_name(target)} takes no argument {name!r}, which the convolution has as"
                f" {arguments[name]!r}"
            )
        del arguments[name]
    factory = {"device": conv.weight.device, "dtype": conv.weight.dtype}
    return arguments | {name: value for name, value in factory.items() if name in takes}


def _name(layer: Layer) -> str:
    target, _ = _unwrap(layer)
    return getattr(target, "__name__", repr(target))


def rebuild_convs(
    model: nn.Module, where: Where, build: Callable[[str, nn.Conv2d], nn.Module]
) -> nn.Module:
    """A deep copy of ``model`` with ``build(name, conv)`` in the place of selected convolutions.

    ``build`` is called once for each convolution, in order of registration, with the convolution of
    ``model`` itself, and must leave it untouched. Modules that are shared stay shared.

    Raises:
        ValueError: As in :func:`select_convs`; a selected convolution has hooks, which would be
            lost; or ``build`` raises one, to which the name of the convolution is added.
    """
    # The convolutions are swapped while copying, so that all who refer to one get its substitute.
    substitutes: dict[int, Any] = {}
    for name, conv in select_convs(model, where).items():
        if _has_hooks(conv):
            raise ValueError(
                f"{name!r} has hooks, which its substitute would not have: remove them"
            )
        try:
            substitutes[id(conv)] = build(name, conv)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return deepcopy(model, substitutes)


def _has_hooks(module: nn.Module) -> bool:
    return any(getattr(module, hooks) for hooks in _HOOKS)


def replace_convs(
    model: nn.Module,
    layer: Layer,
    where: Where = "all_but_stem",
    preserve: bool = False,
) -> nn.Module:
    """A deep copy of ``model`` with a ``layer`` in the place of each selected convolution.

    Reports what it replaced to the logger ``overconv``, at level INFO.

    Args:
        model: Any network; it stays as it is.
        layer: A class or a :func:`functools.partial` of one; see :func:`convert`.
        where: See :func:`select_convs`.
        preserve: Whether each layer computes what its convolution computed, so that the network's
            outputs do not move; a layer that normalises by the batch does so in ``eval()`` only.
            Otherwise each layer starts as it would by itself.

    Raises:
        ValueError: As in :func:`rebuild_convs` and :func:`convert`.

    Example:
        >>> from functools import partial
        >>> from overconv.operators.mdconv import MDConv2d
        >>> plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 1))
        >>> gated = replace_convs(plain, partial(MDConv2d, depth=3), preserve=True)
        >>> [type(module).__name__ for module in gated]
        ['Conv2d', 'ReLU', 'MDConv2d']
    """
    replaced: list[str] = []

    def build(name: str, conv: nn.Conv2d) -> nn.Module:
        replaced.append(name)
        return convert(layer, conv, preserve=preserve)

    rebuilt = rebuild_convs(model, where, build)
    logger.info(
        "replaced %d of %d convolutions by %s: %s",
        len(replaced),
        len(_convolutions(model)),
        _name(layer),
        ", ".join(replaced),
    )
    return rebuilt


@torch.no_grad()
def to_inference(model: nn.Module) -> nn.Module:
    """A new network in ``eval()`` that computes what ``model`` computes in ``eval()``.

    Each module that has a method ``to_inference`` is replaced by what that returns, a plain
    convolution where the layer folds. Then each batch norm that alone sees the output of a plain
    convolution is folded into it. Who sees what is read off by :mod:`torch.fx`: a network that it
    cannot trace keeps its batch norms, which the logger ``overconv`` reports at level INFO.
    Everything else is copied.
    """
    substitutes: dict[int, Any] = {}
    inside: set[nn.Module] = set()
    for module in model.modules():
        fold = getattr(module, "to_inference", None)
        if callable(fold) and module not in inside:
            substitutes[id(module)] = fold()
            inside.update(module.modules())
    deployed = deepcopy(model, substitutes).eval()
    folded: dict[int, Any] = {}  # swapped while copying, under all names that a module has
    for conv_name, norm_name in _foldable_norms(deployed):
        conv, norm = deployed.get_submodule(conv_name), deployed.get_submodule(norm_name)
        assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        folded[id(conv)], folded[id(norm)] = fuse_conv_bn_eval(conv, norm), nn.Identity()
    return deepcopy(deployed, folded).eval()


class _Tracer(fx.Tracer):
    """Takes the layers of the library as they are, like those of torch."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, OverConv2d) or super().is_leaf_module(m, module_qualified_name)


def _foldable_norms(model: nn.Module) -> list[tuple[str, str]]:
    """Names of plain convolutions, each with that of the batch norm that alone sees its output."""
    try:
        nodes = list(_Tracer().trace(model).nodes)
    except Exception as error:  # whatever a forward pass may raise when it meets no tensors
        logger.info("batch norms stay, since torch.fx cannot trace the network: %s", error)
        return []
    # A module, by any of its names, that is called twice or whose values are read is not touched.
    used = Counter(
        model.get_submodule(
            node.target if node.op == "call_module" else node.target.rpartition(".")[0]
        )
        for node in nodes
        if node.op in ("call_module", "get_attr")
    )
    pairs = []
    for node in nodes:
        conv, norm = node, next(iter(node.users), node)
        if conv.op != "call_module" or norm.op != "call_module" or len(conv.users) > 1:
            continue
        modules = model.get_submodule(conv.target), model.get_submodule(norm.target)
        if (
            [type(module) for module in modules] == [nn.Conv2d, nn.BatchNorm2d]
            and modules[1].running_mean is not None
            and not any(used[module] > 1 or _has_hooks(module) for module in modules)
        ):
            pairs.append((conv.target, norm.target))
    return pairs
