"""``pytest benchmark``: an ordinary suite of pytest-benchmark, run as everybody runs one."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from benchmark.cases import CASES

ROOT = Path(__file__).parents[2]
PLANTED = """
from overconv.bench import cases

def check_output(case, module, x):
    raise cases.WrongOutput(f"{case.name} is off")

cases.check_output = check_output
"""


def pytest_run(*arguments, cwd=ROOT):
    command = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *map(str, arguments))
    return subprocess.run(
        command, cwd=cwd, env=os.environ, capture_output=True, text=True, check=False
    )


def test_the_suite_is_not_part_of_an_ordinary_run():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "benchmark" not in project["tool"]["pytest"]["ini_options"]["testpaths"]


def test_the_suite_runs_without_timing():
    done = pytest_run("benchmark", "--benchmark-disable", "-k", "se/expansion or maconv/spatial")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout, done.stdout  # two times, two exact counts


def test_a_wrong_output_is_not_timed(tmp_path, monkeypatch):
    """The comparison of outputs is made to fail before the suite is loaded."""
    (tmp_path / "planted.py").write_text(PLANTED, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    done = pytest_run("benchmark", "-p", "planted", "-k", "se/expansion", "--benchmark-only")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "WrongOutput: se/expansion is off" in done.stdout
    assert "benchmark: 1 tests" not in done.stdout and "Rounds" not in done.stdout


def test_nothing_but_the_suite_is_collected():
    done = pytest_run("benchmark", "--collect-only", "-q")
    assert done.returncode == 0, done.stdout + done.stderr
    items = [line for line in done.stdout.splitlines() if "::" in line]
    files = {"operators", "models", "exact"}
    assert {item.partition("::")[0] for item in items} == {f"benchmark/test_{f}.py" for f in files}
    assert len(items) == 2 * len(CASES) + 2  # a time and the exact figures each, and two of all


def test_times_are_stored_with_what_they_cost(tmp_path):
    """As everybody uses it: stored, then compared with the last one."""
    short = ("--benchmark-max-time=0.01", "--benchmark-min-rounds=2")
    store = f"--benchmark-storage=file://{tmp_path}"
    suite = ("benchmark", "-k", "se/expansion", *short, store)
    first = pytest_run(*suite, "--benchmark-only", "--benchmark-autosave")
    assert first.returncode == 0, first.stdout + first.stderr
    found = tmp_path / "found.json"
    again = pytest_run(
        *suite, "--benchmark-only", "--benchmark-compare", f"--benchmark-json={found}"
    )
    assert again.returncode == 0, again.stdout + again.stderr
    assert "another machine" not in again.stdout + again.stderr
    assert "(0001_" in again.stdout and "(NOW)" in again.stdout
    stored = json.loads(found.read_text())
    (test,) = stored["benchmarks"]
    extra = test["extra_info"]
    assert extra["parameters"] == 64 * 384 + 384 + 384 * 24 + 24 + 24 * 384 + 384
    pooled_and_scaled = 2 * 384 * 14 * 14
    assert extra["macs"] == 64 * 384 * 14 * 14 + 2 * 384 * 24 + pooled_and_scaled
    assert extra["flops"] == 2 * extra["macs"]
    assert extra["peak_bytes"] > 0 and extra["figures"]["operations"] > 0
    assert 0 < extra["ratio_low"] <= extra["ratio"] <= extra["ratio_high"]
    assert isinstance(extra["ratio_unmet"], str)
    assert extra["fingerprint"] == stored["machine_info"]["fingerprint"]
    assert test["options"]["disable_gc"] is True and test["options"]["warmup"]
    live = [name for name in stored["machine_info"] if "hz" in name.lower() or "load" in name]
    assert live == [] and all(
        isinstance(value, str | int) for value in stored["machine_info"].values()
    )


def test_nothing_to_compare_with_is_said_and_ends_nothing(tmp_path):
    """The first time that somebody asks for a comparison."""
    store = f"--benchmark-storage=file://{tmp_path}"
    done = pytest_run("benchmark", "-k", "se/expansion", "--benchmark-compare", store, "--co", "-q")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Can't compare. No benchmark files in" in done.stdout + done.stderr
    assert "INTERNALERROR" not in done.stdout + done.stderr


@pytest.mark.slow
def test_times_of_another_machine_are_told_apart(tmp_path):
    short = ("--benchmark-max-time=0.01", "--benchmark-min-rounds=2")
    suite = ("benchmark", "-k", "se/expansion", *short, f"--benchmark-storage=file://{tmp_path}")
    assert pytest_run(*suite, "--benchmark-only", "--benchmark-autosave").returncode == 0
    (path,) = tmp_path.rglob("*.json")
    stored = json.loads(path.read_text())
    name = next(name for name in stored["machine_info"] if name != "fingerprint")
    stored["machine_info"][name] = "something else"
    path.write_text(json.dumps(stored))
    told = pytest_run(*suite, "--benchmark-only", "--benchmark-compare")
    assert f"say nothing about this one ({name}: something else then" in told.stdout + told.stderr
    refused = pytest_run(
        *suite, "--benchmark-only", "--benchmark-compare", "--benchmark-compare-fail=min:5%"
    )
    assert refused.returncode != 0
    assert "--benchmark-compare-fail cannot judge: times of another machine" in refused.stderr


@pytest.mark.slow
def test_options_of_the_command_line_win():
    done = pytest_run(
        "benchmark",
        "-k",
        "se/expansion",
        "--benchmark-only",
        "--benchmark-verbose",
        "--benchmark-warmup=off",
        "--benchmark-max-time=0.01",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warmup" not in done.stderr + done.stdout
    done = pytest_run(
        "benchmark",
        "-k",
        "se/expansion",
        "--benchmark-only",
        "--benchmark-verbose",
        "--benchmark-max-time=0.01",
    )
    assert "Warmup" in done.stderr + done.stdout


def test_the_suite_does_without_pytest_benchmark():
    done = pytest_run("benchmark", "-p", "no:benchmark", "-rs", "-k", "se/expansion")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pytest-benchmark, which is not here" in done.stdout
