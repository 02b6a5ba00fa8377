"""The import table of CONTRIBUTING.md, enforced: in the source, and in what a process loads."""

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("overconv", "ablations", "records", "benchmark", "analysis", "reports")

# What a module may import besides the standard library and its own package. The longest name that
# fits decides; a module that no name fits is refused, so that a new file has to be given a rule.
MAY_IMPORT = {
    "overconv.checks": set(),
    "overconv.functional": {"torch"},
    "overconv.inference_gate": {"torch"},
    "overconv.gates": {"torch", "overconv.inference_gate"},
    "overconv.operators": {
        "torch",
        "overconv.checks",
        "overconv.functional",
        "overconv.gates",
        "overconv.inference_gate",
    },
    "overconv.timing": {"torch"},
    "overconv.forms": {"torch", "overconv.operators.base", "overconv.timing"},
    "overconv.tracing": {"torch"},
    "overconv.selection": {"torch", "overconv.operators.base", "overconv.tracing"},
    "overconv.norms": {
        "torch",
        "overconv.functional",
        "overconv.operators.base",
        "overconv.selection",
        "overconv.tracing",
    },
    "overconv.surgery": {
        "torch",
        "overconv.norms",
        "overconv.operators.base",
        "overconv.selection",
        "overconv.tracing",
    },
    "overconv.products": {"torch"},
    "overconv.counters": {"torch", "overconv.products"},
    "overconv.valueless": {"torch"},
    "overconv.charges": {"torch", "overconv.operators.macs"},
    "overconv.costs": {
        "torch",
        "overconv.charges",
        "overconv.forms",
        "overconv.operators.macs",
        "overconv.surgery",
        "overconv.valueless",
    },
    "overconv.fvcounter": {"torch", "fvcore"},
    "overconv.crosscheck": {
        "torch",
        "overconv.charges",
        "overconv.counters",
        "overconv.fvcounter",
        "overconv.operators.macs",
        "overconv.valueless",
    },
    "overconv.bench": {
        "torch",
        "numpy",
        "pynvml",
        "pytest",
        "overconv.costs",
        "overconv.counters",
        "overconv.crosscheck",
        "overconv.operators",
        "overconv.surgery",
        "overconv.timing",
        "overconv.valueless",
    },
    "overconv.models": {"torch", "overconv.checks", "overconv.surgery"},
    "overconv.training": {"torch", "torchvision", "numpy", "PIL", "sklearn"},
    "records": {"pydantic"},
    "analysis": {"numpy", "pandas", "scipy", "statsmodels", "matplotlib", "records"},
    "reports": {"jinja2", "analysis", "records"},
    "ablations": {
        "torch",
        "torchvision",
        "numpy",
        "pandas",
        "tqdm",
        "ray",
        "submitit",
        "mlflow",
        "overconv",
        "records",
        "analysis",
    },
    "benchmark": {
        "torch",
        "torchvision",
        "timm",
        "numpy",
        "pytest",
        "overconv",
        "records",
    },
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {
    module_name(path): path.read_text(encoding="utf-8")
    for room in ROOMS
    for path in sorted((ROOT / room).rglob("*.py"))
}
PACKAGES = {module_name(p) for room in ROOMS for p in (ROOT / room).rglob("__init__.py")}


def imports(source: str, own: Mapping[str, str]) -> Iterator[str]:
    """Full names of the modules that ``source`` imports, in functions and conditions too.

    ``from a import b`` is the module ``a.b`` where ``own`` has one, otherwise the module ``a``.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = "." * node.level + (node.module or "")
            names = [f"{parent}.{alias.name}" for alias in node.names]
            yield from (name if name in own else parent for name in names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            ("import_module", "__import__")
        ):
            yield from (arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant))


def fits(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def violations(sources: Mapping[str, str], modules: Iterable[str] | None = None) -> list[str]:
    """What ``modules`` (default: all) of ``sources``, text by name, import against the table."""
    found = []
    for module in sources if modules is None else modules:
        rules = [prefix for prefix in MAY_IMPORT if fits(module, prefix)]
        if not rules and module != "overconv":
            found.append(f"{module} has no rule")
            continue
        rule = max(rules, key=len, default="overconv")  # the package itself only re-exports
        allowed = {*MAY_IMPORT.get(rule, ()), rule}
        found += [
            f"{module} imports {name}"
            for name in sorted(set(imports(sources[module], sources)))
            if name.partition(".")[0] not in sys.stdlib_module_names
            and not any(fits(name, prefix) for prefix in allowed)
        ]
    return found


def circle(sources: Mapping[str, str]) -> list[str]:
    """Modules of which each imports the next, the last one the first; empty if there are none."""
    graph = {
        module: {name for name in imports(source, sources) if name in sources} - {module}
        for module, source in sources.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_every_rule_speaks_of_something():
    names = set(SOURCES)
    assert set(MAY_IMPORT) <= names, "a rule for a module that is not there"
    assert all(any(name.startswith(room) for name in names) for room in ROOMS)


def test_imports_obey_the_table():
    assert violations(SOURCES) == []


def test_imports_do_not_run_in_circles():
    assert circle(SOURCES) == []


def test_names_come_from_the_file_that_defines_them():
    borrowed = [
        f"{module} imports from the package {name}"
        for module, source in SOURCES.items()
        for name in imports(source, SOURCES)
        if name in PACKAGES and module not in PACKAGES
    ]
    assert borrowed == []


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_packages_only_re_export(package):
    for node in ast.parse(SOURCES[package]).body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        dunder = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).startswith("__")
        assert docstring or dunder or isinstance(node, ast.Import | ast.ImportFrom), (
            f"{package}/__init__.py line {node.lineno}: {ast.unparse(node)[:80]}"
        )


def test_nobody_imports_the_tests():
    tests = {path: path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py")}
    for path, source in tests.items():
        names = {name.partition(".")[0] for name in imports(source, SOURCES)}
        assert not names & {"tests", "conftest"}, f"{path.relative_to(ROOT)}: use a fixture"


@pytest.mark.parametrize(
    ("module", "line", "complaint"),
    [
        ("records.store", "import torch", "records.store imports torch"),
        ("records.store", "import numpy as np", "records.store imports numpy"),
        ("analysis.frames", "from ablations.study import Study", "imports ablations.study"),
        ("reports.__main__", "def f():\n    from torch import nn", "__main__ imports torch"),
        ("overconv.training.loop", "from overconv import surgery", "imports overconv.surgery"),
        ("overconv.training.loop", "from overconv import MDConv2d", "loop imports overconv"),
        ("overconv.functional", "from overconv.gates import x", "imports overconv.gates"),
        ("overconv.functional", "from . import gates", "overconv.functional imports ."),
        ("overconv.surgery", "import overconv.operators.mdconv", "imports overconv.operators.md"),
        ("overconv.costs", "import importlib\nimportlib.import_module('records')", "records"),
        ("benchmark.loop", "if True:\n    import ablations.trial", "imports ablations.trial"),
        ("ablations.trial", "import reports", "ablations.trial imports reports"),
        ("ablations.trial", "from tests import conftest", "ablations.trial imports tests"),
        ("overconv.newcomer", "import torch", "overconv.newcomer has no rule"),
    ],
)
def test_a_planted_import_is_caught(module, line, complaint):
    planted = {**SOURCES, module: SOURCES.get(module, "") + "\n" + line}
    assert any(complaint in found for found in violations(planted, [module]))
    assert module not in SOURCES or violations(SOURCES, [module]) == []


def test_a_planted_circle_is_caught():
    planted = dict.fromkeys(SOURCES, "") | {
        "overconv.functional": "def late():\n    from overconv import gates",
        "overconv.gates": "from overconv.operators.base import OverConv2d",
        "overconv.operators.base": "import overconv.functional",
    }
    assert set(circle(planted)) == {
        "overconv.functional",
        "overconv.gates",
        "overconv.operators.base",
    }


@pytest.mark.parametrize(
    ("room", "banned"),
    [
        ("records", {"torch", "numpy", "overconv", "ablations", "analysis", "reports"}),
        ("analysis", {"torch", "overconv", "ablations", "benchmark", "reports"}),
        ("reports", {"torch", "overconv", "ablations", "benchmark"}),
        ("overconv.training", {"torchvision", "sklearn", "pandas", "records", "ablations"}),
        ("overconv", {"torchvision", "sklearn", "scipy", "pandas", "matplotlib", "records"}),
    ],
)
def test_a_process_loads_no_more_than_it_may(room, banned):
    """Imports each file of a room in a fresh process; of the library only ``import overconv``."""
    modules = [name for name in SOURCES if fits(name, room) and not name.endswith("__main__")]
    code = "import sys\n" + "".join(
        f"import {name}\n" for name in (["overconv"] if room == "overconv" else modules)
    )
    process = subprocess.run(
        [sys.executable, "-c", code + "print(*sys.modules)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    loaded = banned.intersection(process.stdout.split())
    assert not loaded
