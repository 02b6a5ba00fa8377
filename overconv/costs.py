"""What a network costs: parameters, multiply-accumulates and floating-point operations, by formula.

Nothing is computed: the network runs once on tensors that have shapes and no values.
"""

import math
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from overconv.forms import plan_forms
from overconv.operators.base import Macs
from overconv.surgery import to_inference

# Their work is elementwise and at inference an affine map, for which nothing is charged.
_FREE = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.GroupNorm,
    nn.LayerNorm,
)

_BATCH = 2


@dataclass(frozen=True)
class Cost:
    """Cost of a network in one form.

    Attributes:
        parameters: Their number; a shared one counts once, buffers do not count.
        macs: Multiply-accumulates of one forward pass on one image, by kind; see
            :class:`overconv.operators.base.Macs`.
    """

    parameters: int
    macs: Macs

    @property
    def flops(self) -> int:
        """Floating-point operations: two for each multiply-accumulate."""
        return 2 * self.macs.total


@dataclass(frozen=True)
class Costs:
    """Cost of a network as it is trained, and as it is deployed.

    Attributes:
        training: In ``train()``; one forward pass.
        deployed: After :func:`overconv.surgery.to_inference`, each layer in the form of least work
            (:func:`overconv.forms.plan_forms`).
    """

    training: Cost
    deployed: Cost

    @property
    def over_parameters(self) -> int:
        """Parameters that training has and the deployed network has not."""
        return self.training.parameters - self.deployed.parameters

    def as_dict(self) -> dict[str, int]:
        """The figures by name, plain integers; MACs and FLOPs are those of a batch of one image."""
        return {
            "parameters_training": self.training.parameters,
            "parameters_deployed": self.deployed.parameters,
            "over_parameters": self.over_parameters,
            "macs_training": self.training.macs.total,
            "macs_deployed": self.deployed.macs.total,
            "flops_training": self.training.flops,
            "flops_deployed": self.deployed.flops,
        }


def count_costs(model: nn.Module, example_input: Tensor) -> Costs:
    """Parameters and multiply-accumulates of ``model``, in training and deployed.

    Charged are this library's layers, by their own formulas (any module with a method
    ``macs(image) -> Macs`` is asked), convolutions and linear layers, once for each call. Biases,
    normalisations and whatever has no parameters of its own (activations, residual sums, the
    pooling before a classifier) are charged nothing, as is common in papers.

    Args:
        model: Stays as it is. Its ``forward`` has to take one tensor and to run on the meta device.
        example_input: Images (B, C, H, W) of which the shape and dtype count. The batch size does
            not: the figures are those of one image.

    Raises:
        ValueError: A module owns parameters and is of no kind that can be counted, or does not
            see the batch as its first axis; the message names it.

    Example:
        >>> costs = count_costs(nn.Conv2d(3, 8, 3, padding=1), torch.zeros(1, 3, 32, 32))
        >>> costs.training.parameters, costs.training.macs.convolution, costs.training.flops
        (224, 221184, 442368)
    """
    training, deployed = _without_values(model).train(), to_inference(_without_values(model))
    for network in (training, deployed):
        _counted(network)  # what cannot be counted is told before anything runs
    deployed = plan_forms(deployed, _images(example_input)[:1])
    return Costs(_count(training, example_input), _count(deployed, example_input))


def _images(example_input: Tensor) -> Tensor:
    """Two, since a batch norm in training refuses to normalise one by itself."""
    shape = (_BATCH, *example_input.shape[1:])
    return torch.empty(shape, dtype=example_input.dtype, device="meta")


def _without_values(model: nn.Module) -> nn.Module:
    """A copy whose tensors have no storage; parameters that are shared stay so."""
    substitutes: dict[int, Any] = {
        id(parameter): nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
        for parameter in model.parameters()
    }
    substitutes |= {id(buffer): buffer.to("meta") for buffer in model.buffers()}
    return deepcopy(model, substitutes)


@torch.no_grad()
def _count(model: nn.Module, example_input: Tensor) -> Cost:
    calls: list[Macs] = []
    for name, module in _counted(model).items():

        def count(module: nn.Module, inputs: Any, output: Tensor, name: str = name) -> None:
            calls.append(_macs(name, module, inputs[0], output, _BATCH))

        module.register_forward_hook(count)
    model(_images(example_input))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Cost(parameters, sum(calls, Macs()))


def _counted(model: nn.Module) -> dict[str, nn.Module]:
    """The modules that are charged, by name."""
    counted: dict[str, nn.Module] = {}
    inside: set[nn.Module] = set()
    for name, module in model.named_modules():
        if module in inside:
            continue
        if callable(getattr(module, "macs", None)):
            counted[name] = module
            inside.update(module.modules())
        elif _computes_as(module, nn.Conv2d, "_conv_forward") or _computes_as(module, nn.Linear):
            counted[name] = module
        elif list(module.parameters(recurse=False)) and not isinstance(module, _FREE):
            raise ValueError(
                f"cannot count the cost of {name or 'the model'!r}, a {type(module).__name__} with"
                " parameters: give it a method macs(image) that returns"
                " overconv.operators.base.Macs"
            )
    return counted


def _computes_as(module: nn.Module, kind: type[nn.Module], *methods: str) -> bool:
    """Whether ``module`` is of a kind and has not changed what that computes."""
    return isinstance(module, kind) and all(
        getattr(type(module), method) is getattr(kind, method) for method in ("forward", *methods)
    )


def _macs(name: str, module: Any, x: Tensor, output: Tensor, batch: int) -> Macs:
    """Charge for one call of ``module``."""
    if x.shape[0] != batch:
        raise ValueError(
            f"cannot count the cost of {name!r}: its input {tuple(x.shape)} has no batch of {batch}"
            " as its first axis"
        )
    if callable(getattr(module, "macs", None)):
        return module.macs(tuple(x.shape[2:]))
    if isinstance(module, nn.Linear):
        positions = math.prod(output.shape[1:-1])
    else:
        positions = math.prod(output.shape[2:])
    return Macs(convolution=module.weight.numel() * positions)
