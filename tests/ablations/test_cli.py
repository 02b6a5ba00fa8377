"""The command line, as a user types it: what it does, and what it says to nonsense."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ablations import files, memory, worker
from ablations.cli import main

ROOT = Path(__file__).parents[2]
RUN = ["run", "depth", "--preset", "smoke"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def run(study_file, tmp_path):
    """Run the small study; returns the exit status."""

    def run(*more: str, study: Path = study_file, results: str = "results") -> int:
        where = ["--results", str(tmp_path / results)]
        return main(["run", str(study), "--seeds", "1", *where, *more])

    return run


def test_running_again_trains_nothing_and_changes_nothing(run, tmp_path, capsys):
    assert run() == 0
    first = capsys.readouterr()
    assert "0 trials done, 2 to do" in first.out
    assert first.err.count("% validation accuracy") == 2
    before = contents(tmp_path / "results")
    assert run() == 0
    second = capsys.readouterr()
    assert "2 trials done, 0 to do" in second.out
    assert "test accuracy" not in second.err
    assert contents(tmp_path / "results") == before


def test_the_table_is_printed(run, capsys):
    assert run() == 0
    out = capsys.readouterr().out
    assert re.search(r"plain .*\d", out)
    assert re.search(r"gated .*\d", out)


def test_spawned_workers_give_the_same_bytes(run, tmp_path, records):
    assert run(results="one") == 0
    assert run("--workers", "2", results="two") == 0
    one, two = records(tmp_path / "one"), records(tmp_path / "two")
    assert one.keys() == two.keys()
    assert len(one) == 2
    for trial, record in one.items():
        assert record.compared() == two[trial].compared()
        assert record.times != two[trial].times


def test_two_studies_share_a_trial(run, study_file, tmp_path, capsys, records):
    other = study_file.with_name(study_file.stem + "_too.py")
    text = study_file.read_text().replace('name="tiny"', 'name="other"')
    text = text.replace('"gated": Arm(partial(MDConv2d, depth=2)', '"deep": Arm(MDConv2d3')
    other.write_text(text.replace("MDConv2d3", "partial(MDConv2d, depth=3)"))
    assert run() == 0
    capsys.readouterr()
    assert run(study=other) == 0
    assert "1 trials done, 1 to do" in capsys.readouterr().out
    assert len(records(tmp_path / "results")) == 3
    assert len(list((tmp_path / "results" / "studies").iterdir())) == 2


def test_a_dry_run_writes_nothing(run, tmp_path, capsys):
    assert run("--dry-run") == 0
    out = capsys.readouterr().out
    assert "nothing was trained or written" in out
    assert not (tmp_path / "results").exists()


def test_arms_and_blocks_limit_a_run(study_file, tmp_path, capsys, records):
    results = tmp_path / "results"
    arguments = ["run", str(study_file), "--results", str(results)]
    assert main([*arguments, "--arms", "gated", "--blocks", "2-3,5"]) == 0
    assert "2 arms, blocks 2-3,5: 0 trials done, 3 to do" in capsys.readouterr().out
    found = records(results).values()
    assert sorted(record.configuration["block"] for record in found) == [2, 3, 5]
    assert {record.configuration["arm"]["layer"]["class"] for record in found} == {
        "overconv.MDConv2d"
    }


def test_status_verify_and_export(run, tmp_path, capsys, records):
    assert run() == 0
    results, copy = str(tmp_path / "results"), str(tmp_path / "copy")
    capsys.readouterr()
    assert main(["status", "--results", results]) == 0
    assert "block 0: 2 of 2 trials" in capsys.readouterr().out
    assert main(["verify", "--results", results]) == 0
    assert "2 records, 0 faults" in capsys.readouterr().out
    assert main(["export", "--results", results, "--to", copy]) == 0
    assert records(tmp_path / "copy").keys() == records(tmp_path / "results").keys()
    path = next((tmp_path / "copy").glob("trials/*/*/record.json"))
    record = json.loads(path.read_text())
    record["configuration"]["recipe"]["lr"] = 7.0
    path.chmod(0o644)
    path.write_text(json.dumps(record))
    capsys.readouterr()
    assert main(["verify", "--results", copy]) == 1
    assert "is not the hash of its configuration" in capsys.readouterr().err


def test_a_failing_trial_costs_its_own_arm(study_file, tmp_path, capsys, records):
    text = study_file.read_text()
    study_file.write_text(
        text.replace("QUICK =", "from torch import nn\n\nclass Broken(nn.Conv2d):\n"
        "    def forward(self, x):\n"
        "        if self.training and x.device.type != 'meta':\n"
        "            raise RuntimeError('broken on purpose')\n"
        "        return super().forward(x)\n"
        "    def macs(self, image):\n        return Macs()\n\nQUICK =")
        .replace("import MDConv2d", "import MDConv2d\nfrom overconv.operators.base import Macs")
        .replace("partial(MDConv2d, depth=2)", "Broken")
        .replace("recipe=QUICK),\n    },", "recipe=QUICK, start='own'),\n    },")
    )  # fmt: skip
    results = tmp_path / "results"
    status = main(["run", str(study_file), "--seeds", "1", "--results", str(results)])
    assert status == 1
    assert "broken on purpose" in capsys.readouterr().err
    assert len(records(results)) == 1


def test_a_study_imports_the_modules_beside_it(study_file, tmp_path, capsys, records):
    """Here and in workers, which find it by its path, whatever characters are in its name."""
    beside = f"beside_{study_file.stem}"
    (tmp_path / f"{beside}.py").write_text("class Layer:\n    pass\n\nEPOCHS = 1\n")
    odd = tmp_path / "my-study.v2.py"
    text = study_file.read_text().replace('{"epochs": 1}', '{"epochs": EPOCHS}')
    odd.write_text(text.replace("from functools", f"from {beside} import EPOCHS\nfrom functools"))
    results = tmp_path / "results"
    arguments = ["run", str(odd), "--seeds", "1", "--results", str(results)]
    assert main([*arguments, "--arms", "plain"]) == 0
    assert main([*arguments, "--workers", "2"]) == 0, capsys.readouterr().err
    assert len(records(results)) == 2


@pytest.mark.parametrize(
    ("name", "module"),
    [("study.py", "study"), ("my-study.v2.py", "my_study_v2"), ("2.py", "_2"), ("+.py", "_")],
)
def test_any_file_has_a_name_as_a_module(name, module):
    assert files.module_name(Path("a.b") / name) == module


def test_what_failed_is_listed_at_the_end_and_tried_again(
    study_file, tmp_path, capsys, monkeypatch, records
):
    original = worker.run_trial

    def broken(cell, *args, **options):
        if cell.label == "plain":
            raise RuntimeError("broken on purpose")
        return original(cell, *args, **options)

    monkeypatch.setattr(worker, "run_trial", broken)
    results = tmp_path / "results"
    arguments = ["run", str(study_file), "--seeds", "1", "--results", str(results)]
    assert main(arguments) == 1
    err = capsys.readouterr().err
    assert err.splitlines()[-1] == "failed: plain block 0: RuntimeError: broken on purpose"
    assert len(records(results)) == 1
    monkeypatch.undo()
    assert main(arguments) == 0
    assert len(records(results)) == 2


def test_too_little_memory_is_said_before_anything_is_started(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 2**20)
    assert run("--workers", "2") == 2
    err = capsys.readouterr().err
    assert "2 workers need about" in err
    assert "0.0 GiB are available" in err
    assert not list((tmp_path / "results").glob("trials/*"))
    assert run("--workers", "1") == 0, "this process is there already"


def start(study_file, results, *more: str) -> subprocess.Popen:
    """A run whose trials are long."""
    text = study_file.read_text().replace('"epochs": 1', '"epochs": 200')
    study_file.write_text(text)
    return subprocess.Popen(
        [sys.executable, "-m", "ablations", "run", str(study_file), "--seeds", "1",
         "--results", str(results), *more],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_in_order(study_file, tmp_path, workers, number, status, wait_for):
    results = tmp_path / "results"
    process = start(study_file, results, "--workers", workers)
    wait_for(lambda: len(list(results.glob("trials/*/*/checkpoints/*.checkpoint"))) >= int(workers))
    process.send_signal(number)
    out, err = process.communicate()
    assert process.returncode == status, err
    assert "a second signal ends them at once" in err
    assert err.count("checkpoint kept") == int(workers)
    assert "stopped with 2 trials left: running again goes on" in out
    claims = [json.loads(path.read_text()) for path in results.glob("trials/*/*/claims/*.json")]
    assert [claim["released"] for claim in claims] == [True] * int(workers)


@pytest.mark.slow
def test_a_killed_worker_costs_one_attempt(study_file, tmp_path, records, wait_for):
    text = study_file.read_text().replace('"epochs": 1', '"epochs": 40')
    study_file.write_text(text)
    results = tmp_path / "results"
    process = start(study_file, results, "--workers", "2")
    wait_for(lambda: list(results.glob("trials/*/*/checkpoints/*.checkpoint")))
    path = next(results.glob("trials/*/*/claims/1.json"))
    os.kill(json.loads(path.read_text())["process"]["pid"], signal.SIGKILL)
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert err.count("SIGKILL (perhaps out of memory); tried once more") == 1
    assert "taken up from its checkpoint" in err
    assert main(["run", str(study_file), "--seeds", "1", "--results", str(tmp_path / "one")]) == 0
    one, two = records(tmp_path / "one"), records(results)
    assert {t: r.compared() for t, r in one.items()} == {t: r.compared() for t, r in two.items()}
    assert sorted(len(record.times["resumed"]) for record in two.values()) == [0, 1]


def test_no_output_to_write_to_is_no_traceback(monkeypatch):
    """Started with a closed output, as some daemons are: ``>&-``."""
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["list"]) == 0


def test_nobody_who_reads_is_no_traceback(tmp_path):
    """As with ``| head``: the reader leaves after a line."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "ablations", "list"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() == 141


