"""Three arms of a second each, for what happens to a whole run; a test may give one a fault."""

from functools import partial

from ablations.study import Arm, Study
from overconv import MDConv2d

HELD = {"model": {"width": 2}, "recipe": {"epochs": 2, "ema": 0.9, "mixup": 0.2}}

STUDY = Study(
    name="short_trials",
    question="Does anything go on?",
    baseline="plain",
    arms={
        "plain": Arm(**HELD),
        "faulty": Arm(partial(MDConv2d, depth=3), **HELD),
        "gated": Arm(partial(MDConv2d, depth=2), **HELD),
    },
)
