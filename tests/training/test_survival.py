"""A training that dies keeping a checkpoint, or finds one damaged, loses at most that one."""

import contextlib
import dataclasses
import itertools
import os

import pytest
from torch import nn

from overconv.training import durable
from overconv.training.checkpoint import CheckpointFolder
from overconv.training.loop import Stopped, train
from overconv.training.recipe import Recipe
from overconv.training.streams import seeded

RECIPE = Recipe(
    epochs=2, batch_size=60, lr=0.05, num_validation=40, ema=0.7, mixup=0.4, optimizer="adamw"
)
# Two steps an epoch: of 140 examples.


class Death(BaseException):
    """Nothing is done after it, as after SIGKILL."""


class Counted(nn.Module):
    """Passes on, and counts the steps of training."""

    steps = 0

    def forward(self, x):
        self.steps += self.training
        return x


def network():
    with seeded(0, "init"):
        return nn.Sequential(
            Counted(), nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.3),
            nn.Linear(64, 3),
        )  # fmt: skip


def trained(dataset, checkpoints, model=None, **options):
    """What may not differ, as text and bytes, and the steps at which it was taken up."""
    model = model or network()
    result = train(model, dataset, RECIPE, block=0, checkpoints=checkpoints, **options)
    weights = {name: value.numpy().tobytes() for name, value in model.state_dict().items()}
    told = dataclasses.replace(result, correct=None, seconds={}, resumed=[])
    return (repr(told), result.correct.tolist(), weights), result.resumed


@pytest.fixture(scope="module")
def undisturbed(dataset):
    return trained(dataset, None)[0]


@pytest.fixture
def lines():
    return []


@pytest.fixture
def folder(tmp_path, lines):
    """As a process finds it that begins."""
    return lambda: CheckpointFolder(tmp_path / "a" / "kept", "a/b", every=1, warn=lines.append)


def die_at(number, amid, patch):
    """Death in the place of that call and of all behind it; ``amid``: half of it is written."""
    genuine, calls = durable.call, itertools.count()

    def call(function, *given, **named):
        this = next(calls)
        if this == number and amid and function is os.write:
            genuine(function, given[0], given[1][: len(given[1]) // 2])
        if this >= number:
            raise Death
        return genuine(function, *given, **named)

    patch.setattr(durable, "call", call)


@pytest.mark.parametrize("amid", [False, True])
def test_dead_at_any_call_of_checkpointing(amid, dataset, undisturbed, folder, lines, monkeypatch):
    died = []
    for number in itertools.count():
        model = network()
        with monkeypatch.context() as patch, contextlib.suppress(Death):
            die_at(number, amid, patch)
            trained(dataset, folder(), model)
            break
        died.append(model[0].steps)
        again, resumed = trained(dataset, folder())
        assert again == undisturbed, f"dead at call {number}"
        assert resumed in ([died[-1]], [died[-1] - 1] if died[-1] > 1 else []), number
        folder().discard()
    assert died == sorted(died)
    assert set(died) == {1, 2, 3, 4}
    assert lines == [], "what was never whole is no damage"


DAMAGES = {
    "empty": lambda content: b"",
    "cut short": lambda content: content[: len(content) // 2],
    "a byte flipped": lambda content: content[:900] + bytes([content[900] ^ 1]) + content[901:],
    "zeros at the end": lambda content: content[:-400] + bytes(400),
}


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("damaged", [1, 2])
def test_with_the_newest_damaged(kind, damaged, dataset, undisturbed, folder, lines):
    """It goes on from the one before it; of two, it begins anew. Each time it says so."""
    asked = itertools.count()
    with pytest.raises(Stopped):
        trained(dataset, folder(), stop=lambda: next(asked) == 4)  # after the third step
    paths = [folder().folder / f"{step}.checkpoint" for step in (3, 2)]
    for path in paths[:damaged]:
        path.write_bytes(DAMAGES[kind](path.read_bytes()))
    again, resumed = trained(dataset, folder())
    assert again == undisturbed
    assert resumed == ([2] if damaged == 1 else [])
    assert [said.partition(" is passed over: ")[0] for said in lines] == [
        str(path) for path in paths[:damaged]
    ]


def test_where_no_checkpoint_can_be_written_it_trains(
    dataset, undisturbed, folder, lines, monkeypatch
):
    def full(function, *given, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "call", full)
    assert trained(dataset, folder()) == (undisturbed, [])
    assert len(lines) == 4
    asked = itertools.count()
    with pytest.raises(Stopped):
        trained(dataset, folder(), stop=lambda: next(asked) == 4)
    assert "No space left on device" in lines[-1]
