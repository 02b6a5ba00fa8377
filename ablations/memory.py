"""Memory: what a worker needs and what there is, so that no worker is started to be killed."""

import resource
import sys
from collections.abc import Iterator
from pathlib import Path

GIB = 2**30

# Of a control group: limit, bytes in use, and what of them is a cache of files that can be dropped;
# for either version of control groups.
_GROUP_FILES = (
    ("memory.max", "memory.current", ("active_file", "inactive_file")),
    (
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        ("total_active_file", "total_inactive_file"),
    ),
)


def used() -> int:
    """Bytes that this process has had in memory at most: what a worker needs before it trains."""
    status = Path("/proc/self/status")
    if status.exists():  # resource would count what a larger process was that started this one
        return _numbers(status)["VmHWM:"] * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def available(root: Path = Path("/")) -> int | None:
    """Bytes that new processes can have, by the machine and by control groups; None: unknown."""
    limits = list(_group_limits(root))
    machine = root / "proc/meminfo"
    if machine.exists():
        limits.append(_numbers(machine)["MemAvailable:"] * 1024)
    return min(limits, default=None)


def check(workers: int, each: int) -> None:
    """Raise a ValueError if ``workers`` processes of ``each`` bytes do not fit."""
    there = available()
    if there is not None and workers * each > there:
        fit = there // each
        raise ValueError(
            f"{workers} workers need about {each / GIB:.1f} GiB each, {workers * each / GIB:.1f} "
            f"GiB in all, and {there / GIB:.1f} GiB are available; allowed here: "
            f"{f'--workers {fit}' if fit else 'a smaller setting'}"
        )


def _group_limits(root: Path) -> Iterator[int]:
    """What this process's control group and those above it leave."""
    own = root / "proc/self/cgroup"
    for line in own.read_text().splitlines() if own.exists() else []:
        _, kinds, path = line.split(":", 2)
        if kinds not in ("", "memory"):
            continue
        top = root / "sys/fs/cgroup" / kinds
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):
            yield from _limit(folder)
            if folder == top:
                break


def _limit(folder: Path) -> Iterator[int]:
    for limit, current, cached in _GROUP_FILES:
        most = folder / limit
        if most.exists() and most.read_text().strip() != "max":
            stat = _numbers(folder / "memory.stat")
            cache = sum(stat.get(name, 0) for name in cached)
            yield int(most.read_text()) - int((folder / current).read_text()) + cache


def _numbers(path: Path) -> dict[str, int]:
    """Names and numbers, one of each a line."""
    rows = [line.split() for line in path.read_text().splitlines()]
    return {row[0]: int(row[1]) for row in rows if len(row) >= 2 and row[1].isdecimal()}
