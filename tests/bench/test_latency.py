"""Latency, by scripted devices: warm-up, rounds, ratios, when it stops, and what it refuses."""

import gc
import itertools
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from overconv.bench.cases import WrongOutput
from overconv.bench.devices import CudaDevice
from overconv.bench.latency import (
    Alternative,
    Series,
    Throttled,
    measure,
    summarise,
)
from overconv.bench.nvml import GpuState
from overconv.bench.outputs import check_equal, tolerance
from overconv.timing import Sample

FAKE = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "fake_device.py")))


def script(*seconds):
    """A call that takes each of ``seconds`` in turn, then the last one for ever."""
    times = itertools.chain(seconds, itertools.repeat(seconds[-1]))
    return Alternative(lambda: next(times))


def noisy(base, seed):
    """A call that takes up to a third longer, each time another time."""
    generator = torch.Generator().manual_seed(seed)
    return Alternative(lambda: base * (1 + torch.rand((), generator=generator).item() / 3))


def walls(measured, name):
    return [sample.wall for sample in measured.series[name].samples]


# The order of things.


def test_the_first_call_and_the_warm_up_are_no_samples():
    """The first calls are slow and become quicker; what is kept is quick, all of it."""
    slow = [1.0, 0.5, 0.4, 0.3, 0.01, 0.008, 0.006, 0.0045]
    found = measure(
        {"plain": script(*slow, 0.004), "new": script(*slow, 0.004)},
        reference="plain",
        device=FAKE.FakeCpu(),
        seconds=0.5,
    )
    for name in ("plain", "new"):
        assert found.series[name].first_call == 1.0
        assert walls(found, name) == pytest.approx([0.004] * len(walls(found, name)))
        assert found.series[name].settled and found.series[name].warmup_calls > len(slow)
    assert found.ratio("new").estimate == pytest.approx(1.0)


def test_a_warm_up_that_never_settles_ends_and_is_told():
    halves = [4.0 * 0.75**n for n in range(60)]
    found = measure(
        {"plain": script(0.004), "new": script(*halves, 1e-6)},
        reference="plain",
        device=FAKE.FakeCpu(),
        seconds=0.1,
    )
    assert not found.series["new"].settled
    assert "still changing after the warm-up" in found.summary("new").unstable
    assert "still changing" not in found.summary("plain").unstable


def test_all_are_checked_before_anything_else_is_timed():
    device, called = FAKE.FakeCpu(), []

    def wrong():
        called.append(len(device.schedules))
        raise WrongOutput("b computes something else")

    alternatives = {
        "plain": script(0.004),
        "a": Alternative(lambda: 0.004, lambda: called.append(len(device.schedules))),
        "b": Alternative(lambda: 0.004, wrong),
    }
    with pytest.raises(WrongOutput, match="b computes something else"):
        measure(alternatives, reference="plain", device=device)
    assert called == [3, 3]  # behind the three first calls


def test_each_round_has_all_alternatives_once_in_an_order_drawn_anew():
    device = FAKE.FakeCpu()
    alternatives = {name: noisy(0.004, seed) for seed, name in enumerate(["plain", "a", "b", "c"])}
    found = measure(alternatives, reference="plain", device=device, seconds=2.0, precision=1e-6)
    rounds = [s for s in device.schedules if len(s) == 4]
    names = {id(each.call): name for name, each in alternatives.items()}
    orders = [tuple(names[id(call)] for call, _ in s) for s in rounds]
    assert all(sorted(order) == ["a", "b", "c", "plain"] for order in orders)
    assert len(set(orders)) > 12
    assert {len(series.samples) for series in found.series.values()} == {len(rounds)}


def test_samples_of_a_short_call_hold_many():
    device = FAKE.FakeCpu()
    found = measure({"plain": script(0.004), "new": script(1e-5)}, reference="plain", device=device)
    assert (found.series["plain"].calls, found.series["new"].calls) == (1, 300)
    assert found.ratio("new").estimate == pytest.approx(1 / 400)


