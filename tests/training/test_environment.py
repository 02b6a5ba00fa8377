"""Strata: what decides trained bits is described, what does not is left out."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from overconv.training import environment
from overconv.training.environment import (
    describe_stratum,
    facts,
    modules_of,
    source_digest,
    syntax_digest,
)
from overconv.training.probe import probe

SOURCE = '''"""Doc."""

def f(x):
    """More."""
    return x + 1  # why


class A:
    """Only a doc."""
'''


@pytest.fixture
def digest(tmp_path):
    def digest(text: str, name: str = "m.py") -> str:
        path = tmp_path / name
        path.write_text(text)
        return syntax_digest(path)

    return digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""Doc."""\n', ""),
        ("Doc.", "Other words."),
        ("More.", "Less."),
        ("  # why", ""),
        ("x + 1", "(x + 1)"),
        ('    """Only a doc."""\n', "    pass\n"),
    ],
)
def test_words_and_layout_do_not_count(old, new, digest):
    assert old in SOURCE
    assert digest(SOURCE.replace(old, new, 1)) == digest(SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [("x + 1", "x + 2"), ("f(x)", "g(x)"), ("return", "yield"), ("class A:", "class A(int):")],
)
def test_what_python_does_counts(old, new, digest):
    assert old in SOURCE
    assert digest(SOURCE.replace(old, new, 1)) != digest(SOURCE)


