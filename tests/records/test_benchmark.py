"""The log of measurements: what goes in comes out, and what is damaged is named."""

import json
from pathlib import Path

import pytest

from records.benchmark import Measurement, append, arm_key, read

# tests/analysis takes them from here.
FIELDS = {
    "kind": "operator",
    "name": "MDConv2d depth=3",
    "arm": {"layer": {"class": "overconv.MDConv2d", "options": {"depth": 3}}, "where": "all"},
    "subject": {"in_channels": 4},
    "situation": {"mode": "inference", "image": 7},
    "outcome": "measured",
    "costs": {"parameters": 10, "macs": 100},
    "seconds": {"minimum": 1.0, "p20": 1.1, "median": 1.2, "p90": None, "first_call": 5.0},
    "ratio": {"estimate": 1.5, "low": 1.4, "high": 1.6, "groups": 2},
    "samples": [(1.0, 0.9, 0), (1.4, 1.0, 2)],
    "reference": [(0.7, 0.7, 0), (0.9, 0.7, 1)],
    "run": {"unstable": "", "unmet": ""},
    "graph": None,
    "fingerprint": {"cpu": "made", "threads": 1},
    "key": "0123456789ab",
    "environment": {"host": "made"},
    "taken": 1.7e9,
}


def made(**changes):
    return Measurement(**(FIELDS | changes))


def test_what_is_appended_is_read(tmp_path):
    log = tmp_path / "folder" / "log.jsonl"
    one, two, three = made(), made(name="b"), made(name="c", taken=2.0)
    append(log, [one, two])
    append(log, [three])
    append(log, [])
    assert read(log) == [one, two, three]
    assert len(log.read_text().splitlines()) == 3
    assert log.read_bytes() == one.to_line() + two.to_line() + three.to_line()
    assert json.loads(log.read_text().splitlines()[0])["schema_version"] == 1


def test_no_number_is_null_and_never_nan():
    line = made(run={"x": float("nan"), "y": [float("inf")]}).to_line().decode()
    assert "NaN" not in line and "Infinity" not in line
    assert json.loads(line)["run"] == {"x": None, "y": [None]}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"samples": [(float("nan"), 1.0, 0)] * 2}, "samples.0.0"),
        ({"samples": [(0.0, 1.0, 0)] * 2}, "samples.0.0"),
        ({"samples": [(1.0, -1.0, 0)] * 2}, "samples.0.1"),
        ({"samples": FIELDS["samples"][:1]}, "there are 1 samples and 2 of the reference"),
        ({"samples": [], "reference": []}, "outcome 'measured' with 0 samples"),
        ({"outcome": "out of memory"}, "outcome 'out of memory' with 2 samples"),
        ({"ratio": {}}, "a measurement lacks its ratio"),
        ({"ratio": {"estimate": float("nan")}}, "a measurement lacks its ratio"),
        ({"seconds": {"minimum": 1.0}}, "a measurement lacks p20, median, p90, first_call"),
        ({"kind": "else"}, "kind: "),
        ({"outcome": "lost"}, "outcome: "),
        ({"more": 1}, "more: "),
        ({"schema_version": 2}, "schema version 2 is newer than 1"),
        ({"taken": float("inf")}, "taken: "),
    ],
)
def test_what_is_no_measurement_is_refused(changes, complaint):
    with pytest.raises(ValueError) as caught:
        made(**changes)
    assert complaint in str(caught.value)


def test_memory_that_did_not_suffice_is_a_measurement():
    nothing = {"samples": [], "reference": [], "ratio": {}, "seconds": {}, "costs": {}}
    found = made(outcome="out of memory", **nothing)
    assert Measurement.from_bytes(found.to_line()) == found


def test_a_line_that_was_cut_short_is_named_and_harms_no_other(tmp_path):
    log = tmp_path / "log.jsonl"
    append(log, [made()])
    log.write_bytes(log.read_bytes() + made().to_line()[:100])
    append(log, [made(name="next")])
    with pytest.raises(ValueError, match="log.jsonl, line 2: cut short, or no JSON"):
        read(log)
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(lines[0] + lines[2])
    assert [m.name for m in read(log)] == ["MDConv2d depth=3", "next"]
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none.jsonl")


def test_arms_are_joined_by_layer_and_place():
    layer = {"class": "overconv.MDConv2d", "options": {"depth": 3, "form": "compact"}}
    turned = {"class": "overconv.MDConv2d", "options": {"form": "compact", "depth": 3}}
    key = arm_key({"layer": layer, "where": "all"})
    assert key == arm_key({"where": "all", "layer": turned, "start": "plain"})
    assert key != arm_key({"layer": layer, "where": "spatial"})
    other = {"class": "overconv.MDConv2d", "options": {"depth": 2, "form": "compact"}}
    assert key != arm_key({"layer": other, "where": "all"})


def test_the_committed_log_can_be_read():
    log = Path(__file__).parents[2] / "reports" / "data" / "benchmark.jsonl"
    found = read(log)
    assert {m.name for m in found} >= {"MDConv2d form=expanding", "MDConv2d form=compact"}
    assert all(m.situation["threads"] == 1 for m in found)
