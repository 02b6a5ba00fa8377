import json
import subprocess

import pytest
import torch

from overconv.bench import gate, host, rounds
from overconv.bench.__main__ import main

pytestmark = pytest.mark.usefixtures("inline", "readings")


# It passes, and it fails.


def test_equal_revisions_pass_and_say_what_was_measured(repository, run_gate, processes, capsys):
    page = repository.root.parent / "summary.md"
    status, found = run_gate(repository, "--base", "base", "--timing-only", "--markdown", str(page))
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


def test_a_slow_case_fails_by_its_own_limit(repository, run_gate, readings, said):
    repository.replace("cases.py", "(1, 8, 8, 8)),\n)", "(1, 8, 8, 8), limit=1.2),\n)")
    repository.commit("a limit")
    readings[1.2] = 1.3
    status, found = run_gate(repository, "--base", "base", "--timing-only")
    assert status == 1
    assert said(found, "one")[0] == "pass"
    assert said(found, "three") == (
        "fail",
        "1.300 (1.290 to 1.310) of base, CPU 1.300; limit 1.2; earlier pairs of processes: fail at"
        " 1.300",
    )
    assert "three: its limit is raised from 1.05 to 1.2" in found["moved"]


# No cases, cases gone, cases wrong.


@pytest.mark.parametrize("layer", [[], ["--exact-only"], ["--timing-only"]])
def test_no_cases_cannot_be_judged(repository, run_gate, layer):
    repository.write("cases.py", "CASES = ()")
    status, found = run_gate(repository, *layer)
    assert status == 3
    assert found["sentence"] == (
        "cannot judge: cases.py declares no cases: nothing would be watched"
    )


def test_no_cases_where_the_base_had_some_fail(repository, run_gate):
    repository.write("cases.py", "CASES = ()")
    repository.commit("nothing is watched any more")
    status, found = run_gate(repository, "--base", "base")
    assert status == 1
    assert found["sentence"] == (
        "regression: 2 cases failed (one, three); NOTE: this change also changes what judges it, in"
        " 1 place"
    )
    status, found = run_gate(repository, "--base", "base", "--exact-only")
    assert status == 3 and "declares no cases" in found["sentence"]


MORE = """
CASES += (
    Case("wrong", partial(Layer, 8, 8, 1), (1, 8, 8, 8), expected=lambda m, x: m(x) + BY),
    Case("raises", partial(Layer, 8, 8, KERNEL), (1, 8, 8, 8)),
    Case("shaped", partial(Layer, 8, 8, 1), (1, 8, SIDE, 8)),
)
"""


def test_cases_gone_wrong_and_raising_fail_and_the_rest_is_judged(repository, run_gate, said):
    with repository.cases.open("a") as file:
        file.write("BY, KERNEL, SIDE = 0, 1, 8\n" + MORE)
    repository.commit("more cases")
    repository.git("tag", "before")
    repository.replace("cases.py", '"three"', '"renamed"')
    repository.replace("cases.py", "BY, KERNEL, SIDE = 0, 1, 8", "BY, KERNEL, SIDE = 1, 99, 4")
    repository.commit("several mistakes")
    status, found = run_gate(repository, "--base", "before", "--timing-only")
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
    status, found = run_gate(repository, "--base", "before", "--timing-only", *gone)
    assert status == 0 and "5 cases declared (2 chosen)" in found["totals"]


def test_a_base_whose_output_is_wrong_cannot_be_judged(repository, run_gate, said):
    text = repository.cases.read_text()
    wrong = text.replace("(1, 8, 8, 8)),\n)", "(1, 8, 8, 8), expected=lambda m, x: m(x) + 1),\n)")
    assert wrong != text
    repository.write("cases.py", wrong)
    repository.commit("wrong")
    repository.write("cases.py", text)
    repository.commit("mended")
    status, found = run_gate(repository, "--base", "HEAD~1", "--timing-only")
    assert status == 3
    outcome, reason = said(found, "three")
    assert outcome == "unclear"
    assert reason.startswith("there is nothing right to compare with, base fails: three puts")


def test_a_base_without_cases_was_not_compared_with(repository, run_gate):
    repository.git("mv", "cases.py", "other.py")
    repository.commit("moved")
    repository.cases = repository.root / "other.py"
    status, found = run_gate(repository, "--base", "base", "--timing-only")
    assert status == 3
    assert "no case was timed: base base has none of them" in found["sentence"]
    assert "--allow-new" in found["sentence"]
    status, found = run_gate(repository, "--base", "base", "--timing-only", "--allow-new")
    assert status == 0 and "2 new and not timed" in found["totals"]


# Revisions.


def test_an_unknown_base_cannot_be_judged(repository, run_gate):
    status, found = run_gate(repository, "--base", "nowhere")
    assert status == 3
    assert found["sentence"].startswith("cannot judge: unknown base revision 'nowhere'")


def test_a_shallow_clone_cannot_be_judged(repository, run_gate, tmp_path):
    repository.commit("second")
    url = repository.root.as_uri()
    subprocess.run(["git", "clone", "-q", "--depth=1", url, tmp_path / "shallow"], check=True)
    repository.cases = tmp_path / "shallow" / "cases.py"
    status, found = run_gate(repository, "--base", "HEAD~1")
    assert status == 3 and "`fetch-depth: 0`" in found["sentence"]


