"""The gate's verdicts as results of pytest: which items there are, and how each of them ends.

The gate itself is replaced: what it finds is written down here.
"""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from overconv.bench import plugin
from overconv.bench.report import Calibration, Report, Verdict

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
CASES = """
from torch import nn
from overconv.bench.cases import Case
CASES = tuple(Case(name, lambda: nn.Conv2d(1, 1, 1), (1, 1, 2, 2)) for name in ("a", "b/c"))
"""


def report(*, a="pass", b="pass", **changed):
    given = {
        "cases_file": "cases.py",
        "verdicts": (Verdict("a", a, "words on a"), Verdict("b/c", b, "words on b")),
        "calibration": Calibration("pass", "resolves ten per cent"),
        "differences": (),
        "counted": 2,
        "accept": "ACCEPT",
        "cannot": None,
        "base": "main",
        "head": "1234",
        "declared": 2,
        "asked": 2,
        "notes": (),
        "seconds": 1.0,
    }
    return Report(**{**given, **changed})


class Session:
    """A pytest session in a folder of its own, with the plugin and a gate that finds ``report``."""

    def __init__(self, pytester, monkeypatch):
        self.pytester, self.calls = pytester, []
        self.found = report()
        monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        monkeypatch.setenv("PYTEST_ADDOPTS", "")
        monkeypatch.setattr(plugin, "run", self.gate)
        pytester.makepyfile(cases=CASES)
        pytester.makepyfile(test_other="def test_other(): pass")

    def gate(self, cases_file, **arguments):
        arguments["say"]("a line of progress")
        self.calls.append({"cases_file": cases_file, **arguments})
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    def run(self, *arguments):
        return self.pytester.runpytest_inprocess(
            "-p", "pytest_overconv", "-p", "no:cacheprovider", *arguments
        )


@pytest.fixture
def session(pytester, monkeypatch):
    return Session(pytester, monkeypatch)


def outcomes(result):
    """Item of the gate to outcome and message."""
    reports = [r for r in result.reprec.getreports("pytest_runtest_logreport")]
    return {
        r.nodeid.partition("::")[2]: (r.outcome, r.longreprtext)
        for r in reports
        if r.nodeid.startswith("gate::") and (r.when == "call" or r.failed)
    }


GATE = ("--gate-base", "main", "--gate-cases", "cases.py")


def test_each_verdict_is_a_result_beside_other_tests(session):
    result = session.run(*GATE)
    result.assert_outcomes(passed=5)
    assert list(outcomes(result)) == ["calibration", "a", "b/c", "all cases"]
    (call,) = session.calls
    call.pop("say")
    assert call == {
        "cases_file": session.pytester.path / "cases.py",
        "base": "main",
        "names": None,
        "gone": [],
        "allow_dirty": False,
        "allow_new": False,
    }
    result.stdout.fnmatch_lines(["*= gate =*", "pass: 2 cases declared;*"])


def test_a_regression_and_no_verdict_are_different_failures(session):
    session.found = report(a="fail", b="unclear")
    result = session.run(*GATE)
    result.assert_outcomes(passed=3, failed=2)
    assert result.ret == 1
    found = outcomes(result)
    assert found["a"] == ("failed", "regression: words on a")
    assert found["b/c"] == ("failed", "cannot judge: words on b")
    assert "Traceback" not in result.stdout.str()


def test_a_machine_that_resolves_nothing_fails_as_such(session):
    unable = Calibration("unclear", "this machine cannot resolve 10 % now")
    session.found = report(a="unclear", b="unclear", calibration=unable)
    found = outcomes(session.run(*GATE))
    assert found["calibration"] == (
        "failed",
        "cannot judge: this machine cannot resolve 10 % now",
    )


def test_changed_figures_fail_at_their_case_with_the_command_that_accepts_them(session):
    session.found = report(differences=("a: parameters is 7, committed is 5",))
    result = session.run(*GATE)
    result.assert_outcomes(passed=4, failed=1)
    assert outcomes(result)["a"][1] == (
        "regression: a: parameters is 7, committed is 5\n"
        "if that is meant, commit the new figures: ACCEPT"
    )


