"""Surgery on whole networks: put layers in the place of convolutions, and fold them for inference.

Nothing is changed in place: every function returns a new network, and the given one stays as it is.
"""

import inspect
import logging
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import nn

from overconv.norms import batch_norms, fold_norms
from overconv.selection import Where as Where
from overconv.selection import convolutions, refused_convs, swapped, why_not_plain
from overconv.selection import select_convs as select_convs
from overconv.tracing import count_hooks

logger = logging.getLogger("overconv")

Layer = Callable[..., nn.Module]

# What a layer may lack among its arguments as long as the convolution does not use it.
_UNUSED: dict[str, Any] = {
    "stride": (1, 1),
    "padding": (0, 0),
    "dilation": (1, 1),
    "groups": 1,
    "padding_mode": "zeros",
}


def convert(layer: Layer, conv: nn.Conv2d, *, preserve: bool) -> nn.Module:
    """A ``layer`` for the place of ``conv``, with its geometry, device, dtype and training mode.

    What does not train stays so: if the weight of ``conv`` has ``requires_grad=False``, so have all
    parameters of the layer, but for its bias, which is like that of ``conv``.

    Args:
        layer: A class that takes the arguments of :class:`torch.nn.Conv2d` by their names, or a
            :func:`functools.partial` of one with options of its own. A class may lack arguments
            that ``conv`` does not use, such as ``padding_mode``.
        conv: Stays untouched.
        preserve: Whether the layer computes what ``conv`` computes, by the class's
            ``from_conv2d``, or starts as it would by itself.

    Raises:
        ValueError: ``conv`` is not exactly a :class:`torch.nn.Conv2d`; ``layer`` is no class, such
            as a layer that is built already, lacks an argument that ``conv`` uses, sets one that
            ``conv`` decides, or cannot preserve its function; or of weight and bias only one
            trains, and the layer has no parameter ``bias``.
    """
    if type(conv) is not nn.Conv2d:
        raise ValueError(f"conv must be exactly a torch.nn.Conv2d, got {type(conv).__name__}")
    if reason := why_not_plain(conv):
        raise ValueError(f"conv must be a plain convolution, got one {reason}")
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
    built = built.to(conv.weight.device, conv.weight.dtype).train(conv.training)
    _freeze_like(built, conv)
    return built


def _freeze_like(built: nn.Module, conv: nn.Conv2d) -> None:
    """Stop the parameters of ``built`` from training where those of ``conv`` do not."""
    if not conv.weight.requires_grad:
        built.requires_grad_(False)
    if conv.bias is None or conv.bias.requires_grad == conv.weight.requires_grad:
        return
    bias = getattr(built, "bias", None)
    if not isinstance(bias, nn.Parameter):
        raise ValueError(
            f"{type(built).__name__} has no parameter 'bias', and of the convolution only the"
            f" {'bias' if conv.bias.requires_grad else 'weight'} trains: let both train, or none"
        )
    bias.requires_grad_(conv.bias.requires_grad)


