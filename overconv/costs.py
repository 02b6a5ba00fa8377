"""What a network costs: parameters, multiply-accumulates and floating-point operations, by formula.

Nothing is computed: the network runs once on tensors that have shapes and no values. What formulas
say is held against what real runs dispatch by :mod:`overconv.crosscheck`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields

import torch
from torch import Tensor, nn

from overconv.charges import Charges, charged
from overconv.forms import plan_forms
from overconv.operators.macs import Macs
from overconv.surgery import to_inference
from overconv.valueless import emptied

_BATCH = 2


@dataclass(frozen=True)
class Cost:
    """Cost of a network in one form.

    Attributes:
        parameters: Their number; a shared one counts once, buffers do not count.
        macs: Multiply-accumulates of one forward pass on one image, by kind; see
            :class:`overconv.operators.macs.Macs`.
        macs_backward: The same of the backward pass
            (:meth:`overconv.operators.base.OverConv2d.macs_backward`); none where the network is
            deployed.
        modules, modules_backward: Both by the name of the module, all its calls together.
        uncounted: What no formula covers, by name, in words; see ``unknown`` of
            :func:`count_costs`. Empty unless that is ``"list"``, but for backward passes.
    """

    parameters: int
    macs: Macs
    macs_backward: Macs = field(default=Macs(), compare=False)
    modules: Mapping[str, Macs] = field(default_factory=dict, compare=False)
    modules_backward: Mapping[str, Macs] = field(default_factory=dict, compare=False)
    uncounted: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def flops(self) -> int:
        """Floating-point operations of a forward pass: two for each multiply-accumulate."""
        return 2 * self.macs.total

    @property
    def flops_backward(self) -> int:
        """Floating-point operations of a backward pass: two for each multiply-accumulate."""
        return 2 * self.macs_backward.total

    def figures(self) -> dict[str, int]:
        """All figures by name: of one image by kind, and what is shared once a batch."""
        named = {"parameters": self.parameters}
        for name, macs in (("macs", self.macs), ("macs_backward", self.macs_backward)):
            named |= {f"{name}.{kind}": value for kind, value in asdict(macs).items()}
        return named

    def __str__(self) -> str:
        """A table: by module, and in all."""
        rows = [["module", "pass", *KINDS, "MACs", "FLOPs"]]
        for name, macs in self.modules.items():
            rows.append([name or "(itself)", "forward", *_numbers(macs)])
            if name in self.modules_backward:
                rows.append(["", "backward", *_numbers(self.modules_backward[name])])
        rows.append([f"in all, {self.parameters:,} parameters", "forward", *_numbers(self.macs)])
        if self.macs_backward.total:
            rows.append(["", "backward", *_numbers(self.macs_backward)])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if place < 2 else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        lines += [f"not counted: {name}: {why}" for name, why in self.uncounted.items()]
        return "\n".join(lines)


KINDS = tuple(kind.name for kind in fields(Macs))


def _numbers(macs: Macs) -> list[str]:
    return [f"{value:,}" for value in (*asdict(macs).values(), macs.total, 2 * macs.total)]


@dataclass(frozen=True)
class Costs:
    """Cost of a network as it is trained, and as it is deployed.

    Attributes:
        training: In ``train()``; a forward and a backward pass.
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

    def __str__(self) -> str:
        """Where the cost is: a table of either form, module by module."""
        return (
            f"in training:\n{self.training}\n\ndeployed, {self.over_parameters:,} parameters"
            f" fewer:\n{self.deployed}"
        )


def count_costs(model: nn.Module, example_input: Tensor, *, unknown: str = "refuse") -> Costs:
    """Parameters and multiply-accumulates of ``model``, in training and deployed.

    Charged are this library's layers, by their own formulas (any module with a method
    ``macs(image) -> Macs`` is asked), convolutions and linear layers, once for each call. Biases,
    normalisations and whatever has no parameters of its own (activations, residual sums, the
    pooling before a classifier) are charged nothing, as is common in papers.

    Args:
        model: Stays as it is. Its ``forward`` has to take one tensor and to run on the meta device.
            A parameter with ``requires_grad=False`` costs a backward pass nothing.
        example_input: Images (B, C, H, W) of which the shape, the dtype and ``requires_grad``
            count. The batch size does not: the figures are those of one image.
        unknown: ``"refuse"``, or ``"list"``: what cannot be counted is listed in
            :attr:`Cost.uncounted` and charged nothing. :func:`overconv.crosscheck.cross_check`
            counts it by other means.

    Raises:
        ValueError: A module owns parameters and is of no kind that can be counted, or does not
            see the batch as its first axis; the message names it. Or ``unknown`` is neither.

    Example:
        >>> costs = count_costs(nn.Conv2d(3, 8, 3, padding=1), torch.zeros(1, 3, 32, 32))
        >>> costs.training.parameters, costs.training.macs.convolution, costs.training.flops
        (224, 221184, 442368)
        >>> costs.training.macs_backward.convolution  # the image needs no gradient
        221184
    """
    training, deployed = (emptied(model, "meta") for _ in range(2))
    training, deployed = training.train(), to_inference(deployed)
    for network in (training, deployed):
        charged(network, unknown)  # what cannot be counted is told before anything runs
    deployed = plan_forms(deployed, _images(example_input)[:1].detach())
    return Costs(
        count_cost(training, example_input, unknown=unknown),
        count_cost(deployed, example_input, backward=False, unknown=unknown),
    )


def count_cost(
    model: nn.Module, example_input: Tensor, *, backward: bool = True, unknown: str = "refuse"
) -> Cost:
    """The cost of ``model`` as it stands, in its mode and its forms; see :func:`count_costs`.

    Args:
        backward: Whether the backward pass is charged too.
    """
    with torch.set_grad_enabled(backward):
        return _count(emptied(model, "meta"), _images(example_input), unknown, backward)


def _images(example_input: Tensor) -> Tensor:
    """Two, since a batch norm in training refuses to normalise one by itself."""
    shape = (_BATCH, *example_input.shape[1:])
    images = torch.empty(shape, dtype=example_input.dtype, device="meta")
    return images.requires_grad_(example_input.requires_grad)


def _count(model: nn.Module, images: Tensor, unknown: str, backward: bool) -> Cost:
    charges = Charges(model, _BATCH, unknown, backward)
    model(images)
    charges.remove()
    return Cost(
        sum(parameter.numel() for parameter in model.parameters()),
        sum(charges.forward.values(), Macs()),
        sum(charges.backward.values(), Macs()),
        charges.forward,
        charges.backward,
        charges.uncounted,
    )
