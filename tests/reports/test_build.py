"""`python -m reports build`: what it writes, checks, refuses, and how it ends."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from analysis.agenda import AGENDA
from records.store import Store
from reports import __main__ as command
from reports.__main__ import main
from reports.render import render

ROOT = Path(__file__).parents[2]
DRAWN: dict = {}
ACCURACIES = {"plain": [0.8, 0.7], "gated-1": [0.9, 0.75]}


@pytest.fixture(scope="module")
def built(made, tmp_path_factory) -> Path:
    """A results folder with its report."""
    folder = tmp_path_factory.mktemp("built")
    made.make_results(folder, ACCURACIES)
    assert build("--results", folder) == 0
    return folder


@pytest.fixture
def results(built, tmp_path) -> Path:
    """A copy of it, to be spoiled."""
    return shutil.copytree(built, tmp_path / "results")


@pytest.fixture(autouse=True)
def drawn_once(monkeypatch) -> None:
    """Equal records are rendered once: that they give equal bytes is test_render.py's to show."""

    def cached(store: Store):
        key = tuple(path.read_bytes() for path in (*store.plan_paths(), *store.paths()))
        if key not in DRAWN:
            DRAWN[key] = render(store)
        return DRAWN[key]

    monkeypatch.setattr(command, "render", cached)


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def build(*options: object) -> int:
    return main(["build", *map(str, options)])


def complaint(capsys) -> str:
    found = capsys.readouterr().err
    assert found.count("\n") == 1 and "Traceback" not in found, found
    return found


def test_it_builds_prints_and_says_where(made, tmp_path, capsys):
    made.make_results(tmp_path, ACCURACIES)
    assert build("--results", tmp_path) == 0
    out = capsys.readouterr().out
    assert "gated-1" in out and "95 % interval" in out
    assert out.endswith(f"page: {tmp_path / 'report' / 'index.html'}\n")
    assert (tmp_path / "report" / "index.html").read_bytes().startswith(b"<!doctype html>")


def test_a_second_build_changes_nothing_and_a_check_agrees(results, capsys):
    before = contents(results)
    assert build("--results", results, "--check") == 0
    assert build("--results", results) == 0
    assert contents(results) == before
    assert "27 files, 0 not as the records say" in capsys.readouterr().out


