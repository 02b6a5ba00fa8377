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
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from overconv.training.streams import seeded, stream


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
        "sources": _digest(sorted(sources.items())),
        "probe": probe(device),
    }


def check_device(device: str) -> None:
    """Raise a ValueError unless ``device`` is one that can be trained on here."""
    kind = device.partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise ValueError(f"device={device!r}; allowed: 'cpu', 'cuda', 'cuda:N'")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={device!r}, but torch finds no CUDA device here; allowed: 'cpu'")


def _cpu() -> str:
    return f"cpu, {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"


class _Probe(nn.Module):
    """The kinds of layer that trainings are made of, small."""

    def __init__(self) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.pointwise = nn.Conv2d(16, 24, 1)
        self.grouped = nn.Conv2d(24, 24, 3, padding=1, groups=24)
        self.linear = nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.spatial(x)))
        x = self.grouped(self.pointwise(x) * x.mean((2, 3)).sigmoid().mean(1)[:, None, None, None])
        return self.linear(F.relu(x).mean((2, 3)))


def probe(device: str = "cpu", steps: int = 10) -> str:
    """Digest of the weights after a training of ``steps`` steps on made data."""
    with seeded(0, "probe"):
        model = _Probe().to(device)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=1e-3)
    generator = stream(0, "probe", "data")
    for _ in range(steps):
        images = torch.from_numpy(generator.standard_normal((32, 3, 14, 14), dtype=np.float32))
        labels = torch.from_numpy(generator.integers(0, 10, 32))
        optimizer.zero_grad()
        F.cross_entropy(model(images.to(device)), labels.to(device)).backward()
        optimizer.step()
    hashed = hashlib.sha256()
    for value in model.state_dict().values():
        hashed.update(value.cpu().contiguous().numpy())
    return hashed.hexdigest()[:16]


# Source.


def source_digest(roots: Iterable[str], packages: Iterable[str]) -> dict[str, str]:
    """The modules that ``roots`` import, themselves included, each with :func:`syntax_digest`.

    Found by reading, not by what happens to be loaded. Followed are imports of modules whose
    names lie in ``packages`` (a package, or a single module).

    Raises:
        ValueError: A root is no module that can be found.
    """
    packages, waiting = tuple(packages), list(roots)
    found: dict[str, str] = {}
    for root in waiting:
        if _file(root) is None:
            raise ValueError(f"no module {root!r} to hash the source of")
    while waiting:
        name = waiting.pop()
        path = None if name in found else _file(name)
        if path is None or not any(name == p or name.startswith(f"{p}.") for p in packages):
            continue
        found[name] = syntax_digest(path)
        waiting += _imported(ast.parse(path.read_text(encoding="utf-8")))
        waiting += [name.rpartition(".")[0]] if "." in name else []
    return found


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
    return sorted(set(_imported(ast.parse(path.read_text(encoding="utf-8")))))


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


def _imported(tree: ast.AST) -> list[str]:
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # What is imported from a package may be a module of it.
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def syntax_digest(path: Path) -> str:
    """Digest of what the file ``path`` says to Python: no comments, docstrings, layout or place."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            match node.body:
                case [ast.Expr(value=ast.Constant(value=str())), *rest]:
                    node.body = rest or [ast.Pass()]  # as if there had been no docstring
    # Unparsed rather than dumped: a dump changes with the version of Python.
    return _digest(ast.unparse(tree))


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
