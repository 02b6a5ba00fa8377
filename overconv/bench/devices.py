"""How work is timed on a device, and what a device is: its stable fingerprint, its passing state.

A measurement gives a device a schedule, calls of several alternatives in the order of one or more
rounds, and gets a sample for each. A CPU runs them one by one. A GPU is given all of them at once:
events stand around each call, the cache is swept between calls outside of the events, and there
is one wait, at the end. A wait inside the loop would add the time that a launch takes to every
short kernel.
"""

import hashlib
import json
import os
import platform
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from overconv.bench.nvml import GpuState
from overconv.timing import Sample, sample

Call = Callable[[], object]
Schedule = Sequence[tuple[Call, int]]

# Environment variables that decide which instructions a CPU runs.
_ISA = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")


@dataclass(frozen=True)
class Window:
    """What a schedule gave.

    Attributes:
        samples: One for each call of the schedule, in its order.
        throttled: Why they do not count, if the device was slowed down meanwhile.
    """

    samples: tuple[Sample, ...]
    throttled: str = ""


class Device(Protocol):
    """Where work is timed."""

    @property
    def name(self) -> str:
        """As torch calls it."""

    @property
    def rounds(self) -> int:
        """How many rounds of all alternatives go into one schedule."""

    def clock(self) -> float:
        """Seconds of a clock of the host, to bound a measurement by."""

    def once(self, call: Call) -> float:
        """Seconds from a call until all of its work is done."""

    def timed(self, schedule: Schedule) -> Window:
        """Run a schedule of (call, how often in a row)."""

    def calls(self, seconds: float) -> int:
        """How many calls make a sample, where one takes so many seconds."""

    def preempted(self, found: Sample) -> bool:
        """Whether something else ran during a sample."""

    def state(self) -> dict[str, Any]:
        """What changes by itself: load, clocks, heat. Never part of a fingerprint."""


class CpuDevice:
    """A CPU, timed by its clock; samples last 2 to 6 ms.

    That is longer than a reading of the clock, and shorter than a slice of the scheduler.
    """

    name = "cpu"
    rounds = 1
    target = 3e-3

    def clock(self) -> float:
        return time.perf_counter()

    def once(self, call: Call) -> float:
        return sample(call, 1).wall

    def timed(self, schedule: Schedule) -> Window:
        return Window(tuple(sample(call, calls) for call, calls in schedule))

    def calls(self, seconds: float) -> int:
        return max(1, round(self.target / seconds)) if seconds > 0 else 1

    def preempted(self, found: Sample) -> bool:
        # With more threads the others' time is not in it, so that this only tells of too few.
        return found.cpu < 0.9 * found.wall

    def state(self) -> dict[str, Any]:
        load = os.getloadavg() if hasattr(os, "getloadavg") else ()
        governor = _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip()
        clocks = [float(mhz) for mhz in re.findall(r"cpu MHz\s*:\s*([\d.]+)", _cpuinfo())]
        usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
        return {
            "load": list(load) or None,
            "mhz": clocks or None,
            "governor": governor or None,
            "usable_cores": usable,
        }


class Event(Protocol):
    """A mark in the stream of a GPU's work."""

    def record(self) -> None: ...

    def elapsed_time(self, end: Any) -> float: ...


class Gpu(Protocol):
    """What :class:`CudaDevice` needs of a GPU; :class:`overconv.bench.cuda.TorchGpu` has it."""

    name: str

    def event(self) -> Event:
        """An event that keeps its time, in milliseconds."""

    def flush(self) -> None:
        """Queue a sweep over more memory than the level-2 cache holds."""

    def synchronize(self) -> None:
        """Wait until all queued work is done."""

    def clock(self) -> float:
        """Seconds of the host's clock."""

    def thread_time(self) -> float:
        """Seconds that this thread of the host was running."""

    def state(self) -> GpuState:
        """Read without waiting for queued work."""

    def capture(self, call: Call) -> Call:
        """A call that replays the kernels of ``call`` as one graph; RuntimeError if it cannot."""

    def peak_bytes(self, call: Call) -> dict[str, int]:
        """Peak of memory of one call, warmed up, in a run of its own."""


