"""Plans: the cheapest form for each layer of a network, by counted work and by measured time."""

import json
from functools import partial

import pytest
import torch
from torch import nn

from overconv import forms
from overconv.forms import Choice, Plan, make_plan, plan_forms
from overconv.operators.condconv import CondConv2d
from overconv.operators.maconv import MAConv2d
from overconv.operators.mdconv import MDConv2d
from overconv.surgery import replace_convs, to_inference


@pytest.fixture(autouse=True)
def no_memory(monkeypatch):
    """Each test measures anew."""
    monkeypatch.setattr(forms, "_measured", {})


def network(layer=MDConv2d):
    """A layer on a large image and one on a small image."""
    model = nn.Sequential(
        layer(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), layer(8, 8, 3, padding=1)
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.double().eval()


def image(batch=2):
    return torch.randn(batch, 3, 24, 24, dtype=torch.float64)


def timed(monkeypatch, seconds):
    """Replace the clock: each form takes what ``seconds`` says; returns the heats that were run."""
    heats = []

    def interleaved(alternatives, **options):
        for call in alternatives.values():
            call()  # it has to run
        heats.append(list(alternatives))
        return {form: [seconds(form), 9.0] for form in alternatives}

    monkeypatch.setattr(forms, "interleaved", interleaved)
    return heats


@pytest.mark.parametrize("layer", [MDConv2d, partial(MDConv2d, depth=3), CondConv2d])
@pytest.mark.parametrize("objective", ["macs", "latency"])
def test_a_plan_moves_no_output_and_leaves_the_network(layer, objective):
    model, x = network(layer), image()
    expected, before = model(x), [getattr(m, m.form_option) for m in (model[0], model[3])]
    planned = plan_forms(model, x, objective)
    torch.testing.assert_close(planned(x), expected, rtol=0, atol=1e-12)
    assert [getattr(m, m.form_option) for m in (model[0], model[3])] == before
    assert not planned.training


def test_the_least_work_depends_on_the_image():
    model = network()
    plan = make_plan(model, image())
    assert [choice.layer for choice in plan.choices] == ["0", "3"]
    assert [choice.form for choice in plan.choices] == ["compact", "expanding"]
    for choice, size in zip(plan.choices, (24, 2), strict=True):
        layer = model.get_submodule(choice.layer)
        assert choice.macs.keys() == layer.forms((size, size)).keys()
        layer.form = choice.form
        assert choice.macs[choice.form] == layer.macs((size, size)).total
        assert choice.macs[choice.form] == min(choice.macs.values())
        assert choice.seconds == {}


def test_horizontal_layers_are_planned_too():
    """With as many kernels as pixels, mixing the outputs is cheaper than mixing the kernels."""
    model = nn.Sequential(CondConv2d(8, 8, 3, num_kernels=2)).eval()
    small = make_plan(model, torch.zeros(1, 8, 3, 3))
    large = make_plan(model, torch.zeros(1, 8, 30, 30))
    assert [plan.choices[0].form for plan in (small, large)] == ["features", "weights"]
    assert plan_forms(model, torch.zeros(1, 8, 3, 3))[0].on == "features"


def test_work_that_serves_a_batch_is_shared_out():
    """A gate of the batch is composed once for all images."""
    model = nn.Sequential(MDConv2d(8, 8, 3, padding=1, when="batch"))
    one, many = (
        make_plan(model, torch.zeros(batch, 8, 8, 8)).choices[0].macs["compact"]
        for batch in (1, 64)
    )
    macs = model[0].forms((8, 8))["compact"]
    assert one == macs.total
    assert many == macs.total - macs.shared + macs.shared / 64
    assert macs.shared > 64


def test_a_layer_that_is_called_twice_counts_twice():
    layer = MDConv2d(8, 8, 3, padding=1).eval()

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return self.layer(nn.functional.max_pool2d(self.layer(x), 4))

    (choice,) = make_plan(Twice(), torch.zeros(1, 8, 16, 16)).choices
    for form, macs in choice.macs.items():
        parts = [layer.forms((size, size))[form].total for size in (16, 4)]
        assert macs == sum(parts), form


@pytest.mark.parametrize("fastest", ["expanding", "compact", "(A2 D1) (A1 x)"])
def test_the_fastest_form_is_taken_whatever_its_work(fastest, monkeypatch):
    heats = timed(monkeypatch, lambda form: 1.0 if form == fastest else 1.2)
    model = nn.Sequential(MDConv2d(16, 24, 3, padding=1)).eval()
    (choice,) = make_plan(model, torch.zeros(1, 16, 5, 5), "latency").choices
    assert choice.form == fastest
    assert choice.seconds[fastest] == 1.0  # the minimum of the samples
    assert len(heats) == 2
    assert set(heats[1]) == set(heats[0])


def test_forms_that_are_about_as_fast_are_told_apart_by_work(monkeypatch):
    timed(monkeypatch, lambda form: 1.0 if form == "compact" else 1.004)
    model = nn.Sequential(MDConv2d(16, 24, 3, padding=1)).eval()
    (choice,) = make_plan(model, torch.zeros(1, 16, 5, 5), "latency").choices
    assert choice.macs["expanding"] < choice.macs["compact"]
    assert choice.form == min(choice.seconds, key=choice.macs.get)


def test_slow_forms_get_one_heat_and_hopeless_ones_none(monkeypatch):
    heats = timed(monkeypatch, lambda form: 1.0 if form == "expanding" else 2.0)
    model = nn.Sequential(MDConv2d(64, 64, 3, padding=1)).eval()
    (choice,) = make_plan(model, torch.zeros(1, 64, 2, 2), "latency").choices
    assert len(heats) == 1  # one finalist needs no second heat
    assert choice.macs["compact"] > 8 * choice.macs["expanding"]
    assert "compact" not in choice.seconds


def test_times_are_remembered_by_all_that_they_depend_on(monkeypatch):
    heats = timed(monkeypatch, lambda form: 1.0)
    model, x = network(), image()
    make_plan(model, x, "latency")
    first = len(heats)
    make_plan(model, x, "latency")
    assert len(heats) == first > 0
    make_plan(model, image(batch=3), "latency")
    assert len(heats) > first
    for change in ("dtype", "threads", "format", "mode"):
        before = len(heats)
        other, y = model, x
        if change == "dtype":
            other, y = network().float(), x.float()
        elif change == "threads":
            monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
        elif change == "format":
            y = x.to(memory_format=torch.channels_last)
        else:
            other = network().train()
        make_plan(other, y, "latency")
        assert len(heats) > before, change


def test_training_is_timed_with_its_gradients(monkeypatch):
    graded = []
    real = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: graded.append(1) or real(*a, **k))
    timed(monkeypatch, lambda form: 1.0)
    model = network(partial(MDConv2d, middle_norm=True)).train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    plan = make_plan(model, image(), "latency")
    assert plan.choices == ()  # a norm that trains leaves only one form
    model = network().train()
    make_plan(model, image(), "latency")
    assert graded
    model = network(partial(MDConv2d, when="batch")).train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    make_plan(model, image(), "latency")
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_a_plan_is_saved_loaded_and_printed(tmp_path):
    model, x = network(), image()
    plan = make_plan(model, x, "latency")
    plan.save(tmp_path / "plan.json")
    loaded = Plan.load(tmp_path / "plan.json")
    assert loaded == plan
    applied = loaded.apply(model)
    assert [applied[0].form, applied[3].form] == [choice.form for choice in plan.choices]
    text = str(plan)
    assert text.startswith("plan by latency for (2, 3, 24, 24), cpu, torch.float64, 1 threads\n")
    assert "  3  form='expanding'  (ms: " in text
    assert "(MMACs: " in str(make_plan(model, x))


