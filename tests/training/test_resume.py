"""A training that is taken up at any step ends with the bits of the one that nobody stopped."""

import dataclasses
import io
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from overconv.training import state
from overconv.training.loop import Stopped, train
from overconv.training.recipe import Recipe
from overconv.training.state import Stopwatch
from overconv.training.streams import seeded
from overconv.training.world import World

PLAIN = Recipe(
    epochs=3, batch_size=45, lr=0.05, crop_padding=1, flip=True, num_validation=40,
    warmup_epochs=0.5,
)  # fmt: skip
STEPS = 3  # an epoch: 140 examples
LAST = 3 * STEPS


@dataclasses.dataclass(frozen=True)
class Soften:
    """A schedule of a buffer in ``state_dict``, of one that is not, and of an attribute."""

    def apply(self, model, progress):
        for module in model.modules():
            if isinstance(module, Soft):
                module.temperature.fill_(4 - 3 * progress)
                module.offset, module.shift = progress, module.shift.fill_(progress)


class Soft(nn.Module):
    """Divides by a temperature; counts its calls in training, in a buffer that is not kept."""

    def __init__(self):
        super().__init__()
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("shift", torch.zeros(()), persistent=False)
        self.register_buffer("calls", torch.zeros(()), persistent=False)
        self.offset = 0.0

    def forward(self, x):
        if self.training:
            self.calls += 1
        return x / self.temperature + self.offset * self.shift + 0.01 * self.calls


def network(seed=0):
    with seeded(seed, "init"):
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Dropout2d(0.2),
            Soft(),
            nn.Flatten(),
            nn.Linear(144, 6),
            nn.Dropout(0.3),
            nn.Linear(6, 3),
        )


class Memory:
    """Keeps every state as bytes, and gives one of them to begin with."""

    def __init__(self, first=None, every=1):
        self.first, self.every, self.kept = first, every, []

    def newest(self):
        if self.first is None:
            return None
        return torch.load(io.BytesIO(self.first), weights_only=True)

    def save(self, packed):
        content = io.BytesIO()
        torch.save(packed, content)
        self.kept.append(content.getvalue())

    def due(self, step):
        return step % self.every == 0


def bits(result, model):
    """All that may not differ, as text and bytes; NaNs are equal."""
    values = {name: value.numpy().tobytes() for name, value in model.state_dict().items()}
    hidden = {name: buffer.numpy().tobytes() for name, buffer in model.named_buffers()}
    correct = None if result.correct is None else result.correct.tobytes()
    told = (result.outcome, result.metrics, result.curves, result.diverged_at)
    return repr(told), correct, values, hidden


def trained(dataset, recipe, checkpoints=None, seed=0, **options):
    """The bits that come of a training, and the result."""
    model = network(seed)
    result = train(model, dataset, recipe, block=0, checkpoints=checkpoints, **options)
    return bits(result, model), result