def test_garbage_is_not_collected_meanwhile(monkeypatch):
    seen = []
    alternatives = {
        "plain": Alternative(lambda: (seen.append(gc.isenabled()), 0.004)[1]),
        "new": script(0.004),
    }
    for enabled in (True, False):
        monkeypatch.setattr(gc, "isenabled", lambda enabled=enabled: enabled)
        switched = []
        monkeypatch.setattr(gc, "disable", lambda switched=switched: switched.append("off"))
        monkeypatch.setattr(gc, "enable", lambda switched=switched: switched.append("on"))
        measure(alternatives, reference="plain", device=FAKE.FakeCpu(), seconds=0.1)
        assert switched == (["off", "on"] if enabled else ["off"])
    monkeypatch.undo()
    seen.clear()
    measure(alternatives, reference="plain", device=FAKE.FakeCpu(), seconds=0.1)
    assert seen[0] and not any(seen[1:]) and gc.isenabled()


# When it ends.


def test_it_stops_when_it_is_precise_enough():
    found = measure(
        {"plain": script(0.004), "new": script(0.005)},
        reference="plain",
        device=FAKE.FakeCpu(),
        seconds=100.0,
    )
    assert len(walls(found, "new")) == 32 and found.unmet == ""
    assert found.ratio("new").estimate == pytest.approx(1.25)


def test_it_stops_when_time_is_up_and_says_what_is_missing():
    found = measure(
        {"plain": noisy(0.004, 1), "new": noisy(0.004, 2)},
        reference="plain",
        device=FAKE.FakeCpu(),
        seconds=1.0,
        precision=1e-9,
    )
    assert found.unmet.startswith("intervals of the ratios within 1e-07 %: after 1 s the widest is")
    assert 1.0 <= found.seconds < 1.02


def test_eight_rounds_are_made_however_long_they_take():
    found = measure(
        {"plain": noisy(4.0, 1), "new": noisy(4.0, 2)},
        reference="plain",
        device=FAKE.FakeCpu(),
        seconds=0.1,
    )
    assert len(walls(found, "plain")) == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reference": "old"}, "with reference='old' among them, got 'plain', 'new'"),
        ({"alternatives": {"plain": script(1.0)}}, "at least two .* got 'plain'"),
        ({"seconds": 0}, "seconds must be a positive number, got 0"),
        ({"precision": float("nan")}, "precision must be a positive number, got nan"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, message):
    given = {"alternatives": {"plain": script(1.0), "new": script(1.0)}, "reference": "plain"}
    with pytest.raises(ValueError, match=message):
        measure(**(given | arguments), device=FAKE.FakeCpu())


# On a GPU.


def on_gpu(states, seconds=0.05, kernels=None):
    gpu = FAKE.FakeGpu(states)
    kernels = kernels or {"plain": (40e-6,), "new": (50e-6,)}
    alternatives = {name: Alternative(gpu.kernel(name, *k)) for name, k in kernels.items()}
    return gpu, lambda: measure(
        alternatives, reference="plain", device=CudaDevice(gpu), seconds=seconds
    )


def test_a_gpu_is_warmed_up_and_waited_for_once_a_window():
    slow = (5e-3, 4e-3, 3e-3, 2e-3, 1e-3, 8e-4, 6e-4)
    gpu, go = on_gpu(
        [FAKE.COOL], kernels={"plain": (*slow, 40e-6), "new": (*slow, 50e-6)}
    )  # fmt: skip
    found = go()
    assert walls(found, "plain") == pytest.approx([40e-6] * len(walls(found, "plain")))
    assert found.ratio("new").estimate == pytest.approx(1.25)
    assert found.dropped == 0 and found.throttled == ""
    text = " ".join(gpu.log)
    # between the first and the last event of a window nobody waits
    for window in text.split("wait")[1:]:
        events = window.count("record")
        assert events == 0 or events % 2 == 0
    assert max(window.count("record") for window in text.split("wait")) >= 2 * 2 * 5