def test_nothing_to_choose_is_said_and_no_error():
    model = to_inference(network(MAConv2d))
    assert "no layer has a choice" in str(make_plan(model, image()))
    assert torch.equal(plan_forms(model, image())(image(1) * 0), model(image(1) * 0))


def test_a_plan_for_another_network_is_refused():
    plan = make_plan(network(), image())
    with pytest.raises(ValueError, match="it sets 'form' of '0', which is a Conv2d"):
        plan.apply(nn.Sequential(nn.Conv2d(3, 8, 3)))
    with pytest.raises(ValueError, match="it sets 'form' of '3', which is no such module"):
        plan.apply(network()[:1])
    deeper = Plan("macs", (1, 3, 8, 8), "", (Choice("0", "form", "(A3 A2) (A1 x)", {}),))
    with pytest.raises(ValueError, match="form must be"):
        deeper.apply(network())


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"objective": 1}', '{"choices": [{"a": 1}]}'])
def test_a_file_that_holds_no_plan_is_told(text, tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="plan.json holds no plan"):
        Plan.load(path)


def test_a_plan_file_says_in_words_what_is_set(tmp_path):
    make_plan(network(), image()).save(tmp_path / "plan.json")
    stored = json.loads((tmp_path / "plan.json").read_text())
    assert stored["objective"] == "macs"
    assert stored["choices"][0]["option"] == "form"


