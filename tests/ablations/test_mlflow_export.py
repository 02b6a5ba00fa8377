"""Records as runs of a real tracking store of MLflow: the same figures, twice the same runs."""

import importlib.util
import warnings

import pytest

from ablations.mlflow_export import RECORD, USED, export_runs
from records.plan import Plan
from records.record import Record, digest
from records.store import Store

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("mlflow") is None, reason="needs MLflow: pip install .[mlflow]"
    ),
    pytest.mark.filterwarnings("ignore"),  # of MLflow and of what it imports
]

OLD, NEW = {"threads": 1, "sources": "1"}, {"threads": 1, "sources": "2"}


def configuration(label: str) -> dict:
    layer = {"class": "C", "options": {"depth": 2}} if label == "gated" else None
    return {"arm": {"layer": layer, "note": "<b>" * 3000}, "recipe": {"lr": 0.1}}


def make(label: str, block: int, environment: dict = OLD, **changes) -> Record:
    whole = {**configuration(label), "block": block}
    fields = {
        "trial": digest(whole),
        "stratum": digest(environment),
        "configuration": whole,
        "outcome": "finished",
        "metrics": {"test_accuracy": 1 / 3, "test_loss": None},
        "curves": {"train_loss": [2.0, None, *(1 / n for n in range(1, 600))]},
        "costs": {"macs_training": 12_345_678_901},
        "correct": None,
        "environment": environment,
        "times": {"finished": 1_790_000_002.5, "started": 1_790_000_000.0},
    }
    return Record(**{**fields, **changes})


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """A database of its own; making one takes MLflow seconds."""
    folder = tmp_path_factory.mktemp("mlflow")
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    yield f"sqlite:///{folder}/mlflow.db"
    patch.undo()


@pytest.fixture
def client(uri):
    with warnings.catch_warnings(action="ignore"):
        from mlflow.tracking import MlflowClient

        return MlflowClient(tracking_uri=uri)


@pytest.fixture
def study(request):
    """A name for each test: it is the name of an experiment."""
    return request.node.name


@pytest.fixture
def store(tmp_path, study):
    store = Store(tmp_path / "results")
    arms = {label: configuration(label) for label in ("plain", "gated")}
    store.save_plan(Plan(name=study, question="Why?", preset="smoke", baseline="plain", arms=arms))
    for label in arms:
        store.publish(make(label, 0))
    return store


def runs(client, study):
    """All runs by what tells them apart, and nothing that MLflow makes up."""
    experiment = client.get_experiment_by_name(study)
    found = client.search_runs([experiment.experiment_id])
    return {run.data.tags[RECORD]: run for run in found}, len(found)


def test_a_run_holds_what_its_record_holds(store, client, uri, study):
    assert list(export_runs(store, uri)) == [f"{uri}: {study}: 2 runs new, 0 there already"]
    found, number = runs(client, study)
    record = make("gated", 0)
    run = found[f"{record.trial}/{record.stratum}"]
    assert number == 2 and run.info.status == "FINISHED"
    assert run.info.run_name == "gated block 0"
    assert (run.info.start_time, run.info.end_time) == (1_790_000_000_000, 1_790_000_002_500)
    assert run.data.metrics["test_accuracy"] == 1 / 3 and "test_loss" not in run.data.metrics
    assert run.data.metrics["cost/macs_training"] == 12_345_678_901
    points = client.get_metric_history(run.info.run_id, "epoch/train_loss")
    wanted = [(e, v) for e, v in enumerate(record.curves["train_loss"], 1) if v is not None]
    assert sorted((point.step, point.value) for point in points) == wanted
    assert run.data.params["recipe.lr"] == "0.1"
    assert run.data.params["arm.layer"] == '{"class":"C","options":{"depth":2}}'
    assert run.data.params["arm.note"].startswith("<b><b>")
    tags = {k.removeprefix("overconv."): v for k, v in run.data.tags.items() if "overconv." in k}
    assert tags == {
        "record": f"{record.trial}/{record.stratum}", "used": "yes", "study": study,
        "preset": "smoke", "arm": "gated", "block": "0", "outcome": "finished",
    }  # fmt: skip


def test_twice_gives_the_same_runs(store, client, uri, study):
    list(export_runs(store, uri))
    before, _ = runs(client, study)
    said = list(export_runs(store, uri))
    assert said == [f"{uri}: {study}: 0 runs new, 2 there already"]
    after, number = runs(client, study)
    assert number == 2
    assert {k: (r.info.run_id, r.data.to_dictionary()) for k, r in before.items()} == {
        k: (r.info.run_id, r.data.to_dictionary()) for k, r in after.items()
    }
    store.publish(make("plain", 1, outcome="diverged", curves={}, times={"finished": 5}))
    assert "1 runs new, 2 there already" in "".join(export_runs(store, uri))


def test_what_was_left_half_way_or_doubled_is_mended(store, client, uri, study):
    list(export_runs(store, uri))
    before, _ = runs(client, study)
    kept, half = sorted(before)
    experiment = client.get_experiment_by_name(study).experiment_id
    client.update_run(before[half].info.run_id, status="RUNNING")  # killed before its end
    doubled = client.create_run(experiment, tags={RECORD: kept})
    client.set_terminated(doubled.info.run_id)
    foreign = client.create_run(experiment)
    said = list(export_runs(store, uri))
    assert said == [f"{uri}: {study}: 1 runs new, 1 there already, 2 unfinished or doubled removed"]
    assert client.get_run(foreign.info.run_id).info.lifecycle_stage == "active"
    client.delete_run(foreign.info.run_id)
    after, number = runs(client, study)
    assert number == 2 and after.keys() == before.keys()
    assert all(run.info.status == "FINISHED" for run in after.values())


def test_a_record_whose_block_passed_to_another_stratum_is_marked(store, client, uri, study):
    list(export_runs(store, uri))
    for label in ("plain", "gated"):
        store.publish(make(label, 0, NEW, times={"finished": 1_790_000_009.0}))
    assert "2 runs new, 2 there already" in "".join(export_runs(store, uri))
    found, _ = runs(client, study)
    used = {key.split("/")[1]: run.data.tags[USED] for key, run in found.items()}
    assert used == {digest(OLD): "no", digest(NEW): "yes"}


def test_what_mlflow_refuses_is_an_error_of_ours(store, tmp_path):
    with pytest.raises(ValueError, match="MLflow at nothing://here: "):
        list(export_runs(store, "nothing://here"))