def test_a_dirty_tree_cannot_be_judged_unless_that_is_allowed(repository, run_gate):
    repository.replace("tiny/layer.py", "range(1)", "range(2)")
    status, found = run_gate(repository, "--base", "base")
    assert status == 3
    assert "changes that are not committed (tiny/layer.py)" in found["sentence"]
    allowed = gate.run(repository.cases, base="base", exact=False, allow_dirty=True)
    assert allowed.exit_status == 0 and allowed.head.endswith(" with changes")


def test_a_tree_that_changes_while_it_is_measured_cannot_be_judged(
    repository, run_gate, monkeypatch, inline
):
    def edit(self, *_):
        if self.role == "base":
            repository.write("tiny/layer.py", "# edited")

    monkeypatch.setattr(inline, "__exit__", edit)
    status, found = run_gate(repository, "--base", "base", "--timing-only")
    assert status == 3 and "changes that are not committed (tiny/layer.py)" in found["sentence"]


def test_a_commit_that_is_made_while_it_is_measured_cannot_be_judged(
    repository, run_gate, monkeypatch, inline
):
    def commit(self, *_):
        if self.role == "base":
            repository.commit("meanwhile")

    monkeypatch.setattr(inline, "__exit__", commit)
    status, found = run_gate(repository, "--base", "base", "--timing-only")
    assert status == 3
    words = f"another commit was checked out while this ran ({found['head']} before"
    assert words in found["sentence"]


def test_a_base_that_cannot_be_read_is_said(repository, run_gate):
    text = repository.cases.read_text()
    repository.write("cases.py", "1 / 0")
    repository.commit("broken")
    repository.write("cases.py", text)
    repository.commit("mended")
    status, found = run_gate(repository, "--base", "HEAD~1", "--timing-only")
    assert status == 3
    assert "the cases of base cannot be read: ZeroDivisionError" in found["sentence"]


def test_a_base_from_before_there_were_cases_counts_as_without(repository, run_gate):
    text = repository.cases.read_text()
    repository.replace("cases.py", "overconv.bench.cases", "overconv.bench.once")
    repository.commit("before")
    repository.write("cases.py", text)
    repository.commit("after")
    status, found = run_gate(repository, "--base", "HEAD~1", "--timing-only")
    assert status == 3 and "base HEAD~1 has none of them" in found["sentence"]


def test_a_killed_process_leaves_no_verdict(repository, run_gate, processes, said):
    repository.replace(
        "tiny/layer.py", "for _", "import os; os.kill(os.getpid(), 9)\n        for _"
    )
    repository.commit("a crash")
    status, found = run_gate(repository, "--base", "base", "--timing-only")
    assert status == 3
    assert (
        "the process that measures head was killed by SIGKILL (too little memory, or somebody's"
        " hand) while preparing one" in found["sentence"]
    )
    assert said(found, "three")[0] == "unclear"
    assert len(repository.git("worktree", "list").splitlines()) == 1


def test_a_load_that_makes_timing_meaningless_is_said(repository, run_gate, readings):
    readings[rounds.SELF_TEST_LIMIT] = 1.3
    status, found = run_gate(repository, "--base", "base", "--timing-only")
    assert status == 3
    assert found["sentence"].startswith("cannot judge: this machine cannot resolve 10 % now: ")


# Recorded ratios.


def test_another_machines_baseline_cannot_be_judged(repository, run_gate, monkeypatch, said):
    status, found = run_gate(repository, "--timing-only")
    assert status == 3
    assert found["sentence"] == (
        "cannot judge: there is neither a base nor a baseline: cases.ratios.json holds no ratios to"
        " plain counterparts; compare with a revision by --base, or record this machine's ratios"
        " with --record"
    )
    assert main(["gate", "--cases", str(repository.cases), "--record"]) == 0
    recorded = json.loads((repository.root / "cases.ratios.json").read_text())
    ratios = {"one": [1.0, 1.0]}
    assert recorded == {"here": {"fingerprint": {"cpu": "this one"}, "ratios": ratios}}
    status, found = run_gate(repository, "--timing-only", "--cases-only", "one")
    assert status == 0
    assert said(found, "one")[1].startswith("1.000 (0.990 to 1.010) of the recorded ratio to plain")
    status, found = run_gate(repository, "--timing-only")
    assert status == 3 and "it has no plain counterpart" in said(found, "three")[1]
    elsewhere = {**gate.machine(None), "key": "there", "fingerprint": {"cpu": "other", "torch": 2}}
    monkeypatch.setattr(gate, "machine", lambda core: elsewhere)
    status, found = run_gate(repository, "--timing-only")
    assert status == 3
    assert found["sentence"] == (
        "cannot judge: another machine's baseline: cases.ratios.json has ratios of this one (torch"
        " not known, here 2), and this is other (there): record some here with --record, or compare"
        " with a revision by --base"
    )


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


def test_an_interrupted_gate_says_that_there_is_no_verdict(repository, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("overconv.bench.command.run_gate", interrupt)
    assert main(["gate", "--cases", str(repository.cases), "--base", "base"]) == 130
    assert capsys.readouterr().err == (
        "python -m overconv.bench: interrupted, there is no verdict\n"
    )


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
