"""Where the numbers of a study come from: what its arms share and differ in, and who ran them."""

import datetime
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.frames import Frames
from analysis.summary import layer_name
from records.benchmark import Measurement
from records.plan import Plan

Facts = list[tuple[str, str]]


@dataclass(frozen=True)
class Setting:
    """What was held in all arms, and what each arm is in what they differ in."""

    held: Facts
    arms: Facts


def setting(plan: Plan) -> Setting:
    """The configurations of ``plan``, told apart into what is shared and what is not."""
    network = {label: _network(arm) for label, arm in plan.arms.items()}
    recipe = {label: _options(arm.get("recipe")) for label, arm in plan.arms.items()}
    data = {label: _data(arm) for label, arm in plan.arms.items()}
    layers: dict[str, dict[str, dict[str, str]]] = defaultdict(dict)
    for label, arm in plan.arms.items():
        layers[layer_name(arm)][label] = _layer(arm)
    differing = {
        label: [
            *_differing(data, label),
            *_differing(network, label),
            *_differing(recipe, label),
            *_differing(layers[layer_name(arm)], label),
        ]
        for label, arm in plan.arms.items()
    }
    arms = [
        (label, ", ".join([layer_name(arm), *differing[label]])) for label, arm in plan.arms.items()
    ]
    held = [
        ("data", ", ".join(_shared(data))),
        ("network", ", ".join(_shared(network))),
        ("recipe", ", ".join(_shared(recipe))),
    ]
    held += [
        (f"each {layer}", ", ".join(shared))
        for layer, options in layers.items()
        if layer != "Conv2d" and (shared := _shared(options))
    ]
    return Setting(held=[(name, value) for name, value in held if value], arms=arms)


def brief(plan: Plan) -> str:
    """Size of the baseline's network, and epochs: ``ResNet, depth 8, width 8; 2 epochs``."""
    baseline = plan.arms[plan.baseline]
    size = {k: v for k, v in _network(baseline).items() if k in ("", "depth", "width")}
    network = ", ".join(f"{k} {v}".strip() for k, v in size.items())
    epochs = (baseline.get("recipe") or {}).get("epochs")
    return network if epochs is None else f"{network}; {epochs} epoch{'s' * (epochs != 1)}"


def origin(frames: Frames) -> Facts:
    """Counts, dates, code and machines of the trials of a study."""
    records, cells = frames.records, frames.cells
    if not records:
        return []
    times = [record.times for record in records]
    seconds = sum(t["seconds"] for t in times if isinstance(t.get("seconds"), int | float))
    commits = _distinct(str(t["commit"])[:12] for t in times if t.get("commit"))
    processors = _distinct(str(t["processor"]) for t in times if t.get("processor"))
    facts = [
        ("trials", f"{len(records)}, blocks {_ranges(frames.blocks)}"),
        ("finished", " to ".join(_days(t["finished"] for t in times))),
        ("training time", _duration(seconds)),
        ("processor", ", ".join(processors) or "not recorded"),
        ("commit", ", ".join(commits) or "not recorded"),
        ("plan", frames.plan.hash),
    ]
    for stratum, rows in cells.groupby("stratum"):
        environment = next(r.environment for r in records if r.stratum == stratum)
        known = [
            f"{name} {environment[name]}"
            for name in ("torch", "numpy", "device", "threads")
            if name in environment
        ]
        blocks = _ranges(sorted(set(rows["block"].tolist())))
        facts.append((f"stratum {stratum}", ", ".join([f"blocks {blocks}", *known])))
    return facts


def measured(measurements: Sequence[Measurement]) -> Facts:
    """Machines, code and dates of a log of measurements."""
    processors = _distinct(str(m.fingerprint.get("cpu", m.key)) for m in measurements)
    return [
        ("measurements", str(len(measurements))),
        ("taken", " to ".join(_days(m.taken for m in measurements))),
        ("processor", ", ".join(processors)),
        ("torch", ", ".join(_distinct(str(m.fingerprint.get("torch")) for m in measurements))),
        ("commit", ", ".join(_distinct(str(m.environment.get("commit")) for m in measurements))),
    ]


def _days(times: Iterable[float]) -> list[str]:
    """The first and the last day, once if they are one."""
    found = list(times)
    return list(dict.fromkeys(_date(end(found)) for end in (min, max)))


def missing(frames: Frames) -> list[str]:
    """The trials that blocks of the study still lack; arms that lack the same share a line."""
    lacking: dict[str, list[str]] = defaultdict(list)
    for label in frames.plan.arms:
        have = set(frames.cells.loc[frames.cells["label"] == label, "block"])
        lacks = [block for block in frames.blocks if block not in have]
        lacking[_ranges(lacks)].append(label)
    lacking.pop("", None)
    return [f"{', '.join(labels)}: blocks {blocks}" for blocks, labels in lacking.items()]


def _data(arm: Mapping[str, Any]) -> dict[str, str]:
    options = _options(arm.get("data"))
    return {"": options.pop("name", "?"), **options}


def _network(arm: Mapping[str, Any]) -> dict[str, str]:
    network = arm.get("network") or {}
    name = str(network.get("class", "?")).rpartition(".")[2]
    return {"": name, **_options(network.get("options"))}


def _layer(arm: Mapping[str, Any]) -> dict[str, str]:
    described = arm.get("arm") or {}
    options = _options((described.get("layer") or {}).get("options"))
    placed = {name: described[name] for name in ("where", "start") if described.get(name)}
    return {**options, **_options(placed)}


def _options(options: Mapping[str, Any] | None) -> dict[str, str]:
    return {name: _word(value) for name, value in (options or {}).items()}


def _word(value: Any) -> str:
    """A configured value for people: a class by its name, a list by its items."""
    match value:
        case None:
            return "none"
        case list():
            return f"({', '.join(map(_word, value))})"
        case {"class": name, "fields": fields} | {"class": name, "options": fields}:
            inner = ", ".join(f"{key} {_word(item)}" for key, item in fields.items())
            return f"{name.rpartition('.')[2]}({inner})"
        case {"function": name}:
            return name.rpartition(".")[2]
    return str(value)


def _shared(options: Mapping[str, Mapping[str, str]]) -> list[str]:
    """``name value`` of the options that are the same under every label."""
    first = next(iter(options.values()))
    return [f"{k} {v}".strip() for k, v in first.items() if _is_shared(options, k)]


def _differing(options: Mapping[str, Mapping[str, str]], label: str) -> list[str]:
    return [f"{k} {v}".strip() for k, v in options[label].items() if not _is_shared(options, k)]


def _is_shared(options: Mapping[str, Mapping[str, str]], name: str) -> bool:
    return len({values.get(name) for values in options.values()}) == 1


def _distinct(values: Iterable[str]) -> list[str]:
    return sorted(set(values))


def _date(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).date().isoformat()


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _ranges(numbers: list[int]) -> str:
    """``0-2, 5`` for 0, 1, 2, 5."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
