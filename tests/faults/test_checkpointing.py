"""A process that dies at any system call of checkpointing leaves the last checkpoint or the new."""

import errno
import os
import shutil

import pytest
import torch

from overconv.training.checkpoint import CheckpointFolder

IDENTITY = "trial/stratum"


def state(step):
    return {"step": step, "weights": torch.full((50,), float(step)), "curves": {"loss": [0.5]}}


@pytest.fixture
def folder(scratch):
    """As at its start: of another process than the one that died, and one that does not warn."""

    def make():
        def warn(line):
            raise AssertionError(line)

        return CheckpointFolder(scratch / "a" / "b" / "checkpoints", IDENTITY, warn=warn)

    return make


def held(folder):
    found = folder.newest()
    if found is None:
        return None
    assert found.keys() == state(0).keys()
    assert torch.equal(found["weights"], state(found["step"])["weights"])
    return found["step"]


def names(folder):
    return sorted(path.name for path in folder.folder.iterdir())


@pytest.mark.parametrize("when", ["before", "amid", "after"])
@pytest.mark.parametrize("before", [[], [10], [10, 20]])
def test_saving(victim, folder, scratch, before, when):
    """At each call: what was there, or what was to be there; and then it goes on as ever."""

    def prepare():
        shutil.rmtree(scratch / "a", ignore_errors=True)
        for step in before:
            folder().save(state(step))

    prepare()
    calls = victim.calls(lambda: folder().save(state(30)))
    [replaced] = [number for number, call in enumerate(calls, 1) if call.startswith("replace")]
    for at in range(1, len(calls) + 1):
        prepare()
        victim.die(lambda: folder().save(state(30)), at, when)
        reached = at > replaced or (at == replaced and when == "after")
        expected = 30 if reached else max(before, default=None)
        assert held(folder()) == expected, (at, calls)
        folder().save(state(40))
        assert held(folder()) == 40
        assert names(folder()) == sorted(
            f"{step}.checkpoint" for step in [40, expected] if step is not None
        ), (at, calls)


@pytest.mark.parametrize("when", ["before", "after"])
def test_discarding(victim, folder, when):
    """At each call: a checkpoint that is whole, or none; discarding again leaves nothing."""

    def prepare():
        for step in (10, 20):
            folder().save(state(step))

    prepare()
    calls = victim.calls(lambda: folder().discard())
    assert [call.split()[0] for call in calls] == ["unlink", "unlink", "rmdir"]
    for at in range(1, len(calls) + 1):
        prepare()
        victim.die(lambda: folder().discard(), at, when)
        assert held(folder()) in (None, 10, 20)
        folder().discard()
        assert not folder().folder.exists()


@pytest.mark.parametrize("when", ["before", "after"])
def test_clearing_what_another_left_unfinished(victim, folder, when):
    """Taking up a training removes what its dead writer left; dying of that is no harm."""

    def prepare():
        folder().discard()
        folder().save(state(10))
        (folder().folder / ".20.checkpoint.0.tmp").write_bytes(b"half of")

    prepare()
    calls = victim.calls(lambda: folder().newest())
    assert calls
    for at in range(1, len(calls) + 1):
        prepare()
        victim.die(lambda: folder().newest(), at, when)
        assert held(folder()) == 10
        assert names(folder()) == ["10.checkpoint"]


def test_what_is_renamed_is_on_the_disk_before(victim, folder, durable_order):
    """Against loss of power, which no process can be shown: every name after its content."""
    assert durable_order(victim.calls(lambda: folder().save(state(10)))) == []


@pytest.mark.parametrize("kind", ["open", "write", "fsync", "replace", "mkdir"])
def test_a_full_disk_ends_no_training(folder, refusing, kind):
    """It is said, and the checkpoint before stays."""
    lines = []
    quiet = folder()
    if kind != "mkdir":
        quiet.save(state(10))
    loud = CheckpointFolder(quiet.folder, IDENTITY, warn=lines.append)
    with refusing(kind, error=errno.ENOSPC):
        loud.save(state(20))
    assert len(lines) == 1
    assert "No space left on device" in lines[0]
    assert held(folder()) == (None if kind == "mkdir" else 10)
    loud.save(state(30))
    assert held(folder()) == 30


def test_a_write_may_take_less_than_it_is_given(folder, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, content: real(file, content[:100]))
    folder().save(state(10))
    assert held(folder()) == 10
