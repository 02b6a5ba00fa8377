"""What a change does to that by which it is judged: listed, so that no gate is loosened unseen.

A change is judged by files of its own: its cases and their limits, the figures that it commits, and
in a repository that holds this library, the gate itself. Each may be changed for a good reason;
whoever merges it has to know.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from overconv.bench import golden
from overconv.bench.provenance import import_roots, is_installed
from overconv.bench.revisions import differing, file_at
from overconv.bench.workers import Place

_LIBRARY = Path(__file__).resolve().parents[1]  # this one, which runs
# Of it, what counts exact figures, and what else has a part in a verdict.
_COUNTS = ("bench/exact.py", "charges.py", "costs.py", "counters.py", "products.py", "valueless.py")
_JUDGES = ("bench", "timing.py")
_LISTED = 20  # figures

Described = Mapping[str, Mapping[str, Any]]  # as overconv.bench.workers.Worker.cases


def by_cases(head: Described, base: Described, names: Sequence[str]) -> list[str]:
    """Cases of both revisions, of those named, that are judged less strictly than before."""
    found = []
    for name in names:
        if name not in base:
            continue
        new, old = head[name], base[name]
        for what in ("limit", "tolerance"):
            if new[what] > old[what]:
                found.append(f"{name}: its {what} is raised from {old[what]:g} to {new[what]:g}")
        if old["expected"] and not new["expected"]:
            found.append(f"{name}: its output is compared with nothing any more")
    return found


def by_figures(root: Path, revision: str, path: Path) -> list[str]:
    """Committed exact figures that are not those of a revision any more.

    Args:
        root: Of the repository.
        path: Of the file of figures; it exists.
    """
    old = figures_at(root, revision, path)
    changes = [] if old is None else golden.changes(old, golden.load(path))
    more = len(changes) - _LISTED
    return [*changes[:_LISTED], *([f"and {more} more committed figures"] if more > 0 else [])]


def figures_at(root: Path, revision: str, path: Path) -> dict[str, golden.Figures] | None:
    """The figures that a revision committed; None where it has none that can be read."""
    text = file_at(root, revision, path)
    try:
        return None if text is None else dict(golden.parsed(text, str(path)))
    except ValueError:  # the base's fault, and mended now
        return None


def by_files(place: Place, revision: str) -> list[str]:
    """The file of cases, and of the gate's own code what the repository holds."""
    root, cases, found = place.tree, place.cases, []
    if file_at(root, revision, cases) is not None and differing(root, revision, [cases]):
        name = cases.relative_to(root).as_posix()
        found.append(
            f"{name} is not base's: a case of the same name may build something else than there"
        )
    for words, paths in (
        ("the gate's own code", [_LIBRARY / name for name in (*_COUNTS, *_JUDGES)]),
        # by which head is counted, whatever gate runs
        (
            "the code that counts",
            [folder / _LIBRARY.name / n for folder in import_roots(place.project) for n in _COUNTS],
        ),
    ):
        inside = [path for path in paths if path.is_relative_to(root) and not is_installed(path)]
        files = differing(root, revision, inside) if inside else []
        if files:
            more = f" and {len(files) - 1} more" if len(files) > 1 else ""
            found.append(
                f"{words} is not base's, and it was this change's that ran ({files[0]}{more})"
            )
            break
    return found
