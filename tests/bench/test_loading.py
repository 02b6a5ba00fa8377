import sys

import pytest

from overconv.bench.loading import load_cases


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("tiny", "helping", "_overconv_cases"):
            del sys.modules[name]


def test_cases_come_with_what_their_project_holds(repository):
    repository.write("src/helping/__init__.py", "")
    repository.write("bench/cases.py", "import helping\n" + repository.cases.read_text())
    cases = load_cases(repository.root / "bench" / "cases.py")
    assert [case.name for case in cases] == ["one", "three"]
    assert type(cases[0].build()).__module__ == "tiny.layer"
    assert "cases" not in sys.modules


def test_a_file_is_read_anew_each_time(repository):
    load_cases(repository.cases)
    repository.replace("cases.py", '"three"', '"four"')
    assert [case.name for case in load_cases(repository.cases)] == ["one", "four"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "must define CASES, a tuple of cases, got None"),
        ("CASES = 3", "must define CASES, a tuple of cases, got 3"),
        ("CASES = ()", "there are no cases"),
        ("CASES = (7,)", "a case must be an overconv.bench.cases.Case, got 7"),
    ],
)
def test_what_holds_no_cases_is_refused(repository, text, complaint):
    path = repository.write("cases.py", text)
    with pytest.raises(ValueError, match=complaint) as caught:
        load_cases(path)
    assert "cases.py" in str(caught.value)


def test_two_cases_of_one_name_are_refused(repository):
    repository.replace("cases.py", '"three"', '"one"')
    with pytest.raises(ValueError, match="two cases have the name 'one'"):
        load_cases(repository.cases)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="there is no file of cases .*none.py"):
        load_cases(tmp_path / "none.py")
    (tmp_path / "cases.toml").touch()
    with pytest.raises(ValueError, match=r"is a Python file, got .*cases\.toml"):
        load_cases(tmp_path / "cases.toml")


def test_what_the_file_raises_is_passed_on(repository):
    with pytest.raises(ZeroDivisionError):
        load_cases(repository.write("cases.py", "CASES = (1 / 0,)"))
    assert "_overconv_cases" not in sys.modules