@pytest.mark.parametrize("objective", ["time", "", None, "MACs"])
def test_an_unknown_objective_is_told_what_there_is(objective):
    with pytest.raises(ValueError, match="objective must be one of 'macs', 'latency', got"):
        plan_forms(network(), image(), objective)


def test_the_whole_way_in_a_network():
    """Replace, fold, plan: the outputs of the plain network with what little is added."""
    plain = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1)
    ).double()
    model = replace_convs(plain.eval(), partial(MDConv2d, depth=3), "all", preserve=True)
    planned = plan_forms(to_inference(model), image())
    torch.testing.assert_close(planned(image() * 0 + 1), plain(image() * 0 + 1))


def test_times_are_added_over_all_calls_of_a_layer(monkeypatch):
    """Of the forms that are worth it by the work of all calls; also where one call has many."""
    layer = MDConv2d(16, 16, 1, middle_channels=128).eval()

    class Thrice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            pool = nn.functional.adaptive_avg_pool2d
            return self.layer(pool(self.layer(x), 1)) + self.layer(x=pool(x, 1))

    timed(monkeypatch, lambda form: 1.0 if form == "compact" else 2.0)
    (choice,) = make_plan(Thrice(), torch.zeros(1, 16, 32, 32), "latency").choices
    assert choice.form == "compact"
    assert choice.seconds["compact"] == 3.0
    least = min(choice.macs.values())
    assert choice.seconds.keys() == {f for f, macs in choice.macs.items() if macs <= 8 * least}


def test_frozen_parameters_are_planned_for_too():
    model = network().train()
    model[0].bias.requires_grad_(False)
    assert len(make_plan(model, image(), "latency").choices) == 2
    model.requires_grad_(False)
    assert len(make_plan(model, image(), "latency").choices) == 2


def test_options_of_the_gate_are_part_of_what_a_time_depends_on(monkeypatch):
    heats = timed(monkeypatch, lambda form: 1.0)
    for options in ({"when": "sample"}, {"when": "batch"}, {"squash": "softmax"}):
        before = len(heats)
        make_plan(network(partial(MDConv2d, **options)).train(), image(), "latency")
        assert len(heats) > before, options


def test_hooks_are_not_timed_and_random_numbers_not_drawn():
    seen = []
    model = nn.Sequential(MDConv2d(4, 4, 3), nn.Dropout()).train()
    model[0].register_forward_hook(lambda *_: seen.append(1))
    state = torch.get_rng_state()
    make_plan(model, torch.zeros(2, 4, 5, 5), "latency")
    assert len(seen) <= 2  # the network is run twice
    assert torch.equal(torch.get_rng_state(), state)
    with torch.inference_mode():
        make_plan(model, torch.zeros(2, 4, 5, 5), "latency")


def test_no_images_are_no_example():
    with pytest.raises(ValueError, match=r"example_input must hold images, got \(0, 3, 8, 8\)"):
        make_plan(network(), torch.zeros(0, 3, 8, 8))


@pytest.mark.parametrize("layer", [MDConv2d, CondConv2d])
def test_deploying_again_keeps_the_plan(layer):
    model = to_inference(network(layer))
    for objective in ("compact", "expanding") if layer is MDConv2d else ("weights", "features"):
        for module in (model[0], model[3]):
            setattr(module, module.form_option, objective)
        again = to_inference(model)
        assert {getattr(again[i], again[i].form_option) for i in (0, 3)} == {objective}
