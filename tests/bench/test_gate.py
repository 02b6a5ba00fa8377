import json
import shutil
import subprocess
import sys

import pytest

from overconv import timing
from overconv.bench import cases, command, gate, host, recording, rounds, worker, workers
from overconv.bench.__main__ import main
from overconv.bench.judging import Judgement
from overconv.bench.statistics import Ratio
from overconv.bench.workers import Refused, Worker
from overconv.timing import Sample

PATH = list(sys.path)
MACHINE = {"key": "here", "fingerprint": {"cpu": "this one"}, "core": 0, "load": []}


@pytest.fixture(autouse=True)
def scripted_readings(monkeypatch):
    """Samples are taken, but what they read is scripted, so that no test asserts a time.

    Equal numbers of calls read as equal, unless ``readings`` has something else for the limit.
    """
    readings = {}

    def judge(candidate, reference, calls, *, limit, level, order, expected=(1.0, 1.0), **_):
        samples = candidate(calls[0]), reference(calls[1])
        assert all(sample.wall > 0 for sample in samples)
        value = readings.get(limit, calls[0] / calls[1])
        ratio = Ratio(value, value - 0.01, value + 0.01, 20)
        outcome = "fail" if value > limit else "pass"
        return Judgement(outcome, ratio, ratio, calls[0], 2.0)

    monkeypatch.setattr(rounds, "judge", judge)
    monkeypatch.setattr(recording, "judge", judge)
    for module in (gate, recording):
        monkeypatch.setattr(module, "machine", lambda core: MACHINE)
        monkeypatch.setattr(module, "quiet_core", lambda: None)
    return readings


class InThisProcess:
    """What a worker does, without its process: starting many takes longer than all else."""

    def __init__(self, role, place, here, core):
        self.role = role
        for name in [name for name in sys.modules if name.partition(".")[0] == "tiny"]:
            del sys.modules[name]
        sys.path[:] = [str(place.project), *PATH]


def test_nothing_is_recorded_by_a_machine_that_cannot_tell(repository, scripted_readings, capsys):
    scripted_readings[rounds.SELF_TEST_LIMIT] = 1.3
    assert main(["gate", "--cases", str(repository.cases), "--record"]) == 3
    assert "nothing is written, this machine cannot resolve 10 % now" in capsys.readouterr().out
    assert not (repository.root / "cases.ratios.json").exists()


# Usage.


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--cases", "none.py"], "there is no file of cases"),
        (["--base=-all"], "base='-all' is no name of a revision"),
        (["--base", ""], "base='' is no name of a revision"),
        (["--cases-only", "none", "--exact-only"], "there is no case 'none' in cases.py"),
        (["--cases-only", ",", "--exact-only"], "names is empty"),
        (["--accept", "--cases-only", "one"], "leave --cases-only out"),
        (["--minutes", "0"], "minutes must be above 0, got 0.0"),
        (["--exact-only", "--timing-only"], "not allowed with argument"),
    ],
)
def test_bad_usage_is_told_from_a_verdict(repository, arguments, complaint, capsys):
    try:
        status = main(["gate", "--cases", str(repository.cases), *arguments])
    except SystemExit as stopped:
        status = stopped.code
    assert status == 2
    assert complaint in capsys.readouterr().err


def test_nothing_to_do_is_refused(repository):
    with pytest.raises(ValueError, match="neither exact figures nor timing"):
        gate.run(repository.cases, exact=False, timing=False)


def test_the_fingerprint_is_that_of_one_thread(monkeypatch):
    import torch

    one = host.machine(None)
    torch.set_num_threads(2)
    try:
        assert host.machine(None)["key"] == one["key"] and one["fingerprint"]["threads"] == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert command.STATUS