def test_a_moved_file_is_the_same(digest):
    assert digest(SOURCE, "a.py") == digest(SOURCE, "b.py")


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "made_package"
    (folder / "inner").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "top.py").write_text("from made_package.inner import part\nimport json\n")
    (folder / "unused.py").write_text("1\n")
    (folder / "inner" / "__init__.py").write_text("from made_package import base as base\n")
    (folder / "inner" / "part.py").write_text("def f():\n    import made_package.late\n")
    (folder / "base.py").write_text("from made_package.top import nothing\n")  # a circle
    (folder / "late.py").write_text("1\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.startswith("made_package")]:
        del sys.modules[name]


def test_the_closure_of_imports_is_followed(package):
    found = source_digest(["made_package.top"], ["made_package"])
    assert set(found) == {
        "made_package.top", "made_package.inner", "made_package.inner.part",
        "made_package.base", "made_package.late",
    }  # fmt: skip
    (package / "late.py").write_text("2\n")
    changed = source_digest(["made_package.top"], ["made_package"])
    differ = {name for name in found if found[name] != changed[name]}
    # Who imports a module changes with it.
    assert {"made_package.late", "made_package.inner.part"} <= differ
    assert "made_package.base" not in differ


def contents(package: Path) -> list[str]:
    return sorted(source_digest(["made_package.top"], ["made_package"]).values())


@pytest.fixture
def movable(package):
    """A package in which a value is defined in one module and used by two."""
    (package / "inner" / "__init__.py").write_text('"""A room."""\n')
    (package / "inner" / "part.py").write_text("from made_package.base import VALUE\n")
    (package / "base.py").write_text("import json\n\nVALUE = 3\n")
    (package / "other.py").write_text("import json\n\nVALUE = 4\n")
    (package / "top.py").write_text(
        "from made_package.base import VALUE\n"
        "from made_package.inner.part import VALUE as SAME\n"
        "from made_package.other import VALUE as OTHER\n"
    )
    return package


def test_a_moved_module_is_the_same_source(movable):
    """Renamed, into a folder of its own, with all that imports from it told."""
    before = contents(movable)
    (movable / "rooms").mkdir()
    (movable / "rooms" / "__init__.py").write_text('"""A new room."""\n')
    (movable / "base.py").rename(movable / "rooms" / "values.py")
    (movable / "inner" / "part.py").write_text("from made_package.rooms.values import VALUE\n")
    (movable / "top.py").write_text(  # sorted anew
        "from made_package.inner.part import VALUE as SAME\n"
        "from made_package.other import VALUE as OTHER\n"
        "from made_package.rooms.values import VALUE\n"
    )
    assert contents(movable) == before
    (movable / "rooms" / "values.py").write_text("import json\n\nVALUE = 5\n")
    assert contents(movable) != before


@pytest.mark.parametrize(
    "line", ["from made_package.other import VALUE", "from ..other import VALUE"]
)
def test_an_import_from_elsewhere_is_another_source(line, movable):
    """The same modules, the same names, another value."""
    before = contents(movable)
    (movable / "inner" / "part.py").write_text(f"{line}\n")
    assert contents(movable) != before


def test_relative_imports_are_followed(movable):
    absolute = contents(movable)
    (movable / "inner" / "part.py").write_text("from ..base import VALUE\n")
    assert contents(movable) == absolute


def test_a_docstring_is_no_source_and_a_line_is(movable):
    before = contents(movable)
    (movable / "other.py").write_text('"""Said anew."""\nimport json\n\nVALUE = 4  # four\n')
    assert contents(movable) == before
    (movable / "other.py").write_text("import json\n\nVALUE = 4\n_UNUSED = 1\n")
    assert contents(movable) != before


def test_every_module_of_a_package_is_named_imported_or_not(package):
    assert "made_package.unused" in modules_of("made_package")
    assert {"overconv", "overconv.operators.mdconv"} <= set(modules_of("overconv"))
    with pytest.raises(ValueError, match="no package 'made_package.base'"):
        modules_of("made_package.base")


def test_a_root_that_is_no_module_is_named():
    with pytest.raises(ValueError, match="no module 'overconv.nothing'"):
        source_digest(["overconv.nothing"], ["overconv"])


def test_the_librarys_sources_are_found():
    found = source_digest(["overconv", "overconv.models"], ["overconv"])
    assert {"overconv.operators.mdconv", "overconv.functional", "overconv.models.resnet"} <= set(
        found
    )


def stratum(**changes) -> dict:
    return describe_stratum(**{"device": "cpu", "threads": 1, "sources": {"a": "1"}, **changes})


def test_a_stratum_is_the_same_twice_and_in_another_process():
    code = (
        "from overconv.training.environment import describe_stratum\n"
        "print(describe_stratum(device='cpu', threads=1, sources={'a': '1'}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == str(stratum())
    assert stratum() == stratum()


def test_the_names_of_modules_are_no_part_of_a_stratum():
    assert stratum(sources={"moved": "1"}) == stratum()


@pytest.mark.parametrize("changes", [{"threads": 2}, {"sources": {"a": "2"}}])
def test_threads_and_sources_are_part_of_a_stratum(changes, monkeypatch):
    """Whatever the probe says: it need not see that two threads round otherwise than one."""
    monkeypatch.setattr(environment, "probe", lambda device: "the same")
    assert stratum(**changes) != stratum()


@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"),
    reason="the processor has no instructions to be limited to",
)
def test_the_probe_sees_what_the_reported_capability_hides():
    """Other instructions under the same names: limited to AVX2, the trained bits may change."""
    code = "from overconv.training.environment import *; configure(1); print(probe())"
    found = {
        limit: subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={"ONEDNN_MAX_CPU_ISA": limit, "PATH": "/usr/bin", "PYTHONPATH": str(Path.cwd())},
        ).stdout.strip()
        for limit in ("DEFAULT", "SSE41")
    }  # fmt: skip
    assert all(len(digest) == 16 for digest in found.values())
    assert found["DEFAULT"] != found["SSE41"]


def test_the_probe_is_of_trained_weights(monkeypatch):
    found = {probe(steps=9), probe(steps=10)}
    monkeypatch.setattr(torch.optim.SGD, "step", lambda self: None)
    found.add(probe())
    assert len(found) == 3


@pytest.mark.parametrize("device", ["abacus", "cuda:x", "cuda:", "cpu:0", "cuda:99", ""])
def test_an_unknown_device_is_named(device):
    with pytest.raises(ValueError, match=f"device='{device}'"):
        stratum(device=device)


def test_facts_are_plain():
    found = facts()
    assert {"host", "python", "platform", "processor", "commit"} == set(found)
    assert all(value is None or isinstance(value, str) for value in found.values())
