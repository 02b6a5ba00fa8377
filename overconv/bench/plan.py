"""What each case is compared with; what cannot be compared is settled here, with its reason."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from overconv.bench.ratios import Ratios
from overconv.bench.report import Verdict
from overconv.bench.rounds import Task

Described = Mapping[str, Mapping[str, Any]]  # as overconv.bench.workers.Worker.cases


@dataclass
class Plan:
    """Cases to time, verdicts that need no timing, and what has to be said."""

    tasks: list[Task] = field(default_factory=list)
    settled: list[Verdict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def against_base(
    head: Described, asked: Sequence[str], base: Described, recorded: Ratios, gone: Sequence[str]
) -> Plan:
    """Each case against itself in the base; a new one by its recorded ratio, if there is one.

    Args:
        head, base: All cases of both revisions.
        asked: Cases to judge.
        recorded: Ratios to plain counterparts on this machine; may be empty.
        gone: Cases that were removed or changed on purpose.
    """
    plan = Plan(settled=missing(base, head, gone, "base"))
    plan.notes += [
        f"{name}: gone or changed on purpose, as --gone says"
        if name in base
        else f"--gone {name}: base has no such case"
        for name in gone
    ]
    for name in asked:
        case, limit = head[name], head[name]["limit"]
        if name in base and name not in gone:
            old = base[name]
            other = [what for what in ("shape", "step") if old[what] != case[what]]
            if other:
                reason = (
                    f"another {other[0]} than in base ({case[other[0]]}, before {old[other[0]]}):"
                    f" that is another case; give it a new name, or say --gone {name}"
                )
                plan.settled.append(Verdict(name, "fail", reason, limit=limit))
                continue
            plan.tasks.append(Task(name, limit, "base"))
        elif name in recorded and case["plain"]:
            plan.notes.append(f"{name}: new, judged by its ratio to plain")
            plan.tasks.append(Task(name, limit, "plain", recorded[name]))
        else:
            plan.notes.append(f"{name}: new, and not timed")
            reason = "new: base has no such case, and no ratio is recorded on this machine"
            plan.settled.append(Verdict(name, "pass", reason, limit=limit))
    return plan


def against_plain(
    head: Described, asked: Sequence[str], recorded: Ratios, gone: Sequence[str]
) -> Plan:
    """Each case by its recorded ratio to its plain counterpart."""
    plan = Plan(settled=missing(recorded, head, gone, "record"))
    for name in asked:
        limit = head[name]["limit"]
        if not head[name]["plain"]:
            reason = "it has no plain counterpart, so that it can be judged against a --base only"
        elif name not in recorded:
            reason = "no ratio is recorded on this machine: record it with --record"
        else:
            plan.tasks.append(Task(name, limit, "plain", recorded[name]))
            continue
        plan.settled.append(Verdict(name, "unclear", reason, limit=limit))
    return plan


def missing(
    old: Mapping[str, object], head: Described, gone: Sequence[str], where: str
) -> list[Verdict]:
    """A failure for each case that was and is not, unless that is meant."""
    return [
        Verdict(
            name,
            "fail",
            f"gone: the {where} has this case and head does not (a renamed case is gone, too);"
            f" if that is meant, say --gone {name}",
        )
        for name in old
        if name not in head and name not in gone
    ]


def named(texts: Sequence[str], cases: Described, where: str) -> list[str]:
    """The names in texts that may hold several, with commas between; a name may hold commas, too.

    Raises:
        ValueError: No case in ``where`` has such a name.

    Example:
        >>> named(["a,b=1,a"], {"a": {}, "a,b=1": {}}, "cases.py")
        ['a,b=1', 'a']
    """
    found = []
    for text in texts:
        rest = [part for part in map(str.strip, text.split(",")) if part]
        while rest:
            lengths = range(len(rest), 0, -1)
            length = next((n for n in lengths if ",".join(rest[:n]) in cases), 0)
            if not length:
                raise ValueError(f"there is no case {','.join(rest)!r} in {where}")
            found.append(",".join(rest[:length]))
            del rest[:length]
    return found


def unchecked(head: Described, asked: Sequence[str]) -> list[str]:
    """A sentence on cases whose outputs may become anything, if there are any."""
    names = [name for name in asked if not head[name]["expected"]]
    if not names:
        return []
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [
        f"{len(names)} of {len(asked)} cases have no 'expected' ({', '.join(names[:3])}{more}):"
        " their outputs were compared with nothing"
    ]
