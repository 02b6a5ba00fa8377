import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest

from overconv.bench import worker
from overconv.bench.workers import CannotJudge, Place, Refused, Unreadable, Worker


@pytest.fixture
def start(repository):
    """Starts a real process on the repository, or on another tree of the same project."""
    running = []

    def start(tree=None):
        here = Place(repository.root, repository.root, repository.cases)
        role, place = ("head", here) if tree is None else ("base", here.moved(tree))
        running.append(Worker(role, place, here, None))
        return running[-1].read()

    yield start
    for one in running:
        one.close()


# Without a process.


def test_what_is_no_case_is_refused():
    case = SimpleNamespace(**dict.fromkeys(worker.ATTRIBUTES, "a"))
    assert worker.declared(SimpleNamespace(CASES=[case])) == [case]
    assert worker.declared(SimpleNamespace(CASES=())) == []
    with pytest.raises(ValueError, match="must define CASES"):
        worker.declared(SimpleNamespace())
    with pytest.raises(ValueError, match="two cases have the name 'a'"):
        worker.declared(SimpleNamespace(CASES=[case, case]))
    with pytest.raises(ValueError, match="is no case: it has no build"):
        worker.declared(SimpleNamespace(CASES=[SimpleNamespace(name="a")]))


def test_warming_up_takes_time_and_calls_before_it_reads():
    now, costs = [0.0], iter([5.0, 1.0, 1.0] + [0.02, 0.01, 0.03] + [9.0] * 9)

    def call():
        now[0] += next(costs)

    assert worker.warm(call, lambda: now[0]) == pytest.approx(0.01)
    quick = iter([0.008] * 100)
    calls = []

    def count():
        calls.append(1)
        now[0] += next(quick)

    worker.warm(count, lambda: now[0])
    assert len(calls) == 4 + worker.WARM_CALLS  # 0.03 seconds, then what is read


# With a process.


def test_a_process_describes_its_cases_and_measures_them(repository, start, capfd, monkeypatch):
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    repository.replace("tiny/layer.py", "y = super", "print('words'); y = super")
    repository.replace("cases.py", "CASES", "print('more words')\nCASES")
    one = start()
    assert one.cases["one"] == {
        "name": "one",
        "shape": [1, 8, 8, 8],
        "step": "inference",
        "limit": 1.05,
        "tolerance": 1e-4,
        "expected": False,
        "plain": True,
    }
    assert list(one.cases) == ["one", "three"] and not one.cases["three"]["plain"]
    description = one.description
    assert description["packages"] == ["tiny"] and description["threads"] == 1
    for what, case in ("case", "one"), ("plain", "one"), ("fixed", None):
        assert one.prepare(what, case) > 0
    sample = one.sample("case", 3)
    assert sample.cpu > 0 and sample.wall > 0 and sample.switches >= 0
    assert capfd.readouterr().out == ""
    with pytest.raises(Refused, match="KeyError: 'none'") as caught:
        one.prepare("case", "none")
    assert caught.value.kind == "raised"
    assert one.prepare("case", "one") > 0  # an error ends nothing
    one.close()
    one.close()
    assert not Path(f"/proc/{one.pid}").exists()
    assert repository.git("status", "--porcelain").split() == [
        "M",
        "cases.py",
        "M",
        "tiny/layer.py",
    ]


def test_a_process_measures_the_tree_that_it_is_given(repository, start, tmp_path, monkeypatch):
    (tmp_path / "installed" / "tiny").mkdir(parents=True)
    (tmp_path / "installed" / "tiny" / "__init__.py").write_text("1 / 0")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "installed"))
    other = tmp_path / "other tree"
    (other / "tiny").mkdir(parents=True)
    (other / "tiny/__init__.py").touch()
    (other / "tiny/layer.py").write_text(
        "from torch import nn\nclass Layer(nn.Conv2d):\n    pass\n"
    )
    text = repository.cases.read_text()
    # Another case is built from what only head has, as an installation in place would give it.
    repository.write("late.py", "")
    elsewhere = f"import sys\nsys.path.insert(0, {str(repository.root)!r})\n"
    late = f"def late():\n    {elsewhere.replace(chr(10), chr(10) + '    ')}import late\n"
    late += "    return nn.Conv2d(8, 8, 1)\n"
    (other / "cases.py").write_text(
        late + text.replace('"three", partial(Layer, 8, 8, 3)', '"four", late')
    )
    (other / "pyproject.toml").touch()
    one = start(other)
    assert list(one.cases) == ["one", "four"]
    assert one.prepare("case", "one") > 0
    with pytest.raises(Refused, match="measured the wrong revision: late from") as caught:
        one.prepare("case", "four")
    assert caught.value.kind == "revision"
    (other / "cases.py").write_text(elsewhere + text)
    match = "in base, measured the wrong revision: tiny.* from .*tiny project"
    with pytest.raises(CannotJudge, match=match):
        start(other)


