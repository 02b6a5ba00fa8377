"""``python -m benchmark models``: networks with layers in the place of convolutions."""

import argparse

import pytest
import torch
from torch import nn

from benchmark import models
from benchmark.latency.options import chosen
from benchmark.latency.situations import Situation, alternative, in_state
from benchmark.models import network
from overconv.bench.cases import WrongOutput
from overconv.operators.mdconv import MDConv2d
from records.benchmark import read


@pytest.fixture(autouse=True)
def first_call_only(scripted):
    """Networks are slow."""
    scripted.first_only = True


def run(*arguments):
    parser = argparse.ArgumentParser()
    models.add_arguments(parser)
    given = ["--networks", "overconv.ResNet", "--image", "8", "--seconds", "0.001"]
    return models.run(parser.parse_args([*given, *arguments]))


def test_networks_come_from_three_places_and_are_the_same_each_time():
    ours, theirs, timms = map(network, ("overconv.ResNet", "squeezenet1_1", "test_resnet"))
    assert type(ours).__module__ == "overconv.models.resnet"
    assert type(theirs).__module__.startswith("torchvision.")
    assert type(timms).__module__.startswith("timm.")
    again = network("overconv.ResNet").state_dict()
    assert all(torch.equal(value, again[name]) for name, value in ours.state_dict().items())
    with pytest.raises(ValueError, match="no network 'resnet999'; allowed: overconv.ResNet, "):
        network("resnet999")


def test_nothing_is_dropped_and_norms_do_something():
    model = network("overconv.MobileNetV2")
    assert all(m.p == 0 for m in model.modules() if isinstance(m, nn.Dropout))
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all(m.running_mean.abs().max() > 0 for m in norms)


def test_a_run_records_each_layer_with_its_place(tmp_path, capsys):
    log = tmp_path / "log.jsonl"
    layers = "MDConv2d:depth=3,MAConv2d"
    assert run("--layers", layers, "--where", "spatial", "--out", str(log)) == 0
    found = read(log)
    assert [(m.kind, m.name) for m in found] == [
        ("network", "MDConv2d depth=3"),
        ("network", "MAConv2d"),
    ]
    deep = found[0]
    assert deep.subject == {"network": "overconv.ResNet"} and deep.arm["where"] == "spatial"
    assert deep.arm["layer"]["options"]["depth"] == 3
    plain = sum(p.numel() for p in network("overconv.ResNet").parameters())
    assert found[1].costs["parameters"] < plain < deep.costs["parameters"]
    assert "of overconv.ResNet, mode inference" in capsys.readouterr().out


def test_a_replaced_network_has_to_compute_what_the_plain_one_does():
    plain = network("overconv.ResNet")
    situation = Situation("inference", "folded", "forward", 2, 8)
    x = situation.images(3)
    one = models._built(chosen("MDConv2d")[0], plain, "all_but_stem", "inference")
    made = in_state(one.module, situation, x)
    assert any(isinstance(m, MDConv2d) for m in made.modules())
    alternative("right", one.module, made, situation, x, one.exact).check()
    with torch.no_grad():
        next(p for p in made.parameters() if p.dim() == 4).mul_(1.02)
    with pytest.raises(WrongOutput, match="spoiled computes something else"):
        alternative("spoiled", one.module, made, situation, x, one.exact).check()


def test_a_step_of_training_is_checked_against_float64():
    situation = Situation("training", "train", "step", 2, 8)
    plain, x = network("overconv.ResNet"), situation.images(3)
    one = models._built(chosen("MAConv2d")[0], plain, "all_but_stem", "training")
    assert one.exact is None
    timed = alternative(one.name, one.module, in_state(one.module, situation, x), situation, x)
    timed.call()
    timed.check()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--networks", "nothing"], "no network 'nothing'"),
        (["--where", "everywhere"], "where='everywhere'; allowed: all, all_but_stem"),
        (["--where", "depthwise"], "where='depthwise' selects none"),
        (["--layers", "Foo"], "no layer 'Foo'"),
        (["--state", "train"], "moves running statistics"),
        (["--layers", "MDConv2d:form=expanding"], "in the state 'folded' it has form='compact'"),
    ],
)
def test_bad_options_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        run(*arguments)
