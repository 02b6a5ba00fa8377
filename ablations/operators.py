"""Which layer of the library is more accurate than the plain convolution, and at what cost?

Varied     the layer: all of the library, each as it is by default; DyConv and ODConv with the fall
           of their temperature, from 30 to 1, by which their authors train them
Held       network, data, recipe, blocks; every arm starts from the same function (one that
           normalises by the batch: in evaluation)
Control    the plain network, and the plain network widened to the parameters of `mdconv` and of
           `dyconv`; SEConv2d, a gate that makes no kernel and has fewer parameters than `mdconv`
Claims     C5; C6, of the layers that make a kernel for each input: each of them must be beaten, and
           `mdconv` have fewer parameters than each, by exact count (in resnet20 it has not:
           WeightNetConv2d has fewer)
Run        python -m ablations run operators --preset reference
"""

from ablations.study import Arm, SameParameters, Study
from overconv.gates import TemperatureSchedule
from overconv.operators.acb import ACConv2d
from overconv.operators.condconv import CondConv2d
from overconv.operators.dbb import DBBConv2d
from overconv.operators.dcd import DCDConv2d
from overconv.operators.doconv import DOConv2d
from overconv.operators.dyconv import DyConv2d
from overconv.operators.dynet import DyNetConv2d
from overconv.operators.expand import ExpandConv2d
from overconv.operators.maconv import MAConv2d
from overconv.operators.mdconv import MDConv2d
from overconv.operators.mobileone import MobileOneConv2d
from overconv.operators.odconv import ODConv2d
from overconv.operators.orepa import OREPAConv2d
from overconv.operators.repvgg import RepVGGConv2d
from overconv.operators.se import SEConv2d
from overconv.operators.weightnet import WeightNetConv2d
from records.claim import Claim, Contrast

PEERS = (CondConv2d, DyConv2d, DyNetConv2d, ODConv2d, DCDConv2d, WeightNetConv2d)
FOLDING = (ACConv2d, RepVGGConv2d, DBBConv2d, ExpandConv2d, DOConv2d, OREPAConv2d, MobileOneConv2d)
LAYERS = (MDConv2d, MAConv2d, SEConv2d, *PEERS, *FOLDING)
COOLED = {"schedules": (TemperatureSchedule(start=30.0, end=1.0, until=0.1),)}


def label(layer: type) -> str:
    return layer.__name__.removesuffix("2d").lower()


def arm(layer: type, **options) -> Arm:
    """``layer`` as its authors train it."""
    return Arm(layer, recipe=COOLED if layer in (DyConv2d, ODConv2d) else {}, **options)


STUDY = Study(
    name="operators",
    question="Which layer is more accurate than the plain convolution, and at what cost?",
    baseline="plain",
    arms={
        "plain": Arm(),
        "wide-mdconv": Arm(model={"width": SameParameters("mdconv")}),
        "wide-dyconv": Arm(model={"width": SameParameters("dyconv")}),
        **{label(layer): arm(layer) for layer in LAYERS},
    },
    notes={
        f"wide-{arm}": f"control: the training parameters of {arm}" for arm in ("mdconv", "dyconv")
    },
    claims=(
        Claim(
            name="C5",
            wording="MAConv is more accurate than the plain convolution",
            direction="greater",
            contrasts=[Contrast(arm="maconv", against="plain")],
            margin=0.003,
        ),
        Claim(
            name="C6",
            wording="MDConv is more accurate than its dynamic peers at fewer parameters",
            direction="greater",
            combine="peers",
            fewer="parameters_training",
            contrasts=[Contrast(arm="mdconv", against=label(peer)) for peer in PEERS],
            margin=0.003,
        ),
    ),
)
