"""Batch norms that disappear at inference: which ones may, and the network without them.

In ``eval()`` a batch norm is an affine map of each channel, which the convolution in front of it
can take over if nobody else sees what lies between the two.
"""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrize import is_parametrized

from overconv.functional import norm_as_affine, scale_output
from overconv.operators.base import OverConv2d
from overconv.selection import has_plain_values, swapped
from overconv.tracing import CallGraph, Untraceable, call_graphs, count_hooks, is_patched

# Classes whose forward is known, by full name, so that those of others need not be imported.
# Batch norms, whose parameters and statistics have torch's names; some have an activation behind.
_NORMS = {
    "torch.nn.modules.batchnorm.BatchNorm2d",
    "torch.nn.modules.batchnorm.SyncBatchNorm",
    "torchvision.ops.misc.FrozenBatchNorm2d",
    "timm.layers.norm_act.BatchNormAct2d",
    "timm.layers.norm_act.SyncBatchNormAct",
    "timm.layers.norm_act.FrozenBatchNormAct2d",
}
# Convolutions by ``weight``, plus ``bias``; the second one pads by the size of its input.
_CONVS = {"torch.nn.modules.conv.Conv2d", "timm.layers.conv2d_same.Conv2dSame"}


def batch_norms(model: nn.Module) -> dict[str, nn.Module]:
    """The batch norms of images in ``model``, of whatever class, by name.

    Those inside of a layer of this library are the layer's own matter, and left out.
    """
    found: dict[str, nn.Module] = {}
    inside: set[nn.Module] = set()
    for name, module in model.named_modules():
        if isinstance(module, OverConv2d):
            inside.update(module.modules())
        elif _is_norm(module) and module not in inside:
            found[name] = module
    return found


@torch.no_grad()
def fold_norms(model: nn.Module) -> tuple[nn.Module, dict[str, str]]:
    """A copy of ``model`` in ``eval()`` with its batch norms folded, and why the others stay.

    A batch norm folds if it alone sees the output of a plain convolution, of timm's ``Conv2dSame``
    or of a layer of this library that absorbs it
    (:meth:`overconv.operators.base.OverConv2d.absorb_affine`). In its place comes the identity, or
    the activation that timm's class has behind it, and a new convolution in the place of the other.

    Returns:
        The copy, and the reason for each batch norm that it still has, by name.
    """
    model = deepcopy(model).eval()
    pairs, left = find_foldable(model)
    while True:
        substitutes: dict[int, Any] = {}
        for norm_name, conv_name in list(pairs.items()):
            norm, conv = model.get_submodule(norm_name), model.get_submodule(conv_name)
            absorbed = _absorbed(conv, *_affine(norm))
            if absorbed is None:
                del pairs[norm_name]
                left[norm_name] = f"{conv_name!r}, of class {type(conv).__name__}, cannot absorb it"
                continue
            behind = norm._modules.get("act", nn.Identity())
            substitutes |= {id(conv): absorbed, id(norm): behind, id(behind): behind}
        folded, lost = swapped(model, substitutes)
        if not lost:
            break
        for norm_name, conv_name in list(pairs.items()):  # one without the other would be wrong
            for name in (norm_name, conv_name):
                if id(model.get_submodule(name)) in lost and norm_name in pairs:
                    del pairs[norm_name]
                    left[norm_name] = f"{name!r} is in a module that copies itself in its own way"
    reasons = {name: left[name] for name in batch_norms(model) if name in left}
    return folded.eval(), reasons


def find_foldable(model: nn.Module) -> tuple[dict[str, str], dict[str, str]]:
    """The batch norms of ``model``, which is in ``eval()``, that fold, and why the others do not.

    Returns:
        By the name of the batch norm: the name of the convolution that it folds into, or the
        reason why it does not.
    """
    pairs: dict[str, str] = {}
    left: dict[str, str] = {}
    norms = batch_norms(model)
    try:
        graphs = call_graphs(model, _is_leaf) if norms else []
    except Untraceable as error:
        return pairs, dict.fromkeys(norms, str(error))
    for name in norms:
        try:
            convs = {_conv_before(name, model, graph) for graph in graphs}
        except Untraceable as error:
            left[name] = str(error)
            continue
        if len(convs) == 1:
            (pairs[name],) = convs
        else:
            left[name] = f"it follows {', '.join(sorted(convs))}, depending on the arguments"
    return pairs, left


