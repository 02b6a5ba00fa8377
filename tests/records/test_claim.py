"""Claims: what they may say, and what of it is filled in."""

import ast
from pathlib import Path

import pytest

from records.claim import MEASURES, METRICS, Claim, Contrast

ROOT = Path(__file__).parents[2]


def claim(**changes):
    fields = {
        "name": "D1",
        "wording": "deeper is better",
        "direction": "greater",
        "contrasts": [Contrast(arm="deep", against="plain")],
        "margin": 0.005,
    }
    return Claim(**{**fields, **changes})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"direction": "up"}, "Claim: direction: .*'greater', 'less', 'trend' or 'different'"),
        ({"contrasts": []}, "Claim: contrasts: "),
        ({"contrasts": [Contrast(arm="a", against="b")] * 2}, "a contrast appears twice"),
        ({"margin": -0.1}, "Claim: margin: .*greater than or equal to 0, got -0.1"),
        ({"margin": float("nan")}, "Claim: margin: "),
        ({"name": ""}, "Claim: name: "),
        ({"name": "C 1"}, "Claim: name: .*pattern.*, got C 1"),
        ({"name": "../C1"}, "Claim: name: "),
        ({"verdict": "supported"}, "Claim: verdict: "),
        ({"combine": "any"}, "Claim: combine: .*'all', 'peers' or 'parts'"),
        ({"measure": "speed"}, "measure 'speed'; allowed: test_accuracy, test_loss, .*to_target"),
        ({"fewer": "watts"}, "fewer 'watts'; allowed: parameters_training, .*"),
        ({"direction": "trend", "combine": "all"}, "combine 'all' of direction 'trend'"),
        (
            {"direction": "trend", "fewer": "parameters_training"},
            "fewer 'parameters_training' of direction 'trend'",
        ),
        ({"measure": "epochs_to_target"}, "target None with measure 'epochs_to_target'"),
        ({"target": 0.9}, "target 0.9 with measure 'test_accuracy'"),
        ({"measure": "epochs_to_target", "target": 1.1}, "Claim: target: "),
    ],
)
def test_a_wrong_claim_is_refused_in_one_line(change, complaint):
    with pytest.raises(ValueError, match=complaint) as caught:
        claim(**change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("direction", "combine"),
    [("greater", "all"), ("less", "all"), ("trend", "parts"), ("different", "parts")],
)
def test_the_combination_that_a_direction_implies_is_written_out(direction, combine):
    made = claim(direction=direction)
    assert made.combine == combine and made.model_dump()["combine"] == combine
    assert made == claim(direction=direction, combine=combine)


def test_a_time_to_a_target_names_it():
    assert claim(measure="seconds_to_target", target=0.95, direction="less").target == 0.95


def test_an_arm_is_not_compared_with_itself():
    with pytest.raises(ValueError, match="'plain' with itself"):
        Contrast(arm="plain", against="plain")


def test_the_metrics_are_those_that_training_records():
    """Read in its source: nothing here may load torch."""
    tree = ast.parse((ROOT / "overconv" / "training" / "loop.py").read_text())
    strings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert set(METRICS) <= strings
    [final] = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_FINAL"
    ]
    assert set(METRICS) == {"test_accuracy", "test_loss", *final}
    assert len(set(MEASURES)) == len(MEASURES)
