"""The exact figures of a case: integers that are equal in every run and on every machine.

Counted on tensors without values, so that a large network takes seconds and no memory but for its
weights while it is built.
"""

import torch

from overconv.bench.cases import Case, make, prepared
from overconv.costs import count_cost
from overconv.counters import count
from overconv.valueless import emptied, without_values


def figures(case: Case, *, plain: bool = False) -> dict[str, int]:
    """What a case costs, as its module stands and in the mode of its step.

    Args:
        plain: Whether its plain counterpart is asked.

    Returns:
        ``parameters``; multiply-accumulates of one image by formula, ``macs.gate``,
        ``macs.compose``, ``macs.convolution``, ``macs.other``, and ``macs.shared`` once a batch; of
        the whole batch as dispatched, ``counted.forward``; and in training the same of the backward
        pass, ``macs_backward...`` and ``counted.backward``. ``uncounted`` modules have no formula.
        ``operations``, ``copies`` and ``peak_bytes`` of one call depend on the minor version of
        torch; see :class:`overconv.counters.Counts`.

    Example:
        >>> case = Case("conv", lambda: torch.nn.Conv2d(3, 8, 3, padding=1), (2, 3, 5, 5))
        >>> found = figures(case)
        >>> found["parameters"], found["macs.convolution"], found["counted.forward"]
        (224, 5400, 10800)
    """
    module = make(case, plain=plain)
    trains = case.step == "training"
    example = torch.empty(case.shape, device="meta", requires_grad=trains)
    cost = count_cost(module, example, backward=trains, unknown="list")
    found = cost.figures()
    found["uncounted"] = len(cost.uncounted)
    with without_values():
        empty = emptied(module)
        x = torch.empty(case.shape, requires_grad=trains)
        counts = count(prepared(case, empty, x), empty)
    found["counted.forward"] = counts.forward.macs
    if trains:
        found["counted.backward"] = counts.backward.macs
    else:
        found = {name: value for name, value in found.items() if "backward" not in name}
    found["operations"] = counts.operations
    found["copies"] = counts.copies
    found["peak_bytes"] = counts.peak_bytes
    return found
