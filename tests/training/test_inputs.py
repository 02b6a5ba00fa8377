"""Inputs in memory: by block, epoch and step, whole or shared by ranks, from the middle on."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from overconv.training import memory_inputs
from overconv.training.augmentation import Augmentation, Normalization
from overconv.training.inputs import DataSource, Inputs, input_shape
from overconv.training.mixup import draw_share
from overconv.training.recipe import Recipe
from overconv.training.streams import stream
from overconv.training.world import World

PLAIN = Recipe(epochs=2, batch_size=12, num_validation=40)
FULL = replace(PLAIN, crop_padding=1, flip=True, mixup=0.4)


def kept(batches):
    """The batches, copied, since each overwrites the one before it."""
    return [(b.images.clone(), b.labels.clone(), b.targets.clone()) for b in batches]


def assert_equal(found, expected):
    assert len(found) == len(expected) > 0
    for ours, theirs in zip(found, expected, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one, other)


def test_both_ends_fit_their_protocols(dataset):
    source: DataSource = dataset
    made: Inputs = source.inputs(PLAIN, 0, "cpu")
    assert (source.num_train, source.num_test, source.image_shape) == (180, 70, (1, 6, 6))
    assert (made.steps, made.num_validation, made.num_test) == (11, 40, 70)


def test_a_batch_is_its_definition(dataset):
    """Order, crop, flip, normalisation and mixture written out, example by example."""
    block, epoch, step, size = 3, 1, 4, FULL.batch_size
    train = dataset.split(block, PLAIN).train
    order = stream(block, "order", epoch).permutation(len(train))[: 11 * size]
    draws = Augmentation.draw(block, epoch, 180, crop_padding=1, flip=True)
    values = dataset.images_train.double()
    images = []
    for place in order[step * size : (step + 1) * size]:
        image = train.images[place].double()
        number = train.numbers[place]
        if draws.flips[number]:
            image = image.flip(-1)
        down, right = draws.shifts[number].tolist()
        image = F.pad(image, (1, 1, 1, 1))[:, down : down + 6, right : right + 6]
        images.append((image - values.mean()) / values.std(correction=0))
    images, labels = torch.stack(images), train.labels[order[step * size : (step + 1) * size]]
    share = draw_share(0.4, block, epoch, step)
    certain = F.one_hot(labels, 3).double()
    found = kept(dataset.inputs(FULL, block, "cpu").epoch(epoch))[step]
    torch.testing.assert_close(
        found[0].double(), share * images + (1 - share) * images.roll(1, 0), rtol=1e-5, atol=1e-5
    )
    assert torch.equal(found[1], labels)
    torch.testing.assert_close(
        found[2].double(), share * certain + (1 - share) * certain.roll(1, 0), rtol=0, atol=1e-6
    )


def test_without_mixup_the_targets_are_the_labels(dataset):
    for batch in dataset.inputs(PLAIN, 0, "cpu").epoch(0):
        assert batch.targets is batch.labels


@pytest.mark.parametrize("recipe", [PLAIN, FULL, replace(FULL, channels_last=True)])
@pytest.mark.parametrize("first", [0, 1, 7, 8, 9, 10, 11])
def test_an_epoch_goes_on_from_any_step(dataset, recipe, first):
    whole = kept(dataset.inputs(recipe, 1, "cpu").epoch(2))
    rest = kept(dataset.inputs(recipe, 1, "cpu").epoch(2, first))
    if first == 11:
        assert rest == []
    else:
        assert_equal(rest, whole[first:])


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("recipe", [PLAIN, FULL])
def test_ranks_hold_contiguous_rows_of_the_whole_batch(dataset, recipe, size):
    """The planted defect, a partner from the rank's own rows, fails here."""
    recipe = replace(recipe, batch_size=12, ranks=size)
    whole = kept(dataset.inputs(recipe, 1, "cpu").epoch(0, 3))
    parts = [
        kept(dataset.inputs(recipe, 1, "cpu", World(rank, size)).epoch(0, 3))
        for rank in range(size)
    ]
    assert_equal(
        [tuple(torch.cat(t) for t in zip(*step, strict=True)) for step in zip(*parts, strict=True)],
        whole,
    )


