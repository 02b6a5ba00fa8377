"""Folders that are really full or read-only: mounted so, for one process and its children."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from records.store import Store

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
PATIENCE = 900  # seconds; a test machine may be busy


def in_a_namespace(script: str) -> tuple[str, ...]:
    """What a command is put behind to run after ``script`` in a mount namespace of its own."""
    unshare = ("unshare", "--user", "--map-root-user", "--mount")
    return (*unshare, "sh", "-c", f'{script} && exec "$@"', "sh")


def has_namespaces() -> bool:
    if shutil.which("unshare") is None:
        return False
    done = subprocess.run(
        [*in_a_namespace("mount -t tmpfs none /mnt"), "true"], capture_output=True
    )
    return done.returncode == 0


needs_namespaces = pytest.mark.skipif(
    not has_namespaces(), reason="needs user namespaces, to mount a full or a read-only folder"
)


@needs_namespaces
def test_a_real_folder_that_may_only_be_read(command, short_study, tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    before = in_a_namespace(
        f"mount --bind {results} {results} && mount -o remount,bind,ro {results}"
    )
    run = command("run", short_study(), "--results", results, before=before)
    _, err = run.communicate(timeout=PATIENCE)
    assert run.returncode == 2
    assert err.count("\n") == 1, err
    assert "cannot be written: Read-only file system" in err
    assert list(results.iterdir()) == []


@needs_namespaces
def test_a_real_disk_that_is_full(command, short_study, tmp_path):
    """160 kB: enough for some records, not for checkpoints; what fits is whole."""
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    script = f"mount -t tmpfs -o size=160k none {disk}"
    before = in_a_namespace(script)
    arguments = ["run", short_study(), "--seeds", "6", "--results", disk / "results"]
    code = (
        "import subprocess, sys, shutil\n"
        "done = subprocess.run([sys.executable, '-m', 'ablations', *sys.argv[3:]])\n"
        "shutil.copytree(sys.argv[1], sys.argv[2])\n"
        "sys.exit(done.returncode)"
    )
    done = subprocess.run(
        [*before, sys.executable, "-c", code, disk, kept, *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode in (1, 2), done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr.replace("FAILED\nTraceback", "")
    some = Store(kept / "results")
    assert 0 < len(list(some.records())) < 18
    again = command(*arguments[:-1], some.root)
    _, err = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, err
    assert len(list(some.records())) == 18
