"""Which network and which recipe suit the plain convolution on the digits, within seconds?

Varied     one thing at a time about `here`: width, number of examples, epochs, rate, decay, batch
Held       ResNet-8, plain convolutions alone, crop
Read       by validation accuracy, never by the test: python -m analysis.selection
Run        python -m ablations run ablations/pilots/plain_digits.py --preset reference \
               --dataset digits --blocks 100-103 --results reports/pilots
"""

from ablations.study import Arm, Study

HERE = {"num_train": 400, "num_validation": 300, "epochs": 30, "batch_size": 32, "lr": 0.1,
        "weight_decay": 1e-4, "crop_padding": 1, "flip": False}  # fmt: skip


def plain(width: int = 4, **changes) -> Arm:
    return Arm(model={"width": width, "stem_stride": 1}, recipe=HERE | changes)


STUDY = Study(
    name="plain_digits",
    question="Which network and which recipe suit the plain convolution on the digits?",
    baseline="here",
    arms={
        "here": plain(),
        "width-2": plain(width=2),
        "width-6": plain(width=6),
        "width-8": plain(width=8),
        "examples-200": plain(num_train=200, epochs=60),
        "examples-1000": plain(num_train=1000, epochs=12),
        "examples-1000-long": plain(num_train=1000),
        "epochs-15": plain(epochs=15),
        "epochs-60": plain(epochs=60),
        "rate-0.05": plain(lr=0.05),
        "rate-0.2": plain(lr=0.2),
        "rate-0.4": plain(lr=0.4),
        "decay-0": plain(weight_decay=0.0),
        "decay-5e-4": plain(weight_decay=5e-4),
        "decay-2e-3": plain(weight_decay=2e-3),
        "batch-16": plain(batch_size=16),
        "batch-64": plain(batch_size=64),
    },
    notes={
        "here": "400 examples, 30 epochs, batch 32, rate 0.1, decay 1e-4, width 4",
        "examples-200": "60 epochs: as many images in all",
        "examples-1000": "12 epochs: as many images in all",
        "examples-1000-long": "30 epochs: two and a half times the work",
    },
)
