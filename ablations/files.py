"""Finding a study: by the name of a file beside this one, or by a path."""

import ast
import hashlib
import importlib
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

from ablations.study import Study

HERE = Path(__file__).parent


def names() -> list[str]:
    """The studies of this folder: its files that assign ``STUDY``."""
    return sorted(path.stem for path in HERE.glob("*.py") if _assigns_study(path))


def path_of(study: str) -> Path:
    """The file of a study given by name or by path.

    Raises:
        ValueError: There is no such study or file.
    """
    if study.endswith(".py"):
        path = Path(study)
        if not path.is_file():
            raise ValueError(f"no study file {study!r}")
        return path
    if study not in names():
        raise ValueError(
            f"no study {study!r}; allowed: {', '.join(names())}, or a path that ends in .py"
        )
    return HERE / f"{study}.py"


def load(study: str) -> Study:
    """The value ``STUDY`` of a study's file, which may import the modules beside it.

    Raises:
        ValueError: There is no such file, it does not run, or assigns no :class:`Study`.
    """
    path = path_of(study)
    ours = path.resolve().parent == HERE
    try:
        if ours:
            module = importlib.import_module(f"ablations.{path.stem}")
        else:
            module = _import_file(path, module_name(path))
    except Exception as error:
        raise ValueError(f"{path} does not run: {type(error).__name__}: {error}") from error
    found = getattr(module, "STUDY", None)
    if not isinstance(found, Study):
        raise ValueError(f"{path} assigns no STUDY = Study(...)")
    return found


def file_hash(study: str) -> str:
    """Hash of a study's file, by which a worker knows that it reads what was planned."""
    return hashlib.sha256(path_of(study).read_bytes()).hexdigest()


def module_name(path: Path) -> str:
    """The name of a study's file as a module: it stands in identities, so it must be importable.

    >>> module_name(Path("my-study.v2.py"))
    'my_study_v2'
    """
    name = re.sub(r"\W", "_", path.stem, flags=re.ASCII)
    return f"_{name}" if name[:1].isdigit() else name


def _import_file(path: Path, name: str) -> ModuleType:
    folder = str(path.resolve().parent)
    if folder not in sys.path:  # at the end: what is installed is not replaced by a namesake
        sys.path.append(folder)
    loaded = sys.modules.get(name)
    if loaded is not None and _is_file(getattr(loaded, "__file__", None), path):
        return loaded
    found = importlib.util.find_spec(name)  # the file itself, if the current folder is searched
    if loaded is not None or (found is not None and not _is_file(found.origin, path)):
        raise ValueError(f"a module named {name!r} exists already: give the file another name")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # what the file defines must be found under its public name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _is_file(origin: str | None, path: Path) -> bool:
    return origin is not None and Path(origin).resolve() == path.resolve()


def _assigns_study(path: Path) -> bool:
    try:
        statements = ast.parse(path.read_text(encoding="utf-8")).body
    except (SyntaxError, ValueError):
        return False  # a broken file must not keep the others from being run
    targets = [
        target
        for node in statements
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    ]
    return any(isinstance(target, ast.Name) and target.id == "STUDY" for target in targets)
