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
        {"factors": {"depth": {"1": ["plain"], "2": ["deep"]}}},
        {"claims": [claim(combine="parts")]},
        {"claims": [claim(fewer="parameters_training")]},
        {"claims": [claim(measure="test_loss")]},
        {"claims": [claim(evidence=[{"what": "a", "where": "b"}])]},
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
        ({"claims": [claim(), claim()]}, "2 claims are named D1, D1; allowed: one"),
        ({"claims": [claim(), claim(name="d1")]}, "2 claims are named D1, d1"),
        ({"looks": [10, 6]}, r"looks \[10, 6\]; allowed: each once, in their order"),
        ({"looks": [6, 6]}, r"looks \[6, 6\]"),
        ({"arms": {**ARMS, "a,b": {}}}, "label 'a,b'; allowed: text without commas"),
        ({"arms": {**ARMS, "$x$": {}}}, r"label '\$x\$'"),
        ({"arms": {**ARMS, "a\nb": {}}}, r"label 'a\\nb'"),
        ({"arms": {**ARMS, " a": {}}}, "label ' a'"),
        ({"factors": {"f": {"x": ["plain"], "y": ["flat"]}}}, "factor f: no arm 'flat'"),
        ({"factors": {"f": {"x": ["plain"]}}}, "factor 'f' has 1 levels"),
        ({"arms": {}}, "Plan: arms: "),
        ({"arms": {"plain": {"block": 0}}, "claims": []}, "arm 'plain' holds a block"),
        ({"name": "a/b"}, "Plan: name: "),
        ({"looks": [0]}, "Plan: looks.0: "),
        ({"looks": []}, "Plan: looks: "),
        ({"seeds": 3}, "Plan: seeds: "),
        ({"schema_version": 9}, "schema version 9 is newer than 2"),
    ],
)
def test_a_wrong_plan_is_refused_in_one_line(change, complaint):
    with pytest.raises(ValueError, match=complaint) as caught:
        plan(**change)
    assert "\n" not in str(caught.value)


def test_the_file_is_json_that_people_can_read():
    text = plan().to_bytes().decode()
    assert json.loads(text)["arms"] == ARMS
    assert len(text.splitlines()) > 10


def test_a_plan_of_schema_1_is_read_as_what_it_meant():
    old = json.loads(plan(claims=[claim(), claim(name="D2", direction="trend")]).to_bytes())
    old["schema_version"] = 1
    del old["factors"]
    for one in old["claims"]:
        for field in ("combine", "fewer", "target", "evidence"):
            del one[field]
    read = Plan.from_bytes(json.dumps(old).encode())
    assert [one.combine for one in read.claims] == ["all", "parts"]
    assert read == plan(claims=[claim(), claim(name="D2", direction="trend")])
    with pytest.raises(ValueError, match="schema version True is unknown"):
        Plan.from_bytes(json.dumps(old | {"schema_version": True}).encode())
