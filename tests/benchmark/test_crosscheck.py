"""The table of formulas against counters: what it runs, and that a disagreement is shown."""

import pytest

from benchmark import crosscheck
from benchmark.tables import load
from benchmark.variants import layers, variants
from overconv.operators.macs import Macs
from overconv.operators.se import SEConv2d


@pytest.fixture
def one_variant(monkeypatch):
    own = tuple(variant for variant in variants() if variant.layer is SEConv2d)[:1]
    monkeypatch.setattr(crosscheck, "variants", lambda: own)


def test_a_row_counts_its_runs_and_what_no_counter_saw(one_variant):
    row = crosscheck.row(SEConv2d)
    training, deployed = 1, 2  # in train(), in eval(), and deployed
    assert (row["variants"], row["evaluations"]) == (1, training + deployed)
    assert row["backward"] == 4 * (training + deployed) and row["forward"] == deployed
    assert row["fvcore"] == row["evaluations"]
    assert row["disagreements"] == []
    assert "aten::sigmoid" in row["not_seen"]["fvcore"]


def test_a_wrong_formula_is_a_disagreement_and_shown(one_variant, monkeypatch):
    right = SEConv2d.macs
    monkeypatch.setattr(SEConv2d, "macs", lambda self, image: right(self, image) + Macs(gate=1))
    row = crosscheck.row(SEConv2d)
    assert row["forward"] == row["backward"] == 0
    assert len(row["disagreements"]) == 4 * 3 + 2
    text = crosscheck.text({"rows": [row]})
    assert text.startswith("14 runs of 3 layers against torch's corrected counter, 0 of them")
    assert ": 14 disagreements.\n" in text
    assert text.count("\n- SEConv2d: ") == 14 and "multiply-accumulates" in text


def test_the_committed_record_has_every_variant_and_no_disagreement():
    rows = load("crosscheck")["rows"]
    assert {row["layer"]: row["variants"] for row in rows} == {
        layer.__name__: sum(variant.layer is layer for variant in variants()) for layer in layers()
    }
    assert all(row["disagreements"] == [] and row["backward"] and row["fvcore"] for row in rows)
