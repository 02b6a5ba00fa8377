"""Surgery on networks of torchvision and timm: what is replaced, what folds, and how exactly.

Weights are random, statistics of batch norms are those of random images, moved off, and no
parameter stays at a value at which it does nothing, so that an error anywhere reaches the outputs.
Nothing is downloaded. All is compared in ``eval()``, with one thread.
"""

import gc
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves

from benchmark.networks import NETWORKS, Network, find
from benchmark.tables import markdown, record
from overconv.norms import batch_norms, fold_norms
from overconv.operators.base import OverConv2d
from overconv.operators.dyconv import DyConv2d
from overconv.operators.maconv import MAConv2d
from overconv.operators.mdconv import MDConv2d
from overconv.selection import Where, convolutions, refused_convs, select_convs
from overconv.surgery import replace_convs, to_inference

WHERE = "all_but_stem"
REPLACED_BY = partial(MDConv2d, depth=2)
# Deployed with each of them: a chain with a gate, one that folds, parallel kernels.
DEPLOYED = {"MDConv2d": REPLACED_BY, "MAConv2d": MAConv2d, "DyConv2d": DyConv2d}
BATCH = 4


def measure(
    names: Iterable[str] | None = None, *, say: Callable[[str], object] | None = None
) -> dict[str, Any]:
    """The record of the table, for the networks of these names or all; says each row as it comes.

    Raises:
        ValueError: There is no network of a name.
    """
    chosen = NETWORKS if names is None else tuple(map(find, names))
    rows = []
    for number, network in enumerate(chosen, 1):
        start = time.perf_counter()
        rows.append(measure_network(network))
        taken = time.perf_counter() - start
        line = f"[{number}/{len(chosen)}] {taken:.1f} s  {' | '.join(_cells(rows[-1]))}"
        (say or partial(print, file=sys.stderr, flush=True))(line)
        gc.collect()
    layers = {name: _named(layer) for name, layer in DEPLOYED.items()}
    more = {"where": WHERE, "batch": BATCH, "layers": layers}
    versions = {"timm": timm.__version__, "torchvision": torchvision.__version__}
    return record("python -m benchmark surgery", rows, **more, **versions)


def _named(layer: Any) -> str:
    if not isinstance(layer, partial):
        return layer.__name__
    return f"{layer.func.__name__}({', '.join(f'{k}={v!r}' for k, v in layer.keywords.items())})"


