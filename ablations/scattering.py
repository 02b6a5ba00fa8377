"""Over-parameters in depth or side by side: which buys more accuracy for its parameters?

Varied     horizontal: 2, 4, 8 parallel kernels mixed by softmax attention, its temperature falling
           as its authors let it;
           vertical: 2, 3, 4 linear layers with gates between them
Held       network, data, recipe, blocks, one gate a layer from the same pooled input; every arm
           starts from the same function
Pairs      gated chains are matched with the horizontal layer next above them in parameters;
           a pair supports C1 only if the vertical arm has fewer of them, by exact count
Control    the plain network, and the plain network widened to the parameters of `horizontal-2`
Claim      C1: every pair must be more accurate, and have fewer parameters
Run        python -m ablations run scattering --preset reference
"""

from functools import partial

from ablations.operators import COOLED
from ablations.study import Arm, SameParameters, Study
from overconv.operators.dyconv import DyConv2d
from overconv.operators.mdconv import MDConv2d
from records.claim import Claim, Contrast

PAIRS = {"vertical-2": "horizontal-2", "vertical-3": "horizontal-4", "vertical-4": "horizontal-8"}

STUDY = Study(
    name="scattering",
    question="Over-parameters in depth or side by side: "
    "which buys more accuracy for its parameters?",
    baseline="plain",
    arms={
        "plain": Arm(),
        "wide-2": Arm(model={"width": SameParameters("horizontal-2")}),
        **{
            f"horizontal-{k}": Arm(partial(DyConv2d, num_kernels=k), recipe=COOLED)
            for k in (2, 4, 8)
        },
        **{f"vertical-{d}": Arm(partial(MDConv2d, depth=d)) for d in (2, 3, 4)},
    },
    notes={
        "wide-2": "control: the training parameters of horizontal-2",
        **{vertical: f"paired with {horizontal}" for vertical, horizontal in PAIRS.items()},
    },
    claims=(
        Claim(
            name="C1",
            wording="depth beats width: vertical scattering is more accurate than horizontal with "
            "fewer parameters",
            direction="greater",
            contrasts=[Contrast(arm=v, against=h) for v, h in PAIRS.items()],
            margin=0.003,
            fewer="parameters_training",
        ),
    ),
)
