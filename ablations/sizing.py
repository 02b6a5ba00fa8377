"""Which setting could tell layers apart at all? The plain network alone, judged on validation.

Varied     width of the network, epochs, learning rate, weight decay
Held       data, split, augmentation
Judged     by validation accuracy: how much of it a wider network would gain, in units of the noise
           between blocks (a setting in which more capacity gains nothing cannot show what
           over-parameters are worth), and what a trial takes
Claims     none: this chooses the preset `reference`, in blocks that the studies do not use, and
           from no arm but the plain one
Run        python -m ablations run sizing --preset reference --blocks 100-101
"""

from itertools import product

from ablations.study import Arm, Study

WIDTHS, EPOCHS, RATES, DECAYS = (4, 8), (4, 8), (0.1, 0.2, 0.4), (1e-4, 5e-4)


def plain(width: int, epochs: int, lr: float, decay: float) -> tuple[str, Arm]:
    label = f"w{width}-e{epochs}-lr{lr:g}-wd{decay:g}"
    recipe = {"epochs": epochs, "lr": lr, "weight_decay": decay}
    return label, Arm(model={"width": width}, recipe=recipe)


ARMS = dict(plain(*values) for values in product(WIDTHS, EPOCHS, RATES, DECAYS))

STUDY = Study(
    name="sizing",
    question="Which setting could tell layers apart?",
    baseline=next(iter(ARMS)),
    arms=ARMS,
)
