"""What a stranger meets: the package, the commands, the papers, and how a test run ends."""

import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PAPERS = ("README.md", "CONTRIBUTING.md")
CHECKOUT = ("overconv", "records", "analysis", "reports", "ablations", "benchmark")
BYTECODE = shutil.ignore_patterns("__pycache__")


def blocks(paper: str, language: str = "python") -> list[str]:
    text = (ROOT / paper).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def file_of(block: str) -> str | None:
    """The file that a block says it is, in a comment on its first line."""
    named = re.match(r"# (\S+\.py)\n", block)
    return named and named[1]


FILES = {name: block for paper in PAPERS for block in blocks(paper) if (name := file_of(block))}


def run(*command: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(cwd), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def script(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]), encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


# The package


@pytest.mark.parametrize("text", PROJECT["dependencies"])
def test_the_ranges_admit_what_the_tests_run_with(text):
    requirement = Requirement(text)
    installed = version(requirement.name).partition("+")[0]
    assert requirement.specifier.contains(installed)
    assert any(s.operator == "<" for s in requirement.specifier), "no upper bound"


PLUGIN = "pytest_overconv.py"  # beside the package, so that pytest starts without torch


def test_the_wheel_ships_the_library_alone(tmp_path):
    for name in ("pyproject.toml", "README.md", "LICENSE", PLUGIN):
        shutil.copy(ROOT / name, tmp_path)
    for name in CHECKOUT:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=BYTECODE)
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    built = run(*pip, "--wheel-dir", "wheels", ".", cwd=tmp_path)
    assert built.returncode == 0, built.stderr
    (wheel,) = (tmp_path / "wheels").iterdir()
    names = zipfile.ZipFile(wheel).namelist()
    source = (ROOT / "overconv/__init__.py").read_text(encoding="utf-8")
    (number,) = re.findall(r'^__version__ = "(.*)"$', source, flags=re.MULTILINE)
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"overconv", PLUGIN, f"overconv-{number}.dist-info"}
    shipped = {name for name in names if name.endswith(".py")}
    assert "overconv/py.typed" in names
    library = {str(p.relative_to(ROOT)) for p in (ROOT / "overconv").rglob("*.py")}
    assert shipped == {PLUGIN, *library}


# The commands


def test_help_lists_every_target():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (targets,) = re.findall(r"^\.PHONY: (help .*)$", makefile, flags=re.MULTILINE)
    listed = re.findall(r"^  make (\S+)", run("make", "help", cwd=ROOT).stdout, flags=re.MULTILINE)
    assert sorted(listed) == sorted(targets.split())


@pytest.fixture
def checkout(tmp_path):
    """A folder with the Makefile, and a .venv in it that claims to be ready."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    script(tmp_path / ".venv/bin/python", "echo yes")
    (tmp_path / ".venv/.ready").touch()
    os.utime(tmp_path / "pyproject.toml", (0, 0))
    return tmp_path


@pytest.mark.parametrize("target", ["setup", "quickstart", "test", "test-slow", "lint", "report"])
def test_every_target_installs_when_needed_and_only_then(checkout, target):
    assert "pip install" not in run("make", "-n", target, cwd=checkout).stdout
    os.utime(checkout / "pyproject.toml")  # newer than the stamp
    os.utime(checkout / ".venv/.ready", (1, 1))
    assert "pip install" in run("make", "-n", target, cwd=checkout).stdout


def test_a_stamp_without_its_interpreter_counts_for_nothing(checkout):
    (checkout / ".venv/bin/python").unlink()
    assert "pip install" in run("make", "-n", "lint", cwd=checkout).stdout


@pytest.mark.parametrize("number", ["3.9.2", "3.10.12"])
def test_an_old_python_is_refused_in_one_line(checkout, number):
    shutil.rmtree(checkout / ".venv")
    pretend = f"import sys; sys.version_info = tuple(map(int, '{number}'.split('.')))"
    old = script(
        checkout / "old",
        f'test "$1" = --version && exec echo Python {number}',
        f'test "$1" = -c && exec {sys.executable} -c "{pretend}; exec(sys.argv[1])" "$2"',
        "exit 9",
    )
    made = run("make", "setup", f"PYTHON={old}", cwd=checkout)
    assert made.returncode
    assert f"overconv needs Python 3.11 or newer; {old} is Python {number}." in made.stderr
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize("broken", ["setup", "lint", "test", None])
def test_ci_fails_when_one_of_its_steps_does(tmp_path, broken):
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    script(tmp_path / "bin/make", f'echo "ran $1"; test "$1" != "{broken}"')
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    process = run("bash", ".ci/run", cwd=tmp_path, PATH=path)
    assert (process.returncode == 0) == (broken is None)
    if broken != "setup":
        assert process.stdout.split("\n")[:3] == ["ran setup", "ran lint", "ran test"]


# How a test run ends

SUITE = """
import pytest

