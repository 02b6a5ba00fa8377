"""What is judged against what: the repository of a file of cases, head, and the base revision."""

from dataclasses import dataclass

from overconv.bench.golden import Figures, figures_path
from overconv.bench.moved import by_figures, by_files, figures_at
from overconv.bench.revisions import (
    changed,
    commit,
    contains,
    described,
    refuse_changes,
    repository,
    untracked,
)
from overconv.bench.workers import CannotJudge, Place


@dataclass(frozen=True)
class Located:
    """Both sides of a comparison.

    Attributes:
        place: Of head.
        base: Full hash of the base's commit.
        head: What is judged, in words.
        figures: That the base committed, or None.
        notes: What has to be said of it.
        moved: What the change does to that by which it is judged; see :mod:`overconv.bench.moved`.
    """

    place: Place
    base: str
    head: str
    figures: dict[str, Figures] | None
    notes: tuple[str, ...]
    moved: tuple[str, ...]


def located(place: Place, base: str, *, exact: bool, allow_dirty: bool) -> Located:
    """Find the repository and the base; refuse what makes a verdict meaningless.

    Args:
        exact: Whether committed figures are part of what judges.

    Raises:
        CannotJudge: There is no such base, or the tree is not what is committed.
    """
    root = repository(place.project)
    place = Place(root, place.project, place.cases)
    revision, head, notes = commit(root, base), described(root), []
    figures = figures_path(place.cases)
    exact = exact and figures.exists()
    unknown = untracked(root, [place.cases, *([figures] if exact else [])])
    if not allow_dirty:
        refuse_changes(root)
        _refuse_unknown(unknown)
    elif files := [*changed(root), *unknown]:
        number = len(set(files))
        head += " with changes"
        notes.append(f"the tree that was judged has uncommitted changes in {number} files")
    if commit(root, "HEAD") == revision and head == described(root):
        notes.append(f"base {base} is the commit that is judged: there is no change in it")
    elif not contains(root, revision):
        notes.append(
            f"base {base} is not in the history of what is judged: what was changed there since the"
            " two parted reads as if this change had undone it; to leave that out, compare with"
            f" the revision that `git merge-base {base} HEAD` prints"
        )
    moved = by_files(place, revision)
    moved += by_figures(root, revision, figures) if exact else []
    old = figures_at(root, revision, figures)
    return Located(place, revision, head, old, tuple(notes), tuple(moved))


def _refuse_unknown(files: list[str]) -> None:
    if files:
        raise CannotJudge(
            f"{files[0]} is not committed (git does not know it, or ignores it), so that nobody"
            " else would be judged by it: add and commit it, or judge the tree as it lies with"
            " --allow-dirty"
        )
