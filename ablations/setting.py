"""What a run holds, opened once a process: the study, its setting, and the stratum it trains in."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from ablations import files
from ablations.dry_run import find_data
from ablations.presets import MODELS, choose_preset
from ablations.study import Study
from ablations.trial import Cell, Setting, resolve
from overconv.training.data import load
from overconv.training.environment import describe_stratum, modules_of, source_digest
from records.plan import Plan


@dataclass(frozen=True)
class Opened:
    """A study under a setting, on a device."""

    study: Study
    setting: Setting
    device: str
    _cells: dict[str, Cell] = field(default_factory=dict)

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Description of the stratum in which this process trains.

        Raises:
            ValueError: The device is not here.
        """
        # What decides trained bits: the library, all of it, since a study may use what nothing
        # else imports, and how this folder builds and runs a trial.
        roots = [*modules_of("overconv"), "ablations.trial"]
        description = describe_stratum(
            device=self.device,
            threads=self.setting.recipe.threads,
            sources=source_digest(roots, ("overconv", "ablations.trial")),
        )
        decoder = self.setting.dataset.decoder
        return {**description, "decoder": decoder} if decoder else description

    def cells(self, labels: Iterable[str] | None = None) -> dict[str, Cell]:
        """The cells of ``labels`` (default: of all arms), each resolved once.

        Raises:
            ValueError: There is no such arm, or as :func:`ablations.trial.resolve`.
        """
        wanted = list(self.study.arms) if labels is None else list(labels)
        for label in wanted:
            choose(self.study.arms, "arm", label)
        missing = [label for label in wanted if label not in self._cells]
        self._cells.update(resolve(self.study, self.setting, missing))
        return {label: self._cells[label] for label in wanted}


@lru_cache(maxsize=4)
def open_study(
    study: str,
    study_hash: str,
    *,
    preset: str,
    dataset: str | None,
    model: str | None,
    data_root: str | None,
    device: str,
    ranks: int | None,
    needs_data: bool,
) -> Opened:
    """The study ``study`` under the named setting; the same arguments give the same value.

    ``dataset``, ``model`` and ``ranks`` are the preset's where they are None. Without
    ``needs_data``, what is known of a data set does where its files are not here.

    Raises:
        ValueError: A name is unknown, the study's file does not run or does not have the hash
            ``study_hash``, or the data set's files cannot be read.
    """
    if files.file_hash(study) != study_hash:
        raise ValueError(f"the file of study {study!r} has changed since it was planned")
    found = files.load(study)
    held = choose_preset(preset, dataset, model)
    recipe = held.recipe if ranks is None else dataclasses.replace(held.recipe, ranks=ranks)
    data = (load if needs_data else find_data)(held.dataset, data_root)
    setting = Setting(preset=preset, dataset=data, model=MODELS[held.model], recipe=recipe)
    return Opened(found, setting, device)


def choose(table: Mapping[str, Any], what: str, name: str) -> Any:
    """The entry ``name``; a ValueError that lists what is allowed if there is none."""
    if name not in table:
        raise ValueError(f"no {what} {name!r}; allowed: {', '.join(table)}")
    return table[name]


def make_plan(study: Study, preset: str, cells: Mapping[str, Cell]) -> Plan:
    """The plan of ``study`` whose arms are ``cells``."""
    return Plan(
        name=study.name,
        question=study.question,
        preset=preset,
        baseline=study.baseline,
        arms={label: cell.configuration for label, cell in cells.items()},
        claims=study.claims,
        looks=study.looks,
        notes=dict(study.notes),
        factors={
            factor: {level: tuple(labels) for level, labels in levels.items()}
            for factor, levels in study.factors.items()
        },
    )
