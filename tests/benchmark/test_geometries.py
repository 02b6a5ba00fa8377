"""Layers on a grid of geometries: the table is of all of it, and nothing is refused unexplained."""

from collections import Counter

import pytest

from benchmark import geometries
from benchmark.geometries import ATTEMPTS, GRID, REASONS, STEP, Attempt, grid, measure, text
from benchmark.tables import FOLDER, load
from benchmark.variants import layers
from overconv.operators.mdconv import MDConv2d
from overconv.operators.se import SEConv2d


def test_the_grid_meets_every_value_of_every_axis():
    met: dict[str, Counter] = {}
    for arguments in grid():
        for name, value in arguments.items():
            met.setdefault(name, Counter())[value] += 1
    for name, values in GRID.items():
        if name != "channels":
            assert set(met[name]) == set(values), name
    shapes = {(a["in_channels"], a["out_channels"], a["groups"]) for a in grid()}
    assert shapes == set(geometries.CHANNELS.values())
    assert len(list(grid())) >= 200
    assert len(list(grid(1))) == len(list(grid(STEP))) * STEP - 3
    assert set(met["bias"]) == {True, False}


@pytest.mark.parametrize("layer", layers(), ids=lambda layer: layer.__name__)
def test_each_layer_is_exact_or_refuses_with_a_known_reason(layer):
    found = measure(step=29, only=[layer])
    (row,) = found["rows"]
    assert row["geometries"] >= 39
    assert row["exact"] + sum(row["refused"].values()) == row["geometries"]
    assert row["from_conv2d"] < 1e-9
    assert row["to_inference"] < 1e-9


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=str)
def test_what_is_refused_names_what_was_given(attempt):
    with pytest.raises(ValueError, match=r"\w") as raised:
        attempt()
    assert geometries.reason_of(str(raised.value)).why.endswith(".")
    if attempt.stage != "one value":  # which torch refuses, in its own words
        given = {**attempt.arguments, **attempt.options, "gate_norm": True}
        assert any(name in str(raised.value) for name in given)


def test_every_reason_is_of_use():
    found = [measure(step=2000, only=[layer])["refused"] for layer in layers()]
    used = {row["reason"] for rows in found for row in rows}
    assert used == {reason.error for reason in REASONS}


def test_an_error_without_a_reason_is_told():
    with pytest.raises(ValueError, match="0 reasons are known for: the moon is full"):
        geometries.reason_of("the moon is full")


def test_what_is_no_longer_refused_is_told(monkeypatch):
    monkeypatch.setattr(geometries, "ATTEMPTS", (Attempt(SEConv2d),))
    with pytest.raises(ValueError, match=r"no longer refused: SEConv2d\(\)"):
        measure(step=400, only=[SEConv2d])


class Forgetful(MDConv2d):
    """Forgets how it pads when it is deployed."""

    def to_inference(self):
        deployed = super().to_inference()
        deployed.padding_mode = "zeros"
        return deployed


def test_a_wrong_border_is_seen():
    arguments = next(
        a for a in grid(1) if a["padding"] == (1, 2) and a["padding_mode"] == "reflect"
    )
    started, deployed = geometries._errors(Forgetful, arguments, 0)
    assert started < 1e-12
    assert deployed > 1e-3


def test_what_is_committed_is_of_the_layers_that_there_are():
    found = load("geometries")
    assert [row["layer"] for row in found["rows"]] == [layer.__name__ for layer in layers()]
    for row in found["rows"]:
        assert row["geometries"] == len(list(grid()))
        assert row["exact"] >= 40
        assert max(row["from_conv2d"], row["to_inference"]) < 1e-9
    assert {row["reason"] for row in found["refused"]} == {reason.error for reason in REASONS}
    assert (FOLDER / "geometries.md").read_text().strip() == text(found).strip()
