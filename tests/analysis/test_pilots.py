"""The committed pilots: their tables are what their records give."""

from pathlib import Path

from analysis.selection import filled
from records.audit import faults
from records.store import Store

ROOT = Path(__file__).parents[2]
STORE = Store(ROOT / "reports" / "pilots")


def test_the_tables_are_what_the_records_give():
    assert STORE.paths()
    assert list(faults(STORE)) == []
    page = (ROOT / "docs" / "reference-setting.md").read_text()
    assert filled(page, STORE) == page
    for plan in STORE.plans():
        assert f"<!-- pilot: {plan.name} -->\n### " in page, "every pilot is told of"


def test_pilots_had_ended_when_the_comparisons_began():
    """On each data set, by the times in the records."""
    ended: dict[str, float] = {}
    for record in STORE.records():
        data = record.configuration["data"]["name"]
        ended[data] = max(ended.get(data, 0), record.times["finished"])
    compared = list(Store(ROOT / "reports" / "data").records())
    assert compared
    for record in compared:
        assert record.times["started"] > ended[record.configuration["data"]["name"]]
        assert record.configuration["block"] < 100
    assert min(record.configuration["block"] for record in STORE.records()) == 100
