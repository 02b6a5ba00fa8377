"""The committed report is what the committed records give, and the records are what they say."""

from pathlib import Path

from records.audit import faults
from records.store import Store
from reports.__main__ import main

DATA = Path(__file__).parents[2] / "reports" / "data"


def test_the_committed_report_is_what_its_records_give(capsys):
    assert main(["build", "--check"]) == 0, capsys.readouterr().err


def test_the_committed_records_are_what_they_say():
    store = Store(DATA)
    assert store.paths()
    assert list(faults(store)) == []
