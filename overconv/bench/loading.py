"""A file of cases, read in this process."""

import sys
from pathlib import Path

from overconv.bench.cases import Case, checked
from overconv.bench.provenance import import_roots, project_root
from overconv.bench.worker import load_module


def load_cases(path: Path | str) -> tuple[Case, ...]:
    """The tuple ``CASES`` of a Python file.

    The file is run each time, under a private name. Its project's root, the nearest folder above
    with ``pyproject.toml``, ``setup.py`` or ``.git``, and ``src`` in that are put before all other
    places that modules are imported from, and stay there: a case builds its module later.

    Raises:
        ValueError: There is no such file, or what it defines is no tuple of cases; what the file
            itself raises is passed on.
    """
    path = Path(path).resolve()
    if not path.is_file():
        raise ValueError(f"there is no file of cases {path}")
    if path.suffix != ".py":
        raise ValueError(f"a file of cases is a Python file, got {path}")
    for root in reversed(import_roots(project_root(path))):
        if str(root) not in sys.path:
            sys.path.insert(0, str(root))
    module = load_module(path, "_overconv_cases")
    found = getattr(module, "CASES", None)
    if not isinstance(found, tuple | list):
        raise ValueError(f"{path} must define CASES, a tuple of cases, got {found!r}")
    try:
        return checked(found)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
