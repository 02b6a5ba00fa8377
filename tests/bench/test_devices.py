"""Devices, by a scripted GPU: one wait at the end, a cold cache, throttled samples marked."""

import json
import os
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from overconv.bench import devices, nvml
from overconv.bench.devices import (
    CpuDevice,
    CudaDevice,
    find_device,
    fingerprint,
    fingerprint_key,
)
from overconv.bench.nvml import GpuState, reader
from overconv.timing import Sample

FAKE = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "fake_device.py")))


# Timing on a GPU.


def test_a_sample_is_the_time_of_its_kernels_alone():
    """A wait inside the loop would leave the queue empty, and add the launches to every sample."""
    gpu = FAKE.FakeGpu()
    short, long = gpu.kernel("short", 4e-6), gpu.kernel("long", 30e-6)
    found = CudaDevice(gpu).timed([(short, 1), (long, 1), (short, 3)])
    walls = [sample.wall for sample in found.samples]
    assert walls == pytest.approx([4e-6, 30e-6, 4e-6], abs=1e-12)
    assert [s.cpu for s in found.samples] == pytest.approx([22e-6] * 3)  # a launch, two events
    assert found.throttled == ""


def test_a_wait_inside_the_loop_is_what_the_test_above_would_see():
    """The script itself: with a wait, a kernel of 4 us reads as one of 25."""
    gpu = FAKE.FakeGpu()
    start, end = gpu.event(), gpu.event()
    gpu.flush()
    gpu.synchronize()
    start.record()
    gpu.kernel("short", 4e-6)()
    end.record()
    gpu.synchronize()
    assert 1e-3 * start.elapsed_time(end) == pytest.approx(24e-6)


def test_nothing_waits_in_the_loop_and_the_cache_is_swept_outside_of_the_events():
    gpu = FAKE.FakeGpu()
    one, two = gpu.kernel("one", 1e-6), gpu.kernel("two", 1e-6)
    CudaDevice(gpu).timed([(one, 1), (two, 2)])
    assert gpu.log == [
        "wait",
        *("flush", "record", "one", "record"),
        *("flush", "record", "two", "record"),
        *("flush", "record", "two", "record"),
        *("state", "wait", "state"),  # the first reading while the GPU is busy
    ]


@pytest.mark.parametrize(
    ("states", "throttled"),
    [
        ([FAKE.COOL], ""),
        ([FAKE.HOT, FAKE.COOL], "hardware thermal slowdown"),
        ([FAKE.COOL, FAKE.HOT], "hardware thermal slowdown"),
        ([FAKE.SLOW, FAKE.COOL], "clock of 900 of 1980 MHz (power cap)"),
    ],
)
def test_a_schedule_is_marked_if_the_gpu_was_throttled_at_its_end(states, throttled):
    gpu = FAKE.FakeGpu(states)
    assert CudaDevice(gpu).timed([(gpu.kernel("k", 1e-6), 1)]).throttled == throttled


@pytest.mark.parametrize(
    ("state", "throttled"),
    [
        (GpuState(), ""),
        (GpuState(clock=1500, max_clock=1980, reasons=("power cap",)), ""),
        (GpuState(clock=1484, max_clock=1980), "clock of 1484 of 1980 MHz"),
        (GpuState(clock=1485, max_clock=1980), ""),
        (GpuState(clock=300, max_clock=1980, reasons=("idle",)), ""),
        (GpuState(clock=900, max_clock=1980, reasons=("application clocks",)), ""),
        (GpuState(clock=900, max_clock=None), ""),
        (GpuState(reasons=("hardware slowdown", "power cap")), "hardware slowdown"),
        (
            GpuState(reasons=("software thermal slowdown", "hardware power brake")),
            "software thermal slowdown, hardware power brake",
        ),
    ],
)
def test_what_counts_as_throttled(state, throttled):
    assert state.throttled == throttled


