"""A run that meets a fault says so, loses nothing, and goes on when it is started again."""

import errno
import json
import os
import re
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from ablations import memory
from ablations.cli import main
from records.lease import Claimed
from records.process import Process
from records.record import Record, digest
from records.store import Store

EVERY = ("--checkpoint-every", "5")


def run(study: Path, results: Path, *more: str) -> int:
    return main(["run", str(study), "--seeds", "1", "--results", str(results), *EVERY, *more])


def records(results: Path) -> dict[str, bytes]:
    return {record.trial: record.compared() for record in Store(results).records()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    """The results folder of a run in which nothing happens; empty until it is wanted."""
    return tmp_path_factory.mktemp("undisturbed")


@pytest.fixture
def reference(undisturbed):
    """The records of a run of the same study in which nothing happens."""

    def make(study: Path) -> dict[str, bytes]:
        if not any(undisturbed.iterdir()):
            assert run(study, undisturbed) == 0
        return records(undisturbed)

    return make


def when(condition, act) -> threading.Thread:
    """Acts as soon as the condition holds."""

    def watch() -> None:
        while not condition():
            time.sleep(0.002)
        act()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"]
)
def test_a_signal(short_study, reference, tmp_path, capfd, number, status):
    study, results = short_study(), tmp_path / "results"
    thread = when(
        lambda: list(results.glob("trials/*/*/checkpoints/*.checkpoint")),
        lambda: os.kill(os.getpid(), number),
    )
    assert run(study, results) == status
    thread.join()
    said = capfd.readouterr()
    assert "stopping: " in said.err
    assert "running again goes on" in said.out + said.err
    assert records(results).items() < reference(study).items()
    assert list(results.glob("trials/*/*/checkpoints/*.checkpoint"))
    assert main(["status", "--results", str(results)]) == 0
    assert "begun" in capfd.readouterr().out
    assert run(study, results) == 0
    assert records(results) == reference(study)
    assert any(record.times["resumed"] for record in Store(results).records())
    assert not list(results.glob("trials/*/*/c*")), "claims and checkpoints are gone"


def test_a_disk_that_is_full_when_a_checkpoint_is_written(
    short_study, reference, tmp_path, capfd, monkeypatch
):
    """Training goes on without; the record is what it would have been."""
    study, results = short_study(), tmp_path / "results"
    full(monkeypatch, ".checkpoint")
    assert run(study, results) == 0
    assert "no checkpoint at step 5, training goes on: " in capfd.readouterr().err
    assert records(results) == reference(study)


def test_a_disk_that_is_full_when_a_record_is_published(
    short_study, reference, tmp_path, capfd, monkeypatch
):
    """The trial failed, and it is said why; it is taken up at its last step when there is room."""
    study, results = short_study(), tmp_path / "results"
    with monkeypatch.context() as patch:
        full(patch, "record.json")
        assert run(study, results) == 1
    said = capfd.readouterr().err
    assert "failed: plain block 0: OSError: [Errno 28] No space left on device" in said
    assert records(results) == {}
    assert run(study, results) == 0
    assert records(results) == reference(study)
    assert all(record.times["resumed"] == [36] for record in Store(results).records())


def full(monkeypatch, name: str) -> None:
    """No more room for files with ``name`` in theirs."""
    real_open, real_write, files = os.open, os.write, {}

    def opened(path, flags, *args, **options):
        file = real_open(path, flags, *args, **options)
        files[file] = str(path)
        return file

    def write(file, content):
        if name in files.get(file, ""):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_write(file, content)

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "write", write)


