"""One trial: the network of an arm in a block, trained, and the record of it.

The part of `ablations` that decides trained bits: its source belongs to the stratum.
"""

import copy
import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from ablations.identity import describe, describe_call, describe_layer, unwrap
from ablations.study import Arm, Layer, SameParameters, Study
from overconv.costs import count_costs
from overconv.surgery import convert, rebuild_convs, to_inference
from overconv.training.conditions import Checkpoints
from overconv.training.environment import configure, facts
from overconv.training.inputs import DataSource
from overconv.training.loop import OnEpoch, Result, train
from overconv.training.recipe import RECIPE_VERSION, Recipe
from overconv.training.splits import num_trained
from overconv.training.streams import seeded, stream
from overconv.training.world import ALONE, World
from records.record import Record, digest, pack_bits


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a run holds for all arms of a study."""

    preset: str
    dataset: DataSource
    model: Layer
    recipe: Recipe


@dataclass(frozen=True, kw_only=True)
class Cell:
    """An arm under a setting, every value resolved; a block makes a trial of it.

    ``configuration`` is its identity, without the block. ``reference`` builds the plain network
    of the setting, from which all arms of a block take what they share; ``network`` builds the
    plain network with this arm's own options. ``costs`` are those of :class:`overconv.costs.Costs`.
    """

    label: str
    arm: Arm
    reference: Layer
    network: Layer
    recipe: Recipe
    configuration: dict[str, Any]
    costs: dict[str, int]

    def trial(self, block: int) -> str:
        """Identity of this cell in ``block``."""
        return digest({**self.configuration, "block": block})


def resolve(study: Study, setting: Setting, labels: Iterable[str] | None = None) -> dict[str, Cell]:
    """The cells of a study under a setting, by label: of all arms, or of ``labels``.

    Raises:
        ValueError: An arm gives its network or recipe something they do not take, or its layer
            cannot replace one of the convolutions; the message names the arm.
    """
    cells: dict[str, Cell] = {}

    def resolve_arm(label: str, waiting: tuple[str, ...] = ()) -> Cell:
        if label in waiting:
            raise ValueError(f"arms wait for one another's parameters: {' -> '.join(waiting)}")
        if label not in cells:
            try:
                cells[label] = _cell(
                    label,
                    study.arms[label],
                    setting,
                    lambda other: resolve_arm(other, (*waiting, label)),
                )
            except ValueError as error:
                raise ValueError(f"arm {label!r}: {error}") from error
            except Exception as error:  # a layer of the user's may raise anything
                raise ValueError(f"arm {label!r}: {type(error).__name__}: {error}") from error
        return cells[label]

    return {label: resolve_arm(label) for label in (study.arms if labels is None else labels)}


def _cell(label: str, arm: Arm, setting: Setting, resolve_other: Callable[[str], Cell]) -> Cell:
    data = setting.dataset
    in_channels = data.image_shape[0]
    reference = partial(setting.model, in_channels=in_channels, num_classes=data.num_classes)
    options = {
        key: _solve(reference, key, resolve_other(value.arm))
        if isinstance(value, SameParameters)
        else value
        for key, value in arm.model.items()
    }
    network = partial(reference, **options)
    allowed = {field.name for field in dataclasses.fields(Recipe)}
    if unknown := sorted(set(arm.recipe) - allowed):
        raise ValueError(f"recipe has no {unknown[0]!r}; allowed: {', '.join(sorted(allowed))}")
    if "threads" in arm.recipe:
        raise ValueError("threads belong to the stratum, which all arms of a block share")
    if "ranks" in arm.recipe:
        raise ValueError("ranks are the same for all arms of a run: --ranks")
    recipe = dataclasses.replace(setting.recipe, **arm.recipe)
    cell = Cell(
        label=label, arm=arm, reference=reference, network=network, recipe=recipe,
        configuration={}, costs={},
    )  # fmt: skip
    built = build_network(cell, block=0)
    # A default that is computed shows in the shapes, so they are part of the identity.
    shapes = [[name, list(parameter.shape)] for name, parameter in built.named_parameters()]
    values = {field.name: getattr(recipe, field.name) for field in dataclasses.fields(recipe)}
    del values["threads"]  # part of the stratum
    layer = None if arm.is_plain else describe_layer(arm.layer)
    configuration = {
        "arm": {
            "layer": layer,
            "where": None if arm.is_plain else describe(arm.where),
            "start": None if arm.is_plain else arm.start,
        },
        "network": {
            **describe_call(network),
            "parameters": digest(shapes),
            # Where it starts from, unless that is the network itself.
            "reference": describe_call(reference) if options else None,
        },
        "data": {
            "name": data.name,
            "fingerprint": data.fingerprint,
            "num_test": data.num_test,  # so many are the bits of a record
        },
        "recipe": {**describe(values), "version": RECIPE_VERSION},
    }
    num_train = num_trained(data.num_train, recipe)
    if num_train < recipe.batch_size:
        raise ValueError(
            f"num_validation={recipe.num_validation} and num_train={recipe.num_train} give "
            f"{num_train} of the {data.num_train} training examples of {data.name}, and "
            f"batch_size={recipe.batch_size} needs as many; choose another preset or data set"
        )
    for schedule in recipe.schedules:
        schedule.apply(copy.deepcopy(built), 0.0)
    shape = data.input_shape(recipe)
    if not arm.is_plain:
        _check(cell, built, shape)
    costs = count_costs(built, torch.zeros(1, *shape)).as_dict()
    return dataclasses.replace(cell, configuration=configuration, costs=costs)


def _check(cell: Cell, network: nn.Module, shape: tuple[int, int, int]) -> None:
    """Hold the layer to its word: a plain start, and the same function once deployed.

    A layer that breaks it would make arms differ in more than the study says, and silently.
    """
    noise = stream(0, "check").standard_normal((2, *shape), dtype=np.float32)
    compared = {"to_inference() does not compute what it computes": to_inference(network)}
    if cell.arm.start == "plain":
        plain = dataclasses.replace(cell, arm=Arm(model=cell.arm.model))
        compared["from_conv2d() does not compute what the convolution computes"] = build_network(
            plain, block=0
        ).eval()
    with torch.no_grad():
        found, *others = (n(torch.from_numpy(noise)) for n in (network.eval(), *compared.values()))
    for complaint, other in zip(compared, others, strict=True):
        error = (found - other).abs().max() / other.abs().max()
        if not error < 1e-3:
            name = getattr(unwrap(cell.arm.layer)[0], "__name__", "layer")
            raise ValueError(f"{name}.{complaint}: the network differs by {error:.1g} of its range")


def _solve(reference: Layer, option: str, like: Cell, steps: int = 1024) -> float:
    """The value of ``option`` at which the plain network is nearest to ``like`` in parameters.

    Searched among the multiples of 1/``steps`` of the option's own value; of several that give
    the same count, the smallest.
    """
    target_count = _count(build_network(like, block=0))
    target, _, given = unwrap(reference)
    start = {**_defaults(target), **given}.get(option)
    if isinstance(start, bool) or not isinstance(start, int | float):
        raise ValueError(f"SameParameters needs a number as {option!r} of the network, got {start}")

    def count(multiple: int) -> int:
        with torch.device("meta"):
            return _count(reference(**{option: start * multiple / steps}))

    low, high = steps // 4, steps
    while count(high) < target_count:
        low, high = high, high * 2
    while high - low > 1:  # count(low) < target <= count(high): the count grows with the option
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) < target_count else (low, middle)
    best = min((low, high), key=lambda multiple: abs(count(multiple) - target_count))
    nearest = count(best)
    while best > 1 and count(best - 1) == nearest:
        best -= 1
    return start * best / steps


def _defaults(target: Callable[..., Any]) -> dict[str, Any]:
    return describe_call(target)["options"]


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def build_network(cell: Cell, block: int) -> nn.Module:
    """The network of ``cell`` at the start of ``block``.

    All arms of a block share one plain reference: what an arm does not replace starts with the
    reference's values wherever name and shape agree, and a replaced layer draws from a stream of
    its own, so no arm shifts another's draws.
    """
    with seeded(block, "init"):
        network = cell.reference()
    if cell.arm.model:
        shared = network.state_dict()
        with seeded(block, "init"):
            network = cell.network()
        own = network.state_dict()
        network.load_state_dict(
            {
                name: shared[name]
                if name in shared and shared[name].shape == value.shape
                else value
                for name, value in own.items()
            }
        )
    if cell.arm.is_plain:
        return network

    def build(name: str, conv: nn.Conv2d) -> nn.Module:
        with seeded(block, "init", name):
            return convert(cell.arm.layer, conv, preserve=cell.arm.start == "plain")

    return rebuild_convs(network, cell.arm.where, build)


def run_trial(
    cell: Cell,
    dataset: DataSource,
    block: int,
    *,
    environment: Mapping[str, Any],
    device: str = "cpu",
    world: World = ALONE,
    checkpoints: Checkpoints | None = None,
    stop: Callable[[], bool] | None = None,
    on_epoch: OnEpoch | None = None,
) -> Record:
    """Train ``cell`` in ``block``; the record is complete, and published by nobody yet.

    ``environment`` describes the stratum; its digest names it. The others are those of
    :func:`overconv.training.loop.train`, which says what is raised.
    """
    configure(cell.recipe.threads)
    started, begun = time.time(), time.monotonic()
    network = build_network(cell, block)
    result = train(
        network.to(device), dataset, cell.recipe, block=block, device=device, world=world,
        checkpoints=checkpoints, stop=stop, on_epoch=on_epoch,
    )  # fmt: skip
    # A clock that can be set tells when, and not how long.
    finished, seconds = time.time(), time.monotonic() - begun
    configuration = {**cell.configuration, "block": block}
    return Record(
        trial=digest(configuration),
        stratum=digest(environment),
        configuration=configuration,
        outcome=result.outcome,
        metrics=_metrics(result),
        curves={name: [*values] for name, values in result.curves.items()},
        costs={**cell.costs},
        correct=None if result.correct is None else pack_bits(result.correct.tolist()),
        environment=dict(environment),
        times={
            "started": started,
            "finished": finished,
            "seconds": seconds,
            "epochs": result.seconds,
            "resumed": result.resumed,
            **facts(),
        },
    )


def _metrics(result: Result) -> dict[str, float | None]:
    if result.diverged_at is None:
        return result.metrics
    return {**result.metrics, **{f"diverged_{k}": float(v) for k, v in result.diverged_at.items()}}
