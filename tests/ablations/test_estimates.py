"""Estimates: held against what really is made, and against what others measured."""

import dataclasses
import io
import itertools
from functools import partial

import pytest
import torch
from torch import nn

from ablations import estimates
from ablations.estimates import A100, Step, count_step, data_bytes, estimate, state_bytes
from ablations.presets import MODELS
from ablations.study import Arm, Study
from ablations.trial import resolve, run_trial
from overconv.training.data import outline
from overconv.training.loop import Stopped, train
from overconv.training.recipe import Recipe

STUDY = Study(name="one", question="?", baseline="plain", arms={"plain": Arm()})


@pytest.fixture
def cell(setting):
    return resolve(STUDY, setting)["plain"]


def test_an_a100_trains_resnet50_as_fast_as_its_maker_says():
    recipe = Recipe(epochs=1, batch_size=256, amp="bfloat16", image_size=224)
    with torch.device("meta"):
        network = MODELS["resnet50"](num_classes=1000)
    step = count_step(network, (3, 224, 224), recipe)
    assert 256 / A100.seconds(step, 4_089_184_256, "bfloat16") == pytest.approx(2470, rel=0.03)
    single = dataclasses.replace(recipe, amp="none")
    slower = 256 / A100.seconds(count_step(network, (3, 224, 224), single), 4_089_184_256, "none")
    assert 700 < slower < 1400  # published, in TF32: 938


def test_a_small_step_waits_for_the_host():
    step = Step(num_images=4, operations=500, peak=1000, activations=1000)
    assert A100.seconds(step, 1000, "none") == pytest.approx(500 * A100.dispatch)
    large = dataclasses.replace(step, activations=10**10)
    expected = 10**10 * A100.passes / A100.bandwidth + 6 * 4 * 10**9 / A100.flops["none"]
    assert A100.seconds(large, 10**9, "none") == pytest.approx(expected)


def saved(network: nn.Module, images: torch.Tensor) -> int:
    """Bytes that autograd keeps of a forward pass, parameters aside."""
    seen = {p.untyped_storage().data_ptr(): 0 for p in network.state_dict().values()}

    def keep(tensor):
        storage = tensor.untyped_storage()
        seen.setdefault(storage.data_ptr(), storage.nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(images).sum()
    return sum(seen.values())


@pytest.mark.parametrize(("size", "ranks"), [(16, 1), (32, 2)])
def test_a_step_is_counted_as_it_would_be(size, ranks):
    recipe = Recipe(epochs=1, batch_size=size, ranks=ranks)
    network = MODELS["resnet8"](num_classes=10)
    step = count_step(network, (3, 32, 32), recipe)
    assert step.num_images == 16
    kept = saved(network.train(), torch.randn(16, 3, 32, 32))
    assert kept < step.activations < 1.5 * kept
    parameters = sum(p.nbytes for p in network.parameters())
    buffers = sum(b.nbytes for b in network.buffers())
    assert step.peak == step.activations + 2 * parameters + buffers
    half = count_step(network, (3, 32, 32), dataclasses.replace(recipe, amp="bfloat16"))
    assert half.activations < 0.7 * step.activations


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_checkpoint_takes_what_is_said(optimizer, ema, setting, dataset):
    """Held against one that a training keeps, as it is written."""
    recipe = dataclasses.replace(setting.recipe, optimizer=optimizer, ema=ema)
    network = MODELS["resnet20"](num_classes=3, in_channels=1)
    written = io.BytesIO()

    class Checkpoints:
        def newest(self):
            return None

        def due(self, step):
            return False

        def save(self, state):
            written.seek(0)
            torch.save(state, written)

    asked = itertools.count()
    with pytest.raises(Stopped):
        train(
            network, dataset, recipe, block=0, checkpoints=Checkpoints(),
            stop=lambda: next(asked) == 2,
        )  # fmt: skip
    said = state_bytes(network, recipe)
    assert said < len(written.getvalue()) < 1.25 * said


@pytest.mark.parametrize("num_train", [0, 50])
def test_data_take_what_is_said(num_train, dataset, setting):
    """Every tensor that inputs hold, each storage once."""
    recipe = dataclasses.replace(setting.recipe, num_train=num_train)
    made = dataset.inputs(recipe, 0, "cpu")
    tensors = [dataset.images_train, dataset.images_test, made.feed.split.images, made.feed.crops]
    tensors.append(made.validated.images)
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    assert data_bytes(dataset, recipe) == sum(storages.values())
    assert data_bytes(outline("imagenet"), Recipe(epochs=1, image_size=224)) == 0


@pytest.mark.parametrize("epochs", [1, 30])
def test_a_record_takes_what_is_said(epochs, setting, dataset):
    setting = dataclasses.replace(
        setting, recipe=dataclasses.replace(setting.recipe, epochs=epochs)
    )
    cell = resolve(STUDY, setting)["plain"]
    environment = {"torch": torch.__version__, "threads": 1}
    written = len(run_trial(cell, dataset, 0, environment=environment).model_dump_json())
    assert estimates.record_bytes(cell, dataset) == pytest.approx(written, rel=0.1, abs=300)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_step_is_one_of_the_training(cell, monkeypatch, threads):
    """By a clock that goes on by 6 s whenever it is asked; a step of 32 images lies between."""
    ticks = itertools.count(step=6.0)
    monkeypatch.setattr("ablations.estimates.time.process_time", lambda: next(ticks))
    cell = dataclasses.replace(cell, recipe=dataclasses.replace(cell.recipe, threads=threads))
    seconds = estimates.measure_step(cell, (1, 9, 9), 32)
    assert seconds == pytest.approx(6.0 / threads / 32)
    torch.set_num_threads(1)


def test_a_trial_takes_its_steps_and_what_is_scored(cell, dataset, monkeypatch):
    monkeypatch.setattr(estimates, "measure_step", lambda *_: 1.0)
    monkeypatch.setattr(type(A100), "seconds", lambda *_: 64.0)  # 2 an image
    recipe = dataclasses.replace(cell.recipe, epochs=3)
    for ranks in (1, 2):
        shared = dataclasses.replace(cell, recipe=dataclasses.replace(recipe, ranks=ranks))
        found = estimate(shared, dataset)
        # 140 are trained on, 128 of them in full batches; 40 and at the end 60 are scored.
        images = (3 * 128 + (3 * 40 + 60) / 3) / ranks
        assert found.seconds == pytest.approx(images)
        assert found.gpu_seconds == pytest.approx(2 * ranks * images)
        assert found.checkpoints == 3 * state_bytes(cell.network(), cell.recipe)


def test_large_networks_are_tried_on_few_images(setting, dataset, monkeypatch):
    tried = []
    monkeypatch.setattr(
        estimates, "measure_step", lambda cell, shape, n, device: tried.append(n) or 1
    )
    for macs in (10, 10**8, 10**12):
        setting = dataclasses.replace(setting, model=partial(setting.model, depth=8))
        cell = resolve(STUDY, setting)["plain"]
        estimate(dataclasses.replace(cell, costs={**cell.costs, "macs_training": macs}), dataset)
    assert tried == [32, 20, 2]
