"""The command that counts networks: figures, what it could not see, and what it refuses."""

import argparse
import json

import pytest
import torch

from benchmark import costs
from overconv.operators.macs import Macs
from overconv.operators.mdconv import MDConv2d


def command(*arguments):
    parser = argparse.ArgumentParser()
    costs.add_arguments(parser)
    return costs.run(parser.parse_args(arguments))


def test_a_network_is_counted_without_weights(capsys, tmp_path):
    assert command("resnet18", "--json", str(tmp_path / "x.json"), "--modules") == 0
    (found,) = json.loads((tmp_path / "x.json").read_text())
    training, deployed = found["training"], found["deployed"]
    assert (found["network"], found["image"], found["batch"]) == ("resnet18", 224, 2)
    assert training["parameters"] == 11_689_512
    assert training["macs.convolution"] == deployed["macs.convolution"] == 1_814_073_344
    assert training["flops"] == 2 * 1_814_073_344
    assert training["counted"] == 2 * 1_814_073_344
    stem = 9408 * 112**2
    assert training["macs_backward.convolution"] == 2 * 1_814_073_344 - stem
    assert training["counted_backward"] == 2 * training["macs_backward.convolution"]
    assert (
        deployed["parameters"]
        == 11_689_512 - 4_800
        == found["training"]["parameters"] - (found["over_parameters"])
    )
    assert training["without_formula"] == deployed["without_formula"] == 0
    assert training["peak_bytes"] > deployed["peak_bytes"] > 4 * 11_684_712
    out = capsys.readouterr().out
    for part in ("1,814,073,344", "3,628,146,688", "training, backward", "peak bytes", "could not"):
        assert part in out
    assert "layer4.1.conv2" in out, "module by module"
    assert "\n0 disagreements between formulas and torch's corrected counter: " in out
    assert "of 1 in training and deployed, backward passes of 1\n" in out


def test_a_layer_is_put_in(capsys, tmp_path):
    where = ["--layer", "MDConv2d:depth=3:middle_norm=False:squash=softmax"]
    file = tmp_path / "x.json"
    assert command("mobilenet_v2", *where, "--where", "pointwise", "--json", str(file)) == 0
    (found,) = json.loads(file.read_text())
    assert found["training"]["macs.gate"] > 0
    assert found["deployed"]["macs.compose"] > 0
    assert found["training"]["macs.convolution"] > 300_774_272
    capsys.readouterr()


def test_what_no_formula_covers_is_counted_and_listed(capsys):
    assert command("timm:convnextv2_atto", "--image", "64") == 0
    out = capsys.readouterr().out
    assert "grn and 11 more: a GlobalResponseNorm with parameters" in out
    assert "of 1 in training and deployed, backward passes of 0\n" in out
    found = costs.measure("maxvit_t")
    training = found["training"]
    assert training["without_formula"] > 0
    per_image = sum(training[f"macs.{kind}"] for kind in costs.KINDS)
    assert training["counted"] == 2 * per_image + training["without_formula"]
    assert "of it without formula" in costs.summary([found])


@pytest.mark.parametrize(
    "name", ["regnet_y_400mf", "inception_v3", "googlenet", "timm:tf_mixnet_s", "timm:nfnet_l0"]
)
def test_networks_that_read_values_or_have_odd_layers_are_built(name):
    model, side = costs.build(name)
    assert all(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])
    x = torch.empty(2, 3, side, side, device="meta")
    assert model.eval()(x).shape == (2, 1000)


def test_counters_that_disagree_are_shown(capsys, monkeypatch):
    right = MDConv2d.macs
    monkeypatch.setattr(MDConv2d, "macs", lambda self, image: right(self, image) + Macs(gate=1))
    assert command("resnet18", "--image", "32", "--layer", "MDConv2d") == 1
    error = capsys.readouterr().err
    assert "counters disagree: 'layer1.0.conv1', batch 2: 2 multiply-accumulates" in error


@pytest.mark.slow
def test_all_of_torchvision_comes_out_with_a_figure():
    for name in costs.classifiers():
        found = costs.measure(name)
        assert found["deployed"]["counted"] > 0
        assert found["cpu_seconds"] < 60


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give the name of a network, or --all"),
        (["resnet18", "--all"], "give the name of a network, or --all"),
        (["resnet19"], "torchvision has no classifier 'resnet19'"),
        (["timm:resnet19"], "timm has no network 'resnet19'"),
        (["hub:resnet18"], "networks are of torchvision or timm, got 'hub:resnet18'"),
        (["resnet18", "--batch", "1"], "--batch must be at least 2"),
        (["resnet18", "--image", "0"], "--image must be at least 1, got 0"),
        (["resnet18", "--layer", "Conv9d"], "no layer 'Conv9d'; there are: ACConv2d, "),
        (["resnet18", "--layer", "MDConv2d:deep=3"], "no option 'deep=3'"),
        (["resnet18", "--layer", "MDConv2d:depth"], "no option 'depth'"),
        (["resnet18", "--layer", "MDConv2d:groups=2"], "no option 'groups=2'"),
        (["resnet18", "--layer", "SEConv2d,MDConv2d"], "--layer takes one layer, got 'SEConv2d,MD"),
    ],
)
def test_what_it_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        command(*arguments)
