"""Our list of cases: every layer of the library, off its neutral values, with right outputs."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmark.cases import CASES, LAYERS, NETWORKS
from benchmark.variants import layers
from overconv import forms
from overconv.bench.cases import WrongOutput, by_kernels, check_output, inputs, make, prepared
from overconv.operators.base import OverConv2d


def layer_of(case):
    """What the case's build is made from: a class, or a partial of one."""
    layer = case.build.args[0] if case in LAYERS else case.build.args[1]
    return getattr(layer, "func", layer)


def test_every_layer_of_the_library_is_watched():
    assert {layer_of(case) for case in LAYERS} == set(layers())


def test_inference_and_training_and_both_batches_are_watched():
    assert len(CASES) >= 25
    assert {case.step for case in CASES} == {"inference", "training"}
    assert {case.step for case in NETWORKS} == {"inference", "training"}
    assert {case.shape[0] for case in CASES} >= {1, 8}
    assert all(case.plain is not None and case.expected is not None for case in CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_outputs_are_right(case):
    module, x = make(case), inputs(case)
    check_output(case, module, x)
    prepared(case, module, x)()
    check_output(case, module, x)  # which a step of training must not change
    with torch.no_grad():
        assert make(case, plain=True).eval()(x).shape == module.eval()(x).shape


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_wrong_output_would_be_seen(case):
    """The largest parameter is off by a tenth: no output is compared with itself."""
    module = make(case)
    with torch.no_grad():
        weight = max(module.parameters(), key=torch.Tensor.numel)
        weight.mul_(1.1)
    if case.expected is by_kernels:  # kernels come from the module, which knows of the change
        right = make(case).eval()
        case = replace(case, expected=lambda _, x: by_kernels(right, x))
    with pytest.raises(WrongOutput):
        check_output(case, module, inputs(case))


FOLDED = [case for case in LAYERS if case.name.endswith(",folded")]


@pytest.mark.parametrize("case", FOLDED, ids=lambda case: case.name)
def test_what_is_folded_is_a_plain_convolution(case):
    assert type(make(case)) is nn.Conv2d


@pytest.mark.parametrize(
    "case",
    [c for c in LAYERS if c.step == "inference" and c not in FOLDED],
    ids=lambda case: case.name,
)
def test_gates_are_off_their_neutral_values(case):
    """Two images of different content see different kernels: nothing could be folded away."""
    module = make(case)
    assert isinstance(module, OverConv2d)
    x = torch.stack([inputs(case)[0], inputs(case)[0].flip(0) * 2])
    with torch.no_grad():
        kernels, _ = module.kernels(x)
    assert float((kernels[0] - kernels[1]).abs().max()) > 1e-3 * float(kernels.abs().max())


def test_no_case_depends_on_a_clock(monkeypatch):
    """Forms are planned by counted work: they are those of every machine."""
    monkeypatch.setattr(forms, "interleaved", lambda *_, **__: pytest.fail("times are measured"))
    modules = [part for case in LAYERS for part in make(case).modules()]
    options = [(part, getattr(part, "form_option", None)) for part in modules]
    assert len({getattr(part, option) for part, option in options if option}) > 3