def test_a_wrong_output_is_told_before_anything_is_timed(repository, start):
    repository.replace("cases.py", '"three", ', '"three", expected=lambda m, x: 2 * m(x), build=')
    repository.replace("cases.py", "(1, 8, 8, 8)),\n)", "shape=(1, 8, 8, 8)),\n)")
    with pytest.raises(Refused, match="three puts out something else than it should") as caught:
        start().prepare("case", "three")
    assert caught.value.kind == "output"


def test_a_silent_process_is_given_up_and_a_killed_one_reported(repository, start):
    one = start()
    one.silence = 0.0
    with pytest.raises(CannotJudge, match="gave no answer for 0 seconds while preparing one"):
        one.prepare("case", "one")
    one.silence = 30.0
    with pytest.raises(CannotJudge) as caught:  # it was killed for that
        one.sample("case", 1)
    assert str(caught.value) == (
        "the process that measures head was killed by SIGKILL (too little memory, or somebody's"
        " hand) while being timed"
    )


def test_a_process_that_ends_itself_is_reported_with_its_last_words(repository, start):
    text = """
        import os, sys
        print("something is wrong", file=sys.stderr, flush=True)
        os._exit(7)
    """
    repository.write("cases.py", textwrap.dedent(text))
    with pytest.raises(CannotJudge, match="ended with status 7 while .*: something is wrong"):
        start()


def test_what_the_file_of_cases_raises_is_told(repository, start):
    repository.write("cases.py", "import overconv.bench.nothing")
    with pytest.raises(Unreadable, match="the cases of head cannot be read: ModuleNot") as caught:
        start()
    assert caught.value.before_cases
    repository.write("cases.py", "import nothing")
    with pytest.raises(Unreadable) as caught:
        start()
    assert not caught.value.before_cases


def test_code_that_reads_finds_no_commands(repository, start):
    """What is sent to the process is not for the code that it runs."""
    repository.replace("tiny/layer.py", "for _", "input()\n        for _")
    one = start()
    with pytest.raises(Refused, match=r"EOFError: .* \(tiny/layer.py:6\)"):
        one.prepare("case", "one")
    assert one.prepare("fixed") > 0


def test_code_that_ends_the_process_politely_is_an_error(repository, start):
    repository.replace("tiny/layer.py", "for _", "raise SystemExit('enough')\n        for _")
    one = start()
    with pytest.raises(Refused, match=r"SystemExit: enough \(tiny/layer.py:6\)"):
        one.prepare("case", "one")
    repository.replace("cases.py", "CASES", "import sys; sys.exit()\nCASES")
    with pytest.raises(Unreadable, match=r"of head cannot be read: SystemExit \(cases.py:7\)"):
        start()


def test_an_output_that_is_wrong_from_the_second_call_on_is_wrong(repository, start):
    text = """
        from torch import nn

        class Layer(nn.Conv2d):
            calls = 0

            def forward(self, x):
                self.calls += 1
                return super().forward(x) * (1 if self.calls == 1 else 3)
    """
    repository.write("tiny/layer.py", text)
    expected = "expected=lambda m, x: nn.functional.conv2d(x, m.weight, m.bias)"
    repository.replace("cases.py", "(1, 8, 8, 8)),\n)", f"(1, 8, 8, 8), {expected}),\n)")
    with pytest.raises(Refused, match="three, called again, puts out something else") as caught:
        start().prepare("case", "three")
    assert caught.value.kind == "output"
