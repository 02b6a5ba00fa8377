"""Slurm through submitit: the script that it would submit, made jobs, and its local executor."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ablations.cli import main
from ablations.engines import slurm
from ablations.engines.engine import Backlog, Task, child_variables
from ablations.engines.slurm import Slurm

pytest.importorskip("submitit", reason="submitit is not installed: pip install '.[slurm]'")

TASK = Task(study="s", study_hash="h", preset="p", results="r", arm="a", block=0, expect="a/s")
TASKS = [replace(TASK, arm=arm, expect=f"{arm}/s") for arm in "abc"]


@pytest.fixture
def no_slurm(tmp_path, monkeypatch):
    """A machine with nothing of Slurm but srun, which submitit looks for."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "srun").write_text("#!/bin/sh\n")
    (folder / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def script(engine: Slurm) -> set[str]:
    executor = engine.executor()._executor
    executor.parameters["map_count"] = 3
    return set(executor._make_submission_file_text("command", "id").splitlines())


def test_the_script_is_an_array_that_is_told_early_and_requeued(no_slurm, tmp_path):
    folder = tmp_path / "files"
    found = script(Slurm(folder, cpus=4, gpus=0, threads=2, most=2))
    assert found >= {
        "#SBATCH --array=0-2%2",
        "#SBATCH --cpus-per-task=4",
        "#SBATCH --signal=USR2@120",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        "#SBATCH --time=240",
        "#SBATCH --job-name=ablations",
    }
    assert not any("gpus" in line for line in found)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_parameters_are_submitits(no_slurm, tmp_path):
    given = {"slurm_partition": "gpu", "timeout_min": 30, "mem_gb": 16}
    found = script(Slurm(tmp_path / "files", cpus=1, gpus=2, threads=1, parameters=given))
    assert found >= {
        "#SBATCH --partition=gpu",
        "#SBATCH --time=30",
        "#SBATCH --mem=16GB",
        "#SBATCH --gpus-per-node=2",
    }
    wrong = Slurm(tmp_path / "files", 1, 0, 1, parameters={"slurm_partitoin": "gpu"})
    with pytest.raises(ValueError, match="--engine slurm: .*partitoin"):
        wrong.executor()


def test_a_folder_that_others_may_write_to_is_refused(no_slurm, tmp_path):
    """A job unpickles what it finds there."""
    folder = tmp_path / "files"
    folder.mkdir(mode=0o700)
    folder.chmod(0o770)
    with pytest.raises(ValueError, match="others may write there"):
        Slurm(folder, 1, 0, 1).executor()
    folder.chmod(0o755)
    Slurm(folder, 1, 0, 1).executor()


def test_no_slurm_is_a_line(tmp_path, study_file, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    arguments = ["run", str(study_file), "--seeds", "1", "--results", str(tmp_path / "results")]
    more = ["--engine", "slurm", "--slurm", f"folder={tmp_path / 'files'}"]
    assert main([*arguments, *more]) == 2
    err = capsys.readouterr().err
    assert "are you indeed on a slurm cluster?" in err
    assert len(err.strip().splitlines()) == 1


class MadeJob:
    """A submitted job: what it has written, and whether Slurm still knows it."""

    def __init__(self, folder: Path, number: int):
        self.job_id, self.paths = f"7_{number}", self
        self.stdout_path, self.known, self.cancelled = folder / f"{number}.out", True, False

    def __getattribute__(self, name):
        if name == "stdout":
            return object.__getattribute__(self, "stdout_path")
        return object.__getattribute__(self, name)

    def stderr(self):
        return "what it said\n"

    def write(self, text: str):
        with self.stdout_path.open("a") as file:
            file.write(text)

    def cancel(self, check):
        self.cancelled = True
        self.write('{"stopped": 5}\n')


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Jobs as they are submitted; time passes at once."""
    jobs: list[MadeJob] = []

    class Executor:
        def map_array(self, function, texts):
            made = [MadeJob(tmp_path, len(jobs) + n) for n in range(len(texts))]
            jobs.extend(made)
            return made

    monkeypatch.setattr(Slurm, "executor", lambda self: Executor())
    monkeypatch.setattr(slurm, "_queued", lambda: {job.job_id for job in jobs if job.known})
    monkeypatch.setattr(slurm, "ASK", -1.0)
    monkeypatch.setattr(slurm, "PATIENCE", 0.2)
    for name in child_variables(1):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    return jobs


@pytest.fixture
def run(cluster, make_said, monkeypatch, tmp_path):
    def run(*steps, stop=lambda: False):
        """Run three tasks; each look is preceded by the next of ``steps``."""
        waiting = list(steps)

        def sleep(seconds):
            if waiting:
                waiting.pop(0)()

        monkeypatch.setattr(slurm.time, "sleep", sleep)
        said = make_said()
        backlog = Backlog.of(TASKS, said, said, retries=1)
        Slurm(tmp_path / "files", 1, 0, 1).run(backlog, lambda: stop() or not waiting)
        return backlog, said.heard_of

    return run


def test_what_jobs_write_is_heard_line_by_line(cluster, run):
    def write(number, text):
        return lambda: cluster[number].write(text)

    backlog, heard = run(
        write(0, 'submitit INFO\n{"epoch": 0, "values": {}}\n{"epo'),
        write(0, 'ch": 1, "values": {}}\nnoise\n'),
        write(0, '{"finished": {}}\n'),
        write(1, '{"failed": "Traceback"}\n{"epoch": 9, "values": {}}\n'),
        write(2, '{"held": "another"}\n'),
        lambda: None,
    )  # fmt: skip
    assert heard[:4] == [
        ("a", "epoch", "values"), ("a", "epoch", "values"), ("a", "finished"), ("b", "failed"),
    ]  # fmt: skip
    assert ("c", "held") in heard
    assert (backlog.num_done, len(backlog.failed)) == (1, 1)


def test_a_job_that_vanishes_costs_an_attempt(cluster, run):
    def vanish():
        cluster[-1 if len(cluster) > 3 else 1].known = False

    look = [lambda: None] * 2
    backlog, heard = run(vanish, *look, vanish, *look, *look)
    assert len(cluster) == 4, "submitted once more"
    kinds = [kind for arm, kind, *_ in heard if arm == "b"]
    assert kinds == ["retried", "failed"]
    assert backlog.ledger.failures == backlog.failed
    [failure] = backlog.failed.values()
    assert "what it said\njob 7_3 ended without a last word" in failure


def test_a_job_is_not_missed_by_an_answer_older_than_itself(cluster, monkeypatch, run):
    """One that is submitted again, after another was lost, while Slurm is not asked anew."""

    def vanish():
        cluster[1].known = False

    def ask_no_more():
        monkeypatch.setattr(slurm, "ASK", 3600.0)

    look = [lambda: None] * 4
    backlog, heard = run(vanish, lambda: None, ask_no_more, *look)
    assert len(cluster) == 4, "submitted once more"
    kinds = [kind for arm, kind, *_ in heard if arm == "b"]
    assert kinds == ["retried", "stopped"], "as the others, at the end"
    assert not backlog.failed


def test_a_word_that_shows_late_counts(cluster, run):
    def vanish():
        cluster[0].known = False

    def late():
        cluster[0].write('{"finished": {}}\n')

    backlog, heard = run(vanish, late, lambda: None)
    assert backlog.num_done == 1
    assert ("a", "retried") not in heard


def test_a_preempted_job_comes_back(cluster, run):
    def preempt():
        cluster[0].write('{"stopped": 30}\n')

    def back():
        cluster[0].write('{"resumed": 30}\n{"finished": {}}\n')

    backlog, heard = run(preempt, lambda: None, back, lambda: None)
    assert [kind for arm, kind, *_ in heard if arm == "a"] == ["resumed", "finished"]
    assert len(cluster) == 3


def test_a_request_to_stop_cancels_jobs_and_waits_for_them(cluster, run):
    asked = []
    backlog, heard = run(lambda: asked.append(1), stop=lambda: bool(asked))
    assert all(job.cancelled for job in cluster)
    assert heard == [(arm, "stopped") for arm in "abc"]
    assert len(backlog.outcome().left) == 3


@pytest.mark.slow
def test_the_local_executor_for_real(study_file, tmp_path, records, wait_for):
    """A trial is told to leave as at a time limit, comes back, and ends with the same bytes."""
    text = study_file.read_text().replace('"epochs": 1', '"epochs": 40')
    study_file.write_text(text)
    results, folder = tmp_path / "results", tmp_path / "files"
    run = [sys.executable, "-m", "ablations", "run", str(study_file), "--seeds", "1", "--results"]
    more = ["--engine", "slurm", "--slurm", "cluster=local", "--slurm", f"folder={folder}"]
    process = subprocess.Popen(
        [*run, str(results), *more], cwd=Path(__file__).parents[2], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    wait_for(lambda: list(results.glob("trials/*/*/checkpoints/*.checkpoint")), process)
    claim = next(next(results.glob("trials/*/*/checkpoints")).parent.glob("claims/1.json"))
    os.kill(json.loads(claim.read_text())["process"]["pid"], signal.SIGUSR2)
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert err.count("taken up from its checkpoint") == 1
    assert main(["run", str(study_file), "--seeds", "1", "--results", str(tmp_path / "one")]) == 0
    one, two = records(tmp_path / "one"), records(results)
    assert {t: r.compared() for t, r in one.items()} == {t: r.compared() for t, r in two.items()}
    assert sorted(len(record.times["resumed"]) for record in two.values()) == [0, 1]