def _conv_before(name: str, model: nn.Module, graph: CallGraph) -> str:
    """Name of the convolution whose output the batch norm alone sees, or the reason raised."""
    _refuse(_why_no_map(model.get_submodule(name)))
    before, *others = _only_call(name, graph, "it").all_input_nodes
    if others or before.op != "call_module":
        _refuse(f"it sees no output of a convolution, but {_described(before)}")
    conv_name = str(before.target)
    if reason := _why_unable(model.get_submodule(conv_name)):
        _refuse(f"it sees the output of {conv_name!r}, {reason}")
    if graph.num_users(before) > 1:
        _refuse(f"others see the output of {conv_name!r} too")
    _only_call(conv_name, graph, f"{conv_name!r}, whose output it sees,")
    return conv_name


def _refuse(reason: str) -> None:
    if reason:
        raise Untraceable(reason)


def _only_call(name: str, graph: CallGraph, who: str) -> Any:
    try:
        return graph.only_call(graph.model.get_submodule(name))
    except Untraceable as error:
        raise Untraceable(f"{who} {error}") from None


def _described(node: Any) -> str:
    return {"placeholder": "an input", "get_attr": "a constant"}.get(
        node.op, f"that of {getattr(node.target, '__name__', node.target)}"
    )


# What modules compute.


def _full_name(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _is_norm(module: nn.Module) -> bool:
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm3d):
        return False
    return isinstance(module, _BatchNorm) or _full_name(module) in _NORMS


def _is_leaf(module: nn.Module) -> bool:
    return isinstance(module, OverConv2d | nn.Conv2d) or _is_norm(module)


def _why_no_map(norm: Any) -> str:
    """Why a batch norm is not known to be an affine map, and at most an activation; or nothing."""
    if _full_name(norm) not in _NORMS or is_patched(norm):
        return f"a {_full_name(norm)} may compute something else than a batch norm"
    if set(norm._modules) - {"act", "drop"}:
        return "it has modules inside that are not known"
    if type(norm._modules.get("drop", nn.Identity())) is not nn.Identity:
        return "it drops values"
    if isinstance(norm, _BatchNorm) and norm.training:
        return "it stays in train()"
    if norm.running_mean is None or norm.running_var is None:
        return "it keeps no running statistics"
    return ""


def _why_unable(conv: nn.Module) -> str:
    """Why a module cannot scale and shift its own outputs; or nothing."""
    kind = f"of class {type(conv).__name__}"
    if isinstance(conv, OverConv2d):
        if any(map(is_parametrized, conv.modules())) or count_hooks(*conv.modules()):
            return f"{kind}, with hooks or parametrisations inside"
        return ""
    if _full_name(conv) not in _CONVS:
        return f"{kind}, which is no plain convolution"
    if is_patched(conv) or not has_plain_values(conv):
        return f"{kind}, with more to it than a weight and a bias"
    return ""


# Folding.


def _affine(norm: Any) -> tuple[Tensor, Tensor]:
    """Scale and shift, one a channel, that any of ``_NORMS`` applies."""
    if isinstance(norm, _BatchNorm):
        return norm_as_affine(norm)
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return scale, norm.bias - norm.running_mean * scale


def _absorbed(conv: Any, scale: Tensor, shift: Tensor) -> nn.Module | None:
    """A copy of ``conv`` whose outputs are scaled and shifted; None if it cannot be."""
    copy = deepcopy(conv)
    if isinstance(copy, OverConv2d):
        frozen = not any(parameter.requires_grad for parameter in conv.parameters())
        absorbed = copy.absorb_affine(scale, shift)
        if frozen:  # what it creates anew would train
            copy.requires_grad_(False)
        return copy if absorbed else None
    weight = scale_output(copy.weight, scale)
    bias = shift if copy.bias is None else copy.bias * scale + shift
    for name, value in (("weight", weight), ("bias", bias)):
        value = value.to(copy.weight.dtype)
        setattr(copy, name, nn.Parameter(value, requires_grad=conv.weight.requires_grad))
    return copy
