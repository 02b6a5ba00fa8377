"""A setting small enough to train many times: made images, a thin network, one epoch."""

import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from ablations.engines.engine import Message, Task
from ablations.trial import Setting
from overconv.models.resnet import ResNet
from overconv.training.data import Dataset
from overconv.training.recipe import Recipe
from records.record import Record

# The smallest study that a command can run: digits, two arms, one epoch.
STUDY_FILE = '''
"""A study of its own."""

from functools import partial

from ablations.study import Arm, Study
from overconv import MDConv2d

QUICK = {"epochs": 1}
THIN = {"width": 2}

STUDY = Study(
    name="tiny",
    question="Does anything run?",
    baseline="plain",
    arms={
        "plain": Arm(model=THIN, recipe=QUICK),
        "gated": Arm(partial(MDConv2d, depth=2), model=THIN, recipe=QUICK),
    },
)
'''


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    """Three classes, told apart by the brightest third of a noisy 9 x 9 image."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (240,), generator=generator)
    images = torch.randint(0, 120, (240, 1, 9, 9), generator=generator)
    for index, label in enumerate(labels.tolist()):
        images[index, :, 3 * label : 3 * label + 3] += 100
    images = images.to(torch.uint8)
    return Dataset(
        name="made",
        images_train=images[:180],
        labels_train=labels[:180],
        images_test=images[180:],
        labels_test=labels[180:],
        num_classes=3,
        fingerprint="made-for-tests",
    )


@pytest.fixture
def setting(dataset: Dataset) -> Setting:
    return Setting(
        preset="test",
        dataset=dataset,
        model=partial(ResNet, depth=8, width=4),
        recipe=Recipe(
            epochs=1, batch_size=32, lr=0.05, crop_padding=1, flip=True, num_validation=40
        ),
    )


@pytest.fixture(scope="session")
def study_text() -> str:
    return STUDY_FILE


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    """The path of a study outside the checkout; each test has a module name of its own."""
    path = tmp_path / f"study_{tmp_path.name.replace('-', '_')}.py"
    path.write_text(STUDY_FILE)
    return path


class Said:
    """A listener that keeps what it hears, and a ledger that says what it is told to."""

    def __init__(self) -> None:
        self.heard_of: list[tuple[str, ...]] = []  # arm, and the keys of the message
        self.states: dict[Task, str] = {}
        self.failures: dict[Task, str] = {}

    def heard(self, task: Task, message: Message) -> None:
        self.heard_of.append((task.arm, *message))

    def look(self, task: Task) -> str:
        return self.states.get(task, "held")

    def note_failure(self, task: Task, text: str) -> None:
        self.failures[task] = text


@pytest.fixture
def make_said() -> type[Said]:
    return Said


@pytest.fixture
def records() -> Callable[[Path], dict[str, Record]]:
    """The records of a results folder by trial, read by hand."""

    def read(results: Path) -> dict[str, Record]:
        paths = results.glob("trials/*/*/record.json")
        return {r.trial: r for r in (Record.from_bytes(path.read_bytes()) for path in paths)}

    return read


@pytest.fixture
def wait_for() -> Callable[..., None]:
    """Waits until ``condition()``, and no longer than ``process`` lives."""

    def wait(
        condition: Callable[[], object],
        process: "subprocess.Popen[str] | None" = None,
        seconds: float = 240.0,
    ) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it did not happen"
            assert process is None or process.poll() is None, process.communicate()
            time.sleep(0.05)

    return wait