@pytest.mark.parametrize("size", [1, 2, 3])
def test_evaluation_sees_everything_once_in_order(dataset, size, monkeypatch):
    monkeypatch.setattr(memory_inputs, "EVALUATION_BATCH", 10)
    splits = dataset.split(4, PLAIN)
    normalization = Normalization.of(dataset.images_train)
    for name in ("validation", "test"):
        held = getattr(splits, name)
        parts = [
            pair
            for rank in range(size)
            for pair in getattr(dataset.inputs(PLAIN, 4, "cpu", World(rank, size)), name)()
        ]
        assert max(len(labels) for _, labels in parts) == 10
        assert torch.equal(torch.cat([labels for _, labels in parts]), held.labels)
        images = torch.cat([images for images, _ in parts])
        assert torch.equal(images, normalization.apply(held.images))


@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_the_memory_format_is_the_recipes(mixup):
    from overconv.training.data import Dataset

    images = torch.randint(256, (40, 3, 6, 6)).to(torch.uint8)
    labels = torch.arange(40) % 3
    data = Dataset("made", images, labels, images[:5], labels[:5], 3, "made")
    found = {}
    for last in (False, True):
        recipe = Recipe(epochs=1, batch_size=8, num_validation=4, mixup=mixup, channels_last=last)
        made = data.inputs(recipe, 0, "cpu")
        batches = [batch.images for batch in made.epoch(0)] + [next(made.test())[0]]
        layout = torch.channels_last if last else torch.contiguous_format
        assert all(batch.is_contiguous(memory_format=layout) for batch in batches)
        found[last] = kept(made.epoch(0))
    assert_equal(found[True], found[False])


def test_blocks_and_epochs_differ(dataset):
    first = kept(dataset.inputs(FULL, 0, "cpu").epoch(0))
    for block, epoch in ((0, 1), (1, 0)):
        other = kept(dataset.inputs(FULL, block, "cpu").epoch(epoch))
        assert not torch.equal(other[0][1], first[0][1])
        assert not torch.equal(other[0][0], first[0][0])


@pytest.mark.parametrize(
    ("shape", "recipe", "message"),
    [
        ((3, 0, 0), Recipe(epochs=1), "image_size=None, and the images of made vary in size"),
        (
            (3, 0, 0),
            Recipe(epochs=1, image_size=8, crop_padding=2),
            "crop_padding=2, .* allowed: 0",
        ),
        ((3, 8, 8), Recipe(epochs=1, image_size=8), "image_size=8, and all images .* 8 x 8 pixels"),
        ((3, 8, 8), Recipe(epochs=1, resized_crop=0.5), "resized_crop=0.5, and all images of made"),
    ],
)
def test_what_the_images_do_not_allow_is_refused(shape, recipe, message):
    with pytest.raises(ValueError, match=message):
        input_shape("made", shape, recipe)


def test_shapes_are_those_of_the_images_or_of_the_recipe(dataset):
    assert dataset.input_shape(PLAIN) == (1, 6, 6)
    assert input_shape("made", (3, 0, 0), Recipe(epochs=1, image_size=160)) == (3, 160, 160)
    with pytest.raises(ValueError, match="image_size=8"):
        dataset.inputs(replace(PLAIN, image_size=8), 0, "cpu")


def test_a_batch_has_to_fill(dataset):
    with pytest.raises(ValueError, match="batch_size=150 is more than the 140 training examples"):
        dataset.inputs(replace(PLAIN, batch_size=150), 0, "cpu")
    with pytest.raises(ValueError, match="a batch of 12 does not divide by 5 ranks"):
        dataset.inputs(PLAIN, 0, "cpu", World(0, 5))