def test_a_first_call_lasts_until_its_work_is_done():
    gpu = FAKE.FakeGpu()
    device = CudaDevice(gpu)
    assert device.once(gpu.kernel("k", 1.0)) == pytest.approx(1.0 + gpu.launch_seconds)
    assert gpu.log == ["wait", "k", "wait"]


def test_a_graph_or_the_reason_why_there_is_none():
    gpu = FAKE.FakeGpu()
    call = gpu.kernel("k", 1.0)
    assert CudaDevice(gpu).captured(call) == (call, "")
    refusing = FAKE.FakeGpu(refusal="operation not permitted when stream is capturing\nmore")
    why = "operation not permitted when stream is capturing"
    assert CudaDevice(refusing).captured(call) == (None, why)


# NVML.


class Refusal(Exception):
    """Stands for NVMLError."""


def made_nvml(**functions):
    """A module that answers well, but for the functions that are given."""

    def init():
        pass

    answers = {
        "nvmlDeviceGetClockInfo": lambda handle, kind: {1: 1980}[kind],
        "nvmlDeviceGetMaxClockInfo": lambda handle, kind: {1: 2000}[kind],
        "nvmlDeviceGetTemperature": lambda handle, kind: {0: 51}[kind],
        "nvmlDeviceGetPowerUsage": lambda handle: 312_500,
        "nvmlDeviceGetCurrentClocksEventReasons": lambda handle: 0x44,
        "nvmlDeviceGetComputeRunningProcesses": lambda handle: ["this", "other"],
        "nvmlDeviceGetHandleByUUID": lambda uuid: f"handle of {uuid}",
        "nvmlInit": init,
        "NVMLError": Refusal,
    }
    return SimpleNamespace(**(answers | functions))


def deny(*_):
    raise Refusal("Insufficient Permissions")


def test_a_gpu_is_read_by_its_uuid():
    asked = []
    fake = made_nvml(nvmlDeviceGetHandleByUUID=lambda uuid: asked.append(uuid))
    assert reader("ab-12", lambda: fake)() == GpuState(
        clock=1980,
        max_clock=2000,
        temperature=51,
        power=312.5,
        reasons=("power cap", "hardware thermal slowdown"),
        processes=2,
    )
    reader("MIG-ab", lambda: fake)
    assert asked == ["GPU-ab-12", "MIG-ab"]


def test_what_is_denied_is_said_and_the_rest_is_read():
    state = reader("ab", lambda: made_nvml(nvmlDeviceGetPowerUsage=deny))()
    assert (state.power, state.clock) == (None, 1980)
    assert state.unread == "power: Insufficient Permissions"


def test_the_older_name_of_the_reasons_is_known():
    fake = made_nvml(nvmlDeviceGetCurrentClocksThrottleReasons=lambda handle: 0x1)
    del fake.nvmlDeviceGetCurrentClocksEventReasons
    assert reader("ab", lambda: fake)().reasons == ("idle",)
    del fake.nvmlDeviceGetCurrentClocksThrottleReasons
    state = reader("ab", lambda: fake)()
    assert (state.reasons, state.unread) == (None, "reasons: not known to this pynvml")