def test_passes(): pass
def test_fails(): assert False
@pytest.mark.slow
def test_slow(): pass
@pytest.mark.gpu
@pytest.mark.slow
def test_both(): pass
@pytest.mark.skip(reason="needs the data set")
def test_skipped(): pass
@pytest.mark.xfail(reason="known to fail")
def test_known(): assert False
"""


def test_the_closing_lines_say_what_was_left_out_and_hide_no_failure(tmp_path):
    (tmp_path / "tests").mkdir()
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copy(ROOT / "tests/conftest.py", tmp_path / "tests")
    (tmp_path / "tests/test_some.py").write_text(SUITE, encoding="utf-8")
    pytest_ = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests")
    process = run(*pytest_, "-m", "not slow and not gpu", cwd=tmp_path)
    assert process.returncode == 1
    closing = [
        line.strip() for line in process.stdout.partition("left out: 4 tests")[2].splitlines()
    ]
    assert {
        "1  marked gpu: needs a CUDA device",
        "1  marked slow: takes more than a few seconds; make test-slow runs it",
        "1  skipped: needs the data set",
        "1  expected to fail: known to fail",
    } <= set(closing)
    assert "1 failed, 1 passed, 1 skipped, 2 deselected" in closing[-1]


# The papers


@pytest.fixture(scope="module")
def newcomers_checkout(tmp_path_factory):
    """A copy of the tree, with every file that the papers tell a reader to write."""
    root = tmp_path_factory.mktemp("checkout")
    for name in (*CHECKOUT, "tests"):
        shutil.copytree(ROOT / name, root / name, ignore=BYTECODE)
    shutil.copy(ROOT / "pyproject.toml", root)
    for name, block in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(block.partition("\n")[2], encoding="utf-8")
    return root


@pytest.mark.parametrize("paper", PAPERS)
def test_examples_run(newcomers_checkout, paper):
    examples = [block for block in blocks(paper) if not file_of(block)]
    for example in examples:
        process = run(sys.executable, "-W", "error", "-c", example, cwd=newcomers_checkout)
        assert process.returncode == 0, example + process.stderr


@pytest.mark.parametrize("study", [name for name in FILES if "STUDY = " in FILES[name]])
def test_the_studies_of_the_papers_plan_a_run(newcomers_checkout, study):
    assert FILES[study].count("\n") < 60
    plan = ("-m", "ablations", "run", study, "--preset", "smoke", "--dry-run", "--results", "r")
    process = run(sys.executable, *plan, cwd=newcomers_checkout)
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize("layer", [name for name in FILES if name.startswith("overconv/")])
def test_the_layer_of_the_papers_passes_its_tests(newcomers_checkout, layer):
    assert FILES[layer].count("\n") < 150
    module = Path(layer).stem
    suites = [f"tests/operators/test_{module}.py", "tests/test_architecture.py"]
    pytest_ = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", "not process")
    process = run(*pytest_, *suites, cwd=newcomers_checkout)
    assert process.returncode == 0, process.stdout


def test_the_papers_write_what_the_style_check_accepts(newcomers_checkout):
    files = [newcomers_checkout / name for name in FILES]
    for check in (("check",), ("format", "--check")):
        process = run(sys.executable, "-m", "ruff", *check, *files, cwd=newcomers_checkout)
        assert process.returncode == 0, process.stdout


@pytest.mark.parametrize("paper", PAPERS)
def test_the_papers_name_only_files_that_exist(paper):
    text = (ROOT / paper).read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    pictures = re.findall(r'(?:src|srcset)="(?!https?:)([^"]+)"', text)
    missing = [link for link in links + pictures if not (ROOT / link).exists()]
    assert missing == []
    targets = set(re.findall(r"`make ([a-z-]+)", text))
    assert targets <= set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


HELP = """
import runpy, sys
for command in sys.argv[1:]:
    module, name = command.split()
    sys.argv = [module, name, "--help"]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        assert not end.code, command
"""


def test_the_papers_name_only_commands_and_options_that_exist():
    papers = "".join((ROOT / paper).read_text(encoding="utf-8") for paper in PAPERS)
    commands = set(re.findall(r"-m (ablations|reports|benchmark) ([a-z-]+)", papers))
    assert {module for module, _ in commands} == {"ablations", "reports", "benchmark"}
    process = run(sys.executable, "-c", HELP, *map(" ".join, sorted(commands)), cwd=ROOT)
    assert process.returncode == 0, process.stderr
    known = process.stdout
    assert set(re.findall(r"--[a-z]+[a-z-]*", papers)) <= set(re.findall(r"--[a-z-]+", known))
