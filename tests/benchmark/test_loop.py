"""The measurement of the loop's overhead: that it runs and says what it measured, not how fast."""

import json

import pytest

from benchmark.cli import main
from benchmark.loop import measure


def test_it_reports_both_quantiles_and_all_samples(capsys, tmp_path):
    path = tmp_path / "samples.jsonl"
    small = ["--rounds", "3", "--width", "2", "--batch-size", "4"]
    assert main(["loop", *small, "--json", str(path)]) == 0
    out = capsys.readouterr().out
    found = json.loads(path.read_text())
    assert {len(values) for values in found["seconds"].values()} == {3}
    lowest = {name: min(values) for name, values in found["seconds"].items()}
    assert found["ratio_minimum"] == lowest["loop"] / lowest["bare"]
    assert f"{found['ratio_minimum']:.4f} (minimum)" in out


def test_too_few_rounds_are_refused(capsys):
    with pytest.raises(ValueError, match="rounds=2; allowed"):
        measure(rounds=2)
    assert main(["loop", "--rounds", "1"]) == 2
    assert "rounds=1; allowed" in capsys.readouterr().err
