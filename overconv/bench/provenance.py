"""Where code comes from: the roots of a project, and modules that lie in another tree than theirs.

Copied beside the process that measures a revision, so it imports nothing but Python's own library.
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path


def import_roots(project: Path) -> list[Path]:
    """Where a project's packages are imported from: its root, and ``src`` if there is one."""
    source = project / "src"
    return [project, *([source] if source.is_dir() else [])]


def project_root(path: Path) -> Path:
    """The nearest folder above a file that holds ``pyproject.toml``, ``setup.py`` or ``.git``.

    The file's own folder where there is none.
    """
    marks = "pyproject.toml", "setup.py", ".git"
    for folder in path.resolve().parents:
        if any((folder / mark).exists() for mark in marks):
            return folder
    return path.resolve().parent


def is_installed(path: Path) -> bool:
    """Whether a file or folder belongs to the interpreter and what is installed in it."""
    if {"site-packages", "dist-packages"} & set(path.parts):
        return True
    return any(path.is_relative_to(prefix) for prefix in {sys.prefix, sys.base_prefix} - {"/usr"})


def foreign_modules(
    files: Iterable[tuple[str, str]], tree: Path, roots: Sequence[Path], other: Path | None
) -> list[str]:
    """Modules that lie in the wrong place, each as ``"name from file"``.

    Args:
        files: Name and file of each module that is loaded.
        tree: Folder of the revision under test.
        roots: Where its packages are imported from.
        other: Folder of the other revision.
    """
    inside: dict[str, bool] = {}
    wrong = []
    for name, file in files:
        path = Path(file).resolve()
        top = name.partition(".")[0]
        if path.is_relative_to(tree) and not is_installed(path):
            continue
        if other is not None and path.is_relative_to(other) and not is_installed(path):
            wrong.append(f"{name} from {file}")
            continue
        if top not in inside:
            inside[top] = top not in sys.stdlib_module_names and _holds(tree, roots, top)
        if inside[top]:
            wrong.append(f"{name} from {file}")
    return wrong


def _holds(tree: Path, roots: Sequence[Path], top: str) -> bool:
    """Whether a tree has a package of that name, or, at its roots, a module."""
    if any((root / f"{top}.py").exists() for root in roots):
        return True
    below = [folder for folder in tree.iterdir() if folder.is_dir() and folder.name[0] != "."]
    apart = [f for f in below if not (f / "__init__.py").exists() and not is_installed(f)]
    return any((folder / top / "__init__.py").exists() for folder in (*roots, *apart))
