"""What a GPU says of itself through NVML: clocks, heat, power, and what slows it down.

Only read: no setting is ever changed. A machine may lack the package ``pynvml`` (of
``nvidia-ml-py``), the driver may refuse an answer; both are facts that are passed on.
"""

import importlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

# Bits of "clocks event reasons", by NVML's documentation.
REASONS = {
    0x1: "idle",
    0x2: "application clocks",
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
    0x100: "display clocks",
}
# Any of these slows work down by an amount that nobody chose.
SLOWED = (
    "hardware slowdown",
    "software thermal slowdown",
    "hardware thermal slowdown",
    "hardware power brake",
)
# Below this share of its highest clock a busy GPU counts as throttled, whatever the reason.
LEAST_CLOCK = 0.75
_SM = 1  # NVML_CLOCK_SM
_CELSIUS = 0  # NVML_TEMPERATURE_GPU


@dataclass(frozen=True)
class GpuState:
    """A GPU at one moment. None: it could not be read, and ``unread`` says why.

    Attributes:
        clock, max_clock: Of the multiprocessors, in MHz.
        temperature: In degrees Celsius.
        power: In watts.
        reasons: Why the clock is not higher, of :data:`REASONS`.
        processes: How many processes compute on it, this one among them.
        unread: Why something is None; empty if nothing is.
    """

    clock: int | None = None
    max_clock: int | None = None
    temperature: int | None = None
    power: float | None = None
    reasons: tuple[str, ...] | None = None
    processes: int | None = None
    unread: str = ""

    @property
    def throttled(self) -> str:
        """Why what was timed just now does not count; empty if it does.

        A clock that somebody has set (application clocks), or one of a GPU that idles, is not
        held against it.
        """
        reasons = self.reasons or ()
        slowed = [reason for reason in reasons if reason in SLOWED]
        if slowed:
            return ", ".join(slowed)
        excused = {"idle", "application clocks"} & set(reasons)
        if self.clock is None or not self.max_clock or excused:
            return ""
        if self.clock < LEAST_CLOCK * self.max_clock:
            why = f" ({', '.join(reasons)})" if reasons else ""
            return f"clock of {self.clock} of {self.max_clock} MHz{why}"
        return ""

    def as_dict(self) -> dict[str, Any]:
        """All fields, plain."""
        return asdict(self) | {"reasons": None if self.reasons is None else list(self.reasons)}


def reader(uuid: str, load: Callable[[], Any] | None = None) -> Callable[[], GpuState]:
    """A function that reads the GPU of that UUID (with or without ``GPU-``).

    Args:
        uuid: As torch and NVML give it; an index would count other devices in each of them.
        load: Gives the module ``pynvml``.
    """
    try:
        nvml = (load or _pynvml)()
    except ImportError:
        absent = GpuState(unread="the package pynvml (nvidia-ml-py) is not installed")
        return lambda: absent
    name = uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
    try:
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByUUID(name)
    except nvml.NVMLError as error:
        refused = GpuState(unread=f"NVML: {error}")
        return lambda: refused
    return lambda: _state(nvml, handle)


def _pynvml() -> Any:
    return importlib.import_module("pynvml")


def _state(nvml: Any, handle: Any) -> GpuState:
    refused = []

    def read(what: str, *functions: str, arguments: tuple[int, ...] = ()) -> Any:
        """By the first of the functions that this version of the package has."""
        function = next((f for f in map(lambda f: getattr(nvml, f, None), functions) if f), None)
        if function is None:
            refused.append(f"{what}: not known to this pynvml")
            return None
        try:
            return function(handle, *arguments)
        except nvml.NVMLError as error:
            refused.append(f"{what}: {error}")
            return None

    power = read("power", "nvmlDeviceGetPowerUsage")
    bits = read(
        "reasons",
        "nvmlDeviceGetCurrentClocksEventReasons",
        "nvmlDeviceGetCurrentClocksThrottleReasons",  # its name before driver 535
    )
    running = read("processes", "nvmlDeviceGetComputeRunningProcesses")
    return GpuState(
        clock=read("clock", "nvmlDeviceGetClockInfo", arguments=(_SM,)),
        max_clock=read("max_clock", "nvmlDeviceGetMaxClockInfo", arguments=(_SM,)),
        temperature=read("temperature", "nvmlDeviceGetTemperature", arguments=(_CELSIUS,)),
        power=None if power is None else power / 1000,  # from milliwatts
        reasons=None if bits is None else tuple(n for bit, n in REASONS.items() if bits & bit),
        processes=None if running is None else len(running),
        unread="; ".join(refused),
    )
