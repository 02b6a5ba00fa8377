"""``python -m benchmark operators``: what is measured, checked, refused, recorded and shown."""

import argparse
from functools import partial

import pytest
import torch
from torch import nn

from ablations.identity import describe_layer
from analysis.latency import cost_by_image
from analysis.measurements import comparable, latest, measurement_frame
from benchmark import operators
from benchmark.latency import runs
from benchmark.latency.options import AT_ONCE, Choice, chosen
from benchmark.latency.runs import costs_of
from benchmark.latency.situations import MODES, PASSES, STATES, Situation, alternative, in_state
from benchmark.latency.table import table
from benchmark.operators import built, parsed
from benchmark.variants import layers
from overconv.bench.cases import WrongOutput
from overconv.bench.devices import CudaDevice
from overconv.bench.latency import Throttled
from overconv.operators.dcd import DCDConv2d
from overconv.operators.mdconv import MDConv2d
from overconv.timing import Sample
from records.benchmark import read

SMALL = ["--shape", "6,8,3,7", "--seconds", "0.001"]


pytestmark = pytest.mark.usefixtures("scripted")


def run(*arguments):
    parser = argparse.ArgumentParser()
    operators.add_arguments(parser)
    return operators.run(parser.parse_args([*SMALL, *arguments]))


# Situations.


def possible(layer_states=STATES):
    for mode in MODES:
        for state in layer_states:
            for step in PASSES:
                try:
                    yield Situation(mode, state, step, batch=4, image=7)
                except ValueError:
                    continue


@pytest.mark.parametrize("layer", [None, *layers()], ids=lambda x: x and x.__name__)
def test_every_layer_passes_its_check_in_every_situation(layer):
    for situation in possible([state for state in STATES if state not in ("compiled", "planned")]):
        one = built(Choice(layer, {}), parsed("6,8,3,7"))
        x = situation.images(6)
        module = situation.placed(one.module)
        made = in_state(module, situation, x)
        timed = alternative(one.name, module, made, situation, x)
        timed.call()
        timed.check()


@pytest.mark.parametrize("situation", list(possible(["planned"])), ids=str)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_planned_layer_passes_its_check(situation, dtype):
    situation = Situation(
        situation.mode, "planned", situation.step, 2, 5, dtype, "channels_last"
    )  # fmt: skip
    one, x = built(Choice(MDConv2d, {}), parsed("6,8,3,5")), situation.images(6)
    assert x.is_contiguous(memory_format=torch.channels_last)
    module = situation.placed(one.module)
    made = in_state(module, situation, x)
    assert next(made.parameters()).dtype == x.dtype
    timed = alternative(one.name, module, made, situation, x)
    timed.call()
    timed.check()


@pytest.mark.parametrize("situation", list(possible(["train", "eval", "folded"])), ids=str)
def test_a_wrong_layer_is_found_in_every_situation(situation):
    one, x = built(Choice(MDConv2d, {}), parsed("6,8,3,7")), situation.images(6)
    module = situation.placed(one.module)
    made = in_state(module, situation, x)

    class Wrong(nn.Module):
        """Everything is right but one pixel."""

        def __init__(self):
            super().__init__()
            self.inner = made

        def forward(self, x):
            y = self.inner(x)
            return y + torch.zeros_like(y).index_fill_(0, torch.tensor([1]), 0.01)

        def state_dict(self, *args, **kwargs):
            return self.inner.state_dict(*args, **kwargs)

    timed = alternative("wrong", module, Wrong(), situation, x)
    timed.call()
    with pytest.raises(WrongOutput, match="wrong computes something else"):
        timed.check()


@pytest.mark.parametrize("step", ["backward", "step"])
def test_a_wrong_gradient_is_found(step):
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return 1.01 * gradient

    class Layer(nn.Conv2d):
        def forward(self, x):
            return super().forward(Wrong.apply(x) if self.wrong else x)

    situation = Situation("training", "train", step, 2, 5)
    x, layer = situation.images(3), Layer(3, 4, 3)
    layer.wrong = False
    made = in_state(layer, situation, x)
    made.wrong = True
    timed = alternative("wrong", layer, made, situation, x)
    timed.call()
    with pytest.raises(WrongOutput, match="the gradient of wrong computes something else"):
        timed.check()