NONSENSE = {
    "study": (["run", "dpeth"], "no study 'dpeth'; allowed: attention_placement, depth,"),
    "study file": (["run", "nowhere.py"], "no study file 'nowhere.py'"),
    "preset": ([*RUN, "--preset", "quick"], "no preset 'quick'; allowed: smoke, pilot"),
    "dataset": ([*RUN, "--dataset", "mnits"], "mnits"),
    "model": ([*RUN, "--model", "resnet9"], "no model 'resnet9'; allowed: resnet8"),
    "arm": ([*RUN, "--arms", "plain,gatd"], "no arm 'gatd'; allowed: plain"),
    "seeds 0": ([*RUN, "--seeds", "0"], "'0'; allowed: whole numbers from 1"),
    "too many seeds": (
        [*RUN, "--seeds", "3000000000"],
        "'3000000000'; allowed: up to 10,000 blocks",
    ),
    "too many blocks": ([*RUN, "--blocks", "0-99999999999"], "allowed: up to 10,000 blocks"),
    "endless seeds": ([*RUN, "--seeds", "9" * 5000], "allowed: whole numbers from 1"),
    "study elsewhere": (["run", "../depth"], "no study '../depth'; allowed: attention_placement"),
    "lease": ([*RUN, "--lease", "0"], "'0'; allowed: seconds, up to 86400"),
    "engine": ([*RUN, "--engine", "dask"], "choose from"),
    "address": ([*RUN, "--address", "auto"], "--address has no effect with --engine local"),
    "gpus": ([*RUN, "--gpus", "0.5"], "--gpus has no effect with --engine local"),
    "slurm": (
        [*RUN, "--engine", "ray", "--slurm", "a=1"],
        "--slurm has no effect with --engine ray",
    ),
    "slurm pair": ([*RUN, "--slurm", "partition"], "'partition'; allowed: KEY=VALUE"),
    "ranks": ([*RUN, "--ranks", "3"], "batch_size=64 does not divide by ranks=3"),
    "seeds": ([*RUN, "--seeds", "few"], "'few'; allowed: whole numbers from 1"),
    "workers 0": ([*RUN, "--workers", "0"], "'0'; allowed: whole numbers from 1"),
    "blocks": ([*RUN, "--blocks", "5-3"], "'5-3'; allowed: blocks like"),
    "seeds and blocks": ([*RUN, "--blocks", "3", "--seeds", "2"], "not allowed with"),
    "option": ([*RUN, "--sedes", "3"], "--sedes"),
    "device": ([*RUN, "--device", "abacus"], "abacus"),
    "accept and dry": ([*RUN, "--dry-run", "--accept-source"], "allowed: one of them"),
    "command": (["rnu"], "rnu"),
    "no results": (["status", "--results", "nowhere"], "no results folder 'nowhere'"),
}


