"""A scripted GPU and a scripted CPU: times are given, none is taken.

The GPU has a clock of its own and one queue. Whoever launches pays on the host's clock and goes on;
the work starts when the host has launched it and the work before it is done. So a wait inside a
loop has here the effect that it has on a real GPU: the queue is empty at the next launch, and the
time between two events holds the launch too.
"""

from collections.abc import Callable, Sequence
from itertools import chain, repeat

from overconv.bench.devices import Window
from overconv.bench.nvml import GpuState
from overconv.timing import Sample

COOL = GpuState(clock=1980, max_clock=1980, temperature=50, power=300.0, reasons=(), processes=1)
HOT = GpuState(clock=1980, max_clock=1980, temperature=90, reasons=("hardware thermal slowdown",))
SLOW = GpuState(clock=900, max_clock=1980, reasons=("power cap",))


class FakeEvent:
    def __init__(self, gpu: "FakeGpu") -> None:
        self.gpu = gpu
        self.at: float | None = None

    def record(self) -> None:
        self.gpu.log.append("record")
        self.gpu.host += self.gpu.record_seconds
        self.at = max(self.gpu.host, self.gpu.queue)

    def elapsed_time(self, end: "FakeEvent") -> float:
        assert self.at is not None and end.at is not None, "an event was never recorded"
        assert self.gpu.host >= end.at, "an event is read before the GPU has come to it"
        return 1e3 * (end.at - self.at)


class FakeGpu:
    """A GPU whose states are scripted: the last one is repeated for ever."""

    name = "fake"
    launch_seconds = 20e-6
    record_seconds = 1e-6
    flush_seconds = 500e-6

    def __init__(self, states: Sequence[GpuState] = (COOL,), refusal: str = "") -> None:
        self.host = self.queue = 0.0
        self.log: list[str] = []
        self.refusal = refusal
        self._states = chain(states, repeat(states[-1]))

    def event(self) -> FakeEvent:
        return FakeEvent(self)

    def launch(self, what: str, seconds: float) -> None:
        self.log.append(what)
        self.host += self.launch_seconds
        self.queue = max(self.host, self.queue) + seconds

    def kernel(self, name: str, *seconds: float) -> Callable[[], None]:
        """A call of which each takes the next of ``seconds``, the last one for ever."""
        script = chain(seconds, repeat(seconds[-1]))
        return lambda: self.launch(name, next(script))

    def flush(self) -> None:
        self.launch("flush", self.flush_seconds)

    def synchronize(self) -> None:
        self.log.append("wait")
        self.host = max(self.host, self.queue)

    def clock(self) -> float:
        return self.host

    def thread_time(self) -> float:
        return self.host

    def state(self) -> GpuState:
        self.log.append("state")
        return next(self._states)

    def capture(self, call: Callable[[], object]) -> Callable[[], object]:
        if self.refusal:
            raise RuntimeError(self.refusal)
        return call


class FakeCpu:
    """A CPU whose calls take what they say: a call returns its seconds."""

    name = "fake"
    rounds = 1

    def __init__(self, share: float = 1.0) -> None:
        self.now = 0.0
        self.share = share
        self.schedules: list[list] = []
        self.looked = 0

    def clock(self) -> float:
        return self.now

    def once(self, call: Callable[[], float]) -> float:
        return self.timed([(call, 1)]).samples[0].wall

    def timed(self, schedule) -> Window:
        self.schedules.append(list(schedule))
        samples = []
        for call, calls in schedule:
            wall = sum(call() for _ in range(calls))
            self.now += wall
            samples.append(Sample(wall / calls, self.share * wall / calls, 0))
        return Window(tuple(samples))

    def calls(self, seconds: float) -> int:
        return max(1, round(3e-3 / seconds))

    def preempted(self, found: Sample) -> bool:
        return found.cpu < 0.9 * found.wall

    def state(self) -> dict:
        self.looked += 1
        return {"load": [0.5], "looked": self.looked}
