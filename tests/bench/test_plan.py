import pytest

from overconv.bench.plan import against_base, against_plain, named, unchecked
from overconv.bench.rounds import Task


def described(**cases):
    like = {"shape": [1, 8, 8, 8], "step": "inference", "limit": 1.05, "plain": True}
    like |= {"tolerance": 1e-4, "expected": True}
    return {name: like | own for name, own in cases.items()}


HEAD = described(one={}, two={"limit": 1.2})


def test_a_case_of_both_is_timed_against_base():
    plan = against_base(HEAD, ["one", "two"], HEAD, {"one": (2.0, 2.0)}, [])
    assert plan.tasks == [Task("one", 1.05, "base"), Task("two", 1.2, "base")]
    assert plan.settled == [] and plan.notes == []
    assert against_base(HEAD, ["two"], HEAD, {}, []).tasks == [Task("two", 1.2, "base")]


def test_a_case_that_is_gone_fails_unless_it_is_named():
    base = described(one={}, two={}, three={}, four={})
    plan = against_base(HEAD, ["one", "two"], base, {}, ["four"])
    assert [(v.case, v.outcome) for v in plan.settled] == [("three", "fail")]
    assert plan.settled[0].reason == (
        "gone: the base has this case and head does not (a renamed case is gone, too);"
        " if that is meant, say --gone three"
    )
    assert [v.case for v in against_base(HEAD, ["one"], base, {}, []).settled] == ["three", "four"]


def test_a_new_case_is_judged_by_its_ratio_or_said_to_be_new():
    plan = against_base(HEAD, ["one", "two"], {}, {"one": (2.0, 2.1)}, [])
    assert plan.tasks == [Task("one", 1.05, "plain", (2.0, 2.1))]
    assert [(v.case, v.outcome, v.ratio) for v in plan.settled] == [("two", "pass", None)]
    assert plan.settled[0].reason.startswith("new: base has no such case")
    assert plan.notes == ["one: new, judged by its ratio to plain", "two: new, and not timed"]


def test_a_renamed_case_is_gone_and_new():
    plan = against_base(described(other={}), ["other"], described(one={}), {}, [])
    assert [(v.case, v.outcome) for v in plan.settled] == [("one", "fail"), ("other", "pass")]


def test_another_shape_or_step_under_the_same_name_fails():
    for what, old in {"shape": [1, 8, 4, 4], "step": "training"}.items():
        base = described(one={what: old}, two={})
        plan = against_base(HEAD, ["one", "two"], base, {}, [])
        assert [(v.case, v.outcome) for v in plan.settled] == [("one", "fail")]
        assert f"another {what} than in base" in plan.settled[0].reason
        assert "give it a new name, or say --gone one" in plan.settled[0].reason
        plan = against_base(HEAD, ["one", "two"], base, {}, ["one"])
        assert [(v.case, v.outcome) for v in plan.settled] == [("one", "pass")]


def test_a_name_that_is_gone_from_nowhere_is_said():
    plan = against_base(HEAD, ["one"], HEAD, {}, ["none"])
    assert plan.notes == ["--gone none: base has no such case"]


def test_without_a_base_each_case_needs_a_recorded_ratio():
    head = described(one={}, two={}, three={"plain": False})
    recorded = {"one": (2.0, 2.1), "four": (1.0, 1.0)}
    plan = against_plain(head, list(head), recorded, [])
    assert plan.tasks == [Task("one", 1.05, "plain", (2.0, 2.1))]
    found = {v.case: (v.outcome, v.reason) for v in plan.settled}
    assert found["two"] == (
        "unclear",
        "no ratio is recorded on this machine: record it with --record",
    )
    assert found["three"][0] == "unclear" and "no plain counterpart" in found["three"][1]
    assert found["four"][0] == "fail" and "gone: the record has this case" in found["four"][1]


def test_cases_without_an_expected_output_are_named():
    cases = described(a={}, b={"expected": False}, c={"expected": False})
    assert unchecked(cases, ["a"]) == []
    assert unchecked(cases, ["a", "b"]) == [
        "1 of 2 cases have no 'expected' (b): their outputs were compared with nothing"
    ]
    many = described(**{name: {"expected": False} for name in "abcde"})
    assert "5 of 5 cases have no 'expected' (a, b, c and 2 more):" in unchecked(many, "abcde")[0]


def test_what_is_gone_on_purpose_is_said():
    base = described(one={}, four={})
    plan = against_base(HEAD, ["one", "two"], base, {}, ["four", "for"])
    assert plan.notes[:2] == [
        "four: gone or changed on purpose, as --gone says",
        "--gone for: base has no such case",
    ]


def test_names_are_told_apart_though_they_may_hold_commas():
    cases = described(**{"a": {}, "a,b=1": {}, "a,b=1/c": {}, "d": {}})
    assert named(["a, d"], cases, "cases.py") == ["a", "d"]
    assert named(["a,b=1/c,a,b=1", "a"], cases, "cases.py") == ["a,b=1/c", "a,b=1", "a"]
    for text in "a,b=2", "d,b=2":
        with pytest.raises(ValueError, match="there is no case 'b=2' in cases.py"):
            named([text], cases, "cases.py")
