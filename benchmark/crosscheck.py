"""Costs by formula against two counters: every layer, variant, form and mode, forward and backward.

The counters are torch's with our corrections and fvcore's (:mod:`overconv.crosscheck`). All that
disagrees is shown with both figures.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from benchmark.checks import modes
from benchmark.tables import markdown, record
from benchmark.variants import Layer, Variant, layers, variants
from overconv.crosscheck import CountersDisagree, CrossCheck, cross_check

IMAGE = (9, 8)
# Number of images, whether they take a gradient, and whether a backward pass runs.
RUNS = (
    (1, True, True),
    (2, True, True),
    (8, True, True),
    (2, False, True),
    (2, False, False),
)


def evaluations(variant: Variant) -> Iterator[nn.Module]:
    """The layer in every form and mode that it has, and deployed where that is no plain one."""
    made: list[Any] = [variant.build().train(mode) for mode in modes(variant)]
    deployed = variant.build().to_inference()
    if type(deployed) is not nn.Conv2d:
        made.append(deployed)
    for layer in made:
        option = getattr(layer, "form_option", None)
        for form in [None] if option is None else layer.forms(IMAGE):
            if option is not None:
                setattr(layer, option, form)
            if not composes_while_training(layer):
                yield layer


def composes_while_training(layer: Any) -> bool:
    """A form that is refused in ``train()``, as its norm would see no features."""
    return layer.training and getattr(layer, "gate_norm", False) and layer.on == "weights"


def measure() -> dict[str, Any]:
    """A row a layer: how many runs there were, and what disagreed in them."""
    rows = [row(layer) for layer in layers()]
    runs = [{"images": b, "gradient": g, "backward": t} for b, g, t in RUNS]
    return record("python -m benchmark crosscheck", rows, image=IMAGE, runs=runs)


def row(layer: Layer) -> dict[str, Any]:
    """All variants of one layer."""
    own = [variant for variant in variants() if variant.layer is layer]
    found: dict[str, Any] = {"forward": 0, "backward": 0, "fvcore": 0, "evaluations": 0}
    disagreed, unseen = [], {"torch's counter": set[str](), "fvcore": set[str]()}
    for variant in own:
        for module in evaluations(variant):
            found["evaluations"] += 1
            for images, gradient, backward in RUNS:
                if module.training and not backward:
                    continue  # which trains in any case
                asks = images == 8 if module.training else not backward
                try:
                    checked = _checked(module, images, gradient, backward, asks)
                except CountersDisagree as error:
                    disagreed.append(f"{variant}: {error}")
                    continue
                found["backward" if backward else "forward"] += 1
                found["fvcore"] += asks
                for counter, names in unseen.items():
                    names |= set(checked.not_seen.get(counter, ()))
    return {
        "layer": layer.__name__,
        "variants": len(own),
        **found,
        "disagreements": disagreed,
        "not_seen": {counter: sorted(names) for counter, names in unseen.items()},
    }


def _checked(
    module: nn.Module, images: int, gradient: bool, backward: bool, fvcore: bool
) -> CrossCheck:
    x = torch.zeros(images, 4, *IMAGE, requires_grad=gradient)
    return cross_check(module, x, backward=backward, fvcore=fvcore)


def text(found: dict[str, Any]) -> str:
    """Runs and disagreements by layer, their sum, every disagreement in full, what was not seen."""
    kinds = ("variants", "evaluations", "backward", "forward", "fvcore")
    totals = {kind: sum(row[kind] for row in found["rows"]) for kind in kinds}
    disagreed = [words for row in found["rows"] for words in row["disagreements"]]
    runs = totals["forward"] + totals["backward"] + len(disagreed)
    lines = [
        [
            row["layer"],
            *(row[kind] for kind in kinds),
            len(row["disagreements"]),
        ]
        for row in found["rows"]
    ]
    columns = ["layer", "variants", "in all forms and modes", "runs, forward and backward"]
    columns += ["forward alone", "of these by fvcore too", "disagreements"]
    unseen: dict[str, set[str]] = {}
    for row in found["rows"]:
        for counter, names in row["not_seen"].items():
            unseen.setdefault(counter, set()).update(names)
    return (
        f"{runs:,} runs of {totals['evaluations']:,} layers against torch's corrected counter,"
        f" {totals['fvcore']:,} of them against fvcore too: {len(disagreed)} disagreements.\n\n"
        + markdown(columns, lines)
        + "".join(f"\n- {words}" for words in disagreed)
        + "".join(
            f"\n{counter} could not see, in one layer or another: {', '.join(sorted(names))}.\n"
            for counter, names in unseen.items()
        )
    )
