"""Recorded ratios of cases to their plain counterparts, apart for each machine.

Beside a file of cases ``cases.py`` lies ``cases.ratios.json``: for each fingerprint what it stands
for, and each case's ratio of wall and of processor time. A ratio holds for one kind of machine
only: on another processor it may be a quarter larger with nothing changed.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Ratios = dict[str, tuple[float, float]]


def ratios_path(cases_file: Path | str) -> Path:
    """
    >>> ratios_path("benchmark/cases.py").as_posix()
    'benchmark/cases.ratios.json'
    """
    return Path(cases_file).with_suffix(".ratios.json")


def load_all(path: Path) -> dict[str, dict[str, Any]]:
    """What is recorded, by fingerprint: ``{"fingerprint": {...}, "ratios": {case: [wall, cpu]}}``.

    Empty where there is no such file.

    Raises:
        ValueError: The file holds something else.
    """
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    machines = list(found.values()) if isinstance(found, dict) else [None]
    for machine in machines:
        if not isinstance(machine, dict) or set(machine) != {"fingerprint", "ratios"}:
            raise ValueError(f"{path} must map fingerprints to a fingerprint and ratios")
        for case, pair in machine["ratios"].items():
            if not (isinstance(pair, list) and len(pair) == 2 and all(_positive(x) for x in pair)):
                raise ValueError(f"{path}: {case} must have two positive ratios, got {pair!r}")
    return found


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def load(path: Path, key: str) -> Ratios | None:
    """The ratios recorded on machines of one fingerprint, or None."""
    machine = load_all(path).get(key)
    if machine is None:
        return None
    return {case: (wall, cpu) for case, (wall, cpu) in machine["ratios"].items()}


def save(path: Path, key: str, fingerprint: Mapping[str, Any], ratios: Ratios) -> None:
    """Record the ratios of this machine; those of others stay."""
    recorded = load_all(path)
    rounded = {case: [round(x, 4) for x in pair] for case, pair in ratios.items()}
    recorded[key] = {"fingerprint": dict(fingerprint), "ratios": rounded}
    path.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def none_here(path: Path, this: Mapping[str, Any]) -> str:
    """Why there is nothing recorded to compare with on this machine, and what to do.

    Args:
        this: Its ``"fingerprint"`` and the ``"key"`` of that.
    """
    others = [machine["fingerprint"] for machine in load_all(path).values()]
    here = this["fingerprint"]
    if not others:
        return (
            f"there is neither a base nor a baseline: {path.name} holds no ratios to plain"
            " counterparts; compare with a revision by --base, or record this machine's ratios with"
            " --record"
        )
    return (
        f"another machine's baseline: {path.name} has ratios of"
        f" {' and of '.join(sorted(_named(other, here) for other in others))}, and this is"
        f" {here['cpu']} ({this['key']}): record some here with --record, or compare with a"
        " revision by --base"
    )


def _named(other: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """A machine by its processor, and by a few of the other things in which this one differs."""
    names = [n for n in {**here, **other} if n != "cpu" and other.get(n) != here.get(n)]
    apart = [f"{n} {other.get(n, 'not known')}, here {here.get(n, 'not known')}" for n in names[:3]]
    more = f" ({'; '.join(apart)})" if apart else ""
    return f"{other.get('cpu', 'another')}{more}"
