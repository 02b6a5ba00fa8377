"""One thread, one seed, and a closing word on what a run left out and why."""

import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence

# Before torch is loaded, and for every process that a test starts: the tests share few cores.
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")

import pytest
import torch
from hypothesis import settings

LEFT_OUT = pytest.StashKey[list[pytest.Item]]()

settings.register_profile("overconv", deadline=None, derandomize=True)
settings.load_profile("overconv")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(autouse=True)
def equal_start() -> Iterator[None]:
    """Every test begins with the same global state of torch, whatever ran before it."""
    dtype = torch.get_default_dtype()
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    yield
    # Only on a change: the call loads all of torch.compile.
    if torch.are_deterministic_algorithms_enabled() != deterministic:
        torch.use_deterministic_algorithms(deterministic)
    torch.set_default_dtype(dtype)
    if "torch._dynamo" in sys.modules:  # compiled code counts against a limit of the process
        torch.compiler.reset()


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    if items:
        items[0].config.stash.setdefault(LEFT_OUT, []).extend(items)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    counts = Counter(_why_deselected(item) for item in config.stash.get(LEFT_OUT, []))
    for report in terminalreporter.stats.get("skipped", []):
        counts["skipped: " + report.longrepr[2].removeprefix("Skipped: ")] += 1
    for report in terminalreporter.stats.get("xfailed", []):
        counts["expected to fail: " + (getattr(report, "wasxfail", "") or "no reason given")] += 1
    terminalreporter.section(f"left out: {counts.total()} tests")
    for reason, count in counts.most_common():
        terminalreporter.write_line(f"{count:6d}  {reason}")


def _why_deselected(item: pytest.Item) -> str:
    """The description, in pyproject.toml, of the first marker that explains it."""
    for line in item.config.getini("markers"):
        name = line.partition(":")[0]
        if name in ("gpu", "slow") and item.get_closest_marker(name):
            return f"marked {line}"
    return "not asked for on the command line"
