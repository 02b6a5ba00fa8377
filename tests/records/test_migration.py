"""Plans of an older schema get their new name; records stay."""

import json

from records.audit import faults
from records.migration import main
from records.plan import Plan
from records.store import Store

PLAN = Plan(name="depth", question="?", preset="smoke", baseline="plain", arms={"plain": {}})


def old_plan(store):
    """The plan as schema 1 wrote it; its name is that of another hash."""
    fields = {**PLAN.plain(), "schema_version": 1}
    del fields["factors"]
    path = store.root / "studies" / "depth.0123456789abcdef.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(fields))
    return path


def test_a_plan_is_renamed_and_nothing_else(store, make_record, capsys):
    record = make_record()
    store.publish(record)
    path = old_plan(store)
    before = [p.read_bytes() for p in store.paths()]
    assert store.plans() == [PLAN], "it is read before it is renamed"
    assert "is the plan depth" in "".join(faults(store))
    assert main([str(store.root)]) == 0
    assert f"{path} -> {PLAN.filename}" in capsys.readouterr().out
    assert not path.exists() and [p.name for p in store.plan_paths()] == [PLAN.filename]
    assert [p.read_bytes() for p in store.paths()] == before
    assert list(faults(store)) == []
    assert main([str(store.root)]) == 0 and capsys.readouterr().out == "", "nothing is left to do"


def test_a_plan_that_cannot_be_read_stops_all(store, capsys):
    path = old_plan(store)
    (path.parent / "broken.json").write_text("{")
    assert main([str(store.root)]) == 2
    assert "broken.json" in capsys.readouterr().err and path.exists()


def test_a_folder_is_needed(tmp_path, capsys):
    assert main([]) == main([str(tmp_path / "none")]) == 2
    assert "usage" in capsys.readouterr().err
    assert Store(tmp_path).plans() == []