def test_each_pass_does_what_it_says():
    conv = nn.Conv2d(3, 4, 3)
    seen = []
    conv.register_forward_hook(lambda *_: seen.append("forward"))
    conv.register_full_backward_hook(lambda *_: seen.append("backward"))
    for step, first, again in (
        ("forward", ["forward"], ["forward"]),
        ("backward", ["forward", "backward"], ["backward"]),
        ("step", ["forward", "backward"], ["forward", "backward"]),
    ):
        situation = Situation("training", "train", step, 2, 5)
        x = situation.images(3)
        call = alternative("conv", conv, conv, situation, x).call
        for expected in (first, again):
            seen.clear()
            call()
            assert seen == expected
        assert x.grad is None and conv.weight.grad is None
    inference = Situation("inference", "eval", "forward", 2, 5)
    assert alternative("conv", conv, conv, inference, inference.images(3)).call().is_inference()


def test_training_leaves_the_values_alone():
    conv = nn.Conv2d(3, 4, 3)
    before = conv.weight.clone()
    situation = Situation("training", "train", "step", 2, 5)
    alternative("conv", conv, conv, situation, situation.images(3)).call()
    assert torch.equal(conv.weight, before)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"step": "backward"}, "of the planned module, backward: under inference nothing is rec"),
        ({"step": "step"}, "under inference nothing is recorded"),
        ({"state": "train"}, r"train\(\) moves running statistics"),
        ({"mode": "training", "state": "folded"}, "a folded module is deployed, not trained"),
        (
            {"mode": "training", "state": "compiled", "step": "backward"},
            "compiled code gives its buffers away in the backward pass",
        ),
        ({"mode": "testing"}, "mode='testing'; allowed: inference, training"),
        ({"state": "best"}, "state='best'; allowed: train, eval, folded, planned, compiled"),
        ({"step": "both"}, "step='both'; allowed"),
        ({"dtype": "int8"}, "dtype='int8'; allowed: float32, bfloat16, float16"),
        ({"memory_format": "nhwc"}, "memory_format='nhwc'; allowed"),
        ({"batch": 0}, "batch=0; allowed: whole numbers from 1"),
        ({"image": 0}, "image=0"),
        ({"threads": 0}, "threads=0"),
    ],
)
def test_what_cannot_be_is_refused_with_its_reason(fields, message):
    with pytest.raises(ValueError, match=message):
        Situation(**fields)


# Layers and shapes.


def test_layers_are_chosen_with_their_options():
    deep, plain = chosen("MDConv2d:depth=3:placement=('input',):form=compact, SEConv2d")
    assert deep.options == {"depth": 3, "placement": ("input",), "form": "compact"}
    assert deep.form == "compact" and plain.form is None
    assert built(deep, parsed("6,8,3,7")).module.depth == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Foo", "no layer 'Foo'; there are: ACConv2d, "),
        ("MDConv2d:deep=3", "MDConv2d has no option 'deep=3'; it has, as name=value: depth, "),
        ("MDConv2d:depth", "MDConv2d has no option 'depth'"),
        ("MDConv2d:in_channels=3", "MDConv2d has no option 'in_channels=3'"),
    ],
)
def test_an_unknown_layer_or_option_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        chosen(text)


def test_arms_are_described_as_studies_record_them():
    for text in ("MDConv2d:depth=3", "DyConv2d", "MAConv2d"):
        [choice] = chosen(text)
        assert choice.described() == describe_layer(partial(choice.layer, **choice.options))
    assert Choice(None, {}).described() is None


def test_a_shape_keeps_its_side():
    shape = parsed("8,16,5,14")
    assert (shape.padding, shape.stride, shape.groups, shape.image) == (2, 1, 1, 14)
    assert parsed("8,16,3,14,2,4").arguments == (8, 16, 3, 2, 1, 1, 4)
    for wrong in ("8,16,3", "8,16,3,0", "a,b,c,d", "1,2,3,4,5,6,7", ""):
        with pytest.raises(ValueError, match=f"shape='{wrong}'; allowed: in,out,kernel,image"):
            parsed(wrong)


def test_counts_are_those_of_the_form():
    x = torch.randn(4, 6, 7, 7)
    assert costs_of(nn.Conv2d(6, 8, 3, padding=1), x) == {
        "parameters": 6 * 8 * 9 + 8,
        "macs": 49 * 6 * 8 * 9,
    }
    for form in ("expanding", "compact"):
        layer = MDConv2d(6, 8, 3, padding=1, form=form).eval()
        assert costs_of(layer, x)["macs"] == layer.macs((7, 7)).per_image(4)


# The command.


