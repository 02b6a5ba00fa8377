"""The committed report is what the committed records give, and the records are what they say."""

from pathlib import Path

from records.audit import faults
from records.store import Store
from reports.__main__ import main

DATA = Path(__file__).parents[2] / "reports" / "data"


def test_the_committed_report_is_what_its_records_give(capsys):
    assert main(["build", "--check"]) == 0, capsys.readouterr().err


def test_the_page_is_small_and_carries_the_licence_of_what_it_embeds():
    page = (DATA.parent / "index.html").read_bytes()
    assert len(page) < 6e6, "a page that takes long to open is not opened"
    assert b"Licensed under the MIT license" in page and (DATA.parent / "plotly/LICENSE").is_file()


def test_the_committed_records_are_what_they_say():
    store = Store(DATA)
    assert store.paths()
    assert list(faults(store)) == []
