"""The committed report is what the committed records give, and the records are what they say."""

import json
import re
from pathlib import Path

from records.audit import faults
from records.store import Store
from reports.__main__ import main

DATA = Path(__file__).parents[2] / "reports" / "data"


def test_the_committed_report_is_what_its_records_give(capsys):
    assert main(["build", "--check"]) == 0, capsys.readouterr().err


def test_every_committed_figure_and_table_has_its_record():
    """The check above rebuilds what the manifest lists; nothing else may lie beside it."""
    folder = DATA.parent
    listed = set(json.loads((folder / "manifest.json").read_text())["files"])
    there = {
        str(path.relative_to(folder))
        for name in ("figures", "tables")
        for path in (folder / name).iterdir()
    }
    assert there == {name for name in listed if "/" in name}


def test_pictures_of_the_readme_are_of_the_report():
    listed = json.loads((DATA.parent / "manifest.json").read_text())["files"]
    pictures = re.findall(
        r"\]\(reports/([^)]+\.png)\)", (DATA.parents[1] / "README.md").read_text()
    )
    assert pictures and set(pictures) <= set(listed)


def test_the_page_is_small_and_carries_the_licence_of_what_it_embeds():
    page = (DATA.parent / "index.html").read_bytes()
    assert len(page) < 6e6, "a page that takes long to open is not opened"
    assert b"Licensed under the MIT license" in page and (DATA.parent / "plotly/LICENSE").is_file()


def test_the_committed_records_are_what_they_say():
    store = Store(DATA)
    assert store.paths()
    assert list(faults(store)) == []
