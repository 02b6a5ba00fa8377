"""Inputs of image files: the same bits from any number of processes, and from any step on."""

import copy
import itertools
import os
import signal
import subprocess
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from overconv.training import file_inputs
from overconv.training.data import load
from overconv.training.decoding import Decoder, Example
from overconv.training.file_inputs import num_loaders
from overconv.training.imagenet import MEAN, STD
from overconv.training.loop import Stopped, train
from overconv.training.recipe import Recipe
from overconv.training.streams import no_global_draws, seeded, stream
from overconv.training.world import World

RECIPE = Recipe(
    epochs=2, batch_size=4, num_validation=5, resized_crop=0.3, image_size=16, flip=True, mixup=0.3,
    channels_last=True,
)  # fmt: skip
PLAIN = replace(RECIPE, mixup=0.0, channels_last=False)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Three classes, 21 images to train on and 7 for testing, of sizes from 20 to 40 pixels."""
    root, random = tmp_path_factory.mktemp("imagenet"), np.random.default_rng(0)
    for part, count in (("train", 21), ("val", 7)):
        for number in range(count):
            folder = root / part / f"n0{number % 3}"
            folder.mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 256, (*random.integers(20, 41, 2), 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{part}_{number}.JPEG", quality=95)
    return load("imagenet", root)


def kept(batches):
    return [(b.images.clone(), b.labels.clone(), b.targets.clone()) for b in batches]


def assert_equal(found, expected):
    assert len(found) == len(expected) > 0
    for ours, theirs in zip(found, expected, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one, other)


def test_the_folders_are_found(folders):
    assert (folders.num_train, folders.num_test, folders.num_classes) == (21, 7, 3)
    assert folders.image_shape == (3, 0, 0)
    assert folders.input_shape(RECIPE) == (3, 16, 16)
    assert folders.decoder.startswith("Pillow ") and "libjpeg" in folders.decoder


def test_a_batch_is_its_definition(folders):
    """Order by its stream, each image by the decoder alone, normalised by hand."""
    made = folders.inputs(PLAIN, 3, "cpu", loaders=0)
    aside = np.sort(stream(3, "split").permutation(21)[:5])
    trained = np.setdiff1d(np.arange(21), aside)
    order = trained[stream(3, "order", 1).permutation(16)]
    decoder = Decoder({"train": folders.train}, 3, 16, 0.3, flip=True)
    batches = kept(made.epoch(1))
    assert made.steps == len(batches) == 4
    for step, (images, labels, targets) in enumerate(batches):
        for row, number in enumerate(order[4 * step : 4 * step + 4]):
            pixels, label = decoder[Example("train", int(number), 1)]
            assert labels[row] == targets[row] == label == folders.train.labels[number]
            for channel in range(3):
                expected = (pixels[channel].double() - MEAN[channel]) / STD[channel]
                torch.testing.assert_close(
                    images[row, channel].double(), expected, atol=1e-5, rtol=0
                )


def assert_they_load_the_same(shared, alone):
    """In several passes, one of them left in the middle, and in scoring; without global draws."""
    with no_global_draws("cpu"):
        next(iter(shared.epoch(0)))  # left: what was loaded ahead is thrown away
        for epoch, first in ((0, 0), (1, 0), (1, 3)):
            assert_equal(kept(shared.epoch(epoch, first)), kept(alone.epoch(epoch, first)))
        for part in ("validation", "test"):
            assert_equal(list(getattr(shared, part)()), list(getattr(alone, part)()))


def test_a_process_that_loads_changes_no_bit_and_leaves_signals_to_its_parent(folders):
    """It outlives both signals that a group is sent, and ends when its parent says so."""
    alone, shared = (folders.inputs(RECIPE, 1, "cpu", loaders=n) for n in (0, 1))
    assert_they_load_the_same(shared, alone)
    (worker,) = shared.loader._iterator._workers
    batches = shared.epoch(0)
    next(batches)
    for name in ("INT", "TERM"):
        subprocess.run(["bash", "-c", f"kill -{name} {worker.pid}"], check=True)
    time.sleep(0.2)
    assert len(kept(batches)) == 3 and worker.is_alive()
    assert shared.loader._iterator._workers == [worker]  # one process for all passes
    os.kill(worker.pid, signal.SIGTERM)  # as at the end of a process that did not close its loader
    worker.join(10)
    assert worker.exitcode == 0


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")
def test_three_processes_that_load_change_no_bit(folders):
    """The planted defect, draws of the process in the place of the example's, fails here."""
    alone, shared = (folders.inputs(RECIPE, 1, "cpu", loaders=n) for n in (0, 3))
    assert_they_load_the_same(shared, alone)


@pytest.mark.parametrize("first", [0, 1, 2, 3, 4])
def test_an_epoch_goes_on_from_any_step(folders, first):
    made = folders.inputs(RECIPE, 1, "cpu", loaders=0)
    whole = kept(made.epoch(1))
    rest = kept(folders.inputs(RECIPE, 1, "cpu", loaders=0).epoch(1, first))
    assert rest == [] if first == 4 else True
    for found, expected in zip(rest, whole[first:], strict=True):
        assert_equal([found], [expected])


