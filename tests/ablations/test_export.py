"""Records as lines, tables and runs of MLflow: the same figures, twice the same."""

import importlib.util
import io
import json
import sys

import pandas as pd
import pytest

from ablations.care import _exported
from ablations.export import export_to, flattened
from records.canonical import canonical
from records.plan import Plan
from records.record import Record, digest
from records.store import Store

OLD, NEW = {"threads": 1, "sources": "1"}, {"threads": 1, "sources": "2"}
LABELS = ("plain; as it is", "gated")


def configuration(label: str) -> dict:
    return {
        "arm": {"layer": None if label != "gated" else {"class": "C", "options": {"depth": 2}}},
        "recipe": {"lr": 0.1, "epochs": 3, "flip": True, "ema": 0 if label == "gated" else 0.5},
    }


def make(label: str, block: int, environment: dict = OLD, **changes) -> Record:
    whole = {**configuration(label), "block": block}
    fields = {
        "trial": digest(whole),
        "stratum": digest(environment),
        "configuration": whole,
        "outcome": "finished",
        "metrics": {"test_accuracy": 0.1 + block / 3, "test_loss": None},
        "curves": {"train_loss": [2.0, None, 0.1], "validation_accuracy": [0.25, 0.5, 1 / 3]},
        "costs": {"parameters_training": 12_345_678_901},
        "correct": None,
        "environment": environment,
        "times": {"finished": 1_790_000_002.5, "started": 1_790_000_000.0, "resumed": [3]},
    }
    return Record(**{**fields, **changes})


def plan(**changes) -> Plan:
    arms = {label: configuration(label) for label in LABELS}
    fields = {"name": "tiny", "question": "Why?", "preset": "smoke", "baseline": LABELS[0]}
    return Plan(**{**fields, "arms": arms, **changes})


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "results")
    store.save_plan(plan())
    for label in LABELS:
        for block in (0, 1):
            store.publish(make(label, block))
    store.publish(make("gated", 2, outcome="diverged", metrics={}, times={"finished": 3}))
    return store


def test_lines_are_records_by_trial(store, tmp_path):
    path = tmp_path / "all.jsonl"
    assert list(export_to(store, "jsonl", str(path))) == [f"{path}: 5 records"]
    lines = path.read_bytes().splitlines()
    assert [Record.from_bytes(line) for line in lines] == list(store.published())
    before = path.read_bytes()
    list(export_to(store, "jsonl", str(path)))
    assert path.read_bytes() == before


def test_a_row_is_a_trial_of_a_study_with_its_exact_figures(store, tmp_path):
    path = tmp_path / "all.csv"
    said = list(export_to(store, "csv", str(path)))
    curves = tmp_path / "all.curves.csv"
    assert said == [f"{path}: 5 rows", f"{curves}: 30 rows"]
    table = pd.read_csv(path)
    exact = pd.read_csv(path, dtype=str).iloc[3]["metrics.test_accuracy"]
    assert table["study"].unique().tolist() == ["tiny"]
    assert list(zip(table["label"], table["block"], strict=True)) == [
        (LABELS[0], 0), (LABELS[0], 1), ("gated", 0), ("gated", 1), ("gated", 2),
    ]  # fmt: skip
    row = table.iloc[3]
    record = make("gated", 1)
    assert (row["trial"], row["stratum"]) == (record.trial, record.stratum)
    assert float(exact) == record.metrics["test_accuracy"]
    assert table["metrics.test_accuracy"].isna().tolist() == [False] * 4 + [True]
    assert row["costs.parameters_training"] == 12_345_678_901
    assert row["configuration.recipe.lr"] == 0.1
    assert row["configuration.recipe.flip"] in (True,)  # numpy's True is another object
    assert json.loads(row["configuration.arm.layer"])["options"] == {"depth": 2}
    assert row["times.resumed"] == "[3]"
    points = pd.read_csv(curves)
    mine = points[(points["label"] == "gated") & (points["block"] == 1)]
    loss = mine[mine["measure"] == "train_loss"]
    assert loss["epoch"].tolist() == [1, 2, 3]
    assert loss["value"].iloc[[0, 2]].tolist() == [2.0, 0.1] and loss["value"].isna().iloc[1]


def test_tables_follow_the_stratum_that_a_block_belongs_to(store, tmp_path):
    store.publish(make("gated", 1, NEW, metrics={"test_accuracy": 1.0}, times={"finished": 1.0}))
    list(export_to(store, "csv", str(tmp_path / "all.csv")))
    table = pd.read_csv(tmp_path / "all.csv")
    assert len(table) == 5 and table["stratum"].unique().tolist() == [digest(OLD)]


def test_a_trial_of_two_studies_is_a_row_in_each(store, tmp_path):
    store.save_plan(plan(name="other"))
    list(export_to(store, "csv", str(tmp_path / "all.csv")))
    table = pd.read_csv(tmp_path / "all.csv")
    assert table["study"].value_counts().to_dict() == {"tiny": 5, "other": 5}


def test_an_empty_folder_is_an_empty_table(tmp_path):
    said = list(export_to(Store(tmp_path / "empty"), "csv", str(tmp_path / "all.csv")))
    assert [line.rsplit(": ")[1] for line in said] == ["0 rows", "0 rows"]


@pytest.mark.skipif(
    importlib.util.find_spec("pyarrow") is None, reason="needs pyarrow: pip install .[parquet]"
)
def test_parquet_holds_what_csv_holds(store, tmp_path):
    for form in ("csv", "parquet"):
        list(export_to(store, form, str(tmp_path / f"all.{form}")))
    for name in ("all", "all.curves"):
        table = pd.read_parquet(tmp_path / f"{name}.parquet")
        text = table.to_csv(index=False, lineterminator="\n")
        assert text == (tmp_path / f"{name}.csv").read_text()
        types = table.dtypes.astype(str).to_dict()
        assert types["block"] in ("Int64", "int64")
    before = (tmp_path / "all.parquet").read_bytes()
    list(export_to(store, "parquet", str(tmp_path / "all.parquet")))
    assert (tmp_path / "all.parquet").read_bytes() == before


@pytest.mark.parametrize(
    ("form", "module", "message"),
    [
        ("parquet", "pyarrow", r"needs pyarrow: pip install \.\[parquet\]"),
        ("mlflow", "mlflow", r"needs MLflow: pip install \.\[mlflow\]"),
    ],
)
def test_what_is_not_installed_is_said(form, module, message, store, tmp_path, monkeypatch):
    for name in (module, f"{module}.exceptions"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    with pytest.raises(ValueError, match=message):
        list(_exported(store, form, str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_a_folder_is_no_file(form, store, tmp_path):
    with pytest.raises(ValueError, match="is a folder; allowed: a file"):
        list(export_to(store, form, str(tmp_path)))


def test_deep_values_stay_values():
    found = flattened(configuration("gated"))
    assert found["arm.layer"] == {"class": "C", "options": {"depth": 2}}
    assert found["recipe.lr"] == 0.1


def test_mixed_columns_become_text_and_lose_nothing(store, tmp_path):
    list(export_to(store, "csv", str(tmp_path / "all.csv")))
    content = io.StringIO((tmp_path / "all.csv").read_text())
    table = pd.read_csv(content, dtype=str)
    layers = table["configuration.arm.layer"]
    assert layers.isna().tolist() == [True, True, False, False, False]
    assert layers.iloc[2] == canonical(configuration("gated")["arm"]["layer"])
    assert table["configuration.recipe.ema"].astype(float).tolist() == [0.5, 0.5, 0, 0, 0]