def test_a_changed_figure_does_not_hide_a_slow_down(session):
    session.found = report(a="fail", b="unclear", differences=("a: x is 7", "b/c: x is 7"))
    found = outcomes(session.run(*GATE))
    for case, last in ("a", "regression: words on a"), ("b/c", "cannot judge: words on b"):
        first, _, third = found[case][1].split("\n")
        assert (first, third) == (f"regression: {case}: x is 7", last)


def test_differences_of_no_declared_case_fail_too(session):
    """The name of one case may begin that of another."""
    session.found = report(differences=("a/old: has committed figures but is no case any more",))
    found = outcomes(session.run(*GATE))
    assert found["a"][0] == "passed"
    assert found["all cases"] == (
        "failed",
        "regression: a/old: has committed figures but is no case any more",
    )


def test_a_case_that_is_gone_fails(session):
    gone = Verdict("old", "fail", "gone: the base has this case")
    session.found = report(verdicts=(*report().verdicts, gone))
    found = outcomes(session.run(*GATE))
    assert found["all cases"] == ("failed", "regression: old: gone: the base has this case")


def test_a_case_without_a_verdict_fails_twice(session):
    session.found = report(verdicts=report().verdicts[:1])
    found = outcomes(session.run(*GATE))
    assert found["a"][0] == "passed"
    assert found["b/c"] == ("failed", "cannot judge: the gate gave no verdict on it")
    assert found["all cases"] == ("failed", "cannot judge: b/c is declared and was not judged")


def test_a_gate_that_cannot_judge_at_all_says_why(session):
    session.found = report(
        a="unclear", b="unclear", calibration=None, cannot="unknown base revision 'main'"
    )
    found = outcomes(session.run(*GATE))
    assert {outcome for outcome, _ in found.values()} == {"failed"}
    for name in ("calibration", "all cases"):
        assert found[name][1] == "cannot judge: unknown base revision 'main'"


def test_no_exit_status_of_the_gate_is_lost(session):
    """Whatever the gate does not pass, the session does not pass either."""
    for found in (
        report(cannot="something"),
        report(cannot="something", calibration=None),
        report(differences=("x: new",)),
        report(a="unclear"),
        report(b="fail"),
        report(calibration=Calibration("unclear", "noise")),
    ):
        assert found.exit_status != 0
        session.found = found
        assert session.run(*GATE, "-m", "gate").ret == 1


def test_where_nothing_had_to_be_timed_the_calibration_is_skipped(session):
    session.found = report(calibration=None)
    session.run(*GATE).assert_outcomes(passed=4, skipped=1)


def test_what_the_gate_refuses_is_told_at_each_item_and_asked_once(session):
    session.found = ValueError("cases.figures.json is not JSON")
    result = session.run(*GATE)
    result.assert_outcomes(passed=1, failed=4)
    assert len(session.calls) == 1
    assert outcomes(result)["a"][1] == "cannot judge: cases.figures.json is not JSON"


def test_cases_can_be_chosen_as_tests_are(session):
    session.found = report(verdicts=report().verdicts[1:], asked=1)
    result = session.run(*GATE, "-k", "b/c or calibration")
    result.assert_outcomes(passed=2, deselected=3)
    assert session.calls[0]["names"] == ["b/c"]


def test_the_gate_can_be_run_alone_and_left_out(session):
    session.run(*GATE, "-m", "gate").assert_outcomes(passed=4, deselected=1)
    session.run(*GATE, "-m", "not gate").assert_outcomes(passed=1, deselected=4)
    assert len(session.calls) == 1


def test_no_case_left_is_no_verdict(session):
    result = session.run(*GATE, "-k", "calibration")
    result.assert_outcomes(failed=1, deselected=4)
    assert session.calls == []
    result.stdout.fnmatch_lines(["*cannot judge: every case was deselected*"])


def test_a_gate_without_other_tests_is_no_empty_session(session):
    (session.pytester.path / "test_other.py").unlink()
    session.run(*GATE).assert_outcomes(passed=4)


def test_collecting_runs_nothing(session):
    result = session.run(*GATE, "--collect-only", "-q")
    result.stdout.fnmatch_lines(["gate::calibration", "gate::a", "gate::b/c", "gate::all cases"])
    assert session.calls == []


