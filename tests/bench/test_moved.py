import json

import pytest

from overconv.bench import moved
from overconv.bench.golden import figures_path
from overconv.bench.workers import Place

FIGURES = {
    "any": {"one": {"parameters": 7, "macs.gate": 2}, "three": {"parameters": 1}},
    "2.14": {"one": {"operations": 3}, "three": {"operations": 3}},
}


def described(**cases):
    like = {"limit": 1.05, "tolerance": 1e-4, "expected": True}
    return {name: like | own for name, own in cases.items()}


def test_a_case_that_is_judged_less_strictly_is_told():
    base = described(one={}, two={}, three={"expected": False, "limit": 1.2}, gone={})
    head = described(
        one={"limit": 1.2, "tolerance": 0.01},
        two={"expected": False},
        three={"tolerance": 1e-5},
        new={"limit": 9.0},
    )
    assert moved.by_cases(head, base, list(head)) == [
        "one: its limit is raised from 1.05 to 1.2",
        "one: its tolerance is raised from 0.0001 to 0.01",
        "two: its output is compared with nothing any more",
    ]
    assert moved.by_cases(head, base, ["three", "new"]) == []


@pytest.fixture
def committed(repository):
    path = figures_path(repository.cases)
    path.write_text(json.dumps(FIGURES))
    repository.commit("figures")
    return repository, path


def test_figures_that_were_accepted_are_told(committed):
    repository, path = committed
    assert moved.by_figures(repository.root, "HEAD", path) == []
    assert moved.by_figures(repository.root, "base", path) == []  # there were none
    new = json.loads(json.dumps(FIGURES))
    new["any"]["one"] = {"parameters": 8, "macs.other": 1}
    new["any"]["more"] = {"parameters": 3}
    del new["any"]["three"], new["2.14"]
    path.write_text(json.dumps(new))
    assert moved.by_figures(repository.root, "HEAD", path) == [
        "one: committed parameters was 7 and is 8",
        "one: committed macs.gate was 2 and is gone",
        "three: its committed figures are gone",
        "the committed figures under torch 2.14 are gone",
    ]


def test_of_many_figures_some_are_listed(repository):
    path = figures_path(repository.cases)
    path.write_text(json.dumps({"any": {"one": {f"f{n}": 1 for n in range(25)}}}))
    repository.commit("figures")
    path.write_text(json.dumps({"any": {"one": {f"f{n}": 2 for n in range(25)}}}))
    found = moved.by_figures(repository.root, "HEAD", path)
    assert len(found) == 21 and found[-1] == "and 5 more committed figures"


def test_a_base_whose_figures_cannot_be_read_has_none(committed):
    repository, path = committed
    path.write_text("<<<<<<< ours")
    repository.commit("a merge gone wrong")
    path.write_text(json.dumps(FIGURES))
    assert moved.figures_at(repository.root, "HEAD", path) is None
    assert moved.figures_at(repository.root, "HEAD~1", path) == FIGURES


def here(repository):
    return Place(repository.root, repository.root, repository.cases)


@pytest.fixture
def library(repository):
    """A repository that holds this library."""
    for name in ("bench/moved.py", "bench/exact.py", "counters.py", "operators.py", "timing.py"):
        repository.write(f"overconv/{name}", "")
    repository.commit("a library")
    return repository


def test_a_file_of_cases_that_differs_is_told(repository):
    assert moved.by_files(here(repository), "base") == []
    repository.replace("cases.py", "(1, 8, 8, 8)", "(1, 8, 4, 4)")
    words = "cases.py is not base's: a case of the same name may build something else than there"
    assert moved.by_files(here(repository), "base") == [words]
    repository.git("mv", "cases.py", "new.py")
    repository.commit("a file that base has not")
    repository.cases = repository.root / "new.py"
    assert moved.by_files(here(repository), "base") == []


def test_a_gate_that_judges_itself_is_told(library, monkeypatch):
    monkeypatch.setattr(moved, "_LIBRARY", library.root / "overconv")
    library.write("overconv/operators.py", "# a layer, which is what is judged")
    library.commit("a layer")
    assert moved.by_files(here(library), "HEAD~1") == []
    library.write("overconv/bench/moved.py", "EASY = True")
    (words,) = moved.by_files(here(library), "HEAD")
    assert words == (
        "the gate's own code is not base's, and it was this change's that ran"
        " (overconv/bench/moved.py)"
    )
    library.write("overconv/timing.py", "FAST = True")
    (words,) = moved.by_files(here(library), "HEAD")
    assert words.endswith("(overconv/bench/moved.py and 1 more)")


def test_a_gate_from_elsewhere_still_has_head_count_itself(library):
    library.write("overconv/bench/moved.py", "EASY = True")
    library.write("overconv/timing.py", "FAST = True")
    assert moved.by_files(here(library), "HEAD") == []
    library.write("overconv/counters.py", "NONE = True")
    assert moved.by_files(here(library), "HEAD") == [
        "the code that counts is not base's, and it was this change's that ran"
        " (overconv/counters.py)"
    ]
