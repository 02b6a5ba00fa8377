"""Committed exact figures: read, compared, and accepted.

Beside a file of cases ``cases.py`` lies ``cases.figures.json``, with the exact integers of each
case. One that changes fails, with no tolerance: a layer got heavier or lighter, and whoever changed
it says so by committing the new figure. What torch's own release decides (dispatched operations,
copies, the counter of peak bytes) is stored apart for each of its minor versions.
"""

import json
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch

# Figures of these names, or with these names before a dot, follow torch's minor version.
VERSIONED = ("operations", "copies", "peak_bytes")

Figures = Mapping[str, Mapping[str, int]]


def figures_path(cases_file: Path | str) -> Path:
    """Where the committed figures of a file of cases lie.

    >>> figures_path("benchmark/cases.py").as_posix()
    'benchmark/cases.figures.json'
    """
    return Path(cases_file).with_suffix(".figures.json")


def minor(torch_version: str) -> str:
    """The part of a version that figures are stored under.

    >>> minor("2.14.1+cpu")
    '2.14'
    """
    return ".".join(torch_version.split(".")[:2])


def load(path: Path | str) -> dict[str, dict[str, dict[str, int]]]:
    """The committed figures: by ``"any"`` and by minor version of torch, by case, by name.

    Raises:
        ValueError: There is no such file, or it holds something else.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ValueError(f"there are no committed figures: {path} is missing") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    return parsed(text, str(path))


def parsed(text: str, name: str) -> dict[str, dict[str, dict[str, int]]]:
    """The figures in the text of a file of that name; see :func:`load`.

    Raises:
        ValueError: It holds something else.
    """
    try:
        stored = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{name} is not JSON: {error}") from None
    if not _is_stored(stored):
        raise ValueError(
            f"{name} holds no figures: it must map version, case and figure to integers"
        )
    return stored


def changes(old: Mapping[str, Figures], new: Mapping[str, Figures]) -> list[str]:
    """One sentence for each committed figure of ``old`` that ``new`` has otherwise, or not.

    Example:
        >>> changes({"any": {"a": {"parameters": 7}}}, {"any": {"a": {"parameters": 5}}})
        ['a: committed parameters was 7 and is 5']
    """
    found = []
    for version, cases in sorted(old.items(), key=lambda part: part[0] != "any"):
        where = "" if version == "any" else f" under torch {version}"
        if version not in new:
            found.append(f"the committed figures{where} are gone")
            continue
        for case, figures in cases.items():
            if case not in new[version]:
                found.append(f"{case}: its committed figures{where} are gone")
                continue
            for name, value in figures.items():
                now = new[version][case].get(name, "gone")
                if now != value:
                    found.append(f"{case}: committed {name}{where} was {value} and is {now}")
    return found


def _is_stored(stored: object) -> bool:
    if not isinstance(stored, dict) or "any" not in stored:
        return False
    cases = [case for part in stored.values() if isinstance(part, dict) for case in part.values()]
    return (
        all(isinstance(part, dict) for part in stored.values())
        and all(isinstance(case, dict) for case in cases)
        and all(type(value) is int for case in cases for value in case.values())
    )


def save(path: Path | str, found: Figures, torch_version: str = torch.__version__) -> None:
    """Make ``found`` the committed figures.

    Figures under other versions of torch stay, for the cases that are still there.

    Raises:
        ValueError: ``path`` exists and holds something else, ``found`` is empty, or a figure is no
            integer.
    """
    if not found:
        raise ValueError("there are no figures to commit: nothing would be watched")
    for case, figures in found.items():
        for name, value in figures.items():
            if type(value) is not int:
                raise ValueError(f"{name} of case {case!r} must be an integer, got {value!r}")
    stored: dict[str, dict[str, dict[str, int]]] = {"any": {}}
    for version, cases in (load(path) if Path(path).exists() else {}).items():
        stored[version] = {case: dict(cases[case]) for case in cases if case in found}
    stored["any"] = _part(found, versioned=False)
    stored[minor(torch_version)] = _part(found, versioned=True)
    text = json.dumps(stored, indent=1, sort_keys=True)
    Path(path).write_text(text + "\n", encoding="utf-8")


def _part(figures: Figures, *, versioned: bool) -> dict[str, dict[str, int]]:
    return {
        case: {name: value for name, value in own.items() if _follows_torch(name) == versioned}
        for case, own in figures.items()
    }


def _follows_torch(name: str) -> bool:
    return name.partition(".")[0] in VERSIONED


def only(committed: Mapping[str, Figures], names: Collection[str]) -> dict[str, Figures]:
    """The committed figures of the cases with these names, for a run of no more than those."""
    return {
        version: {case: own for case, own in cases.items() if case in names}
        for version, cases in committed.items()
    }


def accept_command(cases_file: Path | str) -> str:
    """The line that makes the present figures the committed ones."""
    path = Path(cases_file)
    if path.is_absolute() and path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return f"python -m overconv.bench gate --cases {shlex.quote(str(path))} --accept"


def compare(
    found: Figures, committed: Mapping[str, Figures], torch_version: str = torch.__version__
) -> list[str]:
    """One sentence for each difference between figures and the committed ones; empty: none.

    A case or a figure that only one side has is a difference. What follows torch's version is
    compared where that version has committed figures; :func:`not_compared` says where not.

    Args:
        found: Figures of all cases, by case and name.
        committed: As :func:`load` gives them.
        torch_version: That ``found`` was counted with.

    Example:
        >>> compare({"a": {"parameters": 7}}, {"any": {"a": {"parameters": 5}}, "2.14": {}})
        ['a: parameters is 7, committed is 5']
    """
    sentences = _differences(_part(found, versioned=False), committed["any"])
    version = minor(torch_version)
    if version in committed:
        ours = {c: own for c, own in _part(found, versioned=True).items() if c in committed["any"]}
        theirs = {case: committed[version].get(case, {}) for case in ours}
        sentences += _differences(ours, theirs, f" under torch {version}")
    return sentences


def _differences(found: Figures, committed: Figures, where: str = "") -> list[str]:
    sentences = []
    for case in [*found, *(case for case in committed if case not in found)]:
        if case not in committed:
            sentences.append(f"{case}: a case without committed figures{where}")
            continue
        if case not in found:
            sentences.append(f"{case}: has committed figures{where} but is no case any more")
            continue
        ours, theirs = found[case], committed[case]
        for name in [*ours, *(name for name in theirs if name not in ours)]:
            if name not in theirs:
                sentences.append(f"{case}: {name} is {ours[name]}, but not committed{where}")
            elif name not in ours:
                was = theirs[name]
                sentences.append(f"{case}: {name} was {was}{where}, but is not counted any more")
            elif ours[name] != theirs[name]:
                sentences.append(
                    f"{case}: {name} is {ours[name]}, committed{where} is {theirs[name]}"
                )
    return sentences


def not_compared(
    committed: Mapping[str, Figures], torch_version: str = torch.__version__
) -> str | None:
    """A sentence where :func:`compare` leaves out what follows torch's version; else None."""
    version = minor(torch_version)
    if version in committed:
        return None
    others = ", ".join(sorted(other for other in committed if other != "any")) or "none"
    return (
        f"{_listed(VERSIONED)} are not compared: they are committed for torch {others},"
        f" and this is torch {version}"
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1]
