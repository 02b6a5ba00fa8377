"""Data: read whole or refused, split by block, augmented by example."""

import gzip
import struct
from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from overconv.training.augmentation import Augmentation, Feed, Normalization
from overconv.training.data import DATASETS, OUTLINES, fingerprint, load, outline
from overconv.training.fashion_mnist import read_idx
from overconv.training.places import MissingData, bases
from overconv.training.recipe import Recipe
from overconv.training.splits import Split

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def idx(values: np.ndarray) -> bytes:
    shape = struct.pack(f">{values.ndim}I", *values.shape)
    return bytes([0, 0, 8, values.ndim]) + shape + values.astype(np.uint8).tobytes()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A small data set in Fashion-MNIST's format, and no other place to find one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("OVERCONV_DATA", raising=False)
    root = tmp_path / "data"
    root.mkdir()
    random = np.random.default_rng(0)
    for part, count in (("train", 30), ("t10k", 10)):
        images = random.integers(0, 256, (count, 28, 28))
        labels = random.integers(0, 10, count)
        (root / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (root / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))
    return root


def test_digits_are_there():
    digits = load("digits")
    assert digits.images_train.shape == (1347, 1, 8, 8)
    assert digits.images_test.shape == (450, 1, 8, 8)
    assert digits.images_train.dtype == torch.uint8
    assert digits.images_train.max() == 240
    assert set(digits.labels_test.tolist()) == set(range(10))
    assert load("digits").fingerprint == digits.fingerprint


def test_idx_files_are_read(folder):
    found = load("fashion_mnist", folder)
    assert found.images_train.shape == (30, 1, 28, 28)
    assert found.labels_test.dtype == torch.int64
    raw = gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes())
    assert found.images_test.numpy().tobytes() == raw[16:]


def test_one_pixel_changes_the_fingerprint(folder):
    first = load("fashion_mnist", folder).fingerprint
    path = folder / "train-images-idx3-ubyte.gz"
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[-1] ^= 1
    path.write_bytes(gzip.compress(bytes(raw)))
    assert load("fashion_mnist", folder).fingerprint != first


def test_labels_types_and_shapes_are_in_the_fingerprint():
    values = torch.arange(12)
    found = {
        fingerprint(values.view(3, 4), values),
        fingerprint(values.view(4, 3), values),
        fingerprint(values.view(3, 4), values.int()),
        fingerprint(values.view(3, 4), values.flip(0)),
        fingerprint(values, values.view(3, 4)),
    }
    assert len(found) == 5


def test_one_label_changes_the_fingerprint(folder):
    first = load("fashion_mnist", folder).fingerprint
    for name in ("train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte"):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[:-1] + bytes([(whole[-1] + 1) % 10]))
        assert load("fashion_mnist", folder).fingerprint != first
        (folder / name).write_bytes(whole)
    assert load("fashion_mnist", folder).fingerprint == first


def test_places_are_searched_in_order(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("OVERCONV_DATA", str(folder))
    assert len(load("fashion_mnist", tmp_path / "elsewhere").labels_train) == 30
    below = tmp_path / "root" / "FashionMNIST"
    below.mkdir(parents=True)
    (below / "raw").symlink_to(folder)
    monkeypatch.delenv("OVERCONV_DATA")
    assert len(load("fashion_mnist", tmp_path / "root").labels_train) == 30


def test_bases_are_the_users_the_systems_and_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("OVERCONV_DATA", str(tmp_path / "mine"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = bases(tmp_path / "root", "/usr/share/some")
    assert found == [
        tmp_path / "root", tmp_path / "mine", Path("/usr/share/some"), tmp_path / "cache/overconv"
    ]  # fmt: skip
    monkeypatch.delenv("OVERCONV_DATA")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert bases(None) == [Path.home() / ".cache" / "overconv"]


@pytest.mark.parametrize(
    ("name", "help"),
    [
        ("cifar10", "curl -L https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"),
        ("cifar100", "curl -L https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"),
        ("imagenet", "image-net.org/download"),
    ],
)
def test_a_missing_set_says_where_it_was_looked_for_and_how_to_get_it(
    name, help, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("OVERCONV_DATA", raising=False)
    with pytest.raises(MissingData, match=help) as caught:
        load(name, tmp_path / "nowhere")
    looked = f"{name} is in none of {tmp_path / 'nowhere'}, {tmp_path / 'cache' / 'overconv'}. "
    assert str(caught.value).startswith(looked)


def test_missing_fashion_mnist_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("OVERCONV_DATA", raising=False)
    monkeypatch.setattr("overconv.training.fashion_mnist.DEBIAN", str(tmp_path / "debian"))
    with pytest.raises(MissingData, match="none of .*nowhere.*apt-get install dataset-fashion"):
        load("fashion_mnist", tmp_path / "nowhere")


def test_an_unknown_set_is_named():
    with pytest.raises(ValueError, match="no data set 'mnits'; allowed: digits, fashion_mnist, ci"):
        load("mnits")
    with pytest.raises(ValueError, match="no data set 'mnits'; allowed: digits"):
        outline("mnits")


def test_outlines_are_of_all_sets_and_of_the_ones_that_are_here():
    assert list(OUTLINES) == list(DATASETS)
    digits, known = load("digits"), outline("digits")
    for field in ("name", "num_classes", "num_train", "num_test", "image_shape"):
        assert getattr(digits, field) == getattr(known, field)
    assert outline("imagenet").input_shape(Recipe(epochs=1, image_size=160)) == (3, 160, 160)
    with pytest.raises(MissingData, match="the files of cifar10 are not here"):
        outline("cifar10").inputs(Recipe(epochs=1), 0, "cpu")


@pytest.mark.parametrize("keep", [0, 3, 10, 100, -1])
@pytest.mark.parametrize("compressed", [True, False])
def test_a_file_cut_short_is_named(keep, compressed, folder):
    name = "train-images-idx3-ubyte.gz" if compressed else "train-labels-idx1-ubyte"
    path = folder / name
    path.write_bytes(path.read_bytes()[: min(keep, 20) if not compressed else keep])
    with pytest.raises(ValueError, match=name):
        load("fashion_mnist", folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>not found</html>", "no idx file of bytes"),
        (idx(np.zeros((5, 3, 3))) + b"more", "49 values for"),
        (idx(np.zeros(5)), "do not fit"),
        (idx(np.zeros((29, 28, 28))), "do not fit"),
        (bytes([0, 0, 8, 4]) + b"\xff" * 16 + b"few", "cut short or corrupt: 3 values"),
    ],
)
def test_a_corrupt_file_is_named(content, message, folder):
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(content))
    with pytest.raises(ValueError, match=message):
        load("fashion_mnist", folder)


def test_a_set_without_images_is_refused(folder):
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros((0, 28, 28)))))
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros(0)))
    with pytest.raises(ValueError, match="t10k-images.* holds no image"):
        load("fashion_mnist", folder)


