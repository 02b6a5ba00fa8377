"""status, verify and export, as commands: what they print, where, and their exit status."""

import argparse
import shutil
from pathlib import Path

import pytest

from ablations.care import FORMATS, add_export_arguments, export, status, verify
from ablations.cli import main
from records.lease import claim
from records.plan import Plan
from records.record import Record, digest
from records.store import Store

OLD, NEW = {"threads": 1, "sources": "1"}, {"threads": 1, "sources": "2"}
HOSTILE = "<script>alert(1)</script>\x1b[2J"


def make(label: str, block: int, environment: dict = OLD, **changes) -> Record:
    configuration = {"arm": {"layer": label}, "block": block}
    fields = {
        "trial": digest(configuration),
        "stratum": digest(environment),
        "configuration": configuration,
        "outcome": "finished",
        "metrics": {"test_accuracy": 0.5},
        "curves": {"train_loss": [2.0, 1.0]},
        "costs": {"parameters_training": 7},
        "correct": None,
        "environment": environment,
        "times": {"finished": 2.0, "started": 1.0, "seconds": 1.0},
    }
    return Record(**{**fields, **changes})


@pytest.fixture
def results(tmp_path):
    root = tmp_path / "results"
    arms = {label: {"arm": {"layer": label}} for label in ("plain", "gated")}
    plan = Plan(name="tiny", question="?", preset="smoke", baseline="plain", arms=arms)
    store = Store(root)
    store.save_plan(plan)
    store.publish(make("plain", 0))
    store.publish(make("gated", 0))
    return root


@pytest.fixture
def run(results):
    def run(*arguments: str) -> int:
        return main([arguments[0], "--results", str(results), *arguments[1:]])

    return run


def test_status_says_who_runs_and_what_failed(run, results, capsys):
    store = Store(results)
    trial = digest({"arm": {"layer": "plain"}, "block": 1})
    failed = digest({"arm": {"layer": "gated"}, "block": 1})
    store.note_failure(failed, digest(OLD), f"ValueError: {HOSTILE}")
    with claim(store, trial, digest(OLD)):
        assert run("status") == 0
    said = capsys.readouterr().out
    assert "2 arms, 2 blocks, 2 done, 1 running, 1 failed" in said
    assert "running plain block 1: " in said
    assert "failed  gated block 1: ValueError: <script>" in said and "\x1b" not in said


def test_a_sound_folder_is_verified(run, capsys):
    assert run("verify") == 0
    assert capsys.readouterr().out == "2 records, 0 faults\n"


def test_a_fault_is_named_and_makes_the_status_one(run, results, capsys):
    path = Store(results).paths()[0]
    path.write_bytes(path.read_bytes().replace(b"0.5", b"0.6").replace(b'"block":0', b'"block":1'))
    assert run("verify") == 1
    said = capsys.readouterr()
    assert "is not the hash of its configuration" in said.err
    assert said.out == "2 records, 1 faults\n"


def test_what_is_no_fault_is_remarked(run, results, capsys):
    Store(results).publish(make("plain", 0, NEW, times={"finished": 0.0}))
    (results / "notes.txt").write_text("mine")
    assert run("verify") == 0
    said = capsys.readouterr().out
    assert "notes.txt: foreign" in said and "which differs in sources" in said


@pytest.mark.parametrize("command", [status, verify, export])
def test_a_folder_that_is_not_there_is_an_error(command):
    with pytest.raises(ValueError, match="no results folder 'nowhere'"):
        command(argparse.Namespace(results="nowhere"))


def test_the_options_of_export_are_as_they_are_shown(capsys):
    parser = argparse.ArgumentParser()
    add_export_arguments(parser)
    assert parser.parse_args([]) == argparse.Namespace(format="store", to=None)
    assert [parser.parse_args(["--format", form]).format for form in FORMATS] == list(FORMATS)
    with pytest.raises(SystemExit):
        parser.parse_args(["--format", "pickle"])
    assert "invalid choice: 'pickle'" in capsys.readouterr().err


def test_an_export_is_a_copy_that_takes_what_is_known_of_strata_along(run, results, tmp_path):
    store = Store(results)
    store.publish(make("plain", 1, NEW))
    same = {"stratum": digest(OLD), "environment": OLD}
    store.save_stratum(digest(NEW), {"environment": NEW, "same_as": same})
    copy = tmp_path / "copy"
    assert run("export", "--to", str(copy)) == 0
    files = sorted(p.relative_to(results) for p in results.rglob("*") if p.is_file())
    assert sorted(p.relative_to(copy) for p in copy.rglob("*") if p.is_file()) == files
    assert all((copy / file).read_bytes() == (results / file).read_bytes() for file in files)
    assert [r.stratum for r in Store(copy).records()] == [digest(OLD)] * 3


def test_an_export_says_which_conflicts_it_leaves_behind(run, results, tmp_path, capsys):
    store = Store(results)
    with pytest.raises(ValueError, match="differs"):
        store.publish(make("plain", 0, metrics={"test_accuracy": 0.25}))
    [conflict] = store.conflicts(make("plain", 0))
    copy = tmp_path / "copy"
    for form, place in (("store", copy), ("jsonl", tmp_path / "all.jsonl")):
        assert run("export", "--format", form, "--to", str(place)) == 0
        said = capsys.readouterr()
        assert said.err == f"{conflict}: a second run of this trial gave other bytes; left behind\n"
        assert said.out.startswith(f"{place}: 2 records")
    assert list(copy.rglob("*conflict*")) == []


def test_claims_checkpoints_and_failures_are_not_exported(run, results, tmp_path):
    store = Store(results)
    store.note_failure("t", "s", "no")
    with claim(store, "t", "s"):
        assert run("export", "--to", str(tmp_path / "copy")) == 0
    assert not (tmp_path / "copy" / "trials" / "t").exists()


def test_twice_is_once(run, tmp_path, capsys):
    copy = str(tmp_path / "copy")
    assert run("export", "--to", copy) == run("export", "--to", copy) == 0
    assert capsys.readouterr().out == (
        f"{copy}: 2 records new, 0 there already\n{copy}: 0 records new, 2 there already\n"
    )


def test_an_export_into_itself_is_refused(run, results, capsys):
    assert run("export", "--to", str(results)) == 2
    assert "is the results folder; allowed: another one" in capsys.readouterr().err


def test_an_export_replaces_no_record_that_says_otherwise(run, results, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(results, copy)
    path = Store(copy).paths()[0]
    before = path.read_bytes().replace(b"0.5", b"0.25")
    path.write_bytes(before)
    assert run("export", "--to", str(copy)) == 2
    assert "differs in metrics.test_accuracy: 0.25, now 0.5" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_the_default_place_is_what_reports_are_built_from(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("export") == 0
    assert Path("reports/data/studies").is_dir()
    assert run("export", "--format", "jsonl") == 0
    assert Path("records.jsonl").is_file()
