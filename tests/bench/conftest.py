import json
import random
import shutil
import subprocess
import sys
import textwrap

import pytest

from overconv import timing
from overconv.bench import cases, gate, pairs, provenance, recording, rounds, worker
from overconv.bench.__main__ import main
from overconv.bench.judging import Judgement
from overconv.bench.statistics import Ratio
from overconv.bench.workers import Refused, Worker
from overconv.timing import Sample


class ScriptedWorker:
    """A process that measures, of whose machine every reading is drawn and not taken.

    Half of the samples are interrupted for as long as they take, or longer; the rest, and all of
    the processor's time, spread by ``spread``. ``layout`` is what this process is slower by for
    good. ``prepared`` holds a Refused, or nothing, by case.
    """

    def __init__(self, role, costs, *, seed=0, spread=0.01, layout=1.0, seen=False, prepared=None):
        self.role, self.costs, self.refusals = role, costs, prepared or {}
        self.draw = random.Random(f"{role} {seed}")
        self.spread, self.layout, self.seen = spread, layout, seen
        self.now, self.log = {}, []

    def prepare(self, what, case=None):
        self.log.append((what, case))
        if (what, case) in self.refusals:
            raise self.refusals[what, case]
        self.now[what] = case
        return self._seconds(what)

    def _seconds(self, what):
        if what == "fixed":
            return 2e-4 * self.layout
        return self.costs[self.now[what] if what == "case" else "plain"] * self.layout

    def sample(self, what, calls):
        clean = self._seconds(what) * (1 + self.draw.expovariate(1) * self.spread)
        interrupted = self.draw.random() < 0.5
        wall = clean * (2 + 3 * self.draw.random()) if interrupted else clean
        return Sample(
            wall, clean * (1 + self.draw.random() * self.spread), int(self.seen * interrupted)
        )


@pytest.fixture
def scripted():
    return ScriptedWorker


class Repository:
    """A small git repository with a package ``tiny`` and a file of cases."""

    LAYER = """
        from torch import nn

        class Layer(nn.Conv2d):
            def forward(self, x):
                for _ in range({times}):
                    y = super().forward(x)
                return y
    """
    CASES = """
        from functools import partial
        from torch import nn
        from overconv.bench.cases import Case
        from tiny.layer import Layer

        CASES = (
            Case("one", partial(Layer, 8, 8, 1), (1, 8, 8, 8), partial(nn.Conv2d, 8, 8, 1)),
            Case("three", partial(Layer, 8, 8, 3), (1, 8, 8, 8)),
        )
    """

    def __init__(self, root):
        self.root = root
        self.cases = root / "cases.py"
        self.write("pyproject.toml", "[project]\nname = 'tiny'\n")
        self.write("tiny/__init__.py", "")
        self.write("tiny/layer.py", self.LAYER.format(times=1))
        self.write("cases.py", self.CASES)
        self.git("init", "-q", "-b", "main")
        self.commit("base")
        self.git("tag", "base")

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    def replace(self, name, old, new):
        text = (self.root / name).read_text(encoding="utf-8")
        assert old in text
        return self.write(name, text.replace(old, new))

    def git(self, *arguments):
        who = "-c", "user.name=somebody", "-c", "user.email=somebody@example.org"
        command = ["git", *who, *arguments]
        done = subprocess.run(command, cwd=self.root, check=True, capture_output=True, text=True)
        return done.stdout

    def commit(self, message):
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path / "tiny project")


# The gate without processes and without times.

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
        except Exception as error:  # as the real worker: a file of cases may raise anything
            missing = getattr(error, "name", None) or ""
            self.error = Refused(worker.sentence(error, place.tree), "load", missing)

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


@pytest.fixture
def inline(request, monkeypatch, tmp_path):
    """Stands in for processes, except where a test asks for ``processes``."""
    if "processes" in request.fixturenames:
        return Worker
    for module in worker, cases, provenance, timing:
        shutil.copy(module.__file__, tmp_path)
    monkeypatch.setattr(worker, "__file__", str(tmp_path / "worker.py"))
    for module in gate, pairs, recording:
        monkeypatch.setattr(module, "Worker", InThisProcess)
    monkeypatch.setattr("gc.collect", lambda: 0)  # takes long beside all that pytest holds
    monkeypatch.setattr(sys, "path", list(PATH))
    return InThisProcess


@pytest.fixture
def processes():
    """Asks for real ones."""


@pytest.fixture
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


@pytest.fixture
def run_gate(inline, readings):
    """The gate on a repository: its exit status, and what it reports."""

    def run(repository, *arguments):
        report = repository.root.parent / "report.json"
        given = ["--cases", str(repository.cases), "--json", str(report), *arguments]
        status = main(["gate", *given])
        found = json.loads(report.read_text()) if report.exists() else None
        assert found is None or found["exit_status"] == status
        return status, found

    return run


@pytest.fixture
def said():
    """The one verdict on a case, and its reason."""

    def said(report, case):
        (verdict,) = [v for v in report["verdicts"] if v["case"] == case]
        return verdict["outcome"], verdict["reason"]

    return said
