"""Surgery on networks of torchvision and timm: the table, and whether it holds what is promised."""

import json

import pytest
import torch
from torch import nn

from benchmark.networks import NETWORKS
from benchmark.surgery import (
    COLUMNS,
    calibrate,
    disturb,
    error_of,
    leave_the_start,
    measure,
    scale_of,
    short,
    text,
)
from benchmark.tables import load
from overconv.operators.dyconv import DyConv2d
from overconv.operators.mdconv import MDConv2d


def check(row):
    """Outputs stay, in float32 as far as the network's own rounding lets one see."""
    assert 1e-5 < row["scale"] < 1e3, "an error relative to nothing says nothing"
    assert all(1e-5 < scale < 1e3 for scale in row["scales"].values())
    assert row["replaced"] + sum(row["refused"].values()) == row["convolutions"] - 1
    assert row["folded"] + sum(row["left"].values()) == row["norms"]
    assert all(error <= 1e-9 for error in row["deployed"].values())
    if row["replaced"]:
        assert row["moved"]["float64"] <= 1e-9
        assert row["moved"]["float32"] <= max(1e-4, row["moved"]["rounding"])


def test_three_small_networks(capsys):
    said = []
    names = ["mnasnet0_5", "tf_mobilenetv3_small_075", "test_nfnet"]
    found = measure(names, say=said.append)
    assert [row["network"] for row in found["rows"]] == names
    assert len(said) == 3
    assert said[0].startswith("[1/3] ")
    for row in found["rows"]:
        check(row)
    plain, same, standardised = found["rows"]
    assert (plain["replaced"], plain["folded"], plain["refused"]) == (51, 52, {})
    assert (same["replaced"], same["folded"]) == (48, 34)
    assert same["refused"] == {"a Conv2dSame": 4}
    assert (standardised["replaced"], standardised["refused"]) == (8, {"a ScaledStdConv2d": 24})
    assert text(json.loads(json.dumps(found))) == text(found)
    assert "| `mnasnet0_5`" in text(found)
    assert "| a ScaledStdConv2d | 24     | `test_nfnet`" in text(found)
    measure(["test_nfnet"])
    assert "[1/1]" in capsys.readouterr().err


def test_a_network_without_plain_convolutions_is_deployed_as_it_is():
    (row,) = measure(["eca_nfnet_l0"], say=str)["rows"]
    check(row)
    assert (row["replaced"], row["refused"]) == (0, {"a ScaledStdConv2d": 56})
    assert row["deployed"] == {"as it is": 0}


def test_an_unknown_network_is_told_what_there_is():
    with pytest.raises(ValueError, match="no network 'resnet2'; there are: alexnet, "):
        measure(["resnet2"])


@pytest.mark.parametrize(("library", "number"), [("torchvision", 15), ("timm", 30)])
def test_there_are_many_families(library, number):
    of_library = [network for network in NETWORKS if network.library == library]
    assert len({network.family for network in of_library}) == len(of_library) >= number


def test_the_committed_table_holds_all_networks_and_what_is_promised():
    rows = load("surgery")["rows"]
    assert [row["network"] for row in rows] == [network.name for network in NETWORKS]
    for row in rows:
        check(row)
    few = [row["network"] for row in rows if row.get("moved", {}).get("float32", 0) > 1e-4]
    assert len(few) <= 2, "their own rounding is larger still"
    assert all(len(line) > 0 for line in COLUMNS)


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_all_networks(network):
    """One by one, so that a failure names its network."""
    (row,) = measure([network.name], say=str)["rows"]
    check(row)
    committed = {row["network"]: row for row in load("surgery")["rows"]}[network.name]
    for count in ("convolutions", "replaced", "refused", "norms", "folded", "left"):
        assert row[count] == committed[count], count


# What keeps the table from saying nothing.


def test_an_error_is_relative_to_how_far_images_lie_apart():
    outputs = {"out": torch.tensor([[1.0, 101.0], [3.0, 103.0]]), "aux": torch.zeros(2, 2, 1)}
    assert scale_of(outputs) == pytest.approx(0.5**0.5)
    moved = {"out": outputs["out"] + torch.tensor([[0.0, 1.0], [0.0, 0.0]]), "aux": outputs["aux"]}
    assert error_of(moved, outputs) == pytest.approx(2**0.5)


@torch.no_grad()
def test_nothing_stays_neutral():
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), DyConv2d(6, 4, 3), MDConv2d(4, 4, 1)
    )
    images = torch.randn(4, 3, 9, 9)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    leave_the_start(model)
    for layer in (model[2], model[3]):
        disturb(layer)
    calibrate(model, images)
    assert not model.training
    moved = {n: not torch.equal(v, before[n]) for n, v in model.state_dict().items() if v.dim()}
    assert {name for name, is_moved in moved.items() if not is_moved} == {"0.weight", "0.bias"}
    y = model[:2](images).transpose(0, 1).flatten(1)
    y = (y - model[1].bias[:, None]) / model[1].weight[:, None]
    assert (y.mean(1).abs() < 1).all()
    assert ((y.std(1) > 0.5) & (y.std(1) < 1.5)).all()
    assert not (y.mean(1).abs() < 1e-3).all(), "statistics are not exactly the images'"
    gates = model[3].gate(model[:3](images))[0]
    assert gates.std(0).min() > 1e-3, "each sample sees a kernel of its own"


def test_what_the_table_amounts_to():
    def row(library, family, replaced, folded, moved, deployed):
        return {
            "library": library, "family": family, "convolutions": 10, "replaced": replaced,
            "norms": 4, "folded": folded, "deployed": deployed,
        } | ({"moved": {"float64": moved}} if moved is not None else {})  # fmt: skip

    rows = [
        row("one", "a", 9, 4, 1e-12, {"MDConv2d": 1e-11}),
        row("one", "a", 7, 0, None, {"as it is": 3e-10}),
        row("other", "b", 2, 3, 0.0, {"MDConv2d": 1e-15, "MAConv2d": 0.0}),
    ]
    said = short({"rows": rows})
    assert "In 3 networks (families: 1 of one and 1 of other) 18 of 30 convolutions" in said
    assert "7 of 12 batch norms" in said
    assert "of a replacement is 1e-12, and of a deployed network 3e-10" in said
