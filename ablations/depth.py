"""Does depth inside a convolution help, or only the parameters it brings?

Varied     number of linear layers, 1 to 4, with per-sample gates between them and without
Held       network, data, recipe, blocks; every arm starts from the same function
Control    the ungated chains (depth without dynamics), and the plain network widened to the
           training parameters of `gated-2` and of `gated-4` (parameters without depth)
Claims     D1, an ordering: accuracy and cost against the number of layers, gated and not;
           D3, what the question asks: gated chains against a wider network of their parameters
Run        python -m ablations run depth --preset reference
"""

from functools import partial

from ablations.study import Arm, SameParameters, Study
from overconv.operators.mdconv import MDConv2d
from records.claim import Claim, Contrast

DEPTHS = (1, 2, 3, 4)


def gated(depth: int) -> Arm:
    # A chain of one layer has no middle: its gate acts on the output, as in squeeze-and-excitation.
    return Arm(partial(MDConv2d, depth=depth, placement=("output",) if depth == 1 else ("middle",)))


STUDY = Study(
    name="depth",
    question="Does depth inside a convolution help, or only the parameters it brings?",
    baseline="plain",
    arms={
        "plain": Arm(),
        "wide-2": Arm(model={"width": SameParameters("gated-2")}),
        "wide-4": Arm(model={"width": SameParameters("gated-4")}),
        **{f"gated-{d}": gated(d) for d in DEPTHS},
        **{f"linear-{d}": Arm(partial(MDConv2d, depth=d, placement=())) for d in DEPTHS if d > 1},
    },
    notes={
        "plain": "the network as published; also the chain of one ungated layer",
        "wide-2": "control: the training parameters of gated-2",
        "wide-4": "control: the training parameters of gated-4",
        "gated-1": "one layer has no middle: the gate is on the output",
    },
    factors={
        "gates": {kind: [f"{kind}-{d}" for d in DEPTHS[1:]] for kind in ("linear", "gated")},
        "layers": {str(d): [f"linear-{d}", f"gated-{d}"] for d in DEPTHS[1:]},
    },
    claims=(
        Claim(
            name="D1",
            wording="accuracy and cost move with the number of layers",
            direction="trend",
            contrasts=[
                Contrast(arm=f"{kind}-{deep}", against=f"{kind}-{shallow}" if shallow > 1 else low)
                for kind, low in (("gated", "gated-1"), ("linear", "plain"))
                for shallow, deep in zip(DEPTHS, DEPTHS[1:], strict=False)
            ],
            margin=0.003,
        ),
        Claim(
            name="D3",
            wording="depth buys more than the parameters that it brings",
            direction="greater",
            combine="parts",
            contrasts=[Contrast(arm=f"gated-{d}", against=f"wide-{d}") for d in (2, 4)],
            margin=0.003,
        ),
    ),
)