@pytest.mark.parametrize(("arguments", "message"), NONSENSE.values(), ids=NONSENSE)
def test_nonsense_is_one_line_and_exit_2(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        status = main(arguments)
    except SystemExit as stop:
        status = stop.code
    captured = capsys.readouterr()
    assert status == 2
    assert len(captured.err.strip().splitlines()) == 1, captured.err
    assert message in captured.err
    assert list(tmp_path.iterdir()) == [], "nothing was written"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("STUDY = 3", "assigns no STUDY"),
        ("import nothing_like_it", "ModuleNotFoundError"),
        ("from ablations.study import Arm\nArm(lambda: 1)", "a lambda cannot be found"),
        ("from ablations.study import Study\nSTUDY = Study(name='a')", "TypeError"),
        ("def f(:", "SyntaxError"),
    ],
)
def test_a_study_file_that_is_none(text, message, study_file, tmp_path, capsys):
    study_file.write_text(text)
    assert main(["run", str(study_file), "--results", str(tmp_path / "results")]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_a_setting_that_leaves_nothing_to_train_on(study_file, tmp_path, capsys):
    arguments = ["run", str(study_file), "--preset", "pilot", "--dataset", "digits"]
    assert main([*arguments, "--results", str(tmp_path / "results")]) == 2
    assert "num_validation=5000; allowed: from 0 to 1346" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_a_broken_file_beside_the_studies_keeps_none_from_running(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("def (")
    (tmp_path / "typed.py").write_text("STUDY: int = 3")
    monkeypatch.setattr(files, "HERE", tmp_path)
    assert files.names() == ["typed"]


def test_a_file_named_like_a_module_is_refused(tmp_path, capsys):
    path = tmp_path / "random.py"
    path.write_text("STUDY = 1")
    assert main(["run", str(path), "--results", str(tmp_path / "results")]) == 2
    assert "a module named 'random' exists already" in capsys.readouterr().err


def test_a_study_beside_the_reader_is_found(study_file, tmp_path, monkeypatch):
    """Given by its name alone, from its own folder, which is on the path of modules."""
    monkeypatch.chdir(study_file.parent)
    monkeypatch.syspath_prepend(study_file.parent)
    assert main(["run", study_file.name, "--dry-run"]) == 0


def test_a_folder_that_cannot_be_written(run, tmp_path, capsys):
    (tmp_path / "results").write_text("a file")
    assert run() == 2
    assert str(tmp_path / "results") in capsys.readouterr().err
    assert (tmp_path / "results").read_text() == "a file"


def test_a_newer_record_is_one_line(run, tmp_path, capsys):
    assert run() == 0
    path = next((tmp_path / "results").glob("trials/*/*/record.json"))
    path.chmod(0o644)
    path.write_text(path.read_text().replace('"schema_version":1', '"schema_version":99'))
    before = contents(tmp_path / "results")
    capsys.readouterr()
    assert run() == 2
    err = capsys.readouterr().err
    assert "99" in err
    assert str(path) in err
    assert contents(tmp_path / "results") == before


def test_a_changed_source_line_is_another_stratum(run, tmp_path, capsys, monkeypatch):
    """A layer's line changes in a copy of the tree: the block is not run there, and it says so."""
    assert run() == 0
    capsys.readouterr()
    copy = tmp_path / "checkout"
    for folder in ("overconv", "ablations", "records", "analysis"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))

    def again() -> str:
        done = subprocess.run(
            [sys.executable, "-m", "ablations", "run", *sys_study(), "--seeds", "1"],
            cwd=copy, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def sys_study() -> list[str]:
        [study] = tmp_path.glob("study_*.py")
        return [str(study), "--results", str(tmp_path / "results")]

    layer = copy / "overconv" / "operators" / "mdconv.py"
    text = layer.read_text()
    assert "2 trials done, 0 to do" in again(), "a moved checkout is the same"
    layer.write_text(text.replace('"""', '"""Said anew. ', 1))
    assert "2 trials done, 0 to do" in again(), "a docstring decides nothing"
    layer.write_text(text + "\n_UNUSED = 1\n")
    said = again()
    assert "belongs to stratum" in said
    assert "differs in sources; skipped" in said
    assert "--accept-source" in said
    assert "0 trials done, 0 to do" in said