def test_an_absent_or_denied_nvml_is_a_fact_and_no_crash(monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(nvml.importlib, "import_module", absent)
    state = reader("ab")()
    assert state == GpuState(unread="the package pynvml (nvidia-ml-py) is not installed")
    assert state.throttled == ""
    for name in ("nvmlInit", "nvmlDeviceGetHandleByUUID"):
        denied = reader("ab", lambda name=name: made_nvml(**{name: deny}))()
        assert denied == GpuState(unread="NVML: Insufficient Permissions")
    assert json.loads(json.dumps(denied.as_dict()))["unread"]


# The CPU.


def test_the_cpu_times_a_schedule_in_its_order(monkeypatch):
    taken = []

    def fake(call, calls):
        taken.append((call(), calls))
        return Sample(1.0, 1.0, 0)

    monkeypatch.setattr(devices, "sample", fake)
    found = CpuDevice().timed([(lambda: "a", 2), (lambda: "b", 5), (lambda: "a", 2)])
    assert taken == [("a", 2), ("b", 5), ("a", 2)]
    assert len(found.samples) == 3 and found.throttled == ""


@pytest.mark.parametrize("seconds", [1e-5, 7e-4, 1.4e-3, 1.9e-3, 2.1e-3, 4e-3, 5.9e-3])
def test_a_sample_is_shorter_than_a_slice_and_longer_than_the_clock(seconds):
    assert 2e-3 <= CpuDevice().calls(seconds) * seconds <= 6e-3


def test_longer_calls_are_a_sample_each():
    assert CpuDevice().calls(0.5) == CpuDevice().calls(0.0) == 1


def test_an_interrupted_sample_is_known_by_its_share_of_the_cpu():
    assert CpuDevice().preempted(Sample(1.0, 0.89, 0))
    assert not CpuDevice().preempted(Sample(1.0, 0.91, 3))


def test_the_state_of_the_cpu_is_plain():
    state = CpuDevice().state()
    assert state.keys() == {"load", "mhz", "governor", "usable_cores"}
    json.dumps(state, allow_nan=False)


# Which device, and what it is.


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cpu:0", "CPU", ""])
def test_an_unknown_device_is_named(name):
    with pytest.raises(ValueError, match=f"device='{name}'; allowed: 'cpu', 'cuda', 'cuda:N'"):
        find_device(name)


def test_a_device_that_is_not_there_is_named():
    assert find_device("cpu").name == "cpu"
    with pytest.raises(ValueError, match="device='cuda:9', but torch finds"):
        find_device("cuda:9")


def test_a_fingerprint_holds_what_stays(monkeypatch):
    found, key = fingerprint(), fingerprint_key()
    assert {"cpu", "cores", "capability", "torch", "onednn", "threads"} <= found.keys()
    assert found["onednn"].count(".") == 2
    assert not {"load", "mhz", "host", "governor"} & found.keys()
    assert all(isinstance(value, str | int) for value in found.values())
    monkeypatch.setattr(devices, "_cpuinfo", lambda: "model name : x\ncpu MHz : 1.0\n")
    other = fingerprint_key()
    monkeypatch.setattr(devices, "_cpuinfo", lambda: "model name : x\ncpu MHz : 9.0\n")
    monkeypatch.setattr(os, "getloadavg", lambda: (9.0, 9.0, 9.0))
    assert fingerprint_key() == other != key
    assert len(key) == 12 and int(key, 16) >= 0


def test_settings_that_decide_the_speed_are_in_the_key(monkeypatch):
    keys = {fingerprint_key()}
    torch.set_num_threads(2)
    keys.add(fingerprint_key())
    torch.set_num_threads(1)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    keys.add(fingerprint_key())
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    monkeypatch.setattr(torch, "__version__", "9.9")
    keys.add(fingerprint_key())
    assert len(keys) == 4


# On a GPU.


@pytest.mark.gpu
def test_a_real_gpu_is_timed_captured_and_described():
    device = find_device("cuda")
    x = torch.randn(512, 512, device="cuda")
    found = device.timed([(lambda: x @ x, 1), (lambda: x + x, 2)])
    assert len(found.samples) == 2 and all(s.wall > 0 for s in found.samples)
    replay, why = device.captured(lambda: x @ x)
    assert replay is not None and why == ""
    replay()
    refused, why = device.captured(lambda: x.sum().item())
    assert refused is None and why
    assert (x @ x).isfinite().all()  # after a capture that failed, too
    peak = device.gpu.peak_bytes(lambda: x @ x)
    assert peak["peak_bytes_allocated"] >= 512 * 512 * 4
    assert {"gpu", "driver", "cudnn"} <= fingerprint("cuda").keys()
    json.dumps(device.state())
