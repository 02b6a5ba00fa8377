"""Why trials failed: every attempt is kept, whole or shortened, and never costs anything else."""

import errno
import os

import pytest

from records import failures, files
from records.failures import MOST
from records.process import Process

TRACEBACK = """Traceback (most recent call last):
  File "a.py", line 1, in <module>
    raise ValueError("no")
ValueError: no
"""


def test_every_attempt_is_kept_in_its_order(store):
    texts = [TRACEBACK, "killed\n", "x"]
    paths = [store.note_failure("t", "s", text) for text in texts]
    assert paths == [store.folder("t", "s") / "failures" / f"{n}.json" for n in (1, 2, 3)]
    found = store.failures("t", "s")
    assert [failure.text for failure in found] == texts
    assert found[0].process == Process.current() and found[0].time > 1.7e9
    assert store.failures("t", "other") == [] and store.paths() == []


def test_the_tenth_comes_after_the_ninth(store):
    for number in range(11):
        store.note_failure("t", "s", str(number))
    assert [failure.text for failure in store.failures("t", "s")][-2:] == ["9", "10"]


def test_a_number_that_none_can_follow_ends_the_notes_and_nothing_else(store):
    """Put there by somebody; whoever reports a failure must not count for ever."""
    folder = store.folder("t", "s") / "failures"
    store.note_failure("t", "s", TRACEBACK)
    (folder / "1.json").rename(folder / f"{10**9 - 1}.json")
    assert store.note_failure("t", "s", TRACEBACK) is None
    assert [path.name for path in folder.iterdir()] == [f"{10**9 - 1}.json"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (TRACEBACK, "ValueError: no"),
        ("ValueError: a\n  indented\n\n", "ValueError: a"),
        ("", "it said nothing"),
        ("\n \n", "it said nothing"),
    ],
)
def test_the_reason_is_the_last_line_that_is_not_indented(text, reason, store):
    store.note_failure("t", "s", text)
    assert store.failures("t", "s")[0].reason == reason


def test_begin_and_end_of_a_long_text_are_kept(store):
    text = "b" + "x" * 3 * MOST + "e"
    store.note_failure("t", "s", text)
    kept = store.failures("t", "s")[0].text
    assert kept.startswith("b") and kept.endswith("e") and len(kept) < MOST + 100
    left_out = len(text) - len(kept.replace("\n", "").split("...")[0]) * 2
    assert f"... {left_out} characters left out ..." in kept


def test_what_no_file_can_hold_is_escaped(store):
    store.note_failure("t", "s", "ValueError: \ud800")
    assert store.failures("t", "s")[0].text == "ValueError: \\ud800"


def test_two_that_fail_at_once_have_a_file_each(store, monkeypatch):
    numbered, looks = failures.numbered, []

    def outrun(folder):
        looks.append(folder)
        found = numbered(folder)
        if len(looks) == 1:
            store.note_failure("t", "s", "other")
        return found

    monkeypatch.setattr(failures, "numbered", outrun)
    assert store.note_failure("t", "s", "mine").name == "2.json"
    assert [failure.text for failure in store.failures("t", "s")] == ["other", "mine"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_what_cannot_be_kept_is_no_second_failure(number, store, monkeypatch):
    def refuse(function, *given, **named):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files, "call", refuse)
    assert store.note_failure("t", "s", TRACEBACK) is None


def test_a_damaged_failure_is_named(store):
    path = store.note_failure("t", "s", TRACEBACK)
    for content, complaint in (
        (path.read_bytes()[:50], "cut short"),
        (b"[" * 100_000, "nested too deep"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=complaint) as caught:
            store.failures("t", "s")
        assert str(caught.value).startswith(f"{path}: ")
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match="Is a directory"):
        store.failures("t", "s")
