"""Plans and claims: what they may say, and that a plan is found again by its content."""

import json

import pytest

from records.claim import Claim, Contrast
from records.plan import Plan
from records.record import digest

ARMS = {
    "plain": {"arm": {"layer": None}, "recipe": {"lr": 0.1}},
    "deep": {"arm": {"layer": {"class": "overconv.MDConv2d"}}, "recipe": {"lr": 0.1}},
}


def claim(**changes):
    fields = {
        "name": "D1",
        "wording": "deeper is better",
        "direction": "greater",
        "contrasts": [Contrast(arm="deep", against="plain")],
        "margin": 0.005,
    }
    return Claim(**{**fields, **changes})


def plan(**changes):
    fields = {
        "name": "depth",
        "question": "Does depth help?",
        "preset": "smoke",
        "baseline": "plain",
        "arms": ARMS,
        "claims": [claim()],
    }
    return Plan(**{**fields, **changes})


def test_a_plan_reads_back_equal_with_its_arms_in_order():
    made = plan(notes={"deep": "a note"}, looks=[6, 10])
    read = Plan.from_bytes(made.to_bytes())
    assert read == made
    assert list(read.arms) == ["plain", "deep"], "not by alphabet"
    assert read.hash == made.hash


def test_the_hash_is_that_of_everything_but_the_order_of_the_arms():
    made = plan()
    assert plan(arms=dict(reversed(ARMS.items()))).hash == made.hash
    changes = [
        {"name": "depths"},
        {"question": "Does it?"},
        {"preset": "pilot"},
        {"baseline": "deep"},
        {"arms": {**ARMS, "deep": {}}},
        {"claims": []},
        {"claims": [claim(margin=0.006)]},
        {"looks": [6]},
        {"notes": {"deep": "a note"}},
    ]
    hashes = {plan(**change).hash for change in changes}
    assert len(hashes | {made.hash}) == len(changes) + 1
    assert made.filename == f"depth.{made.hash}.json"


def test_trials_and_cells_are_named_as_records_name_them():
    made = plan()
    assert made.trial_id("deep", 3) == digest({**ARMS["deep"], "block": 3})
    assert made.cell_id("deep") == digest(ARMS["deep"])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"baseline": "flat"}, "baseline: no arm 'flat'; arms: plain, deep"),
        ({"notes": {"flat": "x"}}, "note: no arm 'flat'"),
        (
            {"claims": [claim(contrasts=[Contrast(arm="deep", against="flat")])]},
            "claim D1: no arm 'flat'",
        ),
        ({"claims": [claim(), claim()]}, "2 claims are named 'D1'"),
        ({"arms": {}}, "Plan: arms: "),
        ({"arms": {"plain": {"block": 0}}, "claims": []}, "arm 'plain' holds a block"),
        ({"name": "a/b"}, "Plan: name: "),
        ({"looks": [0]}, "Plan: looks.0: "),
        ({"looks": []}, "Plan: looks: "),
        ({"seeds": 3}, "Plan: seeds: "),
        ({"schema_version": 9}, "schema version 9 is newer than 1"),
    ],
)
def test_a_wrong_plan_is_refused_in_one_line(change, complaint):
    with pytest.raises(ValueError, match=complaint) as caught:
        plan(**change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"direction": "up"}, "Claim: direction: .*'greater', 'less', 'trend' or 'different'"),
        ({"contrasts": []}, "Claim: contrasts: "),
        ({"margin": -0.1}, "Claim: margin: .*greater than or equal to 0, got -0.1"),
        ({"margin": float("nan")}, "Claim: margin: "),
        ({"name": ""}, "Claim: name: "),
        ({"verdict": "supported"}, "Claim: verdict: "),
    ],
)
def test_a_wrong_claim_is_refused_in_one_line(change, complaint):
    with pytest.raises(ValueError, match=complaint) as caught:
        claim(**change)
    assert "\n" not in str(caught.value)


def test_an_arm_is_not_compared_with_itself():
    with pytest.raises(ValueError, match="'plain' with itself"):
        Contrast(arm="plain", against="plain")


def test_the_file_is_json_that_people_can_read():
    text = plan().to_bytes().decode()
    assert json.loads(text)["arms"] == ARMS
    assert len(text.splitlines()) > 10
