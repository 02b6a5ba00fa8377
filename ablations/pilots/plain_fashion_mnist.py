"""Which network and which recipe suit the plain convolution on Fashion-MNIST, within seconds?

Varied     one thing at a time about `here`: width, number of examples, epochs, rate, decay, batch
Held       ResNet-8 with a stem of stride 2, plain convolutions alone, crop and flip
Read       by validation accuracy, never by the test: python -m analysis.selection
Run        python -m ablations run ablations/pilots/plain_fashion_mnist.py --preset reference \
               --blocks 100-101 --results reports/pilots
"""

from ablations.study import Arm, Study

HERE = {"num_train": 6000, "num_validation": 5000, "epochs": 10, "batch_size": 64, "lr": 0.1,
        "weight_decay": 1e-4, "crop_padding": 2, "flip": True}  # fmt: skip


def plain(width: int = 8, **changes) -> Arm:
    return Arm(model={"width": width}, recipe=HERE | changes)


STUDY = Study(
    name="plain_fashion_mnist",
    question="Which network and which recipe suit the plain convolution on Fashion-MNIST?",
    baseline="here",
    arms={
        "here": plain(),
        "width-4": plain(width=4),
        "width-6": plain(width=6),
        "width-12": plain(width=12),
        "width-16": plain(width=16),
        "examples-3000": plain(num_train=3000, epochs=20),
        "examples-12000": plain(num_train=12_000, epochs=5),
        "examples-48000": plain(num_train=48_000),
        "epochs-5": plain(epochs=5),
        "epochs-20": plain(epochs=20),
        "rate-0.025": plain(lr=0.025),
        "rate-0.05": plain(lr=0.05),
        "rate-0.2": plain(lr=0.2),
        "rate-0.4": plain(lr=0.4),
        "decay-0": plain(weight_decay=0.0),
        "decay-5e-4": plain(weight_decay=5e-4),
        "decay-2e-3": plain(weight_decay=2e-3),
        "batch-32": plain(batch_size=32),
        "batch-128": plain(batch_size=128),
    },
    notes={
        "here": "6,000 examples, 10 epochs, batch 64, rate 0.1, decay 1e-4, width 8",
        "examples-3000": "20 epochs: as many images in all",
        "examples-12000": "5 epochs: as many images in all",
        "examples-48000": "10 epochs: eight times the work, to see what is left to gain",
    },
)