RECIPES = {
    "sgd": {},
    "adamw": {"optimizer": "adamw", "lr": 0.01},
    "sgd without momentum": {"momentum": 0.0, "schedule": "constant"},
    "ema": {"ema": 0.7},
    "mixup": {"mixup": 0.4, "label_smoothing": 0.1},
    "schedules": {"schedules": (Soften(),)},
    "bfloat16": {"amp": "bfloat16"},
    "float16": {"amp": "float16"},
    "channels_last": {"channels_last": True},
    "without validation": {"num_validation": 0, "batch_size": 60},
    "diverging": {"lr": 1e30},
    "all, sgd": {
        "ema": 0.7, "mixup": 0.4, "schedules": (Soften(),), "amp": "float16",
        "channels_last": True, "label_smoothing": 0.1,
    },
    "all, adamw": {
        "ema": 0.7, "mixup": 0.4, "schedules": (Soften(),), "amp": "float16",
        "channels_last": True, "optimizer": "adamw", "lr": 0.01,
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def _scales_that_move(monkeypatch):
    """The scale of float16 begins where it overflows, and grows again after two steps."""
    scaler = partial(torch.amp.GradScaler, init_scale=2.0**18, growth_interval=2)
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)


@pytest.mark.parametrize("name", RECIPES)
def test_from_any_step_on_the_end_is_the_same(name, dataset):
    recipe = dataclasses.replace(PLAIN, **RECIPES[name])
    undisturbed, result = trained(dataset, recipe)
    assert result.resumed == []
    memory = Memory()
    assert trained(dataset, recipe, memory)[0] == undisturbed, "keeping it changes nothing"
    diverged = result.outcome == "diverged"
    assert diverged == (name == "diverging")
    assert len(memory.kept) == (STEPS - 1 if diverged else LAST)
    for step, kept in enumerate(memory.kept, 1):
        # another network, to see that all of it comes from what was kept
        again, resumed = trained(dataset, recipe, Memory(kept), seed=1)
        assert again == undisturbed, f"after step {step}"
        assert resumed.resumed == [step]
        assert [len(values) for values in resumed.seconds.values()] == [1 if diverged else 3] * 2


def stop_at(call):
    """Says so when it is asked for the ``call``-th time, counted from 0."""
    asked = iter(range(1000))
    return lambda: next(asked) == call


@pytest.mark.parametrize("name", ["all, sgd", "all, adamw"])
def test_stopped_wherever_it_asks_the_end_is_the_same(name, dataset):
    """Before each step, the first one too, before each validation and before the test."""
    recipe = dataclasses.replace(PLAIN, **RECIPES[name])
    undisturbed, _ = trained(dataset, recipe)
    expected = [0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8, 9, 9]
    for call, steps in enumerate(expected):
        memory = Memory(every=100)
        with pytest.raises(Stopped, match=f"stopped after {steps} steps") as stopped:
            trained(dataset, recipe, memory, stop=stop_at(call))
        assert stopped.value.step == steps
        again, resumed = trained(dataset, recipe, Memory(memory.kept[-1]), seed=1)
        assert again == undisturbed, f"stopped at call {call}"
        assert resumed.resumed == [steps]
    assert trained(dataset, recipe, stop=stop_at(len(expected)))[0] == undisturbed


def test_stopped_again_and_again_the_end_is_the_same(dataset):
    recipe = dataclasses.replace(PLAIN, **RECIPES["all, sgd"])
    undisturbed, _ = trained(dataset, recipe)
    kept = None
    for process in range(6):
        memory = Memory(kept, every=100)
        with pytest.raises(Stopped):
            trained(dataset, recipe, memory, seed=process, stop=stop_at(2))
        kept = memory.kept[-1]
    again, result = trained(dataset, recipe, Memory(kept), seed=6)
    assert again == undisturbed
    assert result.resumed == [2, 3, 5, 6, 8, 9]


@pytest.mark.parametrize(
    "part", ["model", "optimizer", "scaler", "average", "tally", "curves", "step", "epoch"]
)
def test_each_part_is_needed(part, dataset):
    """The planted defect: one of them is not that of the step, but as it was after the first."""
    recipe = dataclasses.replace(PLAIN, **RECIPES["all, adamw"])
    memory = Memory()
    undisturbed, _ = trained(dataset, recipe, memory)
    early, late = (Memory(memory.kept[index]).newest() for index in (0, STEPS + 1))
    stale = {part: early[part]}
    if part == "epoch":  # with a step of its own, for a place in the epoch that there is
        stale["step"] = late["step"] - STEPS
    assert early.keys() == late.keys()
    planted = Memory()
    planted.save({**late, **stale})
    again, _ = trained(dataset, recipe, Memory(planted.kept[0]), seed=1)
    assert again != undisturbed


@pytest.mark.parametrize("name", ["1.running_var", "4.calls"])  # of state_dict, and beside it
def test_each_buffer_is_needed(name, dataset):
    """The planted defect: it begins anew."""
    memory = Memory()
    undisturbed, _ = trained(dataset, PLAIN, memory)
    packed = Memory(memory.kept[4]).newest()
    packed["model"][name].zero_()
    planted = Memory()
    planted.save(packed)
    assert trained(dataset, PLAIN, Memory(planted.kept[0]), seed=1)[0] != undisturbed


def test_schedules_hold_when_only_the_test_is_left(dataset):
    """What they set beside buffers is in no checkpoint."""
    recipe = dataclasses.replace(PLAIN, schedules=(Soften(),))
    memory = Memory()
    trained(dataset, recipe, memory)
    model = network(1)
    train(model, dataset, recipe, block=0, checkpoints=Memory(memory.kept[-1]))
    assert model[4].offset == 1.0


def test_the_scale_went_down_and_up(dataset):
    """Otherwise the tests above would show nothing of it."""
    memory = Memory()
    trained(dataset, dataclasses.replace(PLAIN, amp="float16"), memory)
    scales = [Memory(kept).newest()["scaler"]["scale"] for kept in memory.kept]
    changes = np.sign(np.diff(scales))
    assert {-1, 1} <= set(changes), scales


def test_an_epoch_is_kept_before_it_is_told(dataset):
    memory = Memory(every=100)
    told = []

    def hear(epoch, values):
        kept = Memory(memory.kept[-1]).newest()
        assert (kept["epoch"], kept["step"]) == (epoch + 1, STEPS * (epoch + 1))
        assert kept["curves"]["train_loss"][-1] == values["train_loss"]
        told.append(epoch)

    trained(dataset, PLAIN, memory, on_epoch=hear)
    assert told == [0, 1, 2]
    later = []
    middle = Memory(memory.kept[1])
    trained(dataset, PLAIN, middle, on_epoch=lambda epoch, values: later.append(epoch))
    assert later == [2]


def test_checkpoints_are_asked_for_within_epochs_alone(dataset):
    asked = []

    class Asked(Memory):
        def due(self, step):
            asked.append(step)
            return False

    memory = Asked()
    trained(dataset, PLAIN, memory)
    assert asked == [1, 2, 4, 5, 7, 8]
    assert len(memory.kept) == 3


def test_what_checkpoints_take_is_no_training_time(dataset, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(state.time, "perf_counter", lambda: now[0])

    class Slow(Memory):
        def save(self, packed):
            now[0] += 1000
            super().save(packed)

    class Counted(Slow):
        def due(self, step):
            now[0] += 1
            return True

    memory = Counted()
    _, result = trained(dataset, PLAIN, memory)
    assert result.seconds["train"] == [2.0, 2.0, 2.0]
    _, resumed = trained(dataset, PLAIN, Counted(memory.kept[4]))
    assert resumed.seconds["train"] == [2.0, 2.0, 2.0]


def test_a_paused_stopwatch_goes_on_as_it_was(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(state.time, "perf_counter", lambda: now[0])
    watch = Stopwatch(3.0)
    with watch.paused():
        now[0] += 1
    assert watch.seconds == 3.0
    now[0] += 1
    watch.stop()
    assert watch.seconds == 3.0  # it had not been started
    watch.start()
    now[0] += 1
    with watch.paused():
        now[0] += 10
    now[0] += 1
    watch.stop()
    assert watch.seconds == 5.0


def test_a_checkpoint_of_another_network_is_refused(dataset):
    memory = Memory()
    trained(dataset, PLAIN, memory)
    model = nn.Sequential(network(), nn.Linear(3, 3))
    with pytest.raises(ValueError, match="the checkpoint is of another network; not in both: 0"):
        train(model, dataset, PLAIN, block=0, checkpoints=Memory(memory.kept[0]))


class Several(World):
    """Two ranks that find different steps."""

    def stack(self, value):
        return torch.stack([value, value + 1])


def test_ranks_that_find_different_checkpoints_are_refused(dataset):
    memory = Memory()
    trained(dataset, PLAIN, memory)
    with pytest.raises(RuntimeError, match=r"checkpoints of different steps: \[2, 3\]"):
        trained(dataset, PLAIN, Memory(memory.kept[1]), world=Several())


def test_the_world_is_that_of_the_recipe(dataset):
    with pytest.raises(ValueError, match="ranks=3, but 1 processes train"):
        trained(dataset, dataclasses.replace(PLAIN, ranks=3))


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["sgd", "adamw", "all, sgd", "all, adamw"])
def test_on_cuda_from_any_step_on_the_end_is_the_same(name, dataset):
    recipe = dataclasses.replace(PLAIN, **RECIPES[name])

    def run(checkpoints=None, seed=0):
        model = network(seed).cuda()
        result = train(model, dataset, recipe, block=0, device="cuda", checkpoints=checkpoints)
        return bits(result, model.cpu())

    memory = Memory()
    undisturbed = run(memory)
    for kept in memory.kept:
        assert run(Memory(kept), seed=1) == undisturbed
