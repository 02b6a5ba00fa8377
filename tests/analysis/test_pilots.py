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