def _unwrap(layer: Layer) -> tuple[Any, dict[str, Any]]:
    """The class of ``layer`` and the options that a ``partial`` gives it."""
    target = layer.func if isinstance(layer, partial) else layer
    if isinstance(target, nn.Module) or not callable(target):
        kind = type(target).__name__
        raise ValueError(
            "layer must be a class or a functools.partial of one, which builds a layer for each"
            f" convolution, got {'an instance of ' if callable(target) else ''}{kind}"
        )
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
            lost, or shares a parameter with another module, which would be untied, or is in a
            module with a ``__deepcopy__`` of its own that takes no substitute; or ``build`` raises
            one, to which the name of the convolution is added.
    """
    substitutes: dict[int, Any] = {}
    owners = _owners(model)
    for name, conv in select_convs(model, where).items():
        if count_hooks(conv):
            raise ValueError(
                f"{name!r} has hooks, which its substitute would not have: remove them"
            )
        for parameter in conv.parameters():
            if len(names := owners[id(parameter)]) > 1:
                raise ValueError(
                    f"{' and '.join(map(repr, names))} are one parameter, which the substitute of"
                    f" {name!r} would not share: leave the convolution out, or untie them"
                )
        try:
            substitutes[id(conv)] = build(name, conv)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return _swapped_all(model, substitutes)


def _swapped_all(model: nn.Module, substitutes: Mapping[int, nn.Module]) -> nn.Module:
    """See :func:`overconv.selection.swapped`; a ValueError if a substitute found no place."""
    copy, lost = swapped(model, substitutes)
    for name in lost.values():
        raise ValueError(
            f"nothing can be put in the place of {name!r}: a module above it copies itself in its"
            " own way (__deepcopy__), and without what it is given"
        )
    return copy


def _owners(model: nn.Module) -> dict[int, list[str]]:
    """The names of each parameter, by its identity: more than one if modules share it."""
    owners: dict[int, list[str]] = {}
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            owners.setdefault(id(parameter), []).append(f"{prefix}.{name}".lstrip("."))
    return owners


def replace_convs(
    model: nn.Module,
    layer: Layer,
    where: Where = "all_but_stem",
    preserve: bool = False,
) -> nn.Module:
    """A deep copy of ``model`` with a ``layer`` in the place of each selected convolution.

    Reports what it replaced, and what it left (:func:`refused_convs`), to the logger ``overconv``,
    at level INFO.

    A network that reads attributes of one of its convolutions, such as the weight's device, may not
    find them at the substitute: leave that one out, by a predicate.

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
        len(convolutions(model)),
        _name(layer),
        ", ".join(replaced),
    )
    refused = {} if callable(where) else refused_convs(model, where)
    if refused:
        logger.info("left %d that %r means: %s", len(refused), where, _listed(refused))
    return rebuilt


def _listed(reasons: Mapping[str, str]) -> str:
    """Names by their common reason."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    return "; ".join(f"{', '.join(names[reason])} ({reason})" for reason in names)


@torch.no_grad()
def to_inference(model: nn.Module) -> nn.Module:
    """A new network in ``eval()`` that computes what ``model`` computes in ``eval()``.

    Each module that has a method ``to_inference`` is replaced by what that returns, a plain
    convolution where the layer folds. Then each batch norm that alone sees the output of a
    convolution, or of a layer that can absorb it, is folded into that; see
    :func:`overconv.norms.fold_norms` for what has to be certain. Everything else is copied. What
    was frozen stays so: a layer of this library all of whose parameters have
    ``requires_grad=False`` is replaced by one like it, and a convolution's trains as it did.

    Who sees what is read off by :mod:`torch.fx`, for the network as it is configured and called
    with tensors. What it cannot trace keeps its batch norms; the logger ``overconv`` reports at
    level INFO which ones stay, and why. If the network itself is such a one, as a detector may be,
    call this function on its backbone.

    Raises:
        ValueError: A module that is replaced has hooks, of which some would be lost, or is in a
            module with a ``__deepcopy__`` of its own that takes no substitute.
    """
    substitutes: dict[int, Any] = {}
    inside: set[nn.Module] = set()
    for name, module in model.named_modules():
        fold = getattr(module, "to_inference", None)
        if callable(fold) and module not in inside:
            substitutes[id(module)] = folded = fold()
            kept = count_hooks(*folded.modules()) if type(folded) is type(module) else 0
            if count_hooks(*module.modules()) > kept:
                raise ValueError(
                    f"{name!r} has hooks, on itself or inside, which its form for inference would"
                    " not have: remove them"
                )
            inside.update(module.modules())
    deployed = _swapped_all(model, substitutes)
    num_norms = len(batch_norms(deployed))
    deployed, left = fold_norms(deployed)
    if num_norms:
        logger.info("folded %d of %d batch norms", num_norms - len(left), num_norms)
    if left:
        logger.info("%d batch norms stay: %s", len(left), _listed(left))
    return deployed