def test_bits_flipped_in_a_compressed_file_are_noticed(folder):
    path = folder / "train-images-idx3-ubyte.gz"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    path.write_bytes(bytes(raw))
    with pytest.raises(ValueError, match="corrupt"):
        read_idx(path)


def test_a_label_out_of_range_is_refused(folder):
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(np.full(30, 10)))
    with pytest.raises(ValueError, match="a label is 10; allowed: 0 to 9"):
        load("fashion_mnist", folder)


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Fashion-MNIST is not installed")
def test_fashion_mnist_is_whole():
    found = load("fashion_mnist")
    assert found.images_train.shape == (60_000, 1, 28, 28)
    assert torch.bincount(found.labels_train).tolist() == [6000] * 10
    assert torch.bincount(found.labels_test).tolist() == [1000] * 10


# Splits.


def setting_aside(num_validation: int, num_train: int = 0) -> Recipe:
    return Recipe(epochs=1, num_validation=num_validation, num_train=num_train)


def test_a_split_partitions_the_training_part():
    digits = load("digits")
    splits = digits.split(4, setting_aside(100))
    together = torch.cat([splits.train.numbers, splits.validation.numbers])
    assert together.sort()[0].tolist() == list(range(1347))
    assert len(splits.validation) == 100
    for split in (splits.train, splits.validation):
        assert torch.equal(split.images, digits.images_train[split.numbers])
        assert torch.equal(split.labels, digits.labels_train[split.numbers])


def test_blocks_set_aside_others_and_test_on_the_same():
    digits = load("digits")
    one, two, again = (digits.split(block, setting_aside(100)) for block in (1, 2, 1))
    assert torch.equal(one.validation.numbers, again.validation.numbers)
    assert not torch.equal(one.validation.numbers, two.validation.numbers)
    assert torch.equal(one.test.images, two.test.images)


@pytest.mark.parametrize("num_validation", [1347, 2000])
def test_a_split_leaves_something_to_train_on(num_validation):
    with pytest.raises(
        ValueError, match=f"num_validation={num_validation}; allowed: from 0 to 1346"
    ):
        load("digits").split(0, setting_aside(num_validation))


def test_fewer_examples_are_some_of_all():
    digits = load("digits")
    every = digits.split(4, setting_aside(100))
    many, few = (digits.split(4, setting_aside(100, num_train)) for num_train in (900, 300))
    assert [len(splits.train) for splits in (every, many, few)] == [1247, 900, 300]
    assert set(few.train.numbers.tolist()) < set(many.train.numbers.tolist())
    assert set(many.train.numbers.tolist()) < set(every.train.numbers.tolist())
    for splits in (many, few):
        assert torch.equal(splits.validation.numbers, every.validation.numbers)
        assert torch.equal(splits.train.labels, digits.labels_train[splits.train.numbers])
    # As drawn, not the first of them: no class is lost, and another block has others.
    assert len(few.train.labels.unique()) == 10
    other = digits.split(5, setting_aside(100, 300))
    assert not torch.equal(other.train.numbers, few.train.numbers)
    whole = digits.split(4, setting_aside(100, 1247)).train.numbers
    assert torch.equal(whole, every.train.numbers)


