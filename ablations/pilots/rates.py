"""Which rate and decay suit each family of layers?

Varied     rate and decay, the same small grid for a layer of each family
Held       all else of the preset; examples set aside on which the choice is read
Families   gated chains, chains with a norm, parallel kernels, kernels scaled along their axes,
           kernels made by a network, a gate alone, branches with norms, linear factors
Read       by validation accuracy, never by the test: python -m analysis.selection
Run        python -m ablations run ablations/pilots/rates.py --preset reference \
               [--dataset digits] --blocks 100-101 --results reports/pilots
"""

from ablations.study import Arm, Study
from overconv.operators.dcd import DCDConv2d
from overconv.operators.doconv import DOConv2d
from overconv.operators.dyconv import DyConv2d
from overconv.operators.maconv import MAConv2d
from overconv.operators.mdconv import MDConv2d
from overconv.operators.odconv import ODConv2d
from overconv.operators.repvgg import RepVGGConv2d
from overconv.operators.se import SEConv2d
from overconv.operators.weightnet import WeightNetConv2d

RATES, DECAYS = (0.05, 0.1, 0.2), (1e-4, 5e-4)
FAMILIES = {
    layer.__name__.removesuffix("2d").lower(): {"layer": layer}
    for layer in (
        MDConv2d,
        MAConv2d,
        DyConv2d,
        ODConv2d,
        DCDConv2d,
        WeightNetConv2d,
        SEConv2d,
        RepVGGConv2d,
        DOConv2d,
    )
}

STUDY = Study(
    name="rates",
    question="Which rate and decay suit each family of layers?",
    baseline="plain rate 0.1 decay 0.0001",
    arms={
        f"{family} rate {rate:g} decay {decay:g}": Arm(
            **layer, recipe={"lr": rate, "weight_decay": decay}
        )
        for family, layer in ({"plain": {}} | FAMILIES).items()
        for rate in RATES
        for decay in DECAYS
    },
)
