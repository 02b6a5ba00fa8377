"""Does it matter whether a layer starts as the plain convolution or by its own initialisation?

Varied     the start of each layer that the claims speak of: the same function as the plain
           network's, or its own
Held       network, data, recipe, blocks
Control    the plain network, which is what the one start computes
Claims     D4, a difference either way: each layer's own start against the plain one;
           C1.own, as C1 in `scattering`, but each layer by its own start: from the plain function,
           K parallel kernels begin as large as one, turn the more slowly the more there are, and
           might lose by that alone
Run        python -m ablations run starts --preset reference
"""

from functools import partial

from ablations.operators import COOLED, PEERS, arm, label
from ablations.scattering import PAIRS
from ablations.study import Arm, Study
from overconv.operators.dyconv import DyConv2d
from overconv.operators.maconv import MAConv2d
from overconv.operators.mdconv import MDConv2d
from records.claim import Claim, Contrast

LAYERS = {label(layer): layer for layer in (MDConv2d, MAConv2d, *PEERS)}
# Two of the layers above are arms of `scattering`, under other labels.
SAME = {"vertical-2": "mdconv", "horizontal-4": "dyconv"}


def own(label: str) -> str:
    """The label of an arm of `scattering` by its own start."""
    return f"{SAME.get(label, label)}-own"


STUDY = Study(
    name="starts",
    question="Does it matter whether a layer starts as the plain convolution or by its own "
    "initialisation?",
    baseline="plain",
    arms={"plain": Arm()}
    | {name: arm(layer) for name, layer in LAYERS.items()}
    | {f"{name}-own": arm(layer, start="own") for name, layer in LAYERS.items()}
    | {own(f"vertical-{d}"): Arm(partial(MDConv2d, depth=d), start="own") for d in (3, 4)}
    | {
        own(f"horizontal-{k}"): Arm(partial(DyConv2d, num_kernels=k), start="own", recipe=COOLED)
        for k in (2, 8)
    },
    notes={f"{name}-own": f"as {name}, by its own initialisation" for name in LAYERS},
    claims=(
        Claim(
            name="D4",
            wording="the start of a layer matters",
            direction="different",
            contrasts=[Contrast(arm=f"{name}-own", against=name) for name in LAYERS],
            margin=0.003,
        ),
        Claim(
            name="C1.own",
            wording="as C1, each layer by its own initialisation",
            direction="greater",
            contrasts=[Contrast(arm=own(v), against=own(h)) for v, h in PAIRS.items()],
            margin=0.003,
            fewer="parameters_training",
        ),
    ),
)
