import pytest

from overconv.bench.ratios import load, none_here, save


def test_each_machine_keeps_its_own(tmp_path):
    path = tmp_path / "cases.ratios.json"
    assert load(path, "here") is None and load(path, "there") is None
    save(path, "here", {"cpu": "fast one"}, {"a": (1.23456, 1.2)})
    save(path, "there", {"cpu": "slow one"}, {"a": (2.0, 2.0), "b": (3.0, 3.0)})
    save(path, "here", {"cpu": "fast one"}, {"a": (1.5, 1.6)})
    assert load(path, "here") == {"a": (1.5, 1.6)}
    assert load(path, "there") == {"a": (2.0, 2.0), "b": (3.0, 3.0)}
    assert load(path, "nowhere") is None


def test_a_machine_without_ratios_is_told_what_differs(tmp_path):
    path = tmp_path / "cases.ratios.json"
    this = {"key": "nowhere", "fingerprint": {"cpu": "fast one", "torch": "2.14", "cores": 4}}
    assert none_here(path, this).startswith("there is neither a base nor a baseline: ")
    ratios = {"a": (1.0, 1.0)}
    save(path, "here", {"cpu": "fast one", "torch": "2.13", "cores": 4}, ratios)
    save(path, "there", {"cpu": "slow one", "torch": "2.14", "cores": 4}, ratios)
    assert none_here(path, this) == (
        "another machine's baseline: cases.ratios.json has ratios of fast one (torch 2.13, here"
        " 2.14) and of slow one, and this is fast one (nowhere): record some here with --record, or"
        " compare with a revision by --base"
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "is not JSON"),
        ("[]", "must map fingerprints"),
        ('{"x": {"ratios": {}}}', "must map fingerprints"),
        ('{"x": {"fingerprint": {}, "ratios": {"a": [1.0]}}}', r"a must have two positive ratios"),
        (
            '{"x": {"fingerprint": {}, "ratios": {"a": [1, 0]}}}',
            r"two positive ratios, got \[1, 0\]",
        ),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, text, complaint):
    path = tmp_path / "cases.ratios.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=complaint):
        load(path, "here")
