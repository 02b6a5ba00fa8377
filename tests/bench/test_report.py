import json
import math

import pytest

from overconv.bench.report import Calibration, Report, Verdict, writable
from overconv.bench.statistics import Ratio

STILL, SLOW = Ratio(1.002, 0.991, 1.0131, 20), Ratio(1.101, 1.08, 1.12, 30)
PASS = Verdict("a", "pass", "1.002 of base", STILL, STILL, "base", 1.05, 20, 1, 2.0)
FAIL = Verdict("b", "fail", "1.101 of base|<x>", SLOW, SLOW, "base", 1.05, 60, 2, 2.0)
UNCLEAR = Verdict("c", "unclear", "60 groups do not settle it", SLOW, STILL, "base", 1.05, 120, 2)
NEW = Verdict("d", "pass", "new: base has no such case", limit=1.05)
GOOD = Calibration("pass", "equal work reads 1.001", STILL, SLOW)
BAD = Calibration(
    "unclear", "this machine cannot resolve 10 % now: equal work reads 1.3", SLOW, SLOW
)


def report(*verdicts, **more):
    own = {
        "cases_file": "cases.py",
        "verdicts": verdicts,
        "calibration": GOOD,
        "differences": (),
        "counted": len(verdicts),
        "accept": "python -m overconv.bench gate --cases cases.py --accept",
        "cannot": None,
        "base": "main (0123456789ab)",
        "head": "ba9876543210",
        "declared": len(verdicts),
        "asked": len(verdicts),
        "notes": (),
        "seconds": 12.3,
    }
    return Report(**(own | more))


@pytest.mark.parametrize(
    ("found", "status"),
    [
        (report(PASS), 0),
        (report(PASS, NEW), 0),
        (report(PASS, FAIL), 1),
        (report(PASS, UNCLEAR), 3),
        (report(FAIL, UNCLEAR), 1),
        (report(PASS, calibration=BAD), 3),
        (report(FAIL, calibration=BAD), 1),
        (report(PASS, cannot="killed"), 3),
        (report(PASS, differences=("a: parameters is 7, committed is 5",)), 1),
        (report(PASS, differences=("a: parameters is 7",), cannot="killed"), 1),
        (report(PASS, differences=None), 0),
        (report(counted=2), 0),
        (report(), 3),
    ],
)
def test_exit_status(found, status):
    assert found.exit_status == status
    assert found.as_dict()["exit_status"] == status
    words = {0: "pass: ", 1: "regression: ", 3: "cannot judge: "}
    assert found.sentence.startswith(words[status])


def test_the_sentence_gives_the_chief_reason():
    assert report(FAIL, PASS).sentence == "regression: 1 case failed (b)"
    assert report(PASS, UNCLEAR).sentence == (
        "cannot judge: 1 case unclear (c): 60 groups do not settle it"
    )
    assert report(UNCLEAR, calibration=BAD).sentence == f"cannot judge: {BAD.reason}"
    many = [Verdict(f"case{n}", "fail", "slow") for n in range(5)]
    assert report(*many, differences=("x", "y")).sentence == (
        "regression: 2 exact figures changed; 5 cases failed (case0, case1, case2 and 2 more)"
    )
    assert report(PASS, cannot="it was killed").sentence == "cannot judge: it was killed"


def test_the_totals_show_what_was_measured():
    assert report(PASS, FAIL, NEW, declared=9).totals == (
        "9 cases declared (3 chosen); timed 2 against base, 0 against plain, 1 new and not timed;"
        " 80 groups of pairs; exact figures of 3 compared; 12 s"
    )
    assert "exact figures not compared" in report(PASS, differences=None).totals


def test_json_is_strict_and_complete():
    nothing = Ratio(1.0, -math.inf, math.inf, 10)
    early = Verdict("e", "unclear", "too few", nothing, nothing, "base", 1.05, 10, 1)
    found = report(PASS, FAIL, early, notes=("said",), machine={"key": "k"}).as_dict()
    read = json.loads(json.dumps(found, allow_nan=False))
    assert read == found and read["schema"] == 1
    assert read["verdicts"][0]["ratio"] == {
        "estimate": 1.002,
        "low": 0.991,
        "high": 1.0131,
        "groups": 20,
    }
    assert read["verdicts"][2]["ratio"]["low"] is None
    assert read["calibration"]["planted"]["estimate"] == 1.101
    assert read["machine"] == {"key": "k"} and read["notes"] == ["said"]


def test_markdown_shows_verdicts_differences_and_totals():
    text = report(PASS, FAIL, NEW, differences=("a: parameters is 7, committed is 5",)).markdown()
    assert text.startswith("## Gate: REGRESSION\n")
    assert "- a: parameters is 7, committed is 5" in text
    assert "`python -m overconv.bench gate --cases cases.py --accept`" in text
    assert "| `a` | pass | 1.002 | 0.991 to 1.013 | 1.002 | 1.05 | base |" in text
    assert "| `d` | pass |  |  |  | 1.05 | nothing |" in text
    assert r"1.101 of base\|&lt;x>" in text  # words of an error cannot break the page
    assert "Base main (0123456789ab), head ba9876543210. 3 cases declared" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({row.replace(r"\|", "").count("|") for row in rows}) == 1


def test_text_ends_with_the_totals():
    lines = report(FAIL, differences=("x: 1",), notes=("said",)).text().splitlines()
    assert lines[0] == "changed  x: 1" and "--accept" in lines[1] and "note: said" in lines
    assert lines[-1].startswith("1 case declared; timed 1 against base")


def test_a_change_of_its_judges_is_in_the_sentence_and_on_the_page():
    found = report(PASS, moved=("a: its limit is raised from 1.05 to 2",))
    assert found.exit_status == 0
    assert found.sentence.startswith("pass: ")
    assert found.sentence.endswith("; NOTE: this change also changes what judges it, in 1 place")
    assert "moved    a: its limit is raised from 1.05 to 2" in found.text().splitlines()
    page = found.markdown()
    assert "**This change also changes what judges it**\n\n- a: its limit is raised" in page
    assert found.as_dict()["moved"] == ["a: its limit is raised from 1.05 to 2"]
    assert "NOTE" not in report(PASS).sentence and "judges" not in report(PASS).markdown()


def test_where_no_report_can_be_written_is_told_before(tmp_path):
    assert writable(None) is None
    assert writable(tmp_path / "a.json") == tmp_path / "a.json"
    with pytest.raises(ValueError, match="and '.*' is a folder"):
        writable(tmp_path)
    with pytest.raises(ValueError, match="there is no folder .*none"):
        writable(tmp_path / "none" / "a.json")