def test_a_folder_that_may_only_be_read(short_study, tmp_path, capfd, monkeypatch):
    """Said before anything is trained."""
    results = tmp_path / "results"
    results.mkdir()
    real = os.open

    def read_only(path, flags, *args, **options):
        if flags & (os.O_WRONLY | os.O_RDWR) and str(path).startswith(str(results)):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return real(path, flags, *args, **options)

    def no_folder(path, *args, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(os, "open", read_only)
    monkeypatch.setattr(os, "mkdir", no_folder)
    assert run(short_study(), results) == 2
    [line] = capfd.readouterr().err.splitlines()
    assert f"results folder {str(results)!r} cannot be written: Read-only file system" in line


def test_a_clock_that_jumps(short_study, reference, tmp_path, monkeypatch):
    """An hour back and a year ahead at every look: nothing is decided by it."""
    study, results = short_study(), tmp_path / "results"
    expected, real = reference(study), time.time
    jumps = [0.0]

    def jumping() -> float:
        jumps.append(jumps[-1] + (-3600.0 if len(jumps) % 2 else 3e7))
        return real() + jumps[-1]

    monkeypatch.setattr(time, "time", jumping)
    assert run(study, results, "--lease", "1") == 0
    assert len(jumps) > 3, "nobody looked at it"
    assert records(results) == expected
    for record in Store(results).records():
        assert 0 < record.times["seconds"] < 3600, "a duration is no difference of two dates"


def test_memory_that_a_trial_is_not_given(short_study, tmp_path, capfd):
    """It fails with the reason; the others go on; the traceback is kept and shown."""
    body = "def happen():\n    import torch\n    torch.empty(2**50)"
    results = tmp_path / "results"
    assert run(short_study(body), results) == 1
    said = capfd.readouterr().err
    assert "failed: faulty block 0: " in said
    assert "can't allocate memory" in said
    assert len(records(results)) == 2
    assert main(["status", "--results", str(results)]) == 0
    shown = capfd.readouterr().out
    assert "failed" in shown and "faulty block 0" in shown and "can't allocate memory" in shown


def test_a_damaged_checkpoint(short_study, reference, tmp_path, capfd):
    """The one before it is taken, aloud."""
    study, results = short_study(), tmp_path / "results"
    when(
        lambda: len(list(results.glob("trials/*/*/checkpoints/*.checkpoint"))) == 2,
        lambda: os.kill(os.getpid(), signal.SIGINT),
    )
    assert run(study, results) == 130
    found = results.glob("trials/*/*/checkpoints/*.checkpoint")
    before, newest = sorted(found, key=lambda path: int(path.stem))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    capfd.readouterr()
    assert run(study, results) == 0
    assert f"{newest.name} is passed over: its checksum is wrong" in capfd.readouterr().err
    assert records(results) == reference(study)
    resumed = [record.times["resumed"] for record in Store(results).records()]
    assert [int(before.stem)] in resumed


def test_every_checkpoint_damaged(short_study, reference, tmp_path, capfd):
    """Then it begins anew, aloud."""
    study, results = short_study(), tmp_path / "results"
    when(
        lambda: len(list(results.glob("trials/*/*/checkpoints/*.checkpoint"))) == 2,
        lambda: os.kill(os.getpid(), signal.SIGINT),
    )
    assert run(study, results) == 130
    for path in results.glob("trials/*/*/checkpoints/*.checkpoint"):
        path.write_bytes(b"")
    capfd.readouterr()
    assert run(study, results) == 0
    assert capfd.readouterr().err.count("is passed over: ") == 2
    assert records(results) == reference(study)


def test_a_results_folder_that_vanishes(short_study, tmp_path, capfd):
    """Somebody removes it while a trial runs: what is trained then is recorded all the same."""
    study, results = short_study(), tmp_path / "results"
    when(
        lambda: list(results.glob("trials/*/*/checkpoints/*.checkpoint")),
        lambda: shutil.rmtree(results, ignore_errors=True),
    )
    status = run(study, results)
    held = {record.trial: record for record in Store(results).records()}
    assert all(isinstance(record, Record) for record in held.values())
    assert status in (0, 1)
    assert run(study, results) == 0
    assert len(records(results)) == 3


def test_what_a_death_between_record_and_clearing_left(short_study, reference, tmp_path):
    """The next run removes it, and trains nothing."""
    study, results = short_study(), tmp_path / "results"
    assert run(study, results) == 0
    for record in Store(results).records():
        for name in ("claims/1.json", "checkpoints/36.checkpoint"):
            path = Store(results).folder(record.trial, record.stratum) / name
            path.parent.mkdir()
            path.write_bytes(b"left")
    before = {path: path.stat().st_mtime_ns for path in Store(results).paths()}
    assert run(study, results) == 0
    assert not list(results.glob("trials/*/*/c*"))
    assert {path: path.stat().st_mtime_ns for path in Store(results).paths()} == before
    assert records(results) == reference(study)


def test_another_stratum_whose_description_would_move_the_terminal(
    short_study, reference, undisturbed, tmp_path, capfd
):
    """Records of another machine, or of somebody who says so, are skipped and shown as text."""
    study, results = short_study(), tmp_path / "results"
    reference(study)
    store = Store(results)
    for record in Store(undisturbed).records():
        environment = {**record.environment, "device": "\x1b[2J\u202eevil"}
        changed = {"environment": environment, "stratum": digest(environment)}
        store.publish(Record(**record.plain() | changed))
    capfd.readouterr()
    assert run(study, results) == 0
    said = capfd.readouterr()
    assert "device (?[2J?evil, here cpu" in said.err
    assert all(c.isprintable() or c == "\n" for c in said.out + said.err)


def put_claim(results: Path, undisturbed: Path, number: int, **changes) -> Path:
    """A claim on the first trial, by somebody who is gone and said so; returns its folder."""
    path = Store(undisturbed).paths()[0]
    claimed = Claimed(process=Process.current(), started=1.0, lease=1.0, released=True).plain()
    folder = results / path.parent.relative_to(undisturbed) / "claims"
    folder.mkdir(parents=True)
    (folder / f"{number}.json").write_text(json.dumps(claimed | changes))
    return folder


def test_a_claim_that_none_can_follow(short_study, reference, undisturbed, tmp_path, capfd):
    """Its trial cannot be claimed; the others are run, and all of it ends."""
    study, results = short_study(), tmp_path / "results"
    wanted = reference(study)
    folder = put_claim(results, undisturbed, 10**9 - 1)
    assert run(study, results) == 1
    said = capfd.readouterr().err
    assert "holds 999999999.json, which none can follow" in said.splitlines()[-1]
    assert len(records(results)) == len(wanted) - 1
    shutil.rmtree(folder)
    assert run(study, results) == 0
    assert records(results) == wanted


def test_a_claim_of_a_time_that_no_calendar_has(
    short_study, reference, undisturbed, tmp_path, capfd
):
    study, results = short_study(), tmp_path / "results"
    wanted = reference(study)
    shutil.copytree(undisturbed / "studies", results / "studies")
    put_claim(results, undisturbed, 1, started=1e300, released=False)
    assert main(["status", "--results", str(results)]) == 0
    assert "which cannot be read" in capfd.readouterr().out
    assert run(study, results, "--lease", "1") == 0
    assert records(results) == wanted


def test_too_little_memory_for_the_workers(short_study, tmp_path, capfd, monkeypatch):
    """Said before any of them is started."""
    results = tmp_path / "results"
    monkeypatch.setattr(memory, "available", lambda *_: 2**28)
    assert run(short_study(), results, "--workers", "2") == 2
    [line] = capfd.readouterr().err.splitlines()
    assert re.search(r"2 workers need about [0-9.]+ GiB each, .*and 0\.2 GiB are available", line)
    assert not list(results.glob("trials/*"))


def test_a_layer_that_raises(short_study, tmp_path, capfd):
    """Its trial fails, the others go on; running again tries it again, and says it again."""
    body = "def happen():\n    raise ArithmeticError('broken on purpose')"
    study, results = short_study(body), tmp_path / "results"
    for attempt in (1, 2):
        assert run(study, results) == 1
        said = capfd.readouterr().err
        assert "failed: faulty block 0: ArithmeticError: broken on purpose" in said
        assert len(records(results)) == 2
        assert len(list(results.glob("trials/*/*/failures/*.json"))) == attempt
    assert main(["status", "--results", str(results)]) == 0
    assert "ArithmeticError: broken on purpose" in capfd.readouterr().out
    assert main(["verify", "--results", str(results)]) == 0


def test_a_loss_that_becomes_infinite(short_study, tmp_path, capfd):
    """An outcome like another, not a failure."""
    study, results = short_study(), tmp_path / "results"
    text = study.read_text()
    study.write_text(text.replace("depth=3), **HELD", "depth=3), recipe={'epochs': 2, 'lr': 1e30}"))
    assert run(study, results) == 0
    assert "faulty block 0: diverged" in capfd.readouterr().err
    outcomes = [record.outcome for record in Store(results).records()]
    assert sorted(outcomes) == ["diverged", "finished", "finished"]
    assert not list(results.glob("trials/*/*/[cf]*"))
