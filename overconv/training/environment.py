"""Where a training runs: what of it decides trained bits, and what merely may be of interest."""

import ast
import hashlib
import importlib.util
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import resolve_name
from pathlib import Path
from typing import Any

import numpy as np
import torch

from overconv.training.probe import probe


def configure(threads: int) -> None:
    """Set torch to ``threads`` threads and deterministic algorithms, for this process."""
    torch.set_num_threads(threads)
    # cuBLAS is deterministic only with a workspace of its own, and reads this when it starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def describe_stratum(*, device: str, threads: int, sources: Mapping[str, str]) -> dict[str, Any]:
    """All outside of a trial's identity that decides its bits, as JSON-able values.

    The versions and the reported capability of the processor are not enough, since a library may
    choose other instructions under the same ones: ``probe`` hashes the bits of a short training.
    Configures this process for ``threads``, as a training does. ``sources`` maps modules to
    digests, as :func:`source_digest` gives them.

    Raises:
        ValueError: ``device`` is unknown, or not there.
    """
    check_device(device)
    configure(threads)
    cuda = device.startswith("cuda")
    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "device": torch.cuda.get_device_name(device) if cuda else _cpu(),
        "flags": {
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "mkldnn": torch.backends.mkldnn.enabled,
            "matmul_precision": torch.get_float32_matmul_precision(),
            "cudnn": torch.backends.cudnn.version() if cuda else None,
            "cudnn_tf32": torch.backends.cudnn.allow_tf32 if cuda else None,
        },
        "threads": threads,
        "sources": _digest(sorted(sources.values())),  # by content: a moved file is the same
        "probe": probe(device),
    }


def check_device(device: str) -> None:
    """Raise a ValueError unless ``device`` is one that can be trained on here."""
    kind, _, index = device.partition(":")
    if device != "cpu" and (
        kind != "cuda" or (index and not index.isdecimal()) or device[-1] == ":"
    ):
        raise ValueError(f"device={device!r}; allowed: 'cpu', 'cuda', 'cuda:N'")
    found = torch.cuda.device_count()
    if kind == "cuda" and int(index or 0) >= found:
        raise ValueError(f"device={device!r}, but torch finds {found} CUDA devices here")


def _cpu() -> str:
    return f"cpu, {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"


# Source.


def source_digest(roots: Iterable[str], packages: Iterable[str]) -> dict[str, str]:
    """The modules that ``roots`` import, themselves included, each with a digest of what it says.

    Found by reading, not by what happens to be loaded. Followed are imports of modules whose
    names lie in ``packages`` (a package, or a single module). Comments, docstrings and layout say
    nothing, and neither does the name of a followed module: an import of it counts by what it
    finds there. So the set of digests stays the same when a file is moved, and everything that
    imports from it is told. A module that says nothing is left out.

    Raises:
        ValueError: A root is no module that can be found.
    """
    packages, waiting = tuple(packages), list(roots)
    found: dict[str, _Said] = {}
    for root in waiting:
        if _file(root) is None:
            raise ValueError(f"no module {root!r} to hash the source of")
    while waiting:
        name = waiting.pop()
        path = None if name in found else _file(name)
        if path is not None and any(name == p or name.startswith(f"{p}.") for p in packages):
            found[name] = _read(name, path, packages)
            waiting += [name.rpartition(".")[0]] if "." in name else []
            for module, what in found[name].imports:
                # What is imported from a package may be a module of it.
                waiting += [module, *([f"{module}.{what.partition(' as ')[0]}"] if what else [])]
    digests = {name: _digest(said.text) for name, said in found.items()}
    for _ in range(2):  # from the text of a module to what it imports, and what that imports
        digests = {
            name: _digest(
                (said.text, sorted((digests.get(m, m), what) for m, what in said.imports))
            )
            for name, said in found.items()
        }
    return {name: digests[name] for name, said in found.items() if said.text or said.imports}


@dataclass(frozen=True)
class _Said:
    """A module's text, and apart from it what it imports from which followed module."""

    text: str
    imports: tuple[tuple[str, str], ...]


def _read(name: str, path: Path, packages: tuple[str, ...]) -> _Said:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    followed = {p.partition(".")[0] for p in packages}
    imports: list[tuple[str, str]] = []

    class Apart(ast.NodeTransformer):
        def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
            module = resolve_name("." * node.level + (node.module or ""), package)
            if module.partition(".")[0] not in followed:
                return node
            imports.extend((module, ast.unparse(alias)) for alias in node.names)
            return None

        def visit_Import(self, node: ast.Import) -> ast.AST:
            # Such a module is used by its name, which therefore stays in the text.
            imports.extend(
                (alias.name, "") for alias in node.names if alias.name.partition(".")[0] in followed
            )
            return node

    return _Said(ast.unparse(Apart().visit(_bare_tree(path))), tuple(imports))


def modules_of(package: str) -> list[str]:
    """Every module of ``package``, whether anything imports it or not."""
    root = _file(package)
    if root is None or root.name != "__init__.py":
        raise ValueError(f"no package {package!r}")
    folder = root.parent
    names = [path.relative_to(folder).with_suffix("").parts for path in folder.rglob("*.py")]
    return sorted(".".join((package, *(p for p in parts if p != "__init__"))) for parts in names)


def imported_names(path: Path) -> list[str]:
    """Names that the file ``path`` imports, and what it imports from them, each once."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return sorted(names)


def _file(name: str) -> Path | None:
    """The file of module ``name``; nothing is imported to find it."""
    top, *parts = name.split(".")
    spec = importlib.util.find_spec(top) if top else None
    if spec is None or not spec.has_location or spec.origin is None:
        return None
    if not parts:
        return Path(spec.origin)
    for folder in spec.submodule_search_locations or []:
        below = Path(folder).joinpath(*parts)
        for path in (below / "__init__.py", below.with_suffix(".py")):
            if path.is_file():
                return path
    return None


def syntax_digest(path: Path) -> str:
    """Digest of what the file ``path`` says to Python: no comments, docstrings, layout or place."""
    # Unparsed rather than dumped: a dump changes with the version of Python.
    return _digest(ast.unparse(_bare_tree(path)))


def _bare_tree(path: Path) -> ast.Module:
    """The syntax tree of a file, as if it had no docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            match node.body:
                case [ast.Expr(value=ast.Constant(value=str())), *rest]:
                    node.body = rest or ([] if isinstance(node, ast.Module) else [ast.Pass()])
    return tree


def _digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]


def facts() -> dict[str, Any]:
    """What may differ between two runs of the same trial in the same stratum."""
    return {
        "host": socket.gethostname(),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": _processor(),
        "commit": _commit(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _commit() -> str | None:
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=here, capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