def test_throttled_rounds_are_dropped_and_counted():
    """Every reading of some windows in the middle is hot, and their samples are slow."""
    states = [FAKE.COOL] * 12 + [FAKE.HOT] * 6 + [FAKE.COOL]
    gpu, go = on_gpu(states)
    # As slow as a hot GPU is, exactly while the script says so.
    device_timed = CudaDevice.timed

    class Slowed(CudaDevice):
        def timed(self, schedule):
            window = device_timed(self, schedule)
            if not window.throttled:
                return window
            slow = tuple(Sample(9.0, s.cpu, 0) for s in window.samples)
            return type(window)(slow, window.throttled)

    alternatives = {
        "plain": Alternative(gpu.kernel("plain", 40e-6)),
        "new": Alternative(gpu.kernel("new", 50e-6)),
    }
    found = measure(
        alternatives, reference="plain", device=Slowed(gpu), seconds=0.05, precision=1e-12
    )
    assert found.dropped == 6 * 5 and found.throttled == "hardware thermal slowdown"
    assert max(walls(found, "plain")) < 1.0
    assert found.ratio("new").estimate == pytest.approx(1.25)


@pytest.mark.parametrize("cool", [0, 9, 10])
def test_a_gpu_that_is_throttled_all_the_time_is_an_error(cool):
    _, go = on_gpu([FAKE.COOL] * cool + [FAKE.HOT])
    with pytest.raises(
        Throttled, match=r"throttled \(hardware thermal slowdown\); a ratio needs 8"
    ):
        go()


def test_what_could_not_be_read_is_kept_beside():
    gpu, go = on_gpu([GpuState(unread="NVML: Insufficient Permissions")])
    assert go().before["unread"] == "NVML: Insufficient Permissions"


# Summaries.


def series(found, settled=True, share=1.0):
    samples = tuple(Sample(wall, share * wall, 0) for wall in found)
    return Series(1.0, 10, settled, 1, samples)


def test_a_summary_by_hand():
    found = summarise(series([float(n) for n in range(100, 201)]), FAKE.FakeCpu())
    assert (found.minimum, found.p20, found.median, found.p90) == (100, 120, 150, 190)
    assert (found.samples, found.preempted) == (101, 0)
    assert found.unstable == "interquartile range 33% of the median"
    assert summarise(series([1.0] * 101), FAKE.FakeCpu()).unstable == ""


def test_a_quantile_that_few_samples_support_is_not_told():
    assert summarise(series([1.0] * 49), FAKE.FakeCpu()).p90 is None
    assert summarise(series([1.0] * 50), FAKE.FakeCpu()).p90 == 1.0


def test_interrupted_samples_are_counted_and_kept():
    mixed = series([1.0] * 4, share=0.5).samples + series([1.0] * 4).samples
    found = summarise(Series(1.0, 10, True, 1, mixed), FAKE.FakeCpu())
    assert (found.samples, found.preempted, found.unstable) == (8, 4, "")
    found = summarise(series([1.0] * 8, share=0.5), FAKE.FakeCpu())
    assert found.unstable == "8 of 8 samples interrupted"


# Outputs.


def test_a_wrong_output_is_named():
    x = torch.randn(2, 3)
    check_equal("a", x, x.double() * (1 + 5e-5), 1e-4)
    with pytest.raises(WrongOutput, match="a computes something else .* off by .*tolerance 0.0001"):
        check_equal("a", x, 1.001 * x, 1e-4)
    with pytest.raises(WrongOutput, match="where the largest value is inf"):
        check_equal("a", x, x / 0, 1e-4)  # no difference is more than a share of that
    with pytest.raises(WrongOutput, match=r"a gives the shape \(2, 3\), not \(3, 2\)"):
        check_equal("a", x, x.T, 1e-4)
    with pytest.raises(WrongOutput, match="off by nan"):
        check_equal("a", x * float("nan"), x, 1e-4)


def test_a_tolerance_goes_with_the_dtype(monkeypatch):
    assert tolerance(torch.float32) < tolerance(torch.float16) < tolerance(torch.bfloat16)
    assert tolerance(torch.float64) < tolerance(torch.float32)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert tolerance(torch.float32, "cuda") > tolerance(torch.float32)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    assert tolerance(torch.float32, "cuda") == tolerance(torch.float32)
    with pytest.raises(ValueError, match="dtype must be one of .*, got torch.int8"):
        tolerance(torch.int8)
