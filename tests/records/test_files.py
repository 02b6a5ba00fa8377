"""Files that are whole or not there: published, read and removed while the system fails."""

import errno
import os
import socket
from pathlib import Path

import pytest

from records import files, probe
from records.store import Store


@pytest.fixture
def fail(monkeypatch):
    """Make the system refuse a call: ``fail("link", errno.EIO)``, after having done it or not."""

    def fail(name, number, *, done=False, error=None):
        call = files.call

        def refused(function, *given, **named):
            if function.__name__ != name:
                return call(function, *given, **named)
            if done:
                call(function, *given, **named)
            raise error or OSError(number, os.strerror(number))

        monkeypatch.setattr(files, "call", refused)

    return fail


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("number", [errno.EEXIST, errno.EIO, errno.ETIMEDOUT])
def test_a_link_that_succeeded_and_was_called_a_failure_is_new(number, fail, tmp_path):
    """So a network file system may answer when it repeats a request, or loses the answer."""
    fail("link", number, done=True)
    path = tmp_path / "folder" / "file"
    assert files.publish_once(path, b"x", tmp_path)
    assert (path.read_bytes(), names(path.parent)) == (b"x", ["file"])


@pytest.mark.parametrize("name", ["open", "write", "fsync", "close", "link", "mkdir"])
def test_what_cannot_be_published_is_an_error_and_leaves_nothing(name, fail, tmp_path):
    fail(name, errno.ENOSPC)
    path = tmp_path / "folder" / "file"
    with pytest.raises(OSError, match="No space left") as caught:
        files.publish_once(path, b"x", tmp_path)
    if name in ("open", "write", "close"):
        assert caught.value.filename == str(path), "not the temporary one, nor none"
    assert not path.exists()
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_disk_that_takes_a_part_at_a_time_gets_all_of_it(monkeypatch, tmp_path):
    call = files.call

    def slow(function, *given, **named):
        if function is os.write:
            given = (given[0], given[1][:2])
        return call(function, *given, **named)

    monkeypatch.setattr(files, "call", slow)
    assert files.publish_once(tmp_path / "file", b"12345", tmp_path)
    assert (tmp_path / "file").read_bytes() == b"12345"


def test_a_temporary_that_cannot_be_removed_does_not_make_a_record_a_failure(fail, tmp_path):
    fail("unlink", errno.EIO)
    assert files.publish_once(tmp_path / "file", b"x", tmp_path)


def test_overwriting_makes_no_folder(tmp_path):
    (tmp_path / "file").write_bytes(b"1")
    files.overwrite(tmp_path / "file", b"2")
    assert (tmp_path / "file").read_bytes() == b"2"
    with pytest.raises(FileNotFoundError):
        files.overwrite(tmp_path / "gone" / "file", b"2")
    assert names(tmp_path) == ["file"]


def test_a_parent_that_may_not_be_listed_is_only_synced_for_a_new_folder(monkeypatch, tmp_path):
    synced = []
    monkeypatch.setattr(files, "sync_folder", lambda folder: synced.append(folder))
    root = tmp_path / "results"
    files.make_folder(root / "a", root)
    assert synced == [root, tmp_path], "a new folder's name is in its parent"
    synced.clear()
    files.make_folder(root / "b", root)
    assert synced == [root]


# Reading what others may have put there


def put_link(path: Path) -> None:
    path.with_name("target").write_bytes(b"x")
    path.symlink_to("target")


def put_large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**30)  # takes no space


def put_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path has to be short
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name)
    finally:
        os.chdir(here)


@pytest.mark.parametrize(
    ("put", "complaint"),
    [
        (put_link, "is a symbolic link"),
        (put_large, r"has 1,073,741,824 bytes; allowed: 16,777,216"),
        (lambda path: os.mkfifo(path), "is no plain file"),
        (put_socket, "is no plain file"),
        (lambda path: path.symlink_to("nowhere"), "is a symbolic link"),
    ],
)
def test_what_is_no_plain_file_is_refused(put, complaint, tmp_path):
    path = tmp_path / "record.json"
    put(path)
    with pytest.raises(ValueError, match=complaint):
        files.read_file(path, tmp_path)


