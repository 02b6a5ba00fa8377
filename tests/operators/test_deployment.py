"""What every layer has to survive in use; see ``benchmark/deployment.py`` for checks and limits."""

import pytest

from benchmark.checks import Network
from benchmark.deployment import (
    EXPENSIVE,
    LAYER,
    LIMITS,
    NETWORK,
    REASONS,
    evaluate,
    limit_of,
    rows,
)
from benchmark.variants import layers, variants

CHEAP = [column for column in LAYER if column not in EXPENSIVE]
STATES = {"trained": False, "deployed": True}

one_of_each = [variant for variant in rows() if not variant.options]


@pytest.mark.parametrize("column", CHEAP)
@pytest.mark.parametrize("variant", variants(), ids=str)
def test_it_survives(variant, column):
    evaluate(column, variant)


@pytest.mark.parametrize("variant", one_of_each, ids=str)
def test_it_survives_a_compiler(variant):
    evaluate("compile", variant)


@pytest.mark.parametrize("column", ["export", "ONNX"])
@pytest.mark.parametrize("variant", one_of_each, ids=str)
def test_a_deployed_network_survives(variant, column):
    evaluate(column, Network(variant, deployed=True))


@pytest.mark.slow
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("column", NETWORK)
@pytest.mark.parametrize("variant", rows(), ids=str)
def test_a_network_survives_in_both_states(variant, column, state):
    evaluate(column, Network(variant, STATES[state]))


@pytest.mark.slow
@pytest.mark.parametrize("column", [column for column in EXPENSIVE if column != "inductor"])
@pytest.mark.parametrize("variant", variants(), ids=str)
def test_it_survives_compilers(variant, column):
    evaluate(column, variant)


@pytest.mark.slow
@pytest.mark.parametrize("variant", rows(), ids=str)
def test_it_survives_machine_code(variant):
    evaluate("inductor", variant)


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: f"{limit.column}: {limit.cell}")
def test_every_limit_is_met_by_a_variant(limit):
    """One that no layer meets any more is to be taken out."""
    assert any(limit_of(limit.column, variant) is limit for variant in variants())


def test_every_limit_has_a_reason():
    assert {limit.cell for limit in LIMITS} == set(REASONS)


def test_every_layer_is_among_the_rows():
    assert {variant.layer for variant in rows()} == set(layers())
