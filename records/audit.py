"""What a results folder has and lacks, and whether it is what it says it is."""

from collections import Counter
from collections.abc import Iterator

from records.blocks import owner
from records.record import Record, digest
from records.store import Store


def progress(store: Store) -> Iterator[str]:
    """Lines that say how far each plan of ``store`` is."""
    recorded = list(store.records())
    plans = list(store.plans())
    if not plans:
        yield f"no plan in {store.root}"
    for plan in plans:
        wanted = {digest(configuration): label for label, configuration in plan.arms.items()}
        blocks: dict[int, list[Record]] = {}
        for record in recorded:
            if record.cell in wanted:
                blocks.setdefault(record.configuration["block"], []).append(record)
        yield f"{plan.name} ({plan.preset}, {plan.hash}): {len(wanted)} arms, {len(blocks)} blocks"
        for block, records in sorted(blocks.items()):
            stratum = owner(records)
            held = [record for record in records if record.stratum == stratum]
            diverged = Counter(record.outcome for record in held)["diverged"]
            lacking = [
                label for cell, label in wanted.items() if cell not in {r.cell for r in held}
            ]
            yield (
                f"    block {block}: {len(held)} of {len(wanted)} trials, stratum {stratum}"
                + (f", {diverged} diverged" if diverged else "")
                + (f", lacks {', '.join(lacking)}" if lacking else "")
            )


def faults(store: Store) -> Iterator[str]:
    """What is wrong in ``store``, a line each: nothing if every file is what its name says."""
    for path in store.paths():
        try:
            record = Record.from_bytes(path.read_bytes())
        except ValueError as error:
            yield f"{path}: {error}"
            continue
        if (record.trial, record.stratum) != (path.parent.parent.name, path.parent.name):
            yield f"{path}: is the record of {record.trial}/{record.stratum}"
        if digest(record.configuration) != record.trial:
            yield f"{path}: trial {record.trial} is not the hash of its configuration"
        if digest(record.environment) != record.stratum:
            yield f"{path}: stratum {record.stratum} is not the hash of its environment"
        for conflict in sorted(path.parent.glob("record.conflict-*.json")):
            yield f"{conflict}: a second run of this trial gave other bytes"
    for path in store.plan_paths():
        try:
            plan = store.read_plan(path)
        except ValueError as error:
            yield str(error)
            continue
        if path.name != f"{plan.name}.{plan.hash}.json":
            yield f"{path}: is the plan {plan.name}.{plan.hash}"