def test_a_run_records_and_shows_every_layer(tmp_path, capsys):
    log = tmp_path / "log.jsonl"
    assert run("--layers", "MDConv2d,SEConv2d", "--out", str(log), "--memory") == 0
    found = read(log)
    assert [m.name for m in found] == ["MDConv2d", "SEConv2d"]
    for m in found:
        assert m.kind == "operator" and m.outcome == "measured"
        assert m.ratio["estimate"] == 1.0 and m.seconds["minimum"] == 4e-3
        assert len(m.samples) == len(m.reference) == 8
        assert m.run["reference"]["costs"] == {"parameters": 440, "macs": 8 * 6 * 9 * 49}
        assert m.subject == {
            "in_channels": 6, "out_channels": 8, "kernel_size": 3, "stride": 1, "groups": 1
        }  # fmt: skip
        assert m.situation["state"] == "folded" and m.costs["peak_bytes"] > 4 * 6 * 49
        assert "host" not in m.environment and "before" in m.environment
        assert m.key and "load" not in m.fingerprint
    out, err = capsys.readouterr()
    assert "MDConv2d, SEConv2d: inference, folded" in err
    assert "of 6-8 3x3, mode inference, state folded" in out
    assert "| MDConv2d | 1.000        | - " in out and " | few samples |" in out
    assert "- MDConv2d; SEConv2d: 2 groups of samples, too few for an interval\n" in out
    assert f"2 measurements, appended to {log}" in out


def test_all_combinations_are_run_and_the_varied_ones_are_columns(tmp_path, capsys):
    log = tmp_path / "log.jsonl"
    arguments = ["--layers", "SEConv2d", "--batch", "1,2", "--image", "5,7", "--out", str(log)]
    assert run(*arguments, "--state", "eval,folded") == 0
    found = read(log)
    assert len({tuple(m.situation.values()) for m in found}) == 8 == len(found)
    [header] = [line for line in capsys.readouterr().out.splitlines() if "time / plain" in line]
    assert [cell.strip() for cell in header.split("|")][1:6] == [
        "layer", "state", "batch", "image", "time / plain"
    ]  # fmt: skip


def test_few_are_timed_at_once_and_each_time_with_the_plain_one(monkeypatch):
    groups = []
    real = runs.measure

    def spy(timed, **more):
        groups.append(list(timed))
        return real(timed, **more)

    monkeypatch.setattr(runs, "measure", spy)
    assert run("--layers", "SEConv2d,MDConv2d,DyConv2d,MAConv2d") == 0
    assert groups == [["Conv2d", "SEConv2d", "MDConv2d", "DyConv2d"], ["Conv2d", "MAConv2d"]]
    assert AT_ONCE == 3


def test_a_form_that_a_state_does_not_keep_is_refused():
    with pytest.raises(ValueError, match="in the state 'folded' it has form='compact'; forms that"):
        run("--layers", "MDConv2d:form=expanding")
    assert run("--layers", "MDConv2d:form=expanding,MDConv2d:form=compact", "--state", "eval") == 0


def test_bad_options_are_told_before_anything_runs(scripted, capsys):
    for arguments, message in (
        (["--pass", "backward"], "under inference nothing is recorded"),
        (["--shape", "1,2"], "shape='1,2'"),
        (["--layers", "Foo"], "no layer 'Foo'"),
        (["--state", "eval,train"], "moves running statistics"),
    ):
        with pytest.raises(ValueError, match=message):
            run(*arguments)
    assert scripted.now == 0.0


def test_a_wrong_output_ends_the_run_and_what_was_measured_is_shown(monkeypatch, capsys, tmp_path):
    real = runs.alternative

    def spoiled(name, module, made, situation, x, exact):
        if name == "MAConv2d":
            made.bias.data += 1
        return real(name, module, made, situation, x, exact)

    monkeypatch.setattr(runs, "alternative", spoiled)
    log = tmp_path / "log.jsonl"
    layers_ = "SEConv2d,MDConv2d,DyConv2d,MAConv2d"
    assert run("--layers", layers_, "--out", str(log)) == 1
    out, err = capsys.readouterr()
    assert "python -m benchmark: MAConv2d computes something else than it should" in err
    assert "3 measurements" in out and len(read(log)) == 3


def test_a_throttled_device_is_an_error(monkeypatch, capsys):
    def throttled(*_, **__):
        raise Throttled("8 of 8 rounds do not count")

    monkeypatch.setattr(runs, "measure", throttled)
    assert run("--layers", "SEConv2d") == 1
    assert "8 of 8 rounds do not count" in capsys.readouterr().err


