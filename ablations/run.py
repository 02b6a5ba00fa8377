"""`ablations run`: plan, find what is lacking, have an engine run it, show the table."""

import argparse
import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablations import dry_run, files, memory
from ablations.acceptance import accept_source, resolve_stratum
from ablations.engines.engine import Engine, Task
from ablations.engines.local import Workers
from ablations.estimates import estimate
from ablations.launch import ask_environment, choose_engine, run_tasks
from ablations.presets import choose_preset
from ablations.schedule import Job, Schedule, differences, schedule
from ablations.setting import Opened, choose, make_plan, open_study
from ablations.signals import on_signals
from ablations.study import Study
from ablations.trial import Cell, Setting, run_trial
from records.lease import printable, sweep
from records.plan import Plan
from records.record import Record
from records.store import Store

STOPPING = "stopping: running trials keep a checkpoint and leave; a second signal ends them at once"


def run(options: argparse.Namespace) -> int:
    """Run what the results folder lacks of a study; returns the exit status."""
    if options.dry_run and options.accept_source:
        raise ValueError("--accept-source trains and --dry-run does not; allowed: one of them")
    opened, template = _open(options)
    study, setting = opened.study, opened.setting
    engine = choose_engine(options, setting.recipe)
    labels = _arms(options.arms, study)
    if options.blocks is not None:
        blocks = options.blocks
    else:
        blocks = list(range(options.seeds or choose_preset(options.preset).num_blocks))
    cells = opened.cells()
    asks = engine.elsewhere and not options.dry_run
    environment = {} if asks else opened.environment
    store = Store(options.results)
    if not options.dry_run:
        store.check_writable()
        sweep(store)
    if options.accept_source and not _accept(opened, engine, store, cells, blocks):
        return 1
    if asks:
        with on_signals(STOPPING) as request:
            environment = ask_environment(engine, template, options.retries, request)
        if request():
            return request.status
    stratum, environment = resolve_stratum(store, environment)
    plan = make_plan(study, options.preset, cells)
    work = schedule(store, cells, blocks, stratum, labels=labels, anew=options.anew)
    _announce(study, options, blocks, work, environment, store)
    if options.dry_run:
        dry_run.show(cells, work, setting, options)
        return 0
    tasks = _tasks(template, work.todo, cells, stratum)
    if isinstance(engine, Workers) and tasks:
        memory.check(min(engine.number, len(tasks)), _memory(cells, setting, options.device))
    store.save_plan(plan)
    with on_signals(STOPPING) as request:
        outcome = run_tasks(tasks, engine, store, request, options.retries)
    if not request():
        _show(plan, store)
        print(f"\nfor the page: python -m reports build --results {options.results}")
    for task, text in outcome.failed.items():
        print(f"failed: {task.name}: {text.strip().splitlines()[-1]}", file=sys.stderr)
    if request():
        print(f"stopped with {len(outcome.left)} trials left: running again goes on")
        return request.status
    return 1 if outcome.failed else 0


def _open(options: argparse.Namespace) -> tuple[Opened, Task]:
    """The study under its setting, and a task that lacks only arm, block and expectation."""
    preset = choose_preset(options.preset, options.dataset, options.model)
    # Absolute: whoever runs a task may have another working directory.
    study = options.study
    if study.endswith(".py"):
        study = str(files.path_of(study).absolute())
    held: dict[str, Any] = {
        "study": study,
        "study_hash": files.file_hash(study),
        "preset": options.preset,
        "dataset": options.dataset,
        "model": options.model,
        "data_root": options.data_root and str(Path(options.data_root).absolute()),
        "device": options.device,
        "ranks": options.ranks or preset.recipe.ranks,
    }
    task = Task(
        **held, results=str(Path(options.results).absolute()), arm="", block=0, expect="",
        checkpoint_every=options.checkpoint_every, lease=options.lease,
    )  # fmt: skip
    named = held.pop("study"), held.pop("study_hash")
    return open_study(*named, **held, needs_data=not options.dry_run), task


def _tasks(
    template: Task, jobs: list[Job], cells: Mapping[str, Cell], stratum: str
) -> dict[Task, int]:
    """The tasks of ``jobs``, each with its number of epochs."""
    tasks = {}
    for job in jobs:
        cell = cells[job.label]
        expect = f"{cell.trial(job.block)}/{stratum}"
        task = dataclasses.replace(template, arm=job.label, block=job.block, expect=expect)
        tasks[task] = cell.recipe.epochs
    return tasks


def _arms(text: str | None, study: Study) -> list[str] | None:
    if text is None:
        return None
    labels = [label.strip() for label in text.split(",")]
    for label in labels:
        choose(study.arms, "arm", label)
    # Baseline first, as in the study: what is recorded of a block is soon a pair.
    return [label for label in study.arms if label in labels]


def _accept(
    opened: Opened, engine: Engine, store: Store, cells: Mapping[str, Cell], blocks: list[int]
) -> bool:
    if opened.setting.recipe.ranks > 1 or engine.elsewhere:
        raise ValueError(
            "--accept-source trains in this process; allowed: with --engine local and --ranks 1"
        )

    def replay(job: Job) -> Record:
        return run_trial(
            cells[job.label], opened.setting.dataset, job.block,
            environment=opened.environment, device=opened.device,
        )  # fmt: skip

    return accept_source(store, cells, blocks, opened.environment, replay)


def _memory(cells: Mapping[str, Cell], setting: Setting, device: str) -> int:
    """Bytes that a worker needs: what this process has loaded, and the largest arm's training."""
    loaded = memory.used()
    if device != "cpu":
        return loaded
    largest = max(cells.values(), key=lambda cell: cell.costs["macs_training"])
    return loaded + setting.recipe.ranks * estimate(largest, setting.dataset).memory


def _show(plan: Plan, store: Store) -> None:
    # Here, since a worker has no use for pandas and scipy, and would wait for them.
    from analysis.frames import study_frames
    from analysis.tables import study_table
    from analysis.verdict_tables import verdict_table
    from analysis.verdicts import verdicts

    frames = study_frames(plan, store)
    print(study_table(frames).to_text())
    if plan.claims:
        print(f"\n{verdict_table(plan, verdicts(frames)).to_text()}")


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
        f"{len(work.done)} trials done, {len(work.todo)} to do, into {options.results}",
        flush=True,
    )
    for block, holder in work.elsewhere.items():
        # What other records say of themselves may have been written by anybody.
        facts = [printable(fact) for fact in differences(environment, store.records(), holder)]
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
