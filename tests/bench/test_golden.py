"""Committed figures: each difference is a sentence, and what follows torch's version is apart."""

import json

import pytest
import torch

from overconv.bench.golden import (
    accept_command,
    changes,
    compare,
    figures_path,
    load,
    minor,
    not_compared,
    only,
    save,
)

FOUND = {
    "a": {"parameters": 10, "macs.gate": 3, "operations": 7, "copies": 0, "peak_bytes": 512},
    "b/c": {"parameters": 20, "macs.gate": 0, "operations": 9, "copies": 2, "peak_bytes.step": 64},
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cases.figures.json"


@pytest.fixture
def committed(path):
    save(path, FOUND, "2.14.1+cpu")
    return load(path)


def changed(case, **figures):
    return {**FOUND, case: {**FOUND[case], **figures}}


def test_figures_lie_beside_the_cases():
    assert figures_path("x/my_cases.py").as_posix() == "x/my_cases.figures.json"
    assert minor("2.15.0a0+git123") == "2.15"


def test_equal_figures_are_equal(committed):
    assert compare(FOUND, committed, "2.14.9") == []
    assert not_compared(committed, "2.14.9") is None


def test_what_follows_torch_is_stored_apart(path, committed):
    stored = json.loads(path.read_text())
    assert stored["any"]["a"] == {"parameters": 10, "macs.gate": 3}
    assert stored["2.14"]["a"] == {"operations": 7, "copies": 0, "peak_bytes": 512}
    assert stored["2.14"]["b/c"] == {"operations": 9, "copies": 2, "peak_bytes.step": 64}
    assert stored == committed


def test_files_are_equal_for_equal_figures_in_any_order(tmp_path, path, committed):
    backwards = {case: dict(reversed(FOUND[case].items())) for case in reversed(FOUND)}
    other = tmp_path / "other.json"
    save(other, backwards, "2.14")
    assert other.read_text() == path.read_text() and path.read_text().endswith("}\n")


@pytest.mark.parametrize("case", FOUND)
@pytest.mark.parametrize("step", [1, -1])
def test_each_changed_figure_is_one_sentence_with_both_values(committed, case, step):
    for name, value in FOUND[case].items():
        (sentence,) = compare(changed(case, **{name: value + step}), committed, "2.14.1")
        assert sentence.startswith(f"{case}: {name} is {value + step}, committed ")
        assert sentence.endswith(f" is {value}")
        assert ("under torch 2.14" in sentence) == (
            name.partition(".")[0] not in ("parameters", "macs")
        )


def test_all_differences_are_told(committed):
    found = changed("a", parameters=11, copies=1)
    assert compare(found, committed, "2.14") == [
        "a: parameters is 11, committed is 10",
        "a: copies is 1, committed under torch 2.14 is 0",
    ]


def test_a_case_on_one_side_only_is_a_difference(committed):
    more = {**FOUND, "new": {"parameters": 1, "copies": 0}}
    assert compare(more, committed, "2.14") == ["new: a case without committed figures"]
    less = {"a": FOUND["a"]}
    assert compare(less, committed, "2.14") == [
        "b/c: has committed figures but is no case any more"
    ]
    assert len(compare({}, committed, "2.14")) == 2
    assert len(compare({"renamed": FOUND["a"], "b/c": FOUND["b/c"]}, committed, "2.14")) == 2


def test_a_figure_on_one_side_only_is_a_difference(committed):
    assert compare(changed("a", **{"macs.other": 0, "operations.mul": 1}), committed, "2.14") == [
        "a: macs.other is 0, but not committed",
        "a: operations.mul is 1, but not committed under torch 2.14",
    ]
    less = {**FOUND, "a": {"parameters": 10}}
    assert compare(less, committed, "2.14") == [
        "a: macs.gate was 3, but is not counted any more",
        "a: copies was 0 under torch 2.14, but is not counted any more",
        "a: operations was 7 under torch 2.14, but is not counted any more",
        "a: peak_bytes was 512 under torch 2.14, but is not counted any more",
    ]


def test_another_torch_compares_the_rest_and_says_so(committed):
    assert compare(changed("a", operations=8, peak_bytes=1), committed, "2.15.0") == []
    assert compare(changed("a", parameters=8), committed, "2.15.0") == [
        "a: parameters is 8, committed is 10"
    ]
    assert not_compared(committed, "2.15.0") == (
        "operations, copies and peak_bytes are not compared: they are committed for torch 2.14,"
        " and this is torch 2.15"
    )


def test_the_torch_that_runs_is_the_default(path):
    save(path, FOUND)
    assert set(load(path)) == {"any", minor(torch.__version__)}
    assert not_compared(load(path)) is None
    assert compare(changed("a", copies=5), load(path)) != []


def test_a_case_new_to_one_version_of_torch_is_told(path, committed):
    """Accepted under 2.15 alone, its figures under 2.14 are missing, and are no equality."""
    save(path, {**FOUND, "new": {"parameters": 1, "copies": 0}}, "2.15")
    sentences = compare({**FOUND, "new": {"parameters": 1, "copies": 0}}, load(path), "2.14")
    assert sentences == ["new: copies is 0, but not committed under torch 2.14"]


def test_accepting_keeps_other_versions_and_forgets_cases_that_are_gone(path, committed):
    save(path, {"a": {"parameters": 11, "copies": 4}}, "2.15.1")
    assert load(path) == {
        "any": {"a": {"parameters": 11}},
        "2.14": {"a": {"operations": 7, "copies": 0, "peak_bytes": 512}},
        "2.15": {"a": {"copies": 4}},
    }


def test_some_of_the_cases(committed):
    part = only(committed, ["a"])
    assert compare({"a": FOUND["a"]}, part, "2.14") == []
    assert compare(FOUND, part, "2.14") == ["b/c: a case without committed figures"]
    assert not_compared(part, "2.14") is None


def test_accepting_changes_is_one_command(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    command = "python -m overconv.bench gate --cases benchmark/cases.py --accept"
    assert accept_command("benchmark/cases.py") == command
    assert accept_command(tmp_path / "benchmark/cases.py") == command
    assert accept_command("/elsewhere/cases.py").endswith(" --cases /elsewhere/cases.py --accept")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<<<<<<< HEAD\n{}", "is not JSON"),
        ("[]", "holds no figures"),
        ("{}", "holds no figures"),
        ('{"any": {"a": 3}}', "holds no figures"),
        ('{"any": {}, "2.14": []}', "holds no figures"),
        ('{"any": {"a": {"parameters": 1.0}}}', "holds no figures"),
        ('{"any": {"a": {"parameters": true}}}', "holds no figures"),
    ],
)
def test_a_broken_file_is_told_and_not_overwritten(path, text, words):
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        load(path)
    with pytest.raises(ValueError, match=words):
        save(path, FOUND)
    assert path.read_text() == text


def test_a_missing_file_is_told(path):
    with pytest.raises(ValueError, match=r"no committed figures: .*cases.figures.json is missing"):
        load(path)


def test_nothing_is_not_accepted(path):
    with pytest.raises(ValueError, match="nothing would be watched"):
        save(path, {})
    with pytest.raises(ValueError, match=r"macs of case 'a' must be an integer, got 1.5"):
        save(path, {"a": {"macs": 1.5}})
    assert not path.exists()


def test_new_cases_and_figures_are_no_changes():
    old = {"any": {"a": {"parameters": 7}}}
    new = {"2.14": {}, "any": {"a": {"parameters": 7, "more": 1}, "b": {"parameters": 1}}}
    assert changes(old, new) == []
    assert changes(new, old) == [
        "a: committed more was 1 and is gone",
        "b: its committed figures are gone",
        "the committed figures under torch 2.14 are gone",
    ]