def test_memory_that_does_not_suffice_is_a_row(monkeypatch, capsys, tmp_path):
    real = runs.measure

    def measure(timed, **more):
        if "MDConv2d" in timed:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(timed, **more)

    monkeypatch.setattr(runs, "measure", measure)
    monkeypatch.setattr(torch.accelerator, "empty_cache", lambda: None)
    log = tmp_path / "log.jsonl"
    assert run("--layers", "SEConv2d,MDConv2d", "--out", str(log)) == 0
    assert [m.outcome for m in read(log)] == ["measured", "out of memory"]
    [row] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| MDConv2d")]
    assert row.rstrip(" |").endswith("out of memory")


def test_compiled_memory_is_not_guessed(scripted):
    with pytest.raises(ValueError, match="--memory counts what is dispatched on a CPU"):
        runs._memory(None, Situation(state="compiled"), scripted)


def test_graphs_are_measured_where_they_can_be(scripted, monkeypatch):
    class Device(CudaDevice):
        def captured(self, call):
            return (None, "it waits") if call in refused else (call, "")

    asked = []
    monkeypatch.setattr(runs, "measure", lambda *a, **k: asked.append(list(a[0])) or FOUND)
    timed = {name: runs.Alternative(lambda name=name: name) for name in ("plain", "a", "b")}
    device = Device(type("Gpu", (), {"name": "fake"})())
    refused = {timed["b"].call}
    found = runs._graphs(timed, "plain", device, {})
    assert asked == [["plain", "a"]] and found["b"] == {"why": "it waits"} and "ratio" in found["a"]
    refused = {timed["plain"].call}
    found = runs._graphs(timed, "plain", device, {})
    assert found["a"] == {"why": "plain cannot be captured: it waits"}
    assert runs._graphs(timed, "plain", scripted, {}) == {}


class Found:
    """A measurement of which only ratio and summary are asked."""

    def ratio(self, name):
        return A_RATIO

    summary = ratio


A_RATIO = Sample(1.0, 1.0, 0)  # any dataclass
FOUND = Found()


def test_flags_and_their_reasons_are_shown(tmp_path):
    log = tmp_path / "log.jsonl"
    run("--layers", "SEConv2d", "--out", str(log))
    [m] = read(log)
    spoiled = m.model_copy(
        update={
            "run": m.run
            | {"unstable": "8 of 8 samples interrupted", "unmet": "intervals", "dropped": 5}
            | {"throttled": "heat", "launch_bound": True},
            "graph": {"why": "it waits"},
        }
    )
    text = table([spoiled])
    assert "unstable, few samples, imprecise, throttled, bound by launches" in text
    assert "- SEConv2d: unstable, 8 of 8 samples interrupted\n" in text
    assert "- SEConv2d: 5 rounds dropped, throttled by heat\n" in text
    assert "- SEConv2d: no graph, it waits\n" in text
    assert "unstable" not in table([m])


@pytest.mark.parametrize(("groups", "cell"), [(7, "| - "), (8, "| 1.000 to 1.000 ")])
def test_an_interval_is_shown_if_there_are_groups_enough_for_one(tmp_path, groups, cell):
    log = tmp_path / "log.jsonl"
    run("--layers", "SEConv2d", "--out", str(log))
    [m] = read(log)
    text = table([m.model_copy(update={"ratio": m.ratio | {"groups": groups}})])
    assert cell in text and ("few samples" in text) == (groups < 8)


def test_the_committed_log_shows_where_the_forms_cross():
    from benchmark.tables import FOLDER

    log = FOLDER.parents[1] / "reports" / "data" / "benchmark.jsonl"
    frame = latest(measurement_frame(read(log)))
    figures = [figure for part in comparable(frame) if (figure := cost_by_image(part)) is not None]
    assert figures
    assert all("MDConv2d form=compact cross at a side of" in f.caption for f in figures)


def test_costs_are_those_of_the_layer_as_it_stands():
    """In training this form would be refused, and a norm in the middle would be charged."""
    layer, x = DCDConv2d(4, 4, 3, on="weights").eval(), torch.zeros(2, 4, 7, 7)
    found = runs.costs_of(layer, x)
    assert found["macs"] == layer.macs((7, 7)).per_image(2)
    assert found["parameters"] == sum(parameter.numel() for parameter in layer.parameters())
