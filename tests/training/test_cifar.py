"""CIFAR's binary files: read whole or refused; pickles are not touched."""

import pickle

import numpy as np
import pytest
import torch

from overconv.training.cifar import CIFAR10, CIFAR100
from overconv.training.data import load
from overconv.training.places import MissingData
from overconv.training.recipe import Recipe


def made(count: int, num_labels: int, limits: tuple[int, ...], seed: int) -> np.ndarray:
    """``count`` records: labels, then 1,024 bytes of red, of green and of blue."""
    random = np.random.default_rng(seed)
    labels = np.stack([random.integers(0, limit, count) for limit in limits[:num_labels]], 1)
    return np.concatenate([labels, random.integers(0, 256, (count, 3072))], 1).astype(np.uint8)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Both sets, small, as they are unpacked, and no other place to find one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("OVERCONV_DATA", raising=False)
    root = tmp_path / "data"
    for folder in ("cifar-10-batches-bin", "cifar-100-binary"):
        (root / folder).mkdir(parents=True)
    for seed, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        made(7, 1, (10,), seed).tofile(root / "cifar-10-batches-bin" / f"{name}.bin")
    for name, count in (("train", 30), ("test", 6)):
        made(count, 2, (20, 100), count).tofile(root / "cifar-100-binary" / f"{name}.bin")
    return root


def test_cifar10_is_read_byte_by_byte(root):
    found = load("cifar10", root)
    assert (found.num_train, found.num_test, found.num_classes) == (35, 7, 10)
    assert found.image_shape == (3, 32, 32)
    for file in range(5):
        content = (root / "cifar-10-batches-bin" / f"data_batch_{file + 1}.bin").read_bytes()
        for row in range(7):
            record = content[row * 3073 : (row + 1) * 3073]
            image = found.images_train[7 * file + row]
            assert found.labels_train[7 * file + row] == record[0]
            assert image[0, 0, 1] == record[2]  # red, first line, second pixel
            assert image[1, 31, 0] == record[1 + 1024 + 31 * 32]
            assert image.numpy().tobytes() == record[1:]


def test_cifar100_is_read_by_its_finer_label(root):
    found = load("cifar100", root)
    assert (found.num_train, found.num_test, found.num_classes) == (30, 6, 100)
    content = (root / "cifar-100-binary" / "test.bin").read_bytes()
    for row in range(6):
        record = content[row * 3074 : (row + 1) * 3074]
        assert found.labels_test[row] == record[1]
        assert found.images_test[row].numpy().tobytes() == record[2:]


def test_it_trains(root):
    recipe = Recipe(epochs=1, batch_size=10, crop_padding=4, flip=True, num_validation=5)
    batches = list(load("cifar10", root).inputs(recipe, 0, "cpu").epoch(0))
    assert [tuple(batch.images.shape) for batch in batches] == [(10, 3, 32, 32)] * 3
    assert batches[0].images.dtype == torch.float32


def test_it_is_found_in_each_of_its_places(root, tmp_path):
    (tmp_path / "other" / "cifar10").mkdir(parents=True)
    (root / "cifar-10-batches-bin").rename(tmp_path / "other" / "cifar10" / "x")
    assert load("cifar10", tmp_path / "other" / "cifar10" / "x").num_train == 35
    (tmp_path / "other" / "cifar10" / "x").rename(tmp_path / "moved")
    (tmp_path / "other" / "cifar10").rmdir()
    (tmp_path / "moved").rename(tmp_path / "other" / "cifar10")
    assert load("cifar10", tmp_path / "other").num_train == 35


def test_a_byte_changes_the_fingerprint(root):
    first = load("cifar100", root).fingerprint
    path = root / "cifar-100-binary" / "test.bin"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert load("cifar100", root).fingerprint != first


class Bomb:
    """Leaves a mark if it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


@pytest.mark.parametrize("below", ["cifar-10-batches-py", "cifar10/cifar-10-batches-py", ""])
def test_pickles_are_refused_unread(below, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "data" / (below or "cifar-10-batches-py")
    folder.mkdir(parents=True)
    (folder / "data_batch_1").write_bytes(pickle.dumps(Bomb(tmp_path / "mark")))
    with pytest.raises(MissingData, match="as pickles, which are not read") as caught:
        load("cifar10", tmp_path / "data" if below else folder)
    command = f"| tar -xz -C {folder.parent}`"
    assert "cifar-10-binary.tar.gz" in str(caught.value) and command in str(caught.value)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("keep", [0, 1, 3073, 3074, -1, -3074])
@pytest.mark.parametrize("name", ["data_batch_1.bin", "data_batch_4.bin", "test_batch.bin"])
def test_a_file_cut_short_is_named(name, keep, root):
    path = root / "cifar-10-batches-bin" / name
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="cut short|published are 1 to one") as caught:
        load("cifar10", root)
    assert name in str(caught.value)


@pytest.mark.parametrize("name", ["train.bin", "test.bin"])
def test_a_file_cut_at_a_record_is_noticed_by_the_other(name, root):
    path = root / "cifar-100-binary" / name
    path.write_bytes(path.read_bytes()[:-3074])
    with pytest.raises(ValueError, match="train.bin holds .* images.* published are 5 to one"):
        load("cifar100", root)


def test_a_missing_file_is_named(root):
    (root / "cifar-10-batches-bin" / "data_batch_3.bin").unlink()
    with pytest.raises(ValueError, match="data_batch_3.bin is missing"):
        load("cifar10", root)


@pytest.mark.parametrize(
    ("stored", "place", "limit"), [(CIFAR10, 0, 10), (CIFAR100, 1, 100)], ids=["10", "100"]
)
def test_a_label_out_of_range_is_refused(stored, place, limit, root):
    path = root / stored.folder / stored.test
    content = bytearray(path.read_bytes())
    content[place] = limit
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"a label is {limit}; allowed: 0 to {limit - 1}"):
        load(stored.name, root)
