"""Trials to be killed: 20 s and more each, with all that a checkpoint has to hold.

Varied     what a resumed training could lose: the average of the weights, dropout, mixup, the
           loss scaler, AdamW's two moments, a layer with gates
Held       network, data, blocks; an average of the weights and dropout are on everywhere
Run        python tests/faults/kill_trials.py
"""

from functools import partial

from ablations.study import Arm, Study
from overconv.operators.mdconv import MDConv2d

EPOCHS = 12
MODEL = {"width": 0.25, "dropout": 0.3}
RECIPE = {"epochs": EPOCHS, "ema": 0.95, "label_smoothing": 0.1}

STUDY = Study(
    name="long_trials",
    question="Does a trial that is killed become the record that it would have become?",
    baseline="plain",
    arms={
        "plain": Arm(model=MODEL, recipe=RECIPE),
        "mixed": Arm(
            model=MODEL, recipe={**RECIPE, "mixup": 0.3, "optimizer": "adamw", "lr": 0.005}
        ),
        # Half precision has no fast products on a CPU: a quarter of the epochs take longer.
        "scaled": Arm(model=MODEL, recipe={**RECIPE, "amp": "float16", "epochs": EPOCHS // 4 or 1}),
        "gated": Arm(partial(MDConv2d, depth=2), where="depthwise", model=MODEL, recipe=RECIPE),
    },
)
