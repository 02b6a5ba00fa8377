import argparse
import subprocess

import pytest
import torch

from benchmark import gate, gate_trials
from overconv.bench.loading import load_cases
from overconv.bench.report import Report, Verdict
from overconv.bench.statistics import Ratio


@pytest.mark.parametrize(("change", "calls"), [("none", 20), ("+5 %", 21), ("+10 %", 22)])
def test_a_planted_change_is_calls_of_the_layer_and_nothing_else(tmp_path, change, calls):
    root = gate_trials.planted(tmp_path)
    command = ["git", "diff", "--stat", "base", f"calls-{calls}", "--", "."]
    done = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    assert ("cases.py" in done.stdout) == (calls != 20) and "layer.py" not in done.stdout
    subprocess.run(["git", "checkout", "-q", f"calls-{calls}"], cwd=root, check=True)
    changed, still = load_cases(root / "cases.py")
    for case, expected in (changed, calls), (still, 20):
        module, count = case.build(), []
        module.layer.register_forward_hook(lambda *_, count=count: count.append(1))
        with torch.inference_mode():
            module(torch.zeros(case.shape))
        assert len(count) == expected


def report(changed, still="pass"):
    ratio = Ratio(1.1, 1.0, 1.2, 20)
    verdicts = tuple(
        Verdict(case, outcome, "words", ratio, ratio, "base", 1.05, 20, 1)
        for case, outcome in (("changed", changed), ("still", still))
    )
    places = "cases.py", verdicts, None, None, 0, "", None, "base", "head", 2, 2, (), 9.0
    return Report(*places, machine={"load": [1.0]})


def test_trials_are_counted_by_outcome_and_false_alarms_apart():
    rows = [
        gate_trials._row(change, report(changed, still), seconds)
        for change, changed, still, seconds in [
            ("none", "pass", "pass", 9.0),
            ("none", "fail", "pass", 11.0),
            ("none", "unclear", "pass", 30.0),
            ("+10 %", "fail", "pass", 20.0),
            ("+10 %", "pass", "fail", 20.0),
        ]
    ]
    text = gate_trials.text({"load": "training", "rows": rows})
    table = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    assert table[0][:6] == [
        "planted", "gates", "pass", "regression", "cannot judge", "unchanged case failed",
    ]  # fmt: skip
    assert table[2] == ["none", "3", "1", "1", "1", "0", "1.100 to 1.100", "11"]
    assert table[3] == ["+10 %", "2", "0", "2", "0", "1", "1.100 to 1.100", "20"]


def test_a_load_ends_with_its_block(monkeypatch):
    started = []

    class Watched(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Watched)
    with pytest.raises(ZeroDivisionError), gate_trials.loaded("busy"):
        assert [process.poll() for process in started] == [None]
        raise ZeroDivisionError
    assert [process.poll() for process in started] == [-9]


def test_numbers_of_trials_are_checked():
    parser = argparse.ArgumentParser()
    gate_trials.add_arguments(parser)
    for numbers in ["-1", "1", "1"], ["0", "0", "0"]:
        arguments = dict(zip(["--same", "--ten", "--five"], numbers, strict=True))
        flat = [f"{name}={value}" for name, value in arguments.items()]
        with pytest.raises(ValueError, match="must not be negative, nor all 0"):
            gate_trials.run(parser.parse_args(flat))


def test_the_gate_of_this_project_has_its_own_cases_and_command(monkeypatch):
    parser = argparse.ArgumentParser()
    gate.add_arguments(parser)
    options = parser.parse_args([])
    assert options.cases == gate.CASES and options.cases.name == "cases.py"
    asked = []
    monkeypatch.setattr(gate.command, "run", lambda options, command: asked.append(command) or 0)
    assert gate.run(options) == 0 and asked == ["python -m benchmark gate"]