@torch.no_grad()
def measure_network(network: Network) -> dict[str, Any]:
    """A row: counts, reasons and errors, the latter relative to how far images lie apart."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = network.build().double()
    torch.manual_seed(1)
    images = torch.randn(BATCH, 3, network.side, network.side, dtype=torch.float64)
    leave_the_start(model)
    calibrate(model, images)
    refused = refused_convs(model, WHERE)
    read = {name for name in convolutions(model) if network.reads and network.reads in name}
    refused |= dict.fromkeys(read, "whose attributes the network reads")
    row = {
        "network": network.name,
        "library": network.library,
        "family": network.family,
        "side": network.side,
        "convolutions": len(convolutions(model)),
        "replaced": 0,
        "refused": dict(Counter(reason.partition(",")[0] for reason in refused.values())),
        "norms": len(batch_norms(model)),
        "scale": scale_of(model(images)),
    }
    where = WHERE if not read else partial(_among, set(select_convs(model, WHERE)) - read)
    if len(refused) == len(convolutions(model)) - 1:  # the network is deployed as it is
        row |= _deploying(model, images, {"as it is": None}, where)
    else:
        row |= _replacing(model, images, where) | _deploying(model, images, DEPLOYED, where)
    torch.set_num_threads(threads)
    return row


def _among(names: Collection[str], name: str, conv: nn.Conv2d) -> bool:
    return name in names


def _replacing(model: nn.Module, images: Tensor, where: Where) -> dict[str, Any]:
    """How far the outputs move when convolutions are replaced by layers that preserve them."""
    expected = model(images)
    torch.manual_seed(2)
    replaced = replace_convs(model, REPLACED_BY, where, preserve=True)
    errors = {"float64": error_of(replaced(images), expected)}
    count = sum(isinstance(module, OverConv2d) for module in replaced.modules())
    del replaced
    single = deepcopy(model).float()
    plain = single(images.float())
    replaced = replace_convs(single, REPLACED_BY, where, preserve=True)
    errors["float32"] = error_of(replaced(images.float()), plain)
    errors["rounding"] = error_of(plain, expected)
    return {"replaced": count, "moved": errors}


def _deploying(
    model: nn.Module, images: Tensor, layers: Mapping[str, Any], where: Where
) -> dict[str, Any]:
    """How far the outputs move when the network is deployed, with each of ``layers`` in it.

    The layers are off their start, and no gate is neutral.
    """
    errors, scales, folded, left = {}, {}, set(), {}
    for name, layer in layers.items():
        torch.manual_seed(3)
        network = model
        if layer is not None:
            network = replace_convs(model, layer, where, preserve=True)
            for module in network.modules():
                if isinstance(module, OverConv2d):
                    disturb(module)
            calibrate(network, images)
        expected = network(images)
        deployed = to_inference(network)
        errors[name], scales[name] = error_of(deployed(images), expected), scale_of(expected)
        left = fold_norms(deployed)[1]
        assert list(left) == list(batch_norms(deployed)), "deploying again would fold more"
        folded.add(len(batch_norms(network)) - len(left))
    (num_folded,) = folded  # whatever the layer
    reasons = dict(Counter(map(_without_names, left.values())))
    return {"deployed": errors, "scales": scales, "folded": num_folded, "left": reasons}


def _without_names(reason: str) -> str:
    """A reason with ``..`` for all that is quoted in it."""
    return "..".join(reason.split("'")[::2])


# Networks in which nothing is neutral.


def leave_the_start(model: nn.Module) -> None:
    """Draw anew all parameters that are constant, such as scales of a residual or of a norm."""
    for name, parameter in model.named_parameters():
        if parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all()):
            if parameter.squeeze().dim() > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
            elif "bias" in name:
                parameter.normal_(std=0.2)
            else:
                parameter.uniform_(0.5, 1.5)


def disturb(layer: OverConv2d) -> None:
    """Move all parameters and running means of a layer by a share of their size."""
    for values in (*layer.parameters(), *layer.buffers()):
        if values.dim() > 0:
            size = values.square().mean().sqrt()
            fan_in = values[0].numel() if values.dim() > 1 else 16
            size = torch.where(size > 0, 0.3 * size, fan_in**-0.5)  # such as of a neutral gate
            values.add_(size * torch.randn_like(values))


def calibrate(model: nn.Module, images: Tensor) -> None:
    """Give all batch norms the statistics of what they see of ``images``, moved a little.

    So outputs neither vanish nor explode, however deep the network. Leaves it in ``eval()``.
    """

    def look(norm: Any, inputs: tuple[Tensor]) -> None:
        values = inputs[0].transpose(0, 1).flatten(1)
        variance, mean = torch.var_mean(values, 1, correction=0)
        # Few values may be alike by chance, and a small spread around a large mean amplifies all
        # errors.
        variance = variance + 0.01 * variance.mean() + 0.1 * mean.square() + 1e-12
        norm.running_mean.copy_(mean + 0.2 * variance.sqrt() * torch.randn_like(mean))
        norm.running_var.copy_(variance * torch.empty_like(mean).uniform_(0.7, 1.4))

    norms = [module for module in model.eval().modules() if isinstance(module, _BatchNorm)]
    hooks = [norm.register_forward_pre_hook(look) for norm in norms]
    model(images)
    for hook in hooks:
        hook.remove()


def _flat(output: Any) -> Tensor:
    """All of an output, a row for each image."""
    return torch.cat([value.flatten(1) for value in tree_leaves(output)], 1).double()


def scale_of(output: Any) -> float:
    """How far the outputs of different images lie apart: root mean square around their mean."""
    return _flat(output).std(0, correction=0).square().mean().sqrt().item()


def error_of(found: Any, expected: Any) -> float:
    """Largest difference, relative to the scale of what is expected."""
    return (_flat(found) - _flat(expected)).abs().max().item() / scale_of(expected)


# Text.

COLUMNS = (
    "network",
    "family",
    "convolutions",
    "replaced",
    "norms",
    "folded",
    "moved, float32",
    "rounding, float32",
    "moved, float64",
    *(f"deployed, {name}" for name in DEPLOYED),
)


def text(found: dict[str, Any]) -> str:
    """The table in words, from the record alone."""
    rows = found["rows"]
    parts = [
        f"Networks of torchvision {found['torchvision']} and timm {found['timm']} with random"
        f" weights, all of their convolutions but the first one replaced, {found['batch']} random"
        " images. An error is the largest difference of any output, relative to the root mean"
        " square by which outputs of different images lie apart.\n",
        f"*Moved*: by the replacement alone, of a convolution by `{found['layers']['MDConv2d']}`"
        " that preserves its function; by nothing at all where its second layer starts as the"
        " identity. *Rounding*: what the plain network itself loses in float32;"
        " deep networks amplify it. *Deployed*: by `to_inference`, in float64, of the network with"
        " layers off their start.\n",
    ]
    for library in dict.fromkeys(row["library"] for row in rows):
        of_library = [row for row in rows if row["library"] == library]
        families = len({row["family"] for row in of_library})
        parts.append(f"{library}, {families} families:\n")
        parts.append(markdown(COLUMNS, [_cells(row) for row in of_library]))
    for title, key in (
        ("Convolutions that stay, beside the first one", "refused"),
        ("Batch norms that stay", "left"),
    ):
        if reasons := _reasons(rows, key):
            parts.append(f"{title}:\n")
            parts.append(markdown(("why", "number", "networks"), reasons))
    return "\n".join(parts)


def short(found: dict[str, Any]) -> str:
    """What the table amounts to: how much was replaced and folded, and the largest errors."""
    rows = found["rows"]
    libraries = {
        library: len({row["family"] for row in rows if row["library"] == library})
        for library in dict.fromkeys(row["library"] for row in rows)
    }
    families = " and ".join(f"{number} of {library}" for library, number in libraries.items())
    total = {
        key: sum(row[key] for row in rows)
        for key in ("convolutions", "replaced", "norms", "folded")
    }
    moved = max(row.get("moved", {}).get("float64") or 0.0 for row in rows)
    deployed = max(value for row in rows for value in row["deployed"].values())
    return (
        f"In {len(rows)} networks (families: {families}) {total['replaced']:,} of"
        f" {total['convolutions']:,} convolutions are replaced, all but the first of each as far as"
        f" none has to stay, and {total['folded']:,} of {total['norms']:,} batch norms fold into"
        f" what is before them. In float64 the largest error of a replacement is {moved:.0e}, and"
        f" of a deployed network {deployed:.0e}, relative to how far the outputs of different"
        " images lie apart."
        " [Network by network, with what stays and why](benchmark/tables/surgery.md)."
    )


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    moved, deployed = row.get("moved", {}), row["deployed"]
    return (
        f"`{row['network']}`",
        row["family"],
        *(str(row[key]) for key in ("convolutions", "replaced", "norms", "folded")),
        *(_short(moved.get(key)) for key in ("float32", "rounding", "float64")),
        *(_short(deployed.get(name, deployed.get("as it is"))) for name in DEPLOYED),
    )


def _reasons(rows: Sequence[dict[str, Any]], key: str) -> list[tuple[str, str, str]]:
    """Each reason with how often it holds, and for which networks."""
    numbers: Counter[str] = Counter()
    networks: dict[str, list[str]] = {}
    for row in rows:
        numbers.update(row[key])
        for reason in row[key]:
            networks.setdefault(reason, []).append(f"`{row['network']}`")
    return [(why, str(number), ", ".join(networks[why])) for why, number in numbers.most_common()]


def _short(error: float | None) -> str:
    return "-" if error is None else "0" if error == 0 else f"{error:.0e}"
