"""Lists of image files: in order, in little memory, whole or refused."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

from overconv.training.image_files import class_names, fingerprint, list_images


@pytest.fixture
def folder(tmp_path):
    """Files of 1 to 6 bytes in two classes, made in no order."""
    for place, size in (("b/2.png", 3), ("a/z.JPEG", 1), ("b/10.jpg", 4), ("a/ä.webp", 6)):
        path = tmp_path / "part" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
    (tmp_path / "part" / "b" / ".DS_Store").write_bytes(b"hidden")
    (tmp_path / "part" / ".hidden").mkdir()
    (tmp_path / "part" / "README").write_bytes(b"no class")
    return tmp_path / "part"


def test_files_are_listed_by_class_and_name(folder):
    assert class_names(folder) == ["a", "b"]
    files = list_images(folder, ["a", "b"])
    names = ["a/z.JPEG", "a/ä.webp", "b/10.jpg", "b/2.png"]
    assert [files.path(n) for n in range(len(files))] == [folder / name for name in names]
    assert files.labels.tolist() == [0, 0, 1, 1]
    assert files.sizes.tolist() == [1, 6, 4, 3]
    assert list_images(folder, ["b", "a"]).labels.tolist() == [0, 0, 1, 1]
    assert list_images(folder, ["b", "a"]).path(0) == folder / "b/10.jpg"


def test_a_process_gets_bytes_not_a_million_objects(folder):
    files = list_images(folder, ["a", "b"])
    many = replace(
        files, names=files.names * 10**5, ends=np.arange(4 * 10**5) + 8, labels=np.zeros(4 * 10**5)
    )
    assert len(pickle.dumps(many)) < 12 * 10**6
    assert pickle.loads(pickle.dumps(files)).path(1) == files.path(1)


def test_the_fingerprint_is_of_names_and_sizes_not_of_the_place(folder, tmp_path):
    def found(where=folder, classes=("a", "b")):
        parts = list_images(where, list(classes))
        return fingerprint(list(classes), parts, parts)

    first = found()
    (folder / "a" / "z.JPEG").write_bytes(b"y")  # as long: not read
    assert found() == first
    assert found(folder.rename(tmp_path / "moved")) == first
    folder = (tmp_path / "moved").rename(folder)
    others = set()
    (folder / "a" / "z.JPEG").write_bytes(b"yy")
    others.add(found())
    (folder / "a" / "z.JPEG").write_bytes(b"y")
    (folder / "a" / "z.JPEG").rename(folder / "a" / "y.JPEG")
    others.add(found())
    (folder / "a" / "y.JPEG").rename(folder / "b" / "z.JPEG")
    others.add(found())
    (folder / "b" / "z.JPEG").unlink()
    others.add(found())
    assert len(others - {first}) == 4


def test_a_boundary_between_names_counts(folder):
    files = list_images(folder, ["a", "b"])
    ends = files.ends.copy()
    ends[1] += 1
    assert fingerprint(["a", "b"], replace(files, ends=ends)) != fingerprint(["a", "b"], files)


@pytest.mark.parametrize("name", ["notes.txt", "image", "x.tar", "archive.JPEG.part", "more"])
def test_what_is_no_image_is_named(name, folder):
    if name == "more":
        (folder / "b" / "more.png").mkdir()  # a folder
    else:
        (folder / "b" / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=f"b/{name}.* is no image; allowed: .jpeg, .jpg, .png"):
        list_images(folder, ["a", "b"])


def test_classes_without_images_are_named(folder):
    (folder / "c").mkdir()
    with pytest.raises(ValueError, match="c holds no image"):
        list_images(folder, ["a", "c"])
    with pytest.raises(ValueError, match="d is missing"):
        list_images(folder, ["a", "d"])
