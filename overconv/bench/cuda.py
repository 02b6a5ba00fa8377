"""A GPU through torch: events, a sweep of the cache, graphs, memory."""

import gc
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from overconv.bench.nvml import GpuState, reader

_LEAST_SWEEP = 64 * 2**20


class _Mark:
    """An event in the stream of one device, whichever device is the current one."""

    def __init__(self, device: torch.device) -> None:
        self.event = torch.cuda.Event(enable_timing=True)
        self.stream = torch.cuda.current_stream(device)

    def record(self) -> None:
        self.event.record(self.stream)

    def elapsed_time(self, end: "_Mark") -> float:
        return self.event.elapsed_time(end.event)


class TorchGpu:
    """A CUDA device of torch, for :class:`overconv.bench.devices.CudaDevice`."""

    def __init__(self, name: str) -> None:
        self.device = torch.device(name)
        self.name = name
        properties = torch.cuda.get_device_properties(self.device)
        size = max(_LEAST_SWEEP, 4 * properties.L2_cache_size)
        self._swept = torch.empty(size, dtype=torch.uint8, device=self.device)
        self.state: Callable[[], GpuState] = reader(str(properties.uuid))

    def event(self) -> Any:
        return _Mark(self.device)

    def flush(self) -> None:
        self._swept.zero_()

    def synchronize(self) -> None:
        torch.accelerator.synchronize(self.device)

    def clock(self) -> float:
        return time.perf_counter()

    def thread_time(self) -> float:
        return time.thread_time()

    def capture(self, call: Callable[[], object]) -> Callable[[], object]:
        """Replays what ``call`` launches; its outputs stay alive, since the graph writes them.

        Raises:
            RuntimeError: ``call`` waits for the GPU, or does something else that no graph can hold.
        """
        with torch.cuda.device(self.device):
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):  # what is set up at the first calls is not captured
                for _ in range(3):
                    call()
            torch.cuda.current_stream().wait_stream(stream)
            self.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                kept = call()
        return partial(_replay, graph, kept)

    def peak_bytes(self, call: Callable[[], object]) -> dict[str, int]:
        """Peak of one call after it has been called before: what tensors took, and what torch
        had reserved for them, over what was there already.
        """
        call()
        self.synchronize()
        gc.collect()
        torch.accelerator.empty_cache()
        torch.accelerator.reset_peak_memory_stats(self.device)
        allocated = torch.accelerator.memory_allocated(self.device)
        reserved = torch.accelerator.memory_reserved(self.device)
        call()
        self.synchronize()
        return {
            "peak_bytes_allocated": torch.accelerator.max_memory_allocated(self.device) - allocated,
            "peak_bytes_reserved": torch.accelerator.max_memory_reserved(self.device) - reserved,
        }


def _replay(graph: torch.cuda.CUDAGraph, kept: object) -> None:
    graph.replay()
