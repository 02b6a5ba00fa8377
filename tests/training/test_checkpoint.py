"""Checkpoints: what is damaged or foreign is passed over, aloud; two are there to be read."""

import hashlib
import io
import os
import pickle
import re
import warnings

import pytest
import torch

from overconv.training import checkpoint, durable
from overconv.training.checkpoint import CheckpointFolder

IDENTITY = "1234abcd/5678efab"


def state(step):
    """As a training keeps it, with all the types of values that it has."""
    weight = torch.arange(30, dtype=torch.float32).view(1, 2, 3, 5) + step
    return {
        "epoch": step // 4,
        "step": step,
        "model": {"weight": weight.contiguous(memory_format=torch.channels_last)},
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "betas": (0.9, 0.999)},
        "average": None,
        "curves": {"loss": [0.1, float("nan")]},
        "resumed": [step - 1],
    }


@pytest.fixture
def lines():
    return []


@pytest.fixture
def folder(tmp_path, lines):
    return CheckpointFolder(tmp_path / "a" / "checkpoints", IDENTITY, every=5, warn=lines.append)


def names(folder):
    return sorted(path.name for path in folder.folder.iterdir())


def line(payload, **changes):
    """The first line, written out."""
    values = {
        "magic": "overconv-checkpoint",
        "schema": 1,
        "sha256": hashlib.sha256(payload).hexdigest(),
        "length": len(payload),
    }
    return " ".join(map(str, {**values, **changes}.values())).encode() + b"\n"


def payload(held, **options):
    content = io.BytesIO()
    torch.save(held, content, **options)
    return content.getvalue()


def test_what_was_kept_comes_back(folder, lines):
    folder.save(state(7))
    found = folder.newest()
    assert repr(found) == repr(state(7))
    weight = found["model"]["weight"]
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert lines == []


def test_a_file_is_what_its_docstring_says(folder):
    folder.save(state(7))
    content = (folder.folder / "7.checkpoint").read_bytes()
    first, rest = content.split(b"\n", 1)
    assert first + b"\n" == line(rest)
    held = torch.load(io.BytesIO(rest), weights_only=True)
    assert (held["identity"], held["step"]) == (IDENTITY, 7)


def test_of_nothing_there_is_nothing(folder, lines):
    assert folder.newest() is None
    folder.discard()
    assert lines == []


@pytest.mark.parametrize("every", [0, -1, 2.0, True, "5"])
def test_a_wrong_distance_is_named(every, tmp_path):
    with pytest.raises(ValueError, match=f"every={every!r}; allowed: whole numbers from 1"):
        CheckpointFolder(tmp_path, IDENTITY, every=every, warn=print)


def test_it_is_due_every_so_many_steps(folder):
    assert [step for step in range(1, 17) if folder.due(step)] == [5, 10, 15]


def test_the_two_newest_stay(folder):
    for step in (2, 10, 9, 100):
        folder.save(state(step))
    assert names(folder) == ["10.checkpoint", "100.checkpoint"]
    assert folder.newest()["step"] == 100


def test_one_that_lags_removes_nothing_newer(folder, tmp_path):
    """Of two that hold one training for a while, the slower one."""
    for step in (10, 20):
        folder.save(state(step))
    CheckpointFolder(folder.folder, IDENTITY, warn=print).save(state(5))
    assert names(folder) == ["10.checkpoint", "20.checkpoint"]


def test_the_same_step_is_written_anew(folder):
    folder.save(state(4))
    folder.save({**state(4), "epoch": 5})
    assert names(folder) == ["4.checkpoint"]
    assert folder.newest()["epoch"] == 5


# What stands in the place of the newest file, as a function of its content.
FOREIGN = {"identity": "other/training", "step": 8, "state": state(8)}


class Bomb:
    """Unpickled, it leaves a trace; it might do anything."""

    def __reduce__(self):
        return os.mkdir, ("exploded",)


def sealed(content):
    return line(content) + content


