import random
import subprocess
import textwrap

import pytest

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
