import json

import pytest

from overconv.bench.golden import figures_path
from overconv.bench.locating import located
from overconv.bench.workers import CannotJudge, placed

FIGURES = {"any": {"one": {"parameters": 7}}}


def find(repository, base="base", *, exact=True, allow_dirty=False):
    return located(placed(repository.cases), base, exact=exact, allow_dirty=allow_dirty)


def test_both_sides_are_found(repository):
    repository.commit("second")
    found = find(repository)
    assert found.place.tree == repository.root and found.place.cases == repository.cases
    assert found.base == repository.git("rev-parse", "base").strip()
    assert found.head == repository.git("rev-parse", "--short=12", "HEAD").strip()
    assert (found.figures, found.notes, found.moved) == (None, (), ())
    repository.git("checkout", "-q", "--detach")
    assert find(repository) == found


def test_a_base_that_is_head_is_no_comparison_and_that_is_said(repository):
    assert find(repository).notes == (
        "base base is the commit that is judged: there is no change in it",
    )
    repository.replace("tiny/layer.py", "range(1)", "range(2)")
    found = find(repository, allow_dirty=True)
    assert found.notes == ("the tree that was judged has uncommitted changes in 1 files",)
    assert found.head.endswith(" with changes")


def test_a_base_that_went_on_by_itself_is_said_with_the_revision_to_take(repository):
    repository.git("checkout", "-q", "-b", "change")
    repository.commit("change")
    assert find(repository, "main").notes == ()
    repository.git("checkout", "-q", "main")
    repository.replace("tiny/layer.py", "range(1)", "range(2)")
    repository.commit("went on")
    repository.git("checkout", "-q", "change")
    (note,) = find(repository, "main").notes
    assert note.startswith("base main is not in the history of what is judged: ")
    parted = repository.git(*note.partition("`git ")[2].partition("`")[0].split()).strip()
    assert find(repository, parted).notes == ()


def test_through_a_link_to_the_repository(repository, tmp_path):
    (tmp_path / "link").symlink_to(repository.root)
    found = located(placed(tmp_path / "link" / "cases.py"), "base", exact=True, allow_dirty=False)
    assert found == find(repository)


def test_cases_that_a_link_brings_from_elsewhere_are_in_no_repository(repository, tmp_path):
    (tmp_path / "cases.py").write_text(repository.cases.read_text())
    repository.cases.unlink()
    repository.cases.symlink_to(tmp_path / "cases.py")
    repository.commit("a link")
    with pytest.raises(CannotJudge, match="there is no base revision to compare with"):
        find(repository)


def test_figures_that_nobody_else_has_do_not_judge(repository):
    path = figures_path(repository.cases)
    path.write_text(json.dumps(FIGURES))
    with pytest.raises(CannotJudge) as caught:
        find(repository)
    assert str(caught.value) == (
        "cases.figures.json is not committed (git does not know it, or ignores it), so that nobody"
        " else would be judged by it: add and commit it, or judge the tree as it lies with"
        " --allow-dirty"
    )
    assert find(repository, exact=False).moved == ()
    (note,) = find(repository, allow_dirty=True).notes
    assert note == "the tree that was judged has uncommitted changes in 1 files"
    repository.commit("figures")
    found = find(repository, "HEAD")
    assert found.figures == FIGURES and found.moved == ()


def test_cases_that_git_ignores_do_not_judge(repository):
    repository.write(".gitignore", "mine.py")
    repository.commit("ignore")
    repository.cases = repository.write("mine.py", repository.cases.read_text())
    with pytest.raises(CannotJudge, match="mine.py is not committed .*or ignores it"):
        find(repository)


def test_what_the_change_does_to_its_judges_is_found(repository):
    path = figures_path(repository.cases)
    path.write_text(json.dumps(FIGURES))
    repository.commit("figures")
    path.write_text(json.dumps({"any": {"one": {"parameters": 8}}}))
    repository.replace("cases.py", "(1, 8, 8, 8)", "(1, 8, 4, 4)")
    repository.commit("loosened")
    found = find(repository, "HEAD~1")
    assert [words.partition(":")[0] for words in found.moved] == ["cases.py is not base's", "one"]
    assert [w.partition(" ")[0] for w in find(repository, "HEAD~1", exact=False).moved] == [
        "cases.py"
    ]
