"""docs/faults.md: each row names tests that are there, and quotes what they look for."""

import ast
import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "faults.md"


def rows() -> list[list[str]]:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in cells if row[-1].strip("| ") != "test"]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:40])
def test_a_row(row):
    fault, seen, lost, tests = row
    sources = []
    for name in re.findall(r"`([^`]+)`", tests):
        file, _, test = name.partition("::")
        tree = ast.parse((HERE / file).read_text())
        assert test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        sources.append((HERE / file).read_text())
    assert sources, "no test"
    commands = {"status", "verify", "run"}
    for words in set(re.findall(r"`([^`]+)`", seen)) - commands:
        assert any(words in source for source in sources), f"{words!r} is not looked for"


def test_every_test_of_this_folder_has_its_row_or_a_reason():
    """Tests of a part of a row, and of the harness, are listed here."""
    named = set(re.findall(r"`(test_\w+\.py::test_\w+)`", PAGE.read_text()))
    parts = {
        "test_checkpointing.py": "of writing a checkpoint",
        "test_publication.py": "of publishing",
        "test_table.py": "of the page",
        "test_whole_trial.py": "of the harness",
    }
    found = {
        f"{path.name}::{node.name}"
        for path in HERE.glob("test_*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    assert named <= found
    left = {name for name in found - named if name.partition("::")[0] not in parts}
    assert left == {"test_hostile_results.py::test_as_it_is"}
