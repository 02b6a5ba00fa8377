"""The gate on committed figures, and on changes of what judges them."""

import pytest

from overconv.bench.__main__ import main

pytestmark = pytest.mark.usefixtures("inline", "readings")


# Exact figures.


def test_a_changed_figure_fails_with_the_command_that_accepts_it(repository, run_gate, capsys):
    assert main(["gate", "--cases", str(repository.cases), "--accept"]) == 0
    assert "accepted  one: a case without committed figures" in capsys.readouterr().out
    status, found = run_gate(repository, "--exact-only")
    assert status == 0 and "exact figures of 2 compared" in found["totals"]
    repository.replace("cases.py", "partial(Layer, 8, 8, 1)", "partial(Layer, 8, 9, 1)")
    status, found = run_gate(repository, "--exact-only")
    assert status == 1
    assert "one: parameters is 81, committed is 72" in found["differences"]
    assert not any(d.startswith("three") for d in found["differences"])
    assert found["sentence"] == f"regression: {len(found['differences'])} exact figures changed"
    out = capsys.readouterr().out
    assert "to accept them: python -m overconv.bench gate --cases cases.py --accept" in out
    status, found = run_gate(repository, "--exact-only", "--cases-only", "three")
    assert status == 0 and "2 cases declared (1 chosen)" in found["totals"]


def test_a_case_that_cannot_be_counted_is_a_difference_and_is_not_accepted(
    repository, run_gate, capsys
):
    assert main(["gate", "--cases", str(repository.cases), "--accept"]) == 0
    committed = (repository.root / "cases.figures.json").read_text()
    repository.replace("tiny/layer.py", "return y", "return 1 / 0")
    status, found = run_gate(repository, "--exact-only", "--cases-only", "one")
    assert status == 1
    assert found["differences"] == [
        "one: cannot be counted: ZeroDivisionError: division by zero (tiny/layer.py:8)"
    ]
    assert main(["gate", "--cases", str(repository.cases), "--accept"]) == 3
    assert "nothing is written, one: cannot be counted" in capsys.readouterr().out
    assert (repository.root / "cases.figures.json").read_text() == committed


def test_missing_figures_cannot_be_judged(repository, run_gate):
    status, found = run_gate(repository, "--exact-only")
    assert status == 3
    assert "cases.figures.json is missing beside cases.py: make it with --accept" in found["cannot"]


# What a change does to its own judges.


EXPECTED = "expected=lambda m, x: nn.functional.conv2d(x, m.weight, m.bias)"


def test_a_change_that_loosens_its_own_gate_does_not_pass_unseen(repository, run_gate, capsys):
    accept = ["gate", "--cases", str(repository.cases), "--accept"]
    repository.replace("cases.py", "(1, 8, 8, 8)),\n)", f"(1, 8, 8, 8), {EXPECTED}),\n)")
    assert main(accept) == 0
    repository.commit("figures and an expected output")
    status, found = run_gate(repository, "--base", "HEAD")
    assert (status, found["moved"]) == (0, [])
    assert "base HEAD is the commit that is judged: there is no change in it" in found["notes"]
    assert (
        "1 of 2 cases have no 'expected' (one): their outputs were compared with nothing"
        in (found["notes"])
    )
    # the layer computes something else, and another, smaller one stands under the same name
    repository.replace("tiny/layer.py", "return y", "return -y")
    repository.replace(
        "cases.py", f"8, 3), (1, 8, 8, 8), {EXPECTED}", "8, 1), (1, 8, 8, 8), limit=9"
    )
    assert main(accept) == 0
    repository.commit("loosened")
    page = repository.root.parent / "page.md"
    capsys.readouterr()
    status, found = run_gate(repository, "--base", "HEAD~1", "--markdown", str(page))
    assert status == 0
    assert found["moved"][0].startswith("cases.py is not base's")
    assert "three: committed parameters was 584 and is 72" in found["moved"]
    assert "one: committed operations under torch" in " ".join(found["moved"])
    assert found["moved"][-2:] == [
        "three: its limit is raised from 1.05 to 9",
        "three: its output is compared with nothing any more",
    ]
    places = f"NOTE: this change also changes what judges it, in {len(found['moved'])} places"
    assert found["sentence"].endswith(places)
    assert places in page.read_text() and places in capsys.readouterr().out


def test_a_case_that_is_gone_fails_where_nothing_is_timed_too(repository, run_gate, said):
    accept = ["gate", "--cases", str(repository.cases), "--accept"]
    assert main(accept) == 0
    repository.commit("figures")
    repository.replace(
        "cases.py", '    Case("three", partial(Layer, 8, 8, 3), (1, 8, 8, 8)),\n', ""
    )
    assert main(accept) == 0
    repository.commit("one case less, and its figures")
    status, found = run_gate(repository, "--base", "HEAD~1", "--exact-only")
    assert status == 1
    assert said(found, "three")[1].startswith("gone: the base has this case and head does not")
    status, found = run_gate(repository, "--base", "HEAD~1", "--exact-only", "--gone", "three")
    assert status == 0 and "three: its committed figures are gone" in found["moved"]


def test_values_that_are_not_finite_fail_with_nothing_expected(repository, run_gate, said):
    repository.replace("tiny/layer.py", "return y", "return y * float('nan')")
    repository.commit("broken")
    status, found = run_gate(repository, "--base", "base", "--timing-only")
    assert status == 1
    assert said(found, "one") == ("fail", "one puts out values that are not finite")


@pytest.mark.parametrize("option", ["--json", "--markdown"])
@pytest.mark.parametrize(
    ("path", "complaint"), [("none/report", "there is no folder"), ("", "'.' is a folder")]
)
def test_where_no_report_can_be_written_is_told_before_anything_runs(
    repository, option, path, complaint, capsys, monkeypatch
):
    monkeypatch.chdir(repository.root)
    monkeypatch.setattr("overconv.bench.command.run_gate", None)
    assert main(["gate", "--cases", "cases.py", option, path]) == 2
    assert complaint in capsys.readouterr().err
