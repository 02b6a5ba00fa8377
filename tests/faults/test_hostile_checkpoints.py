"""Checkpoints that somebody else has written: nothing in them runs, and training goes on."""

import hashlib
import io
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from overconv.training.checkpoint import MAGIC, SCHEMA, CheckpointFolder

IDENTITY = "trial/stratum"


class Bomb:
    """Makes the file ``path`` when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def lines():
    return []


@pytest.fixture
def folder(tmp_path, lines):
    """A folder with one good checkpoint, of step 10."""
    made = CheckpointFolder(tmp_path / "checkpoints", IDENTITY, warn=lines.append)
    made.save({"step": 10, "weights": torch.ones(3)})
    return made


def sealed(payload: bytes) -> bytes:
    """A file with a line that is true of ``payload``: whoever can write it can count, too."""
    checksum = hashlib.sha256(payload).hexdigest().encode()
    return b"%s %d %s %d\n" % (MAGIC, SCHEMA, checksum, len(payload)) + payload


def falsely_sealed(payload: bytes) -> bytes:
    checksum = hashlib.sha256(payload).hexdigest().encode()
    return sealed(payload).replace(checksum, checksum[::-1])


def saved(value, **options) -> bytes:
    content = io.BytesIO()
    torch.save(value, content, **options)
    return content.getvalue()


def wrapped(value) -> dict:
    return {"identity": IDENTITY, "step": 20, "state": value}


def torch_script(bomb: Bomb) -> bytes:
    """An archive that says of itself that it is a TorchScript one, with a bomb as its pickle."""
    content = io.BytesIO(saved(wrapped({"step": 20, "bomb": bomb})))
    with zipfile.ZipFile(content, "a") as archive:
        archive.writestr("archive/constants.pkl", pickle.dumps(bomb))
    return content.getvalue()


PAYLOADS = {
    "bare": lambda bomb: pickle.dumps(bomb),
    "in a state": lambda bomb: saved(wrapped({"step": 20, "weights": bomb})),
    "as a key": lambda bomb: saved({bomb: 1, **wrapped({"step": 20})}),
    "in the old format": lambda bomb: saved(
        wrapped({"step": 20, "weights": bomb}), _use_new_zipfile_serialization=False
    ),
    "as TorchScript": torch_script,
}


@pytest.mark.parametrize("name", PAYLOADS)
def test_a_pickle_bomb(tmp_path, folder, lines, name):
    boom = tmp_path / "boom"
    content = sealed(PAYLOADS[name](Bomb(boom)))
    (folder.folder / "20.checkpoint").write_bytes(content)
    assert folder.newest()["step"] == 10
    assert not boom.exists(), "it ran"
    assert len(lines) == 1
    assert "20.checkpoint is passed over: " in lines[0]
    pickle.loads(pickle.dumps(Bomb(boom)))
    assert boom.exists(), "the bomb of this test is none"


CONTENTS = {
    "empty": b"",
    "no line": b"\0" * 1000,
    "another's line": b"some-other-format 1 " + b"0" * 64 + b" 3\nabc",
    "a newer schema": sealed(b"abc").replace(b" 1 ", b" 2 ", 1),
    "a false checksum": falsely_sealed(saved(wrapped({"step": 20}))),
    "cut short": sealed(saved(wrapped({"step": 20})))[:-1],
    "too long": sealed(saved(wrapped({"step": 20}))) + b"\0",
    "a length beyond all memory": MAGIC + b" 1 " + b"0" * 64 + b" 999999999999999999\nabc",
    "no archive": sealed(b"abc"),
    "no state": sealed(saved([1, 2])),
    "a state of another training": sealed(saved({**wrapped({"step": 20}), "identity": "a/b"})),
    "a state of another step": sealed(saved({**wrapped({"step": 20}), "step": 21})),
    "a list for a state": sealed(saved(wrapped([1]))),
    "nested without end": sealed(b"\x80\x02" + b"(" * 10**6),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_a_file_that_is_no_checkpoint(folder, lines, name):
    (folder.folder / "20.checkpoint").write_bytes(CONTENTS[name])
    assert folder.newest()["step"] == 10
    assert len(lines) == 1
    assert "20.checkpoint is passed over: " in lines[0]
    assert len(lines[0].splitlines()) == 1


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "socket", "device"])
def test_no_plain_file(tmp_path, folder, lines, kind):
    """A link may lead anywhere, and who reads a pipe waits for ever."""
    path = folder.folder / "20.checkpoint"
    match kind:
        case "link":
            elsewhere = tmp_path / "elsewhere"
            elsewhere.write_bytes(sealed(saved(wrapped({"step": 20}))))
            path.symlink_to(elsewhere)
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "socket":
            import socket

            with socket.socket(socket.AF_UNIX) as made:
                made.bind(str(path))
        case "device":
            path.symlink_to("/dev/zero")
    assert folder.newest()["step"] == 10
    assert len(lines) == 1
    folder.discard()
    if kind == "link":
        assert elsewhere.exists(), "what a link leads to is not ours to remove"


def test_a_folder_that_is_a_link_is_not_written_through(tmp_path, lines):
    """Checkpoints put in the place of a folder of somebody's."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "5.checkpoint").write_bytes(b"precious")
    (tmp_path / "checkpoints").symlink_to(elsewhere)
    folder = CheckpointFolder(tmp_path / "checkpoints", IDENTITY, warn=lines.append)
    folder.newest()
    folder.save({"step": 10})
    folder.save({"step": 20})
    folder.save({"step": 30})
    folder.discard()
    assert [path.name for path in elsewhere.iterdir()] == ["5.checkpoint"]
    assert lines
