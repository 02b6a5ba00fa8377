"""Which convolutions of a network are meant: by kind, by a predicate, and what is not plain."""

from collections.abc import Callable, Mapping
from copy import deepcopy

from torch import nn

from overconv.operators.base import OverConv2d
from overconv.tracing import is_patched

Where = str | Callable[[str, nn.Conv2d], bool]

WHERES: dict[str, Callable[[nn.Conv2d], bool]] = {
    "all": lambda conv: True,
    "all_but_stem": lambda conv: True,
    "spatial": lambda conv: conv.kernel_size != (1, 1),
    "pointwise": lambda conv: conv.kernel_size == (1, 1) and conv.groups == 1,
    "depthwise": lambda conv: conv.groups == conv.in_channels > 1,
}


def select_convs(model: nn.Module, where: Where = "all_but_stem") -> dict[str, nn.Conv2d]:
    """The convolutions of ``model`` that ``where`` selects, by name, in order of registration.

    Only plain convolutions can be selected, modules that are exactly :class:`torch.nn.Conv2d` and
    as that class makes them: a subclass may compute something else. Names pass over others, which
    :func:`refused_convs` lists; a predicate that selects one is an error. A layer of this library
    is not searched for convolutions inside. A shared convolution goes by the first of its names.

    Args:
        model: A network, or a single convolution (whose name is empty).
        where: ``"all"``; ``"all_but_stem"``: all but the first convolution in order of
            registration; ``"spatial"``: kernels larger than 1 x 1, the stem's and depthwise ones
            included; ``"pointwise"``: 1 x 1, ungrouped; ``"depthwise"``: as many groups as input
            channels, more than one; or a predicate ``(name, conv) -> bool``.

    Raises:
        ValueError: ``where`` is unknown, selects nothing, or is a predicate that selects a
            convolution that is not plain.
    """
    meant = _meant(model, where)
    refused = _refused(meant)
    if callable(where):
        for name, reason in refused.items():
            raise ValueError(
                f"where selects {name!r}, {reason}; only a module that is exactly a"
                " torch.nn.Conv2d can be replaced"
            )
    chosen = {name: conv for name, conv in meant.items() if name not in refused}
    if not chosen:
        num_plain = sum(why_not_plain(conv) == "" for conv in convolutions(model).values())
        raise ValueError(
            f"where={where!r} selects none of the {num_plain} plain convolutions of"
            f" {type(model).__name__}{_and_left(refused)}"
        )
    return chosen


def refused_convs(model: nn.Module, where: Where = "all_but_stem") -> dict[str, str]:
    """The convolutions that ``where`` means but that are not plain, by name, and why.

    :func:`replace_convs` leaves them as they are, or raises if ``where`` is a predicate.

    Raises:
        ValueError: ``where`` is unknown.

    Example:
        >>> class Standardised(nn.Conv2d):
        ...     pass
        >>> refused_convs(nn.Sequential(Standardised(3, 8, 3), nn.Conv2d(8, 8, 1)), "spatial")
        {'0': 'a Standardised, which may compute something else than a torch.nn.Conv2d'}
    """
    return _refused(_meant(model, where))


def _meant(model: nn.Module, where: Where) -> dict[str, nn.Conv2d]:
    """The convolutions of torch that ``where`` fits, plain or not."""
    convs = convolutions(model)
    of_torch = {name: conv for name, conv in convs.items() if isinstance(conv, nn.Conv2d)}
    if callable(where):
        return {name: conv for name, conv in of_torch.items() if where(name, conv)}
    if not isinstance(where, str) or where not in WHERES:
        names = ", ".join(map(repr, WHERES))
        raise ValueError(f"where must be one of {names} or a predicate, got {where!r}")
    stem = next(iter(convs), None) if where == "all_but_stem" else None
    return {n: conv for n, conv in of_torch.items() if n != stem and WHERES[where](conv)}


def _refused(convs: Mapping[str, nn.Conv2d]) -> dict[str, str]:
    reasons = {name: why_not_plain(conv) for name, conv in convs.items()}
    return {name: reason for name, reason in reasons.items() if reason}


def why_not_plain(conv: nn.Module) -> str:
    """Why a convolution may compute something else than its class says; or nothing."""
    if type(conv) is not nn.Conv2d:
        kind = type(conv).__name__
        return f"a {kind}, which may compute something else than a torch.nn.Conv2d"
    if is_patched(conv):
        return "which has something of its own in the place of a method"
    if not has_plain_values(conv):
        return "which has more to it than a weight and a bias"
    return ""


def has_plain_values(conv: nn.Module) -> bool:
    """Whether a convolution owns its weight and bias, and nothing else."""
    return {*conv._parameters, *conv._buffers, *conv._modules} == {"weight", "bias"}


def _and_left(refused: Mapping[str, str]) -> str:
    return "".join(f"; left is {name!r}, {reason}" for name, reason in refused.items())


def convolutions(model: nn.Module) -> dict[str, nn.Conv2d | OverConv2d]:
    """All convolutions, of whatever kind, that are no part of another one."""
    found: dict[str, nn.Conv2d | OverConv2d] = {}
    inside: set[nn.Module] = set()
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, OverConv2d)) and module not in inside:
            found[name] = module
            inside.update(module.modules())
    return found


def swapped(
    model: nn.Module, substitutes: Mapping[int, nn.Module]
) -> tuple[nn.Module, dict[int, str]]:
    """A deep copy of ``model`` with other modules in the place of some, under all of their names.

    They are swapped while copying, so that all who refer to one get its substitute.

    Args:
        substitutes: By the identity of the module that is replaced.

    Returns:
        The copy; and the identities of those modules of ``model`` whose substitutes it lacks, since
        one above them copies itself in a way of its own, with their names.
    """
    copy = deepcopy(model, dict(substitutes))
    there = {id(module) for module in copy.modules()}
    lost = {
        id(module): name
        for name, module in model.named_modules()
        if id(module) in substitutes and id(substitutes[id(module)]) not in there
    }
    return copy, lost
