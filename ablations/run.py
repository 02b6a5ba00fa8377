"""`ablations run`: plan, schedule, train, show; `ablations trial`: one trial, in a worker."""

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from ablations import files
from ablations.acceptance import accept_source, resolve_stratum
from ablations.engines import OnEpoch, run_in_process, run_spawned, say, summarise
from ablations.presets import MODELS, PRESETS
from ablations.progress import Progress, duration
from ablations.schedule import Job, Schedule, differences, schedule
from ablations.study import Study
from ablations.trial import Cell, Setting, estimate_seconds, resolve, run_trial
from overconv.training.data import load
from overconv.training.environment import describe_stratum, modules_of, source_digest
from records.plan import Plan
from records.record import Record, digest
from records.store import Store


def run(options: argparse.Namespace) -> int:
    """Run what the results folder lacks of a study; returns the exit status."""
    if options.dry_run and options.accept_source:
        raise ValueError("--accept-source trains and --dry-run does not; allowed: one of them")
    study, setting = _read(options)
    labels = _arms(options.arms, study)
    if options.blocks is not None:
        blocks = options.blocks
    else:
        blocks = list(range(options.seeds or PRESETS[options.preset].num_blocks))
    cells = resolve(study, setting)
    here = _environment(options, setting)
    store = Store(options.results)
    if not options.dry_run:
        store.check_writable()
    if options.accept_source:

        def replay(job: Job) -> Record:
            return _train(cells[job.label], setting, job.block, here, options)

        if not accept_source(store, cells, blocks, here, replay):
            return 1
    stratum, environment = resolve_stratum(store, here)
    plan = _plan(study, options.preset, cells)
    work = schedule(store, cells, blocks, stratum, labels=labels, anew=options.anew)
    _announce(study, options, blocks, work, environment, store)
    if options.dry_run:
        _show_dry_run(cells, work, setting)
        return 0
    store.save_plan(plan)
    num_failed = _run_jobs(cells, work.todo, setting, environment, store, options)
    _show(plan, store)
    print(f"\nfor the page: python -m reports build --results {options.results}")
    return 1 if num_failed else 0


def run_planned_trial(options: argparse.Namespace) -> int:
    """Run one trial that an engine planned; returns the exit status."""
    if files.file_hash(options.study) != options.study_hash:
        raise ValueError(f"the file of study {options.study!r} has changed since it was planned")
    study, setting = _read(options)
    if options.arm not in study.arms:
        raise ValueError(f"no arm {options.arm!r}; arms: {', '.join(study.arms)}")
    store = Store(options.results)
    cell = resolve(study, setting, [options.arm])[options.arm]
    stratum, environment = resolve_stratum(store, _environment(options, setting))
    found = f"{cell.trial(options.block)}/{stratum}"
    if found != options.expect:
        raise ValueError(
            f"{options.arm} block {options.block} was planned as {options.expect} and is {found} "
            "here: the source, the data or the machine has changed since; run again"
        )

    def on_epoch(epoch: int, values: dict[str, float]) -> None:
        say({"epoch": epoch, "values": values})

    record = _train(cell, setting, options.block, environment, options, on_epoch)
    store.publish(record)
    say({"finished": summarise(record)})
    return 0


def _read(options: argparse.Namespace) -> tuple[Study, Setting]:
    study = files.load(options.study)
    preset = _choose(PRESETS, "preset", options.preset)
    model = _choose(MODELS, "model", options.model or preset.model)
    dataset = load(options.dataset or preset.dataset, options.data_root)
    setting = Setting(preset=options.preset, dataset=dataset, model=model, recipe=preset.recipe)
    return study, setting


def _choose(table: Mapping[str, Any], what: str, name: str) -> Any:
    if name not in table:
        raise ValueError(f"no {what} {name!r}; allowed: {', '.join(table)}")
    return table[name]


def _arms(text: str | None, study: Study) -> list[str] | None:
    if text is None:
        return None
    labels = [label.strip() for label in text.split(",")]
    for label in labels:
        _choose(study.arms, "arm", label)
    # Baseline first, as in the study: what is recorded of a block is soon a pair.
    return [label for label in study.arms if label in labels]


def _environment(options: argparse.Namespace, setting: Setting) -> dict[str, Any]:
    # What decides trained bits: the library, all of it, since a study may use what nothing else
    # imports, and how this folder builds and runs a trial.
    roots = [*modules_of("overconv"), "ablations.trial"]
    sources = source_digest(roots, ("overconv", "ablations.trial"))
    return describe_stratum(device=options.device, threads=setting.recipe.threads, sources=sources)