def test_reports_are_written(session):
    session.found = report(a="fail")
    session.run(*GATE, "--gate-json", "out.json", "--gate-markdown", "out.md")
    stored = json.loads((session.pytester.path / "out.json").read_text())
    assert stored == json.loads(json.dumps(session.found.as_dict()))
    text = (session.pytester.path / "out.md").read_text()
    assert text.startswith("## Gate: REGRESSION") and "words on a" in text


def test_options_reach_the_gate(session):
    session.run(
        "--gate-cases",
        "cases.py",
        "--gate-allow-dirty",
        "--gate-allow-new",
        "--gate-gone",
        "x",
        "--gate-gone",
        "y",
    )
    (call,) = session.calls
    assert call["base"] is None and call["gone"] == ["x", "y"]
    assert call["allow_dirty"] is True and call["allow_new"] is True


def test_the_default_file_of_cases_is_that_of_the_root(session):
    folder = session.pytester.mkdir("benchmark")
    (session.pytester.path / "cases.py").rename(folder / "cases.py")
    session.pytester.makeini("[pytest]")
    session.run("--gate-base", "main", str(folder.parent / "test_other.py")).assert_outcomes(
        passed=5
    )
    assert session.calls[0]["cases_file"] == folder / "cases.py"


def test_progress_is_shown_with_v(session):
    assert "a line of progress" not in session.run(*GATE).stdout.str()
    assert "a line of progress" in session.run(*GATE, "-v").stdout.str()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--gate-json", "x"), "--gate-json needs --gate-base or --gate-cases"),
        (("--gate-gone", "x"), "--gate-gone needs --gate-base or --gate-cases"),
        (("--gate-cases", "none.py"), "the gate cannot read its cases: ValueError: there is no"),
        (("--gate-cases", "empty.py"), "there are no cases: nothing would be watched"),
        (("--gate-cases", "broken.py"), "cannot read its cases: ZeroDivisionError"),
        ((*GATE, "-p", "pytest_benchmark.plugin", "--benchmark-only"), "leaves the gate out"),
    ],
)
def test_wrong_usage_is_told_in_a_line(session, arguments, words):
    session.pytester.makepyfile(empty="CASES = ()", broken="1 / 0")
    result = session.run(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert words in result.stderr.str() + result.stdout.str()
    assert session.calls == []


def test_it_works_beside_pytest_benchmark(session):
    session.run("-p", "pytest_benchmark.plugin", *GATE).assert_outcomes(passed=5)


def test_many_processes_are_refused(session):
    session.pytester.makeconftest(
        "def pytest_addoption(parser):\n    parser.addoption('--numprocesses', type=int)\n"
    )
    result = session.run(*GATE, "--numprocesses", "2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "the gate needs the machine to itself" in result.stderr.str() + result.stdout.str()


# What other sessions pay for it.


def fresh(folder, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments)
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_a_session_without_its_options_is_the_same_and_loads_no_torch(tmp_path):
    (tmp_path / "test_it.py").write_text(
        "import sys\n\n\ndef test_it():\n    assert not {'torch', 'overconv'} & set(sys.modules)\n"
    )
    with_it = fresh(tmp_path, "-q", "-p", "pytest_overconv", "--collect-only")
    without = fresh(tmp_path, "-q", "--collect-only")
    assert with_it.stdout.splitlines()[0] == without.stdout.splitlines()[0] == "test_it.py::test_it"
    done = fresh(tmp_path, "-p", "pytest_overconv", "--strict-markers", "-W", "error")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("option", ["--gate-json", "--gate-markdown"])
def test_where_no_report_can_be_written_ends_the_session_at_once(session, option):
    result = session.run(*GATE, option, "nowhere/report")
    assert result.ret == pytest.ExitCode.USAGE_ERROR and session.calls == []
    result.stderr.fnmatch_lines(["*a report cannot go into *: there is no folder *nowhere"])


def test_a_change_of_its_judges_is_told_at_the_end(session):
    session.found = dataclasses.replace(report(), moved=("cases.py is not base's",))
    result = session.run(*GATE)
    result.stdout.fnmatch_lines(["*NOTE: this change also*", "moved: cases.py is not base's"])
