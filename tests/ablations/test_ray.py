"""Ray: what is made of what its tasks say and how they end; and Ray for real, if it is here."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from ablations.cli import main
from ablations.engines import ray_engine, threaded
from ablations.engines.engine import Backlog, Task
from ablations.engines.ray_engine import Ray

ROOT = Path(__file__).parents[2]
TASK = Task(study="s", study_hash="h", preset="p", results="r", arm="a", block=0, expect="a/s")
TASKS = [replace(TASK, arm=arm, expect=f"{arm}/s") for arm in "abcd"]


class MadeRay:
    """Ray tasks that say what is in ``scripts``, by arm: each attempt a list of messages and, at
    its end, an error. Only the tasks themselves are made; order and number are the engine's."""

    exceptions = SimpleNamespace(RayError=type("RayError", (Exception,), {}))

    def __init__(self, scripts):
        self.scripts, self.options_given, self.most, self.cancelled = scripts, {}, 0, []
        self.running = set()

    def remote(self, function):
        return SimpleNamespace(options=self.options)

    def options(self, **given):
        self.options_given = given
        return SimpleNamespace(remote=self.submit)

    def submit(self, text):
        arm = Task.from_json(text).arm
        stream = iter(self.scripts[arm].pop(0))
        self.running.add(stream)
        self.most = max(self.most, len(self.running))
        return stream

    def wait(self, streams, num_returns, timeout):
        return list(streams)[:1], []

    def get(self, item):
        if isinstance(item, Exception):
            raise item
        if item.keys() & {"finished", "failed", "held", "stopped"}:
            self.running.clear()
        return item

    def cancel(self, stream):
        self.cancelled.append(stream)


@pytest.fixture
def run(make_said):
    def run(scripts, stop=lambda: False, most=None):
        made, said = MadeRay(scripts), make_said()
        backlog = Backlog.of([t for t in TASKS if t.arm in scripts], said, said)
        Ray(None, most, cpus=2, gpus=0.5, threads=1)._run(made, backlog, stop)
        return made, said.heard_of, backlog

    return run


EPOCH = {"epoch": 0, "values": {}}
DEAD = MadeRay.exceptions.RayError("The worker died\nunexpectedly")


def test_what_tasks_say_is_passed_on_and_what_they_need_is_asked_for(run):
    made, heard, backlog = run({"a": [[EPOCH, {"finished": {}}]], "b": [[{"failed": "text"}]]})
    assert heard == [("a", "epoch", "values"), ("a", "finished"), ("b", "failed")]
    assert backlog.num_done == 1
    given = made.options_given
    assert (given["num_cpus"], given["num_gpus"], given["max_retries"]) == (2, 0.5, 0)
    assert given["runtime_env"]["env_vars"]["OMP_NUM_THREADS"] == "1"


@pytest.mark.parametrize("end", [[DEAD], []])
def test_a_task_that_dies_costs_an_attempt(end, run):
    _, heard, backlog = run({"a": [[EPOCH, *end], [{"resumed": 3}, {"finished": {}}]]})
    assert [kind for _, kind, *_ in heard] == ["epoch", "retried", "resumed", "finished"]
    assert backlog.num_done == 1
    _, heard, backlog = run({"a": [[EPOCH, *end], end]})
    [reason] = backlog.failed.values()
    assert ("RayError: The worker died" if end else "ended without a word") in reason


def test_no_more_at_a_time_than_asked_for(run):
    scripts = {arm: [[{"finished": {}}]] for arm in "abcd"}
    assert run({**scripts})[0].most == 4
    scripts = {arm: [[{"finished": {}}]] for arm in "abcd"}
    assert run(scripts, most=1)[0].most == 1


def test_a_request_to_stop_cancels_what_runs(monkeypatch, run):
    asked = []

    def submitted(self, text):
        asked.append(1)
        return iter([DEAD])

    monkeypatch.setattr(MadeRay, "submit", submitted)
    made, heard, backlog = run({"a": [], "b": []}, stop=lambda: bool(asked))
    assert len(made.cancelled) == 1
    assert heard == [("a", "stopped")]
    assert len(backlog.outcome().left) == 2


def test_a_task_that_is_cancelled_asks_its_trial_to_stop(monkeypatch):
    """Ray raises in the thread that waits, wherever it is; the trial keeps its checkpoint first."""
    left = []

    def run_task(task, say, stop):
        say(EPOCH)
        while not stop():
            time.sleep(0.01)
        left.append(task)
        say({"stopped": 7})

    monkeypatch.setattr(threaded, "run_task", run_task)
    stream = ray_engine._stream(TASK.to_json())
    assert "started" in next(stream)
    assert next(stream) == EPOCH
    with pytest.raises(KeyboardInterrupt):
        stream.throw(KeyboardInterrupt)
    assert left == [TASK]


def test_a_thread_that_breaks_says_so(monkeypatch):
    def run_task(task, say, stop):
        raise SystemExit("gone")

    monkeypatch.setattr(threaded, "run_task", run_task)
    monkeypatch.setattr(threaded.threading, "excepthook", lambda arguments: None)
    assert list(ray_engine._stream(TASK.to_json()))[1:] == [{"lost": "SystemExit: gone"}]


def test_no_ray_is_a_line(study_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    arguments = ["run", str(study_file), "--seeds", "1", "--results", str(tmp_path / "results")]
    assert main([*arguments, "--engine", "ray"]) == 2
    assert "--engine ray needs Ray: pip install '.[ray]'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_ray_for_real(study_file, tmp_path, monkeypatch, records, wait_for):
    """On this machine: a worker is killed, the launcher is interrupted, killed, started again."""
    monkeypatch.setenv("HOME", str(tmp_path))  # where Ray keeps its key
    study_file.write_text(study_file.read_text().replace('"epochs": 1', '"epochs": 60'))
    results = tmp_path / "results"
    run = [sys.executable, "-m", "ablations", "run", str(study_file), "--seeds", "1", "--results"]
    more = ["--engine", "ray", "--workers", "2", "--checkpoint-every", "9"]

    def start() -> subprocess.Popen:
        return subprocess.Popen(
            [*run, str(results), *more], cwd=ROOT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def steps() -> list[int]:
        return [int(p.stem) for p in results.glob("trials/*/*/checkpoints/*.checkpoint")]

    process = start()
    wait_for(steps, process)
    assert (tmp_path / ".ray/auth_token").stat().st_mode & 0o777 == 0o600
    claim = json.loads(next(results.glob("trials/*/*/claims/1.json")).read_text())
    os.kill(claim["process"]["pid"], signal.SIGKILL)
    wait_for(lambda: list(results.glob("trials/*/*/claims/2.json")), process)
    before = max(steps())
    wait_for(lambda: max(steps()) > before, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130, err
    assert "tried once more" in err
    assert "taken up from its checkpoint" in err

    process = start()
    before = max(steps())
    wait_for(lambda: max(steps()) > before, process)
    process.kill()
    process.communicate()
    process = start()
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert main(["run", str(study_file), "--seeds", "1", "--results", str(tmp_path / "one")]) == 0
    one, two = records(tmp_path / "one"), records(results)
    assert {t: r.compared() for t, r in one.items()} == {t: r.compared() for t, r in two.items()}
    assert all(len(record.times["resumed"]) >= 2 for record in two.values())
