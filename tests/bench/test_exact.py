"""Exact figures of a case: against a hand count, the same every time, and without memory."""

import tracemalloc

import pytest
import torch
import torchvision
from torch import nn

from overconv.bench.cases import Case
from overconv.bench.exact import figures
from overconv.operators.mdconv import MDConv2d

VERSIONED = {"operations", "copies", "peak_bytes"}


def chain():
    return nn.Sequential(MDConv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6))


CASES = {
    step: Case("chain", chain, (3, 4, 9, 8), plain=lambda: nn.Conv2d(4, 6, 3), step=step)
    for step in ("inference", "training")
}


def test_an_inference_case_by_hand():
    """M = 6, hidden 4: gate 4 x 4 + 4 x 6, chain 9 x 4 x 6 + 6 x 6 over 72 pixels."""
    found = figures(CASES["inference"])
    assert {name: value for name, value in found.items() if name not in VERSIONED} == {
        "parameters": 216 + 36 + 6 + (16 + 4 + 24 + 6) + 12,
        "macs.gate": 40,
        "macs.compose": 0,
        "macs.convolution": (216 + 36) * 72,
        "macs.other": 4 * 72 + 6 * 72,
        "macs.shared": 0,
        "uncounted": 0,
        "counted.forward": 3 * (40 + (216 + 36) * 72),
    }
    assert all(type(value) is int for value in found.values())
    assert set(found) > VERSIONED


def test_a_training_case_has_a_backward_pass():
    found = figures(CASES["training"])
    assert found["macs_backward.convolution"] == 2 * found["macs.convolution"]
    assert found["macs_backward.gate"] == 2 * found["macs.gate"]
    assert found["counted.backward"] == 2 * found["counted.forward"]
    inference = figures(CASES["inference"])
    for name in VERSIONED - {"copies"}:
        assert found[name] > inference[name]


@pytest.mark.parametrize("step", CASES)
def test_figures_are_the_same_every_time_and_those_of_a_real_run(step):
    from overconv.bench.cases import inputs, make, prepared
    from overconv.counters import count

    case = CASES[step]
    found = figures(case)
    assert figures(case) == found
    module, x = make(case), inputs(case)
    counts = count(prepared(case, module, x), module)
    for name in VERSIONED:
        assert found[name] == getattr(counts, name)
    assert found["counted.forward"] == counts.forward.macs


def test_the_plain_counterpart_is_asked():
    assert figures(CASES["inference"], plain=True)["macs.convolution"] == 216 * 7 * 6


def test_one_copy_more_is_seen():
    class Copying(nn.Conv2d):
        def forward(self, x):
            return super().forward(x.clone())

    def case(layer):
        return Case("conv", lambda: layer(4, 4, 3), (2, 4, 8, 8))

    plain, copying = figures(case(nn.Conv2d)), figures(case(Copying))
    assert copying["copies"] == plain["copies"] + 1
    assert copying["operations"] == plain["operations"] + 1
    assert copying["peak_bytes"] == plain["peak_bytes"] + 4 * 2 * 4 * 64
    assert copying["uncounted"] == 1, "nobody knows what a changed convolution computes"


def test_a_network_at_imagenet_size_takes_no_memory_for_its_features():
    case = Case("resnet18", torchvision.models.resnet18, (64, 3, 224, 224), step="training")
    state = torch.get_rng_state()
    tracemalloc.start()
    found = figures(case)
    assert tracemalloc.get_traced_memory()[1] < 200 << 20
    tracemalloc.stop()
    assert torch.equal(torch.get_rng_state(), state)
    assert found["macs.convolution"] == 1_814_073_344
    assert found["counted.forward"] == 64 * 1_814_073_344
    assert found["peak_bytes"] > 1_000_000_000


def test_what_has_no_formula_is_counted_all_the_same():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x):
            x = x.flatten(2) * self.scale
            return x @ x.transpose(1, 2)

    found = figures(Case("attention", Attention, (2, 3, 4, 4)))
    assert (found["uncounted"], found["macs.convolution"]) == (1, 0)
    assert found["counted.forward"] == 2 * 3 * 3 * 16
