import pytest

from overconv.bench.ratios import load, others, save


def test_each_machine_keeps_its_own(tmp_path):
    path = tmp_path / "cases.ratios.json"
    assert load(path, "here") is None and others(path) == "no machine"
    save(path, "here", {"cpu": "fast one"}, {"a": (1.23456, 1.2)})
    save(path, "there", {"cpu": "slow one"}, {"a": (2.0, 2.0), "b": (3.0, 3.0)})
    save(path, "here", {"cpu": "fast one"}, {"a": (1.5, 1.6)})
    assert load(path, "here") == {"a": (1.5, 1.6)}
    assert load(path, "there") == {"a": (2.0, 2.0), "b": (3.0, 3.0)}
    assert load(path, "nowhere") is None and others(path) == "fast one, slow one"


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