def test_another_process_builds_equal_bytes(results, tmp_path):
    options = ["--results", results, "--out", tmp_path / "there"]
    process = subprocess.run(
        [sys.executable, "-m", "reports", "build", *options],
        cwd=ROOT,
        env={"PYTHONHASHSEED": "7", "HOME": str(tmp_path)},
        capture_output=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    here, there = contents(results / "report"), contents(tmp_path / "there")
    assert {n: c for n, (c, _) in here.items()} == {n: c for n, (c, _) in there.items()}


def test_a_check_names_what_differs_and_writes_nothing(results, capsys):
    report = results / "report"
    changed = [report / "index.html", *report.glob("tables/*.csv"), *report.glob("figures/*.svg")]
    lost = [*report.glob("tables/*.md"), *report.glob("figures/*.png")]
    for path in changed:
        path.write_bytes(path.read_bytes() + b" ")
    for path in lost:
        path.unlink()
    before = contents(results)
    assert build("--results", results, "--check") == 1
    assert contents(results) == before
    said = set(capsys.readouterr().err.splitlines())
    assert said == {f"{path}: differs" for path in changed} | {f"{p}: missing" for p in lost}
    assert len(said) == 1 + 5 + 5 + 5 + 5


def test_a_check_notices_a_new_record(results, made):
    store = Store(results)
    store.publish(made.make_record(store.plans()[0], "plain", 2, 0.5))
    assert build("--results", results, "--check") == 1
    assert build("--results", results) == 0
    assert build("--results", results, "--check") == 0


def test_a_check_of_nothing_says_so(results, capsys):
    shutil.rmtree(results / "report")
    assert build("--results", results, "--check") == 1
    assert "missing" in capsys.readouterr().err
    assert not (results / "report").exists()


def other_versions(report: Path) -> None:
    """Make ``report`` look as if another matplotlib had drawn it."""
    manifest = json.loads((report / "manifest.json").read_text())
    manifest["versions"]["matplotlib"] = "0.1"
    (report / "manifest.json").write_text(json.dumps(manifest))
    for path in (report / "figures").iterdir():
        path.write_bytes(path.read_bytes() + b" ")
    page = (report / "index.html").read_text().replace('<svg role="img"', '<svg role="img" id="x"')
    (report / "index.html").write_text(page)


def test_under_other_versions_the_numbers_are_compared(results, made, capsys):
    other_versions(results / "report")
    assert build("--results", results, "--check") == 0
    assert "numbers are compared instead of drawings" in capsys.readouterr().out
    store = Store(results)
    store.publish(made.make_record(store.plans()[0], "plain", 2, 0.5))
    assert build("--results", results, "--check") == 1
    assert "manifest.json: differs" in capsys.readouterr().err


def test_what_an_earlier_report_left_is_removed_and_other_files_stay(results, made, tmp_path):
    out = results / "report"
    (out / "figures" / "mine.svg").write_text("mine")
    made.make_results(tmp_path / "other", ACCURACIES, name="other")
    build("--results", tmp_path / "other", "--out", out)
    names = set(contents(out))
    assert "figures/mine.svg" in names
    assert not [name for name in names if "depth" in name]


def test_a_manifest_cannot_name_files_outside(results, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("")
    manifest = results / "report" / "manifest.json"
    manifest.write_text(json.dumps({"files": {"../../precious": "", str(precious): ""}}))
    assert build("--results", results) == 0
    assert precious.exists()


def test_a_page_of_another_hand_is_not_overwritten(results, tmp_path, capsys):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("<h1>mine</h1>")
    assert build("--results", results, "--out", tmp_path / "site") == 2
    assert "not written by this command" in complaint(capsys)
    assert list(contents(tmp_path / "site")) == ["index.html"]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:200]), "cut short"),
        (
            lambda path: path.write_bytes(path.read_bytes().replace(b'version":1', b'version":2')),
            "schema version 2 is newer than 1",
        ),
    ],
)
def test_a_broken_record_is_one_line_and_nothing_is_written(damage, words, results, capsys):
    path = Store(results).paths()[1]
    damage(path)
    before = contents(results)
    assert build("--results", results) == 2
    found = complaint(capsys)
    assert words in found and str(path) in found
    assert contents(results) == before


def test_bad_input_is_one_line(results, tmp_path, capsys):
    assert build("--results", tmp_path / "nowhere") == 2
    assert "no results folder" in complaint(capsys)
    (tmp_path / "empty").mkdir()
    assert build("--results", tmp_path / "empty") == 2
    assert "no plan in" in complaint(capsys)
    (tmp_path / "file").write_text("")
    assert build("--results", results, "--out", tmp_path / "file") == 2
    assert str(tmp_path / "file") in complaint(capsys)
    for arguments in (["bild"], ["build", "--frobnicate"], []):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
        complaint(capsys)


def test_the_defaults_are_the_committed_records(monkeypatch, results, tmp_path, capsys):
    shutil.move(results, tmp_path / "data")
    readme = tmp_path / "README.md"
    readme.write_text("<!-- results: recorded -->\n<!-- end of results -->\n")
    monkeypatch.setattr(command, "HERE", tmp_path)
    monkeypatch.setattr(command, "README", readme)
    assert build("--check") == 1
    assert f"{tmp_path / 'README.md'}: differs" in capsys.readouterr().err
    assert build() == 0
    assert capsys.readouterr().out.endswith(f"page: {tmp_path / 'index.html'}\n")
    assert "are answered" in readme.read_text()
    assert build("--check") == 0
    number = len(AGENDA)
    readme.write_text(readme.read_text().replace(f"0 of {number}", f"{number} of {number}"))
    assert build("--check") == 1, "a number that somebody wrote by hand"


def test_a_results_folder_of_ones_own_leaves_the_readme_alone(results, monkeypatch, tmp_path):
    monkeypatch.setattr(command, "README", tmp_path / "there-is-none.md")
    assert build("--results", results) == build("--results", results, "--check") == 0
