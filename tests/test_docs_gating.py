"""The page on gating: what it tells a reader to write and to run is written and run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/gating.md").read_text(encoding="utf-8")
WORKFLOW = ROOT / "docs/gate-workflow.yml"
ACTIONS = {"actions/checkout@v4", "actions/setup-python@v5"}


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


FILES = {block.split("\n")[0].removeprefix("# "): block for block in blocks("python")}


def load(path):
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    found["on"] = found.pop(True)  # which YAML 1.1 takes the key "on" for
    return found


def run_lines(job):
    return [step["run"] for step in job["steps"] if "run" in step]


# The workflows.


def test_the_page_shows_the_workflow_that_is_there():
    text = WORKFLOW.read_text(encoding="utf-8")
    assert blocks("yaml") == [text]
    assert text.count("\n") < 10


@pytest.mark.parametrize("path", [WORKFLOW, ROOT / ".github/workflows/ci.yml"], ids=str)
def test_workflows_fetch_the_base_and_gate_the_merge(path):
    workflow = load(path)
    assert "pull_request" in workflow["on"]
    for job in workflow["jobs"].values():
        assert {step["uses"] for step in job["steps"] if "uses" in step} <= ACTIONS
    job = workflow["jobs"]["gate"]
    (checkout,) = [step for step in job["steps"] if step.get("uses") == "actions/checkout@v4"]
    assert checkout["with"]["fetch-depth"] == 0
    (gate,) = [line for line in run_lines(job) if " gate " in line]
    assert "--base HEAD^1" in gate and '--markdown "$GITHUB_STEP_SUMMARY"' in gate
    assert "|| true" not in gate and not any(step.get("continue-on-error") for step in job["steps"])


def test_our_workflow_runs_what_a_checkout_has():
    jobs = load(ROOT / ".github/workflows/ci.yml")["jobs"]
    assert run_lines(jobs["check"]) == ["make lint", "make test"]
    assert jobs["gate"]["if"] == "github.event_name == 'pull_request'"
    setup, gate = run_lines(jobs["gate"])
    assert setup == "make setup"
    assert gate.startswith(".venv/bin/python -m benchmark gate ")


# The page.


def options_of(*command):
    done = subprocess.run(
        [sys.executable, "-m", *command, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(re.findall(r"--[a-z]+[a-z-]*", done.stdout))


def test_the_page_names_only_options_that_exist():
    gate = options_of("overconv.bench", "gate")
    suite = options_of("pytest", "benchmark")
    named = set(re.findall(r"--[a-z]+[a-z-]*", PAGE))
    assert named <= gate | suite
    for line in re.findall(r"-m overconv\.bench gate .*", PAGE):
        assert set(re.findall(r"--[a-z]+[a-z-]*", line)) <= gate


def test_the_page_names_only_files_that_exist():
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", PAGE)
    assert links and all((ROOT / "docs" / link).exists() for link in links)
    paths = re.findall(r"`?(benchmark/[a-z_]+\.py)", PAGE)
    assert paths and all((ROOT / path).exists() for path in paths)


# A new user's repository: one layer of its own, its cases, and the workflow.


class Repository:
    def __init__(self, folder):
        self.folder = folder
        self.summary = folder.parent / "summary.md"
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "PYTHON"))},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "PYTHONPATH": str(ROOT),  # in the place of pip install
        }
        for role in "AUTHOR", "COMMITTER":
            self.environment |= {f"GIT_{role}_NAME": "A", f"GIT_{role}_EMAIL": "a@example.org"}
        folder.mkdir(exist_ok=True)

    def shell(self, line):
        return subprocess.run(
            ["bash", "-e", "-c", line],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def commit(self):
        done = self.shell("git add --all && git commit --quiet --message change")
        assert done.returncode == 0, done.stderr

    def workflow(self):
        """Runs the lines of the workflow, but for the installation."""
        install, *lines = run_lines(load(WORKFLOW)["jobs"]["gate"])
        assert install == "pip install overconv" and len(lines) == 1
        return self.shell(lines[0])


@pytest.fixture(scope="module")
def first_commit(tmp_path_factory):
    """Made as the page says."""
    if shutil.which("git") is None or shutil.which("bash") is None:
        pytest.skip("needs git and bash")
    made = Repository(tmp_path_factory.mktemp("first") / "mine")
    assert made.shell("git init --quiet").returncode == 0
    assert set(FILES) == {"layers.py", "cases.py"}
    for name, text in FILES.items():
        (made.folder / name).write_text(text, encoding="utf-8")
    lines = re.findall(r"^    (python .*--accept|git add .*)\n", PAGE, flags=re.MULTILINE)
    for line in lines[:2]:
        done = made.shell(line)
        assert done.returncode == 0, said(done)
    listed = made.shell("git diff --cached --name-only").stdout.split()
    assert listed == ["cases.figures.json", "cases.py", "layers.py"]
    made.commit()
    return made.folder


@pytest.fixture
def repository(first_commit, tmp_path):
    shutil.copytree(first_commit, tmp_path / "mine", dirs_exist_ok=True)
    return Repository(tmp_path / "mine")


def said(done):
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_change_without_cost_passes_or_is_told_to_be_unclear(repository):
    (repository.folder / "README").write_text("A word.\n")
    repository.commit()
    done = repository.workflow()
    assert done.returncode in (0, 3), said(done)
    words = "pass: 2 cases declared" if done.returncode == 0 else "cannot judge"
    assert words in said(done)
    summary = repository.summary.read_text()
    assert "| `gated/28` |" in summary and "| `gated/14,training` |" in summary


@pytest.mark.slow
def test_a_heavier_layer_is_a_regression_until_it_is_accepted(repository):
    layers = repository.folder / "layers.py"
    heavier = layers.read_text().replace("self.conv(x) *", "(self.conv(x) + self.conv(x)) *")
    assert heavier != layers.read_text()
    layers.write_text(heavier)
    repository.commit()
    done = repository.workflow()
    assert done.returncode == 1, said(done)
    assert "gated/28: macs.convolution is " in said(done)
    assert "gated/14,training: macs.convolution is " in said(done)
    assert "REGRESSION" in repository.summary.read_text()
    (accept,) = set(re.findall(r"python -m overconv\.bench gate .* --accept", said(done)))
    assert repository.shell(accept).returncode == 0
    assert "macs.convolution" in repository.shell("git diff").stdout


def test_the_first_change_is_told_what_to_say(repository):
    """Head is the first commit: there is nothing before it."""
    done = repository.workflow()
    assert done.returncode == 3
    assert "unknown base revision 'HEAD^1'" in said(done)


def test_a_shallow_clone_is_told_the_line_that_mends_it(repository):
    (repository.folder / "README").write_text("A word.\n")
    repository.commit()
    shallow = Repository(repository.folder.parent / "shallow")
    source = f"file://{repository.folder}"
    assert (
        repository.shell(f"git clone --quiet --depth 1 {source} {shallow.folder}").returncode == 0
    )
    done = shallow.workflow()
    assert done.returncode == 3
    assert "fetch-depth: 0" in said(done)