DAMAGES = {
    "empty": (lambda content: b"", "does not begin"),
    "one byte": (lambda content: content[:1], "does not begin"),
    "cut in the line": (lambda content: content[:40], "does not begin"),
    "without the end of the line": (lambda content: content.split(b"\n")[0], "does not begin"),
    "the line alone": (lambda content: content.split(b"\n")[0] + b"\n", "it has 0 of"),
    "cut after a byte of the rest": (
        lambda content: content[: content.index(b"\n") + 2], "it has 1 of",
    ),
    "cut in the middle": (lambda content: content[: len(content) // 2], "it has"),
    "without its last byte": (lambda content: content[:-1], r"it has \d+ of \d+ bytes"),
    "with a byte more": (lambda content: content + b"\0", r"it has \d+ of \d+ bytes"),
    "twice": (lambda content: content * 2, r"it has \d+ of \d+ bytes"),
    "zeros": (lambda content: bytes(len(content)), "does not begin"),
    "zeros behind the line": (
        lambda content: content[: content.index(b"\n") + 1].ljust(len(content), b"\0"),
        "checksum is wrong",
    ),
    "a sector of zeros": (
        lambda content: content[:512] + bytes(512) + content[1024:], "checksum is wrong",
    ),
    "text": (lambda content: b"not\na checkpoint\n", "does not begin"),
    "another schema": (
        lambda content: line(b"12", schema=2) + b"12", "schema is 2, and 1 is known",
    ),
    "another magic": (lambda content: line(b"12", magic="x") + b"12", "does not begin"),
    "of another training": (
        lambda content: sealed(payload(FOREIGN)), "of another training, 'other/training'",
    ),
    "of another step": (
        lambda content: sealed(payload({**FOREIGN, "identity": IDENTITY, "step": 7})),
        "of another step, 7",
    ),
    "without a state": (lambda content: sealed(payload({"step": 8})), "holds no checkpoint"),
    "a tensor": (lambda content: sealed(payload(torch.ones(3))), "holds no checkpoint"),
    "a state that is none": (
        lambda content: sealed(payload({"identity": IDENTITY, "step": 8, "state": 3})),
        "of another step",
    ),
    "rubbish, sealed": (lambda content: sealed(b"rubbish"), "no archive"),
    "nothing, sealed": (lambda content: sealed(b""), "no archive"),
    "half an archive, sealed": (
        lambda content: sealed(content[content.index(b"\n") + 1 :][:700]), "cannot be loaded",
    ),
    "a bomb": (lambda content: pickle.dumps(Bomb()), "does not begin"),
    "a bomb, sealed": (lambda content: sealed(pickle.dumps(Bomb())), "no archive"),
    "a bomb in an archive, sealed": (
        lambda content: sealed(payload({"identity": IDENTITY, "step": 8, "state": Bomb()})),
        "something else than tensors",
    ),
    "a bomb in the old format, sealed": (
        lambda content: sealed(payload(Bomb(), _use_new_zipfile_serialization=False)),
        "no archive",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGES)
def test_what_is_damaged_or_foreign_is_passed_over_aloud(kind, folder, lines, monkeypatch):
    monkeypatch.chdir(folder.folder.parents[1])
    damage, reason = DAMAGES[kind]
    folder.save(state(4))
    folder.save(state(8))
    path = folder.folder / "8.checkpoint"
    path.write_bytes(damage(path.read_bytes()))
    assert folder.newest()["step"] == 4
    [said] = lines
    assert said.startswith(f"{path} is passed over: it")
    assert re.search(reason, said), said
    assert "\n" not in said
    assert not any(folder.folder.parents[1].rglob("exploded"))


def test_the_bomb_is_one(tmp_path, monkeypatch):
    """Otherwise the tests above would show nothing."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Bomb()))
    assert (tmp_path / "exploded").exists()


def test_any_byte_changed_is_seen(folder):
    folder.save(state(8))
    path = folder.folder / "8.checkpoint"
    content = path.read_bytes()
    masks = torch.randint(1, 256, (len(content),)).tolist()
    with path.open("r+b", buffering=0) as file:
        for place, mask in enumerate(masks):
            for flipped in (mask, 32):  # 32 changes the case of a letter
                os.pwrite(file.fileno(), bytes([content[place] ^ flipped]), place)
                with pytest.raises(ValueError, match="^it"):
                    folder._read(8)
            os.pwrite(file.fileno(), content[place : place + 1], place)
    assert folder.newest()["step"] == 8


def test_any_length_is_seen(folder):
    folder.save(state(8))
    path = folder.folder / "8.checkpoint"
    content = path.read_bytes()
    for length in range(len(content) - 1, -1, -1):
        os.truncate(path, length)
        with pytest.raises(ValueError, match="^it"):
            folder._read(8)


@pytest.mark.parametrize("kind", ["folder", "link", "link to nothing", "pipe"])
def test_no_plain_file_is_passed_over_aloud(kind, folder, lines, tmp_path):
    """In bounded time: nobody writes into the pipe."""
    folder.save(state(4))
    path = folder.folder / "8.checkpoint"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        target = tmp_path / "elsewhere"
        if kind == "link":  # to what would do as well as the file
            folder.save(state(8))
            path.rename(target)
        path.symlink_to(target)
    assert folder.newest()["step"] == 4
    assert len(lines) == 1
    assert str(path) in lines[0]


def test_a_huge_file_is_not_read_to_be_passed_over(folder, lines, monkeypatch):
    """A terabyte of nothing, that claims as much."""
    folder.save(state(4))
    with (folder.folder / "8.checkpoint").open("wb") as file:
        file.write(line(b"", length=2**30))
        file.truncate(2**40)
    assert folder.newest()["step"] == 4
    assert "it has" in lines[0]


def test_where_all_are_damaged_there_is_none(folder, lines):
    for step in (4, 8):
        folder.save(state(step))
        (folder.folder / f"{step}.checkpoint").write_bytes(b"")
    assert folder.newest() is None
    assert [said.split("/")[-1].split(".")[0] for said in lines] == ["8", "4"]


def test_two_that_can_be_read_are_there_again(folder, lines):
    """The damaged one counts for nothing, and is gone once training has gone on."""
    folder.save(state(4))
    folder.save(state(8))
    (folder.folder / "8.checkpoint").write_bytes(b"")
    assert folder.newest()["step"] == 4
    folder.save(state(6))
    assert names(folder) == ["4.checkpoint", "6.checkpoint"]
    folder.save(state(8))
    assert names(folder) == ["6.checkpoint", "8.checkpoint"]
    assert folder.newest()["step"] == 8
    assert len(lines) == 1


def test_a_damaged_one_may_be_written_over(folder):
    folder.save(state(4))
    folder.save(state(8))
    (folder.folder / "8.checkpoint").write_bytes(b"")
    folder.newest()
    folder.save(state(8))
    assert names(folder) == ["4.checkpoint", "8.checkpoint"]
    assert folder.newest()["step"] == 8


STRANGE = (
    "008.checkpoint", "-9.checkpoint", "9e1.checkpoint", "9.checkpoint.old", " 9.checkpoint",
    "9.Checkpoint", "\uff19.checkpoint", "9" * 19 + ".checkpoint", "notes.txt",
)  # fmt: skip


@pytest.mark.parametrize("name", STRANGE)
def test_other_names_are_none_of_its_business(name, folder, lines):
    folder.save(state(4))
    (folder.folder / name).write_bytes(b"")
    assert folder.newest()["step"] == 4
    folder.save(state(5))
    folder.save(state(6))
    folder.discard()
    assert names(folder) == [name]
    assert lines == []


def test_what_a_writer_left_unfinished_is_removed(folder):
    folder.save(state(4))
    (folder.folder / ".8.checkpoint.abc.tmp").write_bytes(b"half")
    assert folder.newest()["step"] == 4
    assert names(folder) == ["4.checkpoint"]


def test_all_is_discarded(folder, lines):
    folder.save(state(4))
    folder.save(state(8))
    (folder.folder / ".9.checkpoint.abc.tmp").write_bytes(b"half")
    folder.discard()
    assert not folder.folder.exists()
    assert folder.folder.parent.exists()
    assert lines == []


def test_what_cannot_be_written_is_said_and_changes_nothing(folder, lines, monkeypatch):
    folder.save(state(4))
    genuine = durable.call

    def full(function, *given, **named):
        if function is os.write:
            raise OSError(28, "No space left on device")
        return genuine(function, *given, **named)

    monkeypatch.setattr(durable, "call", full)
    folder.save(state(8))
    assert lines == [
        "no checkpoint at step 8, training goes on: [Errno 28] No space left on device"
    ]
    assert names(folder) == ["4.checkpoint"]
    assert folder.newest()["step"] == 4


def test_what_cannot_be_removed_is_said(folder, lines):
    folder.save(state(4))
    (folder.folder / "3.checkpoint").mkdir()
    folder.save(state(8))
    assert len(lines) == 1
    assert "3.checkpoint could not be removed" in lines[0]
    assert folder.newest()["step"] == 8


def test_loading_says_nothing_to_the_warnings(folder):
    folder.save(state(4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert folder.newest()["step"] == 4


@pytest.mark.parametrize("kind", ["weights_only", "checksum", "identity"])
def test_a_check_left_out_would_be_seen(kind, folder, monkeypatch, tmp_path):
    """The planted defects: each makes one of the tests above pass over nothing."""
    monkeypatch.chdir(tmp_path)
    folder.save(state(8))
    path = folder.folder / "8.checkpoint"
    if kind == "weights_only":
        genuine = torch.load
        monkeypatch.setattr(
            checkpoint.torch, "load",
            lambda *given, weights_only, **named: genuine(*given, weights_only=False, **named),
        )  # fmt: skip
        path.write_bytes(DAMAGES["a bomb in an archive, sealed"][0](b""))
        folder.newest()
        assert (tmp_path / "exploded").exists()
    elif kind == "checksum":
        weights = path.read_bytes().index(torch.arange(30.0).add(8)[3:4].numpy().tobytes())
        content = bytearray(path.read_bytes())
        content[weights] ^= 1
        path.write_bytes(content)
        assert folder.newest() is None
        monkeypatch.setattr(checkpoint, "_line", lambda payload: content[: content.index(10) + 1])
        assert folder.newest() is not None
    else:
        other = CheckpointFolder(folder.folder, "other", warn=print)
        assert other.newest() is None
        other.identity = IDENTITY
        assert other.newest()["step"] == 8
