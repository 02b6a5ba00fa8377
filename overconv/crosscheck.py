"""Costs by formula against what two counters see: torch's, corrected, and fvcore's.

Formulas, :mod:`overconv.counters` and fvcore know nothing of one another. What one of them cannot
see is listed, and where they disagree that is an error which shows the figures of all.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from overconv.charges import Charges
from overconv.counters import OUTSIDE, Counts, Work, count
from overconv.fvcounter import count_by_fvcore
from overconv.operators.macs import Macs
from overconv.valueless import emptied, without_values


class CountersDisagree(Exception):
    """A formula says something else than a counter sees."""


@dataclass(frozen=True)
class Compared:
    """One charged module, all its calls, for the whole batch.

    Attributes:
        formula: Multiply-accumulates by formula, but for ``other``: what should be products.
        counted: Those that the counter sees as products.
        rows: How many of these the formula calls ``other``: sums with weights, written as products
            of a single row.
        elementwise: How many of the formula's are no products but multiplications of tensors.
    """

    formula: int
    counted: int
    rows: int
    elementwise: int


@dataclass(frozen=True)
class CrossCheck:
    """Three ways to count one pass; all figures are of the whole batch.

    Attributes:
        batch: Number of images.
        modules: What was compared, by name.
        macs, macs_backward: Multiply-accumulates of one image by formula.
        counts: What torch's counter saw.
        fvcore: Multiply-accumulates of the forward pass by fvcore; None: not asked.
        only_counted: Products that the counter sees outside of what formulas charge, by module.
        not_seen: For each counter what it could not see, by name, in words.
    """

    batch: int
    modules: Mapping[str, Compared]
    macs: Macs
    macs_backward: Macs
    counts: Counts
    fvcore: int | None
    only_counted: Mapping[str, int]
    not_seen: Mapping[str, Mapping[str, str]]

    def __str__(self) -> str:
        def line(name: str, forward: object, backward: object = "") -> str:
            return f"{name:42}{forward!s:>20}{backward!s:>20}".rstrip()

        counted, moved = self.counts, sum(c.elementwise - c.rows for c in self.modules.values())
        lines = [line(f"MACs, batch {self.batch}", "forward", "backward")]
        said = [_products(macs, self.batch) for macs in (self.macs, self.macs_backward)]
        lines.append(line("formula (gate, compose, convolution, shared)", *map(_grouped, said)))
        lines.append(line("  of it elementwise; products of 'other' off", _grouped(moved)))
        alone = sum(self.only_counted.values())
        lines.append(line("counted outside of what formulas charge", _grouped(alone)))
        pair = counted.forward.macs, counted.backward.macs
        lines.append(line("torch's counter, corrected", *map(_grouped, pair)))
        if self.fvcore is not None:
            lines.append(line("fvcore", _grouped(self.fvcore)))
        for counter, missed in self.not_seen.items():
            lines.append(f"{counter} could not see:" + ("" if missed else " nothing"))
            lines += [f"  {name or '(the model)'}: {why}" for name, why in missed.items()]
        return "\n".join(lines)


def _grouped(number: int) -> str:
    return f"{number:,}"


def _products(macs: Macs, batch: int) -> int:
    """Of a batch, all but what is elementwise for each image."""
    return batch * (macs.gate + macs.compose + macs.convolution) + macs.shared


def cross_check(
    model: nn.Module,
    example_input: Tensor,
    *,
    backward: bool | None = None,
    unknown: str = "refuse",
    fvcore: bool | None = None,
) -> CrossCheck:
    """Count one pass of ``model`` in three ways and compare.

    For each charged module the formula's products have to be those that torch's counter sees, but
    for two ways of writing: a sum with weights that is ``other`` by formula may be a product, and
    kernels may be mixed elementwise. All multiplications of images and kernels, and their means,
    have to be in the formula. The backward pass is compared for the whole network where formulas
    cover all of it, and fvcore's total with torch's.

    Args:
        model: Stays as it is; in the mode and the forms that it has. On the meta device it runs
            without values, and without fvcore, which needs some.
        example_input: Images (B, C, H, W), all of them run; they get a gradient if they ask for it.
        backward: Whether a backward pass of the mean of squares is run too; None: in ``train()``.
        unknown: As in :func:`overconv.costs.count_costs`. With ``"list"`` products outside of what
            formulas charge are listed too, and otherwise they are a disagreement.
        fvcore: Whether to ask it; None: where there are values.

    Raises:
        CountersDisagree: They do; the message names the module and shows all figures.
        ValueError: fvcore is wanted without values, or a module cannot be counted.
    """
    meta = any(t.is_meta for t in [example_input, *model.parameters(), *model.buffers()])
    if fvcore and meta:
        raise ValueError("fvcore needs values: the model or its input is on the meta device")
    trains = model.training if backward is None else backward
    if meta:
        with without_values():
            like = torch.empty(example_input.shape, dtype=example_input.dtype)
            like.requires_grad_(example_input.requires_grad)
            found = _run(emptied(model), like, trains, unknown)
    else:
        images = example_input.detach().clone().requires_grad_(example_input.requires_grad)
        found = _run(deepcopy(model), images, trains, unknown)
    charges, counts = found
    compared = {
        name: _compare(name, macs, charges.batch, _inside(counts, name))
        for name, macs in charges.forward.items()
    }
    alone = _alone(charges, counts)
    if alone and unknown == "refuse":
        name, macs = next(iter(alone.items()))
        raise CountersDisagree(
            f"no formula charges {macs:,} multiply-accumulates of {name or 'the model'!r}, outside"
            f" of all modules that have one: torch's counter sees {counts.modules[name].products}"
        )
    backward_macs = sum(charges.backward.values(), Macs())
    not_seen = {
        "formulas": charges.uncounted
        | dict.fromkeys(charges.uncalled(), "a module that was not called")
        | {name: f"{macs:,} MACs of products outside of layers" for name, macs in alone.items()},
        "torch's counter": _torch_missed(counts),
    }
    if trains:
        whole = not charges.uncounted and not alone
        if whole:
            _compare_backward(backward_macs, charges.batch, compared, counts)
        else:
            not_seen["formulas"]["backward pass"] = "not compared: formulas do not cover it all"
    seen = None
    if fvcore or (fvcore is None and not meta):
        seen, not_seen["fvcore"] = count_by_fvcore(model, example_input)
        # an einsum is a product on its graph, even one that runs as multiplications
        elementwise = sum(counts.forward.multiplications.values())
        if not counts.forward.macs <= seen <= counts.forward.macs + elementwise:
            raise CountersDisagree(
                f"fvcore sees {seen:,} multiply-accumulates of products in the forward pass, and"
                f" torch's counter {counts.forward.macs:,} ({counts.forward.products})"
            )
    total = sum(charges.forward.values(), Macs())
    return CrossCheck(charges.batch, compared, total, backward_macs, counts, seen, alone, not_seen)


def _run(model: nn.Module, images: Tensor, backward: bool, unknown: str) -> tuple[Charges, Counts]:
    charges = Charges(model, images.shape[0], unknown, backward)

    def call() -> None:
        with torch.set_grad_enabled(backward):
            output = model(images)
            if backward:
                # several heads, as in GoogLeNet in train(), count together
                loss: Any = sum(y.square().mean() for y in _outputs(output))
                loss.backward()

    with torch.random.fork_rng(devices=[]):
        counts = count(call, model)
    charges.remove()
    return charges, counts


def _outputs(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    parts = output.values() if isinstance(output, Mapping) else output
    return [tensor for part in parts if part is not None for tensor in _outputs(part)]


def _inside(counts: Counts, name: str) -> Work:
    """The work of a module and of all that is in it."""
    return sum(
        (
            work
            for other, work in counts.modules.items()
            if other == name or other.startswith(f"{name}.") or (not name and other != OUTSIDE)
        ),
        Work(),
    )


def _alone(charges: Charges, counts: Counts) -> dict[str, int]:
    """Products in no charged module, by the name of the module."""
    done = list(charges.forward)
    return {
        name: work.macs
        for name, work in counts.modules.items()
        if work.macs and not any(not d or name == d or name.startswith(f"{d}.") for d in done)
    }


def _compare(name: str, macs: Macs, batch: int, work: Work) -> Compared:
    said = _products(macs, batch)
    other = batch * macs.other
    # what the formula has and products have not
    missing = said - work.macs
    elementwise = max(0, missing)
    rows = max(0, -missing)
    scaled = sum(work.multiplications.values())

    def disagree(why: str) -> CountersDisagree:
        figures = {kind: (1 if kind == "shared" else batch) * n for kind, n in asdict(macs).items()}
        return CountersDisagree(
            f"{name or 'the model'!r}, batch {batch}: {why}. By formula: {figures}; torch's counter"
            f" sees the products {work.products}, of them {work.rows:,} of a single row, the"
            f" multiplications of images and kernels {work.multiplications} and {work.vectors:,} of"
            f" tensors of fewer axes, {work.pooled:,} values pooled"
        )

    if rows and rows != work.rows:
        raise disagree(f"{rows:,} multiply-accumulates of products are in no formula")
    if elementwise > min(batch * macs.compose + macs.shared, scaled + work.vectors):
        raise disagree(f"{elementwise:,} multiply-accumulates of the formula are not there")
    flat = max(0, elementwise - scaled)  # kernels may be mixed as flattened ones
    left = scaled + work.pooled + rows - (elementwise - flat)
    if left > other:
        raise disagree(
            f"{left:,} multiplications of images and kernels are not in the formula, whose 'other'"
            f" is {other:,}"
        )
    # What else is done with vectors is less than what their gate takes.
    if work.vectors - flat > batch * macs.gate + macs.shared + other - left:
        raise disagree(
            f"{work.vectors - flat:,} multiplications of tensors of fewer axes are in no formula"
        )
    return Compared(said, work.macs, rows, elementwise)


def _compare_backward(
    macs: Macs, batch: int, compared: Mapping[str, Compared], counts: Counts
) -> None:
    said = _products(macs, batch)
    moved = 2 * sum(c.rows - c.elementwise for c in compared.values())
    if said + moved != counts.backward.macs:
        raise CountersDisagree(
            f"backward pass, batch {batch}: by formula {said:,} multiply-accumulates of products"
            f" ({asdict(macs)} an image, {moved:+,} written in another way), and torch's counter"
            f" sees {counts.backward.macs:,} ({counts.backward.products})"
        )


def _torch_missed(counts: Counts) -> dict[str, str]:
    both = counts.forward + counts.backward
    return {
        name: f"{both.operations[name]} times, {values:,} values"
        for name, values in both.unseen.items()
    }