def test_more_examples_than_there_are():
    message = "num_train=1248, and num_validation=100 leaves 1247 of the 1347 training examples"
    with pytest.raises(ValueError, match=message):
        load("digits").split(0, setting_aside(100, 1248))


def test_as_many_examples_are_trained_on_as_the_recipe_says():
    recipe = replace(setting_aside(100, 300), batch_size=32)
    inputs = load("digits").inputs(recipe, 0, "cpu")
    assert inputs.steps == 300 // 32
    assert sum(len(batch.labels) for batch in inputs.epoch(0)) == 300 // 32 * 32


# Augmentation.


def by_hand(image: np.ndarray, shift: list[int], flip: bool, padding: int) -> np.ndarray:
    """Mirror, pad by zeros, cut out; one pixel at a time."""
    channels, high, wide = image.shape
    out = np.zeros_like(image)
    for c in range(channels):
        for row in range(high):
            for column in range(wide):
                r, k = row + shift[0] - padding, column + shift[1] - padding
                if 0 <= r < high and 0 <= k < wide:
                    out[c, row, column] = image[c, r, wide - 1 - k if flip else k]
    return out


@pytest.mark.parametrize("padding", [0, 1, 3])
@pytest.mark.parametrize("flip", [False, True])
def test_augmentation_is_its_definition(padding, flip):
    images = torch.randint(1, 256, (60, 2, 6, 5)).to(torch.uint8)
    numbers = torch.randperm(100)[:60]
    draws = Augmentation.draw(3, 2, 100, crop_padding=padding, flip=flip)
    places = torch.randperm(60)[:40]
    feed = Feed(Split(images, torch.zeros(60), numbers), padding)
    on_tensors = copy(feed)  # as on other devices
    on_tensors.crops_numpy = None
    for source in (feed, on_tensors):
        found = torch.cat(list(source.batches(places, draws, size=8)))
        for place, cut in zip(places.tolist(), found.numpy(), strict=True):
            shift, flipped = (
                draws.shifts[numbers[place]].tolist(),
                bool(draws.flips[numbers[place]]),
            )
            assert np.array_equal(cut, by_hand(images[place].numpy(), shift, flipped, padding))


def test_augmentation_is_by_example_not_by_place():
    """The planted defect, draws by place in the batch, fails here."""
    images = torch.randint(1, 256, (50, 1, 8, 8)).to(torch.uint8)
    split = Split(images, torch.zeros(50), torch.arange(50))
    draws = Augmentation.draw(0, 0, 50, crop_padding=2, flip=True)

    def cut(split: Split, places: torch.Tensor, size: int = 10) -> torch.Tensor:
        return torch.cat(list(Feed(split, 2).batches(places, draws, size)))

    whole, order = cut(split, torch.arange(50), size=50), torch.randperm(50)
    assert torch.equal(cut(split, order), whole[order])
    assert torch.equal(cut(split, torch.arange(20, 30)), whole[20:30])
    by_place = replace(split, numbers=torch.arange(50) % 10)
    assert not torch.equal(cut(by_place, torch.arange(50)), whole)


def test_examples_that_fill_no_batch_are_left_out():
    split = load("digits").split(0, setting_aside(0)).train
    draws = Augmentation.draw(0, 0, 1347, crop_padding=0, flip=False)
    batches = list(Feed(split).batches(torch.arange(1347), draws, size=500))
    assert [len(batch) for batch in batches] == [500, 500]
    assert torch.equal(torch.cat(batches), split.images[:1000])


def test_draws_are_uniform_and_differ_between_epochs_and_blocks():
    draws = Augmentation.draw(0, 0, 30_000, crop_padding=2, flip=True)
    for axis in (0, 1):
        counts = torch.bincount(draws.shifts[:, axis], minlength=5).double()
        assert (counts / 30_000 - 0.2).abs().max() < 0.015
    assert draws.flips.double().mean().item() == pytest.approx(0.5, abs=0.015)
    for other in ((0, 1), (1, 0)):
        more = Augmentation.draw(*other, 30_000, crop_padding=2, flip=True)
        assert not torch.equal(more.shifts, draws.shifts)
        assert not torch.equal(more.flips, draws.flips)


def test_an_option_does_not_move_the_others_draws():
    plain = Augmentation.draw(0, 0, 500, crop_padding=2, flip=False)
    both = Augmentation.draw(0, 0, 500, crop_padding=2, flip=True)
    assert torch.equal(plain.shifts, both.shifts)
    assert not plain.flips.any()


def test_normalization_is_of_the_training_part():
    digits = load("digits")
    x = Normalization.of(digits.images_train).apply(digits.images_train)
    assert x.dtype == torch.float32
    assert x.mean().item() == pytest.approx(0, abs=1e-5)
    assert x.std(correction=0).item() == pytest.approx(1, abs=1e-5)