class CudaDevice:
    """A GPU, timed by events around each call, with a cold level-2 cache.

    ``wall`` of a sample is the time between its events, ``cpu`` what the host needed to launch.
    A schedule during which the GPU was throttled is marked so, all of it: the host runs ahead of
    the GPU, so that a reading belongs to no single call.
    """

    rounds = 5

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self.name = gpu.name

    def clock(self) -> float:
        return self.gpu.clock()

    def once(self, call: Call) -> float:
        self.gpu.synchronize()
        start = self.gpu.clock()
        call()
        self.gpu.synchronize()
        return self.gpu.clock() - start

    def timed(self, schedule: Schedule) -> Window:
        pairs = [
            [(self.gpu.event(), self.gpu.event()) for _ in range(calls)] for _, calls in schedule
        ]
        launching = []
        self.gpu.synchronize()
        for (call, _), events in zip(schedule, pairs, strict=True):
            spent = 0.0
            for start, end in events:
                self.gpu.flush()
                before = self.gpu.thread_time()
                start.record()
                call()
                end.record()
                spent += self.gpu.thread_time() - before
            launching.append(spent / len(events))
        busy = self.gpu.state()
        self.gpu.synchronize()
        samples = []
        for events, spent in zip(pairs, launching, strict=True):
            milliseconds = sum(start.elapsed_time(end) for start, end in events) / len(events)
            samples.append(Sample(milliseconds / 1e3, spent, 0))
        return Window(tuple(samples), busy.throttled or self.gpu.state().throttled)

    def calls(self, seconds: float) -> int:
        return 1  # events are read to half a microsecond

    def preempted(self, found: Sample) -> bool:
        return False  # the GPU's own clock does not run for others

    def state(self) -> dict[str, Any]:
        return self.gpu.state().as_dict()

    def captured(self, call: Call) -> tuple[Call | None, str]:
        """A replay of ``call`` as a CUDA graph, or None and why it cannot be captured."""
        try:
            return self.gpu.capture(call), ""
        except RuntimeError as error:
            return None, str(error).strip().splitlines()[0] if str(error).strip() else repr(error)


def find_device(name: str) -> Device:
    """The device that torch calls so.

    Raises:
        ValueError: There is no such device here.
    """
    kind, _, index = name.partition(":")
    if name == "cpu":
        return CpuDevice()
    if kind != "cuda" or (":" in name and not index.isdecimal()):
        raise ValueError(f"device={name!r}; allowed: 'cpu', 'cuda', 'cuda:N'")
    found = torch.cuda.device_count()
    if int(index or 0) >= found:
        raise ValueError(f"device={name!r}, but torch finds {found} CUDA devices here")
    from overconv.bench.cuda import TorchGpu  # the only one that touches a GPU

    return CudaDevice(TorchGpu(name))


# Fingerprint.


def fingerprint(device: torch.device | str = "cpu") -> dict[str, str | int]:
    """What decides how fast this machine is and stays the same while it is used.

    Clocks, load and heat are not in it, and neither is the affinity of the process.
    """
    config = torch.__config__.show()
    onednn = re.search(r"(?:MKL-DNN|oneDNN) v?([\d.]+)", config)
    fields: dict[str, str | int] = {
        "cpu": _processor(),
        "architecture": platform.machine(),
        "cores": os.cpu_count() or 0,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "python": ".".join(platform.python_version_tuple()[:2]),
        "torch": torch.__version__,
        "onednn": onednn[1] if onednn else "none",
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "mkldnn": int(bool(torch.backends.mkldnn.enabled)),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "deterministic": int(torch.are_deterministic_algorithms_enabled()),
    }
    fields |= {name: os.environ[name] for name in _ISA if name in os.environ}
    if torch.device(device).type == "cuda":
        version = re.search(r"Module\D*([\d.]+)", _read("/proc/driver/nvidia/version"))
        cudnn = torch.backends.cudnn
        fields |= {
            "gpu": torch.cuda.get_device_name(device),
            "driver": version[1] if version else "unknown",
            "cuda": torch.version.cuda or "none",
            "cudnn": cudnn.version() or 0,
            "cudnn_benchmark": int(cudnn.benchmark),
            "cudnn_deterministic": int(cudnn.deterministic),
            "cudnn_tf32": int(cudnn.allow_tf32),
            "matmul_tf32": int(torch.backends.cuda.matmul.allow_tf32),
        }
    return fields


def fingerprint_key(device: torch.device | str = "cpu") -> str:
    """Twelve hexadecimal digits: equal on machines, and settings, of equal fingerprints."""
    text = json.dumps(fingerprint(device), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _processor() -> str:
    names = re.findall(r"model name\s*:\s*(.+)", _cpuinfo())
    return names[0].strip() if names else platform.processor() or "unknown"


def _cpuinfo() -> str:
    return _read("/proc/cpuinfo")


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""
