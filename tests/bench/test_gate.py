import json
import shutil
import subprocess
import sys

import pytest
import torch

from overconv import timing
from overconv.bench import cases, gate, host, recording, rounds, worker
from overconv.bench.__main__ import main
from overconv.bench.judging import Judgement
from overconv.bench.statistics import Ratio
from overconv.bench.workers import Refused, Worker
from overconv.timing import Sample

PATH = list(sys.path)
MACHINE = {"key": "here", "fingerprint": {"cpu": "this one"}, "core": 0, "load": []}


class InThisProcess:
    """What a worker does, without its process: starting many takes longer than all else."""

    def __init__(self, role, place, here, core):
        self.role = role
        for name in [name for name in sys.modules if name.partition(".")[0] == "tiny"]:
            del sys.modules[name]
        sys.path[:] = [str(place.project), *PATH]
        other = None if here == place else here.tree
        try:
            self.bench = worker.Bench(place.tree, place.project, other, place.cases)
            self.description = self.bench.describe()
        except Exception as error:
            missing = getattr(error, "name", None) or ""
            self.error = Refused(worker.sentence(error), "load", missing)

    read = Worker.read

    def _answer(self):
        if hasattr(self, "error"):
            raise self.error
        return self.description

    cases = Worker.cases

    def _asked(self, **request):
        answer = worker.answered(self.bench, request)
        if "error" in answer:
            raise Refused(answer["error"], answer["kind"])
        return answer

    def prepare(self, what, case=None):
        return self._asked(do="prepare", what=what, case=case)["seconds"]

    def sample(self, what, calls):
        return Sample(**self._asked(do="sample", what=what, calls=calls))

    def figures(self, case):
        return self._asked(do="figures", case=case)["figures"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.fixture(autouse=True)
def inline(request, monkeypatch, tmp_path):
    """Stands in for processes, except where a test asks for ``processes``."""
    if "processes" in request.fixturenames:
        return
    for module in worker, cases, timing:
        shutil.copy(module.__file__, tmp_path)
    monkeypatch.setattr(worker, "__file__", str(tmp_path / "worker.py"))
    for module in gate, recording:
        monkeypatch.setattr(module, "Worker", InThisProcess)
    monkeypatch.setattr("gc.collect", lambda: 0)  # takes long beside all that pytest holds
    monkeypatch.setattr(sys, "path", list(PATH))


@pytest.fixture
def processes():
    """Asks for real ones."""


@pytest.fixture(autouse=True)
def readings(monkeypatch):
    """Samples are taken, but what they read is scripted, so that no test asserts a time.

    Equal numbers of calls read as equal, unless ``readings`` has something else for the limit.
    """
    readings = {}

    def judge(candidate, reference, calls, *, limit, expected=(1.0, 1.0), **_):
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


def run(repository, *arguments):
    report = repository.root.parent / "report.json"
    status = main(["gate", "--cases", str(repository.cases), "--json", str(report), *arguments])
    found = json.loads(report.read_text()) if report.exists() else None
    assert found is None or found["exit_status"] == status
    return status, found


def said(report, case):
    (verdict,) = [v for v in report["verdicts"] if v["case"] == case]
    return verdict["outcome"], verdict["reason"]


# It passes, and it fails.


def test_equal_revisions_pass_and_say_what_was_measured(repository, processes, capsys):
    page = repository.root.parent / "summary.md"
    status, found = run(repository, "--base", "base", "--timing-only", "--markdown", str(page))
    assert status == 0
    assert [v["outcome"] for v in found["verdicts"]] == ["pass", "pass"]
    assert found["base"].startswith("base (") and found["calibration"]["outcome"] == "pass"
    assert found["calibration"]["planted"]["estimate"] == 1.1
    assert "packages measured from the tree: tiny" in found["notes"]
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("self-test, pair 1: ")
    assert out[-1].startswith("2 cases declared; timed 2 against base, 0 against plain, 0 new")
    assert page.read_text().startswith("## Gate: pass\n")
    assert len(repository.git("worktree", "list").splitlines()) == 1
    assert repository.git("status", "--porcelain") == ""


def test_a_slow_case_fails_by_its_own_limit(repository, readings):
    repository.replace("cases.py", "(1, 8, 8, 8)),\n)", "(1, 8, 8, 8), limit=1.2),\n)")
    repository.commit("a limit")
    readings[1.2] = 1.3
    status, found = run(repository, "--base", "base", "--timing-only")
    assert status == 1
    assert said(found, "one")[0] == "pass"
    assert said(found, "three") == (
        "fail",
        "1.300 (1.290 to 1.310) of base, CPU 1.300; limit 1.2; earlier pairs of processes: fail at"
        " 1.300",
    )
    assert "three: its limit is raised from 1.05 to 1.2" in found["notes"]


# No cases, cases gone, cases wrong.


@pytest.mark.parametrize("layer", [[], ["--exact-only"], ["--timing-only"]])
def test_no_cases_cannot_be_judged(repository, layer):
    repository.write("cases.py", "CASES = ()")
    status, found = run(repository, *layer)
    assert status == 3
    assert found["sentence"] == (
        "cannot judge: cases.py declares no cases: nothing would be watched"
    )


def test_no_cases_where_the_base_had_some_fail(repository):
    repository.write("cases.py", "CASES = ()")
    repository.commit("nothing is watched any more")
    status, found = run(repository, "--base", "base")
    assert status == 1
    assert found["sentence"] == "regression: 2 cases failed (one, three)"
    status, found = run(repository, "--base", "base", "--exact-only")
    assert status == 3 and "declares no cases" in found["sentence"]


MORE = """
CASES += (
    Case("wrong", partial(Layer, 8, 8, 1), (1, 8, 8, 8), expected=lambda m, x: m(x) + BY),
    Case("raises", partial(Layer, 8, 8, KERNEL), (1, 8, 8, 8)),
    Case("shaped", partial(Layer, 8, 8, 1), (1, 8, SIDE, 8)),
)
"""


def test_cases_gone_wrong_and_raising_fail_and_the_rest_is_judged(repository):
    with repository.cases.open("a") as file:
        file.write("BY, KERNEL, SIDE = 0, 1, 8\n" + MORE)
    repository.commit("more cases")
    repository.git("tag", "before")
    repository.replace("cases.py", '"three"', '"renamed"')
    repository.replace("cases.py", "BY, KERNEL, SIDE = 0, 1, 8", "BY, KERNEL, SIDE = 1, 99, 4")
    repository.commit("several mistakes")
    status, found = run(repository, "--base", "before", "--timing-only")
    assert status == 1
    assert said(found, "one")[0] == "pass"
    outcome, reason = said(found, "wrong")
    assert outcome == "fail"
    assert reason.startswith("wrong puts out something else than it should: off by 1 where the")
    outcome, reason = said(found, "raises")
    assert outcome == "fail" and reason.startswith("it fails in head: RuntimeError: ")
    outcome, reason = said(found, "shaped")
    assert outcome == "fail" and reason.startswith("another shape than in base ([1, 8, 4, 8],")
    outcome, reason = said(found, "three")
    assert outcome == "fail" and reason.startswith("gone: the base has this case and head does not")
    outcome, reason = said(found, "renamed")
    assert outcome == "pass" and reason.startswith("new: base has no such case")
    gone = "--gone", "three", "--cases-only", "one,renamed"
    status, found = run(repository, "--base", "before", "--timing-only", *gone)
    assert status == 0 and "5 cases declared (2 chosen)" in found["totals"]


def test_a_base_whose_output_is_wrong_cannot_be_judged(repository):
    text = repository.cases.read_text()
    wrong = text.replace("(1, 8, 8, 8)),\n)", "(1, 8, 8, 8), expected=lambda m, x: m(x) + 1),\n)")
    assert wrong != text
    repository.write("cases.py", wrong)
    repository.commit("wrong")
    repository.write("cases.py", text)
    repository.commit("mended")
    status, found = run(repository, "--base", "HEAD~1", "--timing-only")
    assert status == 3
    outcome, reason = said(found, "three")
    assert outcome == "unclear"
    assert reason.startswith("there is nothing right to compare with, base fails: three puts")


def test_a_base_without_cases_was_not_compared_with(repository):
    repository.git("mv", "cases.py", "other.py")
    repository.commit("moved")
    repository.cases = repository.root / "other.py"
    status, found = run(repository, "--base", "base", "--timing-only")
    assert status == 3
    assert "no case was timed: base base has none of them" in found["sentence"]
    assert "--allow-new" in found["sentence"]
    status, found = run(repository, "--base", "base", "--timing-only", "--allow-new")
    assert status == 0 and "2 new and not timed" in found["totals"]


# Revisions.


def test_an_unknown_base_cannot_be_judged(repository):
    status, found = run(repository, "--base", "nowhere")
    assert status == 3
    assert found["sentence"].startswith("cannot judge: unknown base revision 'nowhere'")


def test_a_shallow_clone_cannot_be_judged(repository, tmp_path):
    repository.commit("second")
    url = repository.root.as_uri()
    subprocess.run(["git", "clone", "-q", "--depth=1", url, tmp_path / "shallow"], check=True)
    repository.cases = tmp_path / "shallow" / "cases.py"
    status, found = run(repository, "--base", "HEAD~1")
    assert status == 3 and "`fetch-depth: 0`" in found["sentence"]


def test_a_dirty_tree_cannot_be_judged_unless_that_is_allowed(repository):
    repository.replace("tiny/layer.py", "range(1)", "range(2)")
    status, found = run(repository, "--base", "base")
    assert status == 3
    assert "changes that are not committed (tiny/layer.py)" in found["sentence"]
    allowed = gate.run(repository.cases, base="base", exact=False, allow_dirty=True)
    assert allowed.exit_status == 0 and allowed.head.endswith(" with changes")


def test_a_tree_that_changes_while_it_is_measured_cannot_be_judged(repository, monkeypatch):
    def edit(self, *_):
        if self.role == "base":
            repository.write("tiny/layer.py", "# edited")

    monkeypatch.setattr(InThisProcess, "__exit__", edit)
    status, found = run(repository, "--base", "base", "--timing-only")
    assert status == 3 and "changes that are not committed (tiny/layer.py)" in found["sentence"]


def test_a_base_that_cannot_be_read_is_said(repository):
    text = repository.cases.read_text()
    repository.write("cases.py", "1 / 0")
    repository.commit("broken")
    repository.write("cases.py", text)
    repository.commit("mended")
    status, found = run(repository, "--base", "HEAD~1", "--timing-only")
    assert status == 3
    assert "the cases of base cannot be read: ZeroDivisionError" in found["sentence"]


def test_a_base_from_before_there_were_cases_counts_as_without(repository):
    text = repository.cases.read_text()
    repository.replace("cases.py", "overconv.bench.cases", "overconv.bench.once")
    repository.commit("before")
    repository.write("cases.py", text)
    repository.commit("after")
    status, found = run(repository, "--base", "HEAD~1", "--timing-only")
    assert status == 3 and "base HEAD~1 has none of them" in found["sentence"]


def test_a_killed_process_leaves_no_verdict(repository, processes):
    repository.replace(
        "tiny/layer.py", "for _", "import os; os.kill(os.getpid(), 9)\n        for _"
    )
    repository.commit("a crash")
    status, found = run(repository, "--base", "base", "--timing-only")
    assert status == 3
    assert (
        "the process that measures head was killed by SIGKILL (too little memory, or somebody's"
        " hand) while preparing one" in found["sentence"]
    )
    assert said(found, "three")[0] == "unclear"
    assert len(repository.git("worktree", "list").splitlines()) == 1


def test_a_load_that_makes_timing_meaningless_is_said(repository, readings):
    readings[rounds.SELF_TEST_LIMIT] = 1.3
    status, found = run(repository, "--base", "base", "--timing-only")
    assert status == 3
    assert found["sentence"].startswith("cannot judge: this machine cannot resolve 10 % now: ")


# Exact figures.


def test_a_changed_figure_fails_with_the_command_that_accepts_it(repository, capsys):
    assert main(["gate", "--cases", str(repository.cases), "--accept"]) == 0
    assert "accepted  one: a case without committed figures" in capsys.readouterr().out
    status, found = run(repository, "--exact-only")
    assert status == 0 and "exact figures of 2 compared" in found["totals"]
    repository.replace("cases.py", "partial(Layer, 8, 8, 1)", "partial(Layer, 8, 9, 1)")
    status, found = run(repository, "--exact-only")
    assert status == 1
    assert "one: parameters is 81, committed is 72" in found["differences"]
    assert not any(d.startswith("three") for d in found["differences"])
    assert found["sentence"] == f"regression: {len(found['differences'])} exact figures changed"
    out = capsys.readouterr().out
    assert "to accept them: python -m overconv.bench gate --cases cases.py --accept" in out
    status, found = run(repository, "--exact-only", "--cases-only", "three")
    assert status == 0 and "2 cases declared (1 chosen)" in found["totals"]


def test_a_case_that_cannot_be_counted_is_a_difference_and_is_not_accepted(repository, capsys):
    assert main(["gate", "--cases", str(repository.cases), "--accept"]) == 0
    committed = (repository.root / "cases.figures.json").read_text()
    repository.replace("tiny/layer.py", "return y", "return 1 / 0")
    status, found = run(repository, "--exact-only", "--cases-only", "one")
    assert status == 1
    assert found["differences"] == ["one: cannot be counted: ZeroDivisionError: division by zero"]
    assert main(["gate", "--cases", str(repository.cases), "--accept"]) == 3
    assert "nothing is written, one: cannot be counted" in capsys.readouterr().out
    assert (repository.root / "cases.figures.json").read_text() == committed


def test_missing_figures_cannot_be_judged(repository):
    status, found = run(repository, "--exact-only")
    assert status == 3
    assert "cases.figures.json is missing beside cases.py: make it with --accept" in found["cannot"]


# Recorded ratios.


def test_another_machines_baseline_cannot_be_judged(repository, monkeypatch):
    status, found = run(repository, "--timing-only")
    assert status == 3
    assert found["sentence"] == (
        "cannot judge: another machine's baseline: cases.ratios.json has ratios of no machine, and"
        " this is this one (here): record some here with --record, or compare with a revision by"
        " --base"
    )
    assert main(["gate", "--cases", str(repository.cases), "--record"]) == 0
    recorded = json.loads((repository.root / "cases.ratios.json").read_text())
    ratios = {"one": [1.0, 1.0]}
    assert recorded == {"here": {"fingerprint": {"cpu": "this one"}, "ratios": ratios}}
    status, found = run(repository, "--timing-only", "--cases-only", "one")
    assert status == 0
    assert said(found, "one")[1].startswith("1.000 (0.990 to 1.010) of the recorded ratio to plain")
    status, found = run(repository, "--timing-only")
    assert status == 3 and "it has no plain counterpart" in said(found, "three")[1]
    monkeypatch.setattr(gate, "machine", lambda core: MACHINE | {"key": "there"})
    status, found = run(repository, "--timing-only")
    assert status == 3 and "has ratios of this one, and this is" in found["sentence"]


def test_nothing_is_recorded_by_a_machine_that_cannot_tell(repository, readings, capsys):
    readings[rounds.SELF_TEST_LIMIT] = 1.3
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


def test_the_fingerprint_is_that_of_one_thread():
    one = host.machine(None)
    torch.set_num_threads(2)
    try:
        assert host.machine(None)["key"] == one["key"] and one["fingerprint"]["threads"] == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