def _plan(study: Study, preset: str, cells: Mapping[str, Cell]) -> Plan:
    return Plan(
        name=study.name,
        question=study.question,
        preset=preset,
        baseline=study.baseline,
        arms={label: cell.configuration for label, cell in cells.items()},
        claims=list(study.claims),
        looks=list(study.looks),
        notes=dict(study.notes),
        factors=dict(study.factors),
    )


def _train(
    cell: Cell,
    setting: Setting,
    block: int,
    environment: Mapping[str, Any],
    options: argparse.Namespace,
    on_epoch: OnEpoch | None = None,
) -> Record:
    return run_trial(
        cell,
        setting.dataset,
        block,
        environment=environment,
        device=options.device,
        on_epoch=on_epoch,
    )


def _run_jobs(
    cells: Mapping[str, Cell],
    jobs: list[Job],
    setting: Setting,
    environment: Mapping[str, Any],
    store: Store,
    options: argparse.Namespace,
) -> int:
    listener = Progress({job: cells[job.label].recipe.epochs for job in jobs})

    def run_here(job: Job, on_epoch: OnEpoch) -> Record:
        record = _train(cells[job.label], setting, job.block, environment, options, on_epoch)
        store.publish(record)
        return record

    def command(job: Job) -> list[str]:
        expect = f"{cells[job.label].trial(job.block)}/{digest(environment)}"
        optional = {
            "--dataset": options.dataset,
            "--model": options.model,
            "--data-root": options.data_root,
        }
        return [
            sys.executable, "-m", "ablations", "trial", options.study,
            f"--arm={job.label}", "--block", str(job.block), "--expect", expect,
            "--study-hash", files.file_hash(options.study),
            "--preset", options.preset, "--device", options.device, "--results", options.results,
            *(word for pair in optional.items() if pair[1] for word in pair),
        ]  # fmt: skip

    try:
        if options.workers == 1:
            return run_in_process(jobs, run_here, listener)
        return run_spawned(jobs, command, listener, workers=options.workers)
    finally:
        listener.close()


def _show(plan: Plan, store: Store) -> None:
    # Here, since a worker has no use for pandas and scipy, and would wait for them.
    from analysis.frames import study_frames
    from analysis.tables import study_table, verdict_table

    frames = study_frames(plan, store)
    print(study_table(frames).to_text())
    if plan.claims:
        print(f"\n{verdict_table(frames).to_text()}")


def _announce(
    study: Study,
    options: argparse.Namespace,
    blocks: list[int],
    work: Schedule,
    environment: Mapping[str, Any],
    store: Store,
) -> None:
    print(f"{study.name}: {study.question}")
    print(
        f"preset {options.preset}, {len(study.arms)} arms, blocks {_ranges(blocks)}: "
        f"{len(work.done)} trials done, {len(work.todo)} to do, into {options.results}"
    )
    for block, holder in work.elsewhere.items():
        facts = differences(environment, store.records(), holder)
        source = " or, if the change of source should not matter, --accept-source"
        print(
            f"block {block} belongs to stratum {holder}, which differs in {', '.join(facts)}; "
            f"skipped: --anew runs the whole block in this one"
            f"{source if facts == ['sources'] else ''}",
            file=sys.stderr,
        )


def _ranges(blocks: list[int]) -> str:
    """``blocks``, which ascend, as they would be given: ``0-2,5``."""
    runs: list[list[int]] = []
    for block in blocks:
        if runs and block == runs[-1][-1] + 1:
            runs[-1].append(block)
        else:
            runs.append([block])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def _show_dry_run(cells: Mapping[str, Cell], work: Schedule, setting: Setting) -> None:
    todo = {label: sum(job.label == label for job in work.todo) for label in cells}
    done = {label: sum(job.label == label for job in work.done) for label in cells}
    width = max(len(label) for label in cells)
    print(f"{'arm':{width}}  parameters  MACs (training)  done  to do  a trial, about")
    total = 0.0
    for label, cell in cells.items():
        seconds = estimate_seconds(cell, setting.dataset)
        total += seconds * todo[label]
        counted = f"{cell.costs['parameters_training']:10,}  {cell.costs['macs_training']:15,}"
        print(f"{label:{width}}  {counted}  {done[label]:4}  {todo[label]:5}  {duration(seconds)}")
    print(f"in all about {duration(total)} of one core; nothing was run or written")
