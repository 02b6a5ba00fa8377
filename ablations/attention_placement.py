"""Where in the chain should the attention sit, when does it act, and in which form to train it?

Varied     the places of the gates (every subset of input, middle, output); whether they are made
           per sample or per batch; attention on features (expanding form) or on weights
           (compact form); batch norm between the layers
Held       depth 2, network, data, recipe, blocks; every arm starts from the same function (an arm
           with a middle norm: in evaluation, since it normalises by the batch while training)
Control    the chain without gates (`none`), with and without the norm, and the plain network
Claims     D2, an ordering of the places; C2 in its parts, by the area under the curve of
           validation accuracy: `middle-weights` is the same function of the same parameters as
           `middle`, so that only rounding and cost may differ, and what the expanding form alone
           allows, the norm, is a part of its own
Run        python -m ablations run attention_placement --preset reference
"""

from functools import partial
from itertools import combinations

from ablations.study import Arm, Study
from overconv.operators.mdconv import MDConv2d
from records.claim import Claim, Contrast, Evidence

PLACES = ("input", "middle", "output")
SUBSETS = [subset for size in (1, 2, 3) for subset in combinations(PLACES, size)]


def chain(placement: tuple[str, ...], **options) -> Arm:
    return Arm(partial(MDConv2d, depth=2, placement=placement, **options))


STUDY = Study(
    name="attention_placement",
    question="Where in the chain should the attention sit, when does it act, "
    "and in which form should it be trained?",
    baseline="plain",
    arms={
        "plain": Arm(),
        "none": chain(()),
        **{"+".join(subset): chain(subset) for subset in SUBSETS},
        "middle-batch": chain(("middle",), when="batch"),
        "middle-weights": chain(("middle",), form="compact"),
        "none-norm": chain((), middle_norm=True),
        "middle-norm": chain(("middle",), middle_norm=True),
        "middle-batch-norm": chain(("middle",), when="batch", middle_norm=True),
    },
    notes={
        "none": "control: the chain without attention",
        "output": "as in squeeze-and-excitation, within the chain",
        "middle-batch": "one gate a batch; its running estimate in evaluation",
        "middle-weights": "compact form: the same function and parameters as `middle`",
        "none-norm": "batch norm between the layers: what only the expanding form allows",
    },
    factors={
        place: {
            "without": ["none", *("+".join(s) for s in SUBSETS if place not in s)],
            "with": ["+".join(s) for s in SUBSETS if place in s],
        }
        for place in PLACES
    },
    claims=(
        Claim(
            name="C2",
            wording="the expanding form eases training",
            measure="mean_validation_accuracy",
            direction="greater",
            combine="parts",
            contrasts=[
                Contrast(arm="middle", against="middle-weights"),
                Contrast(arm="middle-norm", against="middle"),
                Contrast(arm="none-norm", against="none"),
            ],
            margin=0.003,
            evidence=[
                Evidence(
                    what="both forms have equal gradients",
                    where="tests/operators/test_chain_grid.py::test_forms_equal_the_definition",
                ),
                Evidence(what="time and memory of a step", where="python -m benchmark training"),
            ],
        ),
        Claim(
            name="D2",
            wording="where in the chain the attention should sit",
            direction="different",
            contrasts=[Contrast(arm="+".join(subset), against="none") for subset in SUBSETS],
            margin=0.003,
        ),
    ),
)
