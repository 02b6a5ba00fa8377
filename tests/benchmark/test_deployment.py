"""The matrix of deployment: it says what was found, limits are strict, what is committed holds."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmark import deployment, distributed
from benchmark.checks import Network, exports
from benchmark.deployment import LAYER, LIMITS, NETWORK, REASONS, Limit, evaluate, rows, text
from benchmark.tables import FOLDER, load
from benchmark.variants import Variant
from overconv.operators.mdconv import MDConv2d

MD = Variant(MDConv2d)


def passes(subject):
    assert subject is MD


def fails(subject):
    try:
        raise RuntimeError("no such operator")
    except RuntimeError as cause:
        raise ValueError("cannot export") from cause


LIMIT = Limit("export", lambda module: True, "fixed batch", "no such operator")


@pytest.fixture
def column(monkeypatch):
    """Puts a check and its limits in the place of those of ``export``."""

    def put(check, *limits):
        monkeypatch.setitem(deployment.LAYER, "export", check)
        monkeypatch.setattr(deployment, "LIMITS", limits)

    return put


def test_a_check_that_succeeds_is_a_yes(column):
    column(passes)
    assert evaluate("export", MD) == "yes"
    column(passes, replace(LIMIT, applies=lambda module: False), replace(LIMIT, column="ONNX"))
    assert evaluate("export", MD) == "yes"


def test_a_check_that_fails_is_an_error_unless_a_limit_says_so(column):
    column(fails)
    with pytest.raises(ValueError, match="cannot export"):
        evaluate("export", MD)
    column(fails, LIMIT)
    assert evaluate("export", MD) == "fixed batch"
    column(fails, replace(LIMIT, error="out of memory"))
    with pytest.raises(ValueError, match="cannot export"):
        evaluate("export", MD)


def test_a_limit_that_does_not_hold_any_more_is_an_error(column):
    column(passes, LIMIT)
    with pytest.raises(AssertionError, match="no longer so that 'fixed batch': MDConv2d, export"):
        evaluate("export", MD)


def test_what_holds_instead_is_checked(column):
    column(fails, replace(LIMIT, instead=passes))
    assert evaluate("export", MD) == "fixed batch"
    column(fails, replace(LIMIT, instead=fails))
    with pytest.raises(ValueError, match="cannot export"):
        evaluate("export", MD)


def test_a_network_has_layers_of_the_variant_and_is_deployed_without_norms():
    trained, deployed = (Network(MD, state).build() for state in (False, True))
    kinds = [[type(module) for module in network] for network in (trained, deployed)]
    assert [kind.count(MDConv2d) for kind in kinds] == [2, 2]
    assert nn.BatchNorm2d in kinds[0]
    x = torch.randn(2, 4, 8, 7)
    torch.testing.assert_close(deployed(x), trained.eval()(x))
    exports(Network(MD))


class Unreached(nn.Module):
    """Has a parameter that its output does not need."""

    def __init__(self):
        super().__init__()
        self.needed, self.spare = (nn.Parameter(torch.ones(4, 1, 1).double()) for _ in range(2))

    def forward(self, x):
        return x * self.needed


class Differing(Unreached):
    """Looks at the whole batch."""

    def forward(self, x):
        return x * self.needed * x.mean() + self.spare


class Made:
    def __init__(self, module):
        self.module = module

    def __str__(self):
        return self.module.__name__

    def build(self, **options):
        return self.module()

    images = MD.images


def test_two_processes_tell_what_is_not_reached_and_what_differs():
    found = distributed.differences([Made(Unreached), MD, Made(Differing)])
    assert "spare gets no gradient" in found["Unreached"]
    assert found["MDConv2d"] < 1e-9
    assert found["Differing"] > 1e-3


def test_the_table_follows_from_the_record_alone():
    row = {
        "layer": "MDConv2d",
        "options": {"form": "compact"},
        "cells": {"export": "yes", "ONNX": "fixed batch"},
        "network": {"ONNX, trained": "yes"},
    }
    written = text({"rows": [row], "reasons": REASONS})
    assert "| MDConv2d, form='compact' | yes    | fixed batch |" in written
    assert "| MDConv2d, form='compact' | yes           |" in written
    assert f"- **fixed batch**: {REASONS['fixed batch']}" in written
    assert "dead bias" not in written


def test_the_committed_table():
    """Of the present layers and checks; nothing failed; the text is that of the record."""
    found = load("deployment")
    assert [(row["layer"], row["options"]) for row in found["rows"]] == [
        (variant.layer.__name__, variant.options) for variant in rows()
    ]
    for row in found["rows"]:
        assert set(row["cells"]) == set(LAYER)
        assert {name.partition(",")[0] for name in row["network"]} == set(NETWORK)
        cells = {*row["cells"].values(), *row["network"].values()}
        assert cells <= {"yes", *(limit.cell for limit in LIMITS)}, row["layer"]
    assert (FOLDER / "deployment.md").read_text(encoding="utf-8") == text(found).rstrip("\n") + "\n"
