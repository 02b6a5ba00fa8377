"""Records as runs of an MLflow tracking server: a mirror to look at, never what results live in.

A study is an experiment, a record a run, told apart by its tag ``overconv.record``, which holds
trial and stratum: what is there already stays, so exporting twice gives the same runs. A run that
was left half way is deleted and made again. One export at a time: MLflow has no way to refuse a
second run of the same tag, so the later one of two is deleted at the next export.
"""

import os
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from ablations.export import flattened
from analysis.frames import study_frames
from records.canonical import canonical
from records.plan import Plan
from records.record import Record
from records.store import Store

RECORD = "overconv.record"
USED = "overconv.used"
_BATCH = 500  # metrics in a request; a server takes a thousand things at most
_LONGEST = 6000  # characters of a parameter


def export_runs(store: Store, uri: str | None) -> Iterator[str]:
    """Mirror the studies of ``store`` to the server at ``uri``; yields a line a study.

    Raises:
        ValueError: MLflow is not installed, or refuses something.
    """
    # What is exported is nobody else's business; the user may still ask for it.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError:
        raise ValueError("--format mlflow needs MLflow: pip install .[mlflow]") from None
    place = uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    try:
        client = MlflowClient(tracking_uri=place)
        for plan in store.plans():
            yield f"{place}: {_export_study(client, plan, store)}"
    except MlflowException as error:
        raise ValueError(f"MLflow at {place}: {error}") from None


def _export_study(client: Any, plan: Plan, store: Store) -> str:
    frames = study_frames(plan, store)
    experiment = _experiment(client, plan)
    there, num_removed = _runs(client, experiment)
    labels = {plan.cell_id(label): label for label in reversed(plan.arms)}
    num_new = 0
    # A record that two arms share is one run.
    records = {_key(record): (record, "no") for record in frames.strays}
    records |= {_key(record): (record, "yes") for record in frames.records}
    for key, (record, used) in records.items():
        run = there.get(key)
        if run is None:
            _export_record(client, experiment, plan, labels[record.cell], record, used)
            num_new += 1
        elif run.data.tags.get(USED) != used:  # its block passed to another stratum
            client.set_tag(run.info.run_id, USED, used)
    removed = f", {num_removed} unfinished or doubled removed" if num_removed else ""
    return f"{plan.name}: {num_new} runs new, {len(records) - num_new} there already{removed}"


def _experiment(client: Any, plan: Plan) -> str:
    found = client.get_experiment_by_name(plan.name)
    if found is not None:
        return found.experiment_id
    return client.create_experiment(plan.name, tags={"mlflow.note.content": plan.question})


def _runs(client: Any, experiment: str) -> tuple[dict[str, Any], int]:
    """The whole runs of ``experiment`` by their records; all but one of each are deleted."""
    found: dict[str, list[Any]] = defaultdict(list)
    token = None
    while True:
        page = client.search_runs([experiment], max_results=1000, page_token=token)
        for run in page:
            if RECORD in run.data.tags:  # others may use the experiment too
                found[run.data.tags[RECORD]].append(run)
        token = page.token
        if not token:
            break
    kept: dict[str, Any] = {}
    num_removed = 0
    for key, runs in found.items():
        whole = sorted(run.info.run_id for run in runs if run.info.status == "FINISHED")
        for run in runs:
            if run.info.run_id in whole[:1]:
                kept[key] = run
            else:
                client.delete_run(run.info.run_id)
                num_removed += 1
    return kept, num_removed


def _export_record(
    client: Any, experiment: str, plan: Plan, label: str, record: Record, used: str
) -> None:
    from mlflow.entities import Metric, Param

    finished = round(1000 * record.times["finished"])
    block = record.configuration["block"]
    tags = {
        RECORD: _key(record),
        USED: used,
        "overconv.study": plan.name,
        "overconv.preset": plan.preset,
        "overconv.arm": label,
        "overconv.block": str(block),
        "overconv.outcome": record.outcome,
    }
    run = client.create_run(
        experiment,
        start_time=round(1000 * record.times.get("started", record.times["finished"])),
        tags=tags,
        run_name=f"{label} block {block}",
    )
    metrics = [Metric(name, value, finished, step) for name, value, step in _points(record)]
    parameters = [
        Param(name, _text(value)) for name, value in flattened(record.configuration).items()
    ]
    for first in range(0, len(metrics), _BATCH):
        client.log_batch(run.info.run_id, metrics=metrics[first : first + _BATCH])
    for first in range(0, len(parameters), 100):
        client.log_batch(run.info.run_id, params=parameters[first : first + 100])
    client.set_terminated(run.info.run_id, status="FINISHED", end_time=finished)


def _points(record: Record) -> Iterator[tuple[str, float, int]]:
    """Final figures as of the last epoch, costs, and curves by epoch; what is None is left out."""
    last = max((len(values) for values in record.curves.values()), default=0)
    for name, value in record.metrics.items():
        if value is not None:
            yield name, float(value), last
    for name, cost in record.costs.items():
        yield f"cost/{name}", float(cost), last
    for name, values in record.curves.items():
        for epoch, point in enumerate(values, start=1):
            if point is not None:
                yield f"epoch/{name}", float(point), epoch


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else canonical(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _key(record: Record) -> str:
    return f"{record.trial}/{record.stratum}"
