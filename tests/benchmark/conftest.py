import pytest

from benchmark.latency import runs
from overconv.bench.devices import CpuDevice, Window
from overconv.timing import Sample


class ScriptedDevice(CpuDevice):
    """Every call takes 4 ms by a clock that only calls move.

    Attributes:
        first_only: Whether of several calls only the first is made, though all take their time;
            enough for networks, which are slow.
    """

    def __init__(self):
        super().__init__()
        self.now, self.first_only = 0.0, False

    def clock(self):
        return self.now

    def once(self, call):
        return self.timed([(call, 1)]).samples[0].wall

    def timed(self, schedule):
        made = schedule[:1] if self.first_only else schedule
        for call, calls in made:
            for _ in range(1 if self.first_only else calls):
                call()
        self.now += 4e-3 * sum(calls for _, calls in schedule)
        return Window(tuple(Sample(4e-3, 4e-3, 0) for _ in schedule))


@pytest.fixture
def scripted(monkeypatch):
    """The device that the tables measure on, for all of a test."""
    device = ScriptedDevice()
    monkeypatch.setattr(runs, "find_device", lambda name: device)
    return device
