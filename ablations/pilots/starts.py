"""Which start suits each layer: the plain convolution's function, or its own initialisation?

Where a gate is neutral at less than one, a start from the plain function has larger kernels than
the plain network's. Behind a batch norm kernels count by their direction, and larger ones turn more
slowly at the same rate: by the square of their size. A layer may then lose by its start what it
would not by itself.

Varied     the start of every layer of the library; of DyConv and ODConv, whether their temperature
           falls from 30 to 1 in the first tenth of training, as their authors let it
Held       all else of the preset
Read       by validation accuracy, never by the test: python -m analysis.selection
Run        python -m ablations run ablations/pilots/starts.py --preset reference \
               [--dataset digits] --blocks 100-101 --results reports/pilots
"""

from ablations.operators import COOLED, LAYERS, label
from ablations.study import Arm, Study
from overconv.operators.dyconv import DyConv2d
from overconv.operators.odconv import ODConv2d

STARTS = ("plain", "own")

STUDY = Study(
    name="pilot_starts",
    question="Which start suits each layer: the plain convolution's function, or its own?",
    baseline="plain",
    arms={"plain": Arm()}
    | {f"{label(layer)} {start}": Arm(layer, start=start) for layer in LAYERS for start in STARTS}
    | {
        f"{label(layer)} {start} cooled": Arm(layer, start=start, recipe=COOLED)
        for layer in (DyConv2d, ODConv2d)
        for start in STARTS
    },
)
