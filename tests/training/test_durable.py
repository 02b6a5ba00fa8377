"""Writing a file: the old bytes or the new ones, wherever it fails; nothing unfinished stays."""

import errno
import os
from pathlib import Path

import pytest

from overconv.training import durable
from overconv.training.durable import make_folder, open_plain, remove, write_file


class Interrupted(BaseException):
    """As a signal's exception."""


@pytest.fixture
def calls(monkeypatch):
    """The calls that change something, by name; the one numbered ``fail_at`` raises ``error``."""

    class Calls(list):
        fail_at, error, done_first = None, None, False

    made = Calls()
    genuine = durable.call

    def call(function, *given, **named):
        made.append(function.__name__)
        failing = len(made) - 1 == made.fail_at
        if failing and not made.done_first:
            raise made.error
        found = genuine(function, *given, **named)
        if failing:
            raise made.error
        return found

    monkeypatch.setattr(durable, "call", call)
    return made


def test_the_calls_of_a_file_in_their_order(tmp_path, calls):
    write_file(tmp_path / "file", b"a", memoryview(b"bc"))
    assert calls == ["open", "write", "write", "fsync", "close", "replace", "fsync"]
    assert (tmp_path / "file").read_bytes() == b"abc"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("error", [OSError(errno.EIO, "I/O error"), Interrupted()])
@pytest.mark.parametrize("done_first", [True, False])
@pytest.mark.parametrize("old", [None, b"old"])
def test_wherever_it_fails(tmp_path, calls, error, done_first, old):
    path = tmp_path / "file"
    for fail_at in range(6):
        path.unlink(missing_ok=True)
        if old is not None:
            path.write_bytes(old)
        calls.clear()
        calls.fail_at, calls.error, calls.done_first = fail_at, error, done_first
        with pytest.raises(type(error)):
            write_file(path, b"new")
        reached = fail_at == 5 or (fail_at == 4 and done_first)  # the sync behind, the replacing
        expected = b"new" if reached else old
        assert (path.read_bytes() if path.exists() else None) == expected, calls
        assert [found for found in tmp_path.iterdir() if found != path] == [], calls


def test_a_write_may_take_less_than_it_is_given(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, content: real(file, content[:3]))
    write_file(tmp_path / "file", b"0123456789", b"ab")
    assert (tmp_path / "file").read_bytes() == b"0123456789ab"


def test_folders_are_made_from_above_each_made_known(tmp_path, calls):
    make_folder(tmp_path / "a" / "b")
    assert calls == ["mkdir", "fsync", "mkdir", "fsync"]
    make_folder(tmp_path / "a" / "b")
    assert len(calls) == 4


def test_a_folder_that_another_makes_meanwhile_is_as_good(tmp_path, monkeypatch):
    real = os.mkdir

    def twice(path):
        real(path)
        return real(path)

    monkeypatch.setattr(os, "mkdir", twice)
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_a_file_is_opened_and_nothing_else(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    descriptor = open_plain(tmp_path / "file")
    assert os.read(descriptor, 9) == b"abc"
    os.close(descriptor)
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "pipe")
    open_before = len([*Path("/proc/self/fd").iterdir()])
    for name in ("link", "pipe", ".", "nothing"):
        with pytest.raises(OSError, match="plain file|symbolic|No such"):
            open_plain(tmp_path / name)
    assert len([*Path("/proc/self/fd").iterdir()]) == open_before


def test_what_is_gone_already_is_removed(tmp_path, calls):
    (tmp_path / "file").write_bytes(b"")
    remove(tmp_path / "file")
    remove(tmp_path / "file")
    assert calls == ["unlink", "unlink"]