@pytest.mark.parametrize("recipe", [PLAIN, RECIPE])
def test_ranks_hold_contiguous_rows_of_the_whole_batch(folders, recipe):
    recipe = replace(recipe, ranks=2)
    whole = kept(folders.inputs(recipe, 1, "cpu", loaders=0).epoch(0, 1))
    one, two = (
        kept(folders.inputs(recipe, 1, "cpu", World(rank, 2), loaders=0).epoch(0, 1))
        for rank in (0, 1)
    )
    joined = [
        tuple(torch.cat(pair) for pair in zip(*steps, strict=True))
        for steps in zip(one, two, strict=True)
    ]
    assert_equal(joined, whole)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_evaluation_sees_everything_once_in_order(folders, size, monkeypatch):
    monkeypatch.setattr(file_inputs, "EVALUATION_BATCH", 2)
    aside = np.sort(stream(1, "split").permutation(21)[:5])
    decoder = Decoder({"train": folders.train, "test": folders.test}, 1, 16, 0.3, flip=True)
    for name, part, numbers in (("validation", "train", aside), ("test", "test", range(7))):
        inputs = [
            folders.inputs(RECIPE, 1, "cpu", World(rank, size), loaders=0) for rank in range(size)
        ]
        assert (inputs[0].num_validation, inputs[0].num_test) == (5, 7)
        found = [pair for made in inputs for pair in getattr(made, name)()]
        expected = [decoder[Example(part, int(n), None)] for n in numbers]
        assert torch.cat([y for _, y in found]).tolist() == [label for _, label in expected]
        pixels = torch.stack([image for image, _ in expected])
        assert torch.equal(
            torch.cat([x for x, _ in found]), inputs[0].finish.normalization.apply(pixels)
        )


@pytest.mark.parametrize("loaders", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_broken_image_is_named(loaders, tmp_path):
    for part in ("train", "val"):
        (tmp_path / part / "one").mkdir(parents=True)
        for number in range(4):
            (tmp_path / part / "one" / f"{number}.JPEG").write_bytes(b"no image")
    recipe = replace(RECIPE, num_validation=0)
    broken = load("imagenet", tmp_path).inputs(recipe, 0, "cpu", loaders=loaders)
    with pytest.raises(ValueError, match=r"one/\d.JPEG is missing, cut short or corrupt"):
        next(broken.epoch(0))


def network() -> nn.Module:
    with seeded(0, "init"):
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Dropout(0.2), nn.Linear(4, 3),
        )  # fmt: skip


@pytest.mark.parametrize("last", [1, 4, 6])
def test_a_training_goes_on_from_any_step(last, folders, monkeypatch):
    """Stopped and kept before step ``last`` of eight, and taken up by another process's objects."""
    monkeypatch.setenv("OVERCONV_LOADERS", "0")
    recipe = replace(RECIPE, lr=0.01, ema=0.5, label_smoothing=0.1)
    whole = train(network(), folders, recipe, block=2)

    class Checkpoints:
        kept = None

        def newest(self):
            return self.kept

        def due(self, step):
            return False

        def save(self, state):
            self.kept = copy.deepcopy(state)

    checkpoints, asked = Checkpoints(), itertools.count()
    with pytest.raises(Stopped):
        train(
            network(), folders, recipe, block=2, checkpoints=checkpoints,
            stop=lambda: next(asked) > last,
        )  # fmt: skip
    rest = train(network(), folders, recipe, block=2, checkpoints=checkpoints)
    assert rest.resumed and not whole.resumed
    assert (rest.metrics, rest.curves) == (whole.metrics, whole.curves)
    assert np.array_equal(rest.correct, whole.correct)


def test_loaders_are_as_told_or_a_share_of_the_cores(monkeypatch):
    monkeypatch.setattr(file_inputs, "num_cores", lambda: 12)
    monkeypatch.delenv("OVERCONV_LOADERS", raising=False)
    assert [num_loaders(World(0, size)) for size in (1, 4, 24)] == [12, 3, 1]
    monkeypatch.setattr(file_inputs, "num_cores", lambda: 96)
    assert num_loaders() == 16
    monkeypatch.setenv("OVERCONV_LOADERS", "0")
    assert num_loaders() == 0
    monkeypatch.setenv("OVERCONV_LOADERS", "-1")
    with pytest.raises(ValueError, match="OVERCONV_LOADERS='-1'; allowed: whole numbers from 0"):
        num_loaders()


# What is refused.


def test_parts_have_the_same_classes(tmp_path):
    for place in ("train/a", "train/b", "val/a", "val/c"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "x.png").write_bytes(b"x")
    with pytest.raises(ValueError, match="class 'b' is in one of train and val, not in both"):
        load("imagenet", tmp_path)


def test_a_folder_of_no_classes_is_refused(tmp_path):
    for part in ("train", "val"):
        (tmp_path / "imagenet" / part).mkdir(parents=True)
    with pytest.raises(ValueError, match="imagenet/train holds no class"):
        load("imagenet", tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": None}, "image_size=None, and the images of imagenet vary in size"),
        ({"resized_crop": 0.0, "crop_padding": 4}, "crop_padding=4, and the images of imagenet"),
        ({"batch_size": 17}, "batch_size=17 is more than the 16 training examples of imagenet"),
        ({"num_validation": 21}, "num_validation=21; allowed: from 0 to 20"),
        ({"num_train": 17}, "num_train=17, and num_validation=5 leaves 16 of the 21"),
    ],
)
def test_what_the_folders_do_not_allow_is_refused(changes, message, folders):
    with pytest.raises(ValueError, match=message):
        folders.inputs(replace(RECIPE, **changes), 0, "cpu", loaders=0)
