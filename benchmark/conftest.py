"""What is set for all of ``pytest benchmark``, and what is stored beside each time.

An ordinary pytest-benchmark suite. Times of one machine at different hours differ by more than what
a change of code costs, so its history is for reading; the gate judges (docs/gating.md).
"""

import os
import shlex
import warnings
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")  # before torch is loaded

import pytest
import torch

from overconv.bench.cases import Case, check_output, inputs, make, prepared
from overconv.bench.devices import find_device, fingerprint, fingerprint_key
from overconv.bench.exact import figures
from overconv.bench.latency import Alternative, Measured, measure

# Defaults of this suite, where the command line names no others. Each round of a case is at most
# a few milliseconds, so a few rounds of warm-up are enough.
WARMUP_ROUNDS = 20
# Waits for the accelerator at both ends; on a machine without one it is the plain clock.
SYNCHRONISED = "torch.utils.benchmark.utils.timer.timer"
# For the ratio to the plain counterpart.
RATIO_SECONDS = 0.5


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("overconv").addoption(
        "--device", default="cpu", help="where the cases of benchmark/ run (default: cpu)"
    )


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Doctests are collected elsewhere; of this folder, the tests alone."""
    is_test = collection_path.name.startswith("test_") or collection_path.is_dir()
    return None if is_test else True


def pytest_configure(config: pytest.Config) -> None:
    """Runs before pytest-benchmark reads its options."""
    if not hasattr(config.option, "benchmark_warmup"):
        return
    # What pytest-benchmark has to say is no failure of a test: at the end of a session, and in its
    # own pytest_configure behind this one, where that line comes too late.
    config.addinivalue_line(
        "filterwarnings", "default::pytest_benchmark.logger.PytestBenchmarkWarning"
    )
    warnings.filterwarnings("default", message="Can't compare")
    ours: dict[str, Any] = {
        "warmup": True,
        "warmup_iterations": WARMUP_ROUNDS,
        "disable_gc": True,
    }
    if torch.accelerator.is_available():
        ours["timer"] = SYNCHRONISED
    given = [*config.invocation_params.args, *shlex.split(os.environ.get("PYTEST_ADDOPTS", ""))]
    for name, value in ours.items():
        option = f"--benchmark-{name.replace('_', '-')}"
        if not any(str(argument).partition("=")[0] == option for argument in given):
            setattr(config.option, f"benchmark_{name}", value)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.pluginmanager.hasplugin("benchmark"):
        return
    for item in items:
        if "benchmark" in getattr(item, "fixturenames", ()):
            item.add_marker(
                pytest.mark.skip(reason="times are taken by pytest-benchmark, which is not here")
            )


# The machine: only what stays the same between two runs, so that a difference is one.


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_generate_machine_info(config: pytest.Config) -> dict[str, Any]:
    device = config.getoption("device")
    return {"fingerprint": fingerprint_key(device), **fingerprint(device)}


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_compare_machine_info(
    config: pytest.Config,
    benchmarksession: Any,
    machine_info: dict[str, Any],
    compared_benchmark: dict[str, Any],
) -> None:
    other = compared_benchmark["machine_info"]
    names = sorted({*machine_info, *other} - {"fingerprint"})
    changed = [
        f"{name}: {other.get(name, 'not known')} then, {machine_info.get(name, 'not known')} now"
        for name in names
        if other.get(name) != machine_info.get(name)
    ]
    if not changed:
        return
    text = f"times of another machine say nothing about this one ({'; '.join(changed)})"
    if benchmarksession.compare_fail:
        raise pytest.UsageError(f"--benchmark-compare-fail cannot judge: {text}")
    benchmarksession.logger.warning(text)


# The cases.


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@cache
def exact(case: Case) -> dict[str, int]:
    return figures(case)


@pytest.fixture(scope="session")
def exact_figures() -> Callable[[Case], dict[str, int]]:
    """The exact figures of a case, counted once a session."""
    return exact


@pytest.fixture
def timed(benchmark: Any, request: pytest.FixtureRequest) -> Callable[[Case], None]:
    """Times a case: its output is compared first, and what it costs is stored beside the time."""
    return partial(_time, benchmark, request.config.getoption("device"))


def _time(benchmark: Any, device: str, case: Case) -> None:
    module, x = make(case, device=device), inputs(case, device=device)
    check_output(case, module, x)
    call = prepared(case, module, x)
    counted = exact(case)
    macs = _macs(counted, case.shape[0])
    benchmark.extra_info.update(
        parameters=counted["parameters"],
        macs=macs,
        flops=2 * macs,
        peak_bytes=counted["peak_bytes"],
        figures=counted,
        step=case.step,
        shape=list(case.shape),
        fingerprint=fingerprint_key(device),
    )
    if benchmark.enabled and case.plain is not None:
        found = _with_plain(case, call, device)
        ratio = found.ratio("case")
        benchmark.extra_info.update(
            ratio=ratio.estimate,
            ratio_low=ratio.low,
            ratio_high=ratio.high,
            ratio_unmet=found.unmet,  # why the interval is as wide as it is; empty: precise enough
        )
    benchmark(call)


def _macs(counted: dict[str, int], batch: int) -> int:
    """Of one forward pass of the whole batch, by formula."""
    image = sum(counted[f"macs.{kind}"] for kind in ("gate", "compose", "convolution", "other"))
    return image * batch + counted["macs.shared"]


def _with_plain(case: Case, call: Callable[[], object], device: str) -> Measured:
    """The case and its plain counterpart, in samples that alternate."""
    plain = prepared(case, make(case, plain=True, device=device), inputs(case, device=device))
    alternatives = {"case": Alternative(call), "plain": Alternative(plain)}
    where, limit = find_device(device), RATIO_SECONDS
    return measure(alternatives, reference="plain", device=where, seconds=limit)