def test_the_largest_file_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LARGEST", 10)
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    assert files.read_file(path, tmp_path) == b"0123456789"
    path.write_bytes(b"0123456789x")
    with pytest.raises(ValueError, match="has 11 bytes; allowed: 10"):
        files.read_file(path, tmp_path)


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LARGEST", 10)
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    fstat = os.fstat

    def grow(descriptor):
        about = fstat(descriptor)
        path.write_bytes(b"0" * 20)
        return about

    monkeypatch.setattr(os, "fstat", grow)
    with pytest.raises(ValueError, match="grew beyond 10 bytes"):
        files.read_file(path, tmp_path)


def test_a_folder_that_leads_elsewhere_is_neither_read_nor_written_nor_emptied(tmp_path):
    root, elsewhere = tmp_path / "results", tmp_path / "elsewhere"
    (elsewhere / "s" / "checkpoints").mkdir(parents=True)
    (elsewhere / "s" / "checkpoints" / "mine").write_bytes(b"x")
    (root / "trials").mkdir(parents=True)
    (root / "trials" / "t").symlink_to(elsewhere)
    there = root / "trials" / "t" / "s"
    with pytest.raises(ValueError, match="trials/t is a symbolic link"):
        files.read_file(there / "checkpoints" / "mine", root)
    with pytest.raises(ValueError, match="trials/t is a symbolic link"):
        files.publish_once(there / "record.json", b"x", root)
    assert not files.remove_folder(there / "checkpoints", root)
    assert [p.name for p in elsewhere.rglob("*")] == ["s", "checkpoints", "mine"]


def test_the_results_folder_itself_may_be_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "results").symlink_to("disk")
    root = tmp_path / "results"
    assert files.publish_once(root / "a" / "b", b"x", root)
    assert files.read_file(root / "a" / "b", root) == b"x"
    assert files.remove_folder(root / "a", root)


def test_a_folder_is_removed_as_far_as_it_can_be(tmp_path):
    folder = tmp_path / "claims"
    assert files.remove_folder(folder, tmp_path), "not there"
    (folder / "foreign").mkdir(parents=True)
    (folder / "1.json").write_bytes(b"x")
    assert not files.remove_folder(folder, tmp_path)
    assert names(folder) == ["foreign"]


# What a file system has to offer


def test_the_probe_leaves_nothing_behind(tmp_path):
    probe.check(tmp_path / "new" / "results")
    assert names(tmp_path / "new" / "results") == []


def refuse(*_, **__):
    raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))


def do_nothing(*_, **__):
    pass


@pytest.mark.parametrize(
    ("name", "behaviour", "lacking"),
    [
        ("os.link", refuse, "hard links, by which a record is published exactly once"),
        ("os.link", os.replace, "hard links that replace no file"),
        ("os.link", do_nothing, "hard links that replace no file"),
        ("os.fsync", refuse, "files that can be synced"),
        ("records.probe.sync_folder", refuse, "folders that can be synced"),
        ("pathlib.Path.replace", refuse, "renames that replace a file in one step"),
        ("pathlib.Path.replace", do_nothing, "renames that replace a file in one step"),
        ("pathlib.Path.read_bytes", lambda _: b"", "files that can be read as soon as"),
        ("pathlib.Path.iterdir", lambda _: iter(()), "files that can be read as soon as"),
    ],
)
def test_what_the_file_system_lacks_is_named(name, behaviour, lacking, tmp_path, monkeypatch):
    root = tmp_path / "results"
    root.mkdir()
    monkeypatch.setattr(name, behaviour)
    with pytest.raises(ValueError, match=f"does not offer ({lacking})") as caught:
        Store(root).check_writable()
    assert repr(str(root)) in str(caught.value)
    monkeypatch.undo()
    assert names(root) == [], "the probe is removed all the same"
