"""The table of what the commands ``operators`` and ``models`` have measured, and its notes."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmark.tables import markdown
from overconv.bench.cases import WrongOutput
from overconv.bench.latency import ENOUGH_ROUNDS, Throttled
from overconv.bench.statistics import GROUP
from records.benchmark import Measurement, append

# Of samples: the bounds of fewer lie closer together than they should.
ENOUGH_GROUPS = ENOUGH_ROUNDS // GROUP


def table(measurements: Sequence[Measurement]) -> str:
    """A row a measurement; columns of the situation that are the same everywhere stand above."""
    described = [{"of": _subject(m)} | m.situation for m in measurements]
    varied = [key for key in described[0] if len({str(d[key]) for d in described}) > 1]
    common = [f"{key} {described[0][key]}" for key in described[0] if key not in varied]
    graphs = any(m.graph is not None for m in measurements)
    memory = any("peak_bytes" in name for m in measurements for name in m.costs)
    columns = [
        "layer",
        *varied,
        "time / plain",
        "98 % interval",
        *(["as a graph"] if graphs else []),
        *("ms min", "median", "p90", "parameters", "MACs"),
        *(["peak bytes"] if memory else []),
        "",
    ]
    lines = [
        [m.name, *(d[key] for key in varied), *_cells(m, graphs, memory)]
        for m, d in zip(measurements, described, strict=True)
    ]
    notes: dict[str, list[str]] = {}
    for m, line in zip(measurements, lines, strict=True):
        row = ", ".join(str(cell) for cell in line[: 1 + len(varied)])
        for note in _notes(m):
            notes.setdefault(note, []).append(row)
    below = "".join(f"- {'; '.join(rows)}: {note}\n" for note, rows in notes.items())
    return f"{', '.join(common)}\n\n{markdown(columns, lines)}" + (below and f"\n{below}")


def _subject(m: Measurement) -> str:
    if m.kind == "network":
        return m.subject["network"]
    shape = "{in_channels}-{out_channels} {kernel_size}x{kernel_size}".format(**m.subject)
    stride, groups = m.subject["stride"], m.subject["groups"]
    return shape + (f" s{stride}" if stride > 1 else "") + (f" /{groups}" if groups > 1 else "")


def _cells(m: Measurement, graphs: bool, memory: bool) -> list[str]:
    def milliseconds(name: str) -> str:
        value = m.seconds.get(name)
        return "-" if value is None else f"{1e3 * value:.3g}"

    if m.outcome != "measured":
        nothing = ["-"] * (7 + graphs + memory)
        return [*nothing, m.outcome]
    few = m.ratio["groups"] < ENOUGH_GROUPS
    interval = "-" if few else f"{m.ratio['low']:.3f} to {m.ratio['high']:.3f}"
    cells = [f"{m.ratio['estimate']:.3f}", interval]
    if graphs:
        ratio = (m.graph or {}).get("ratio")
        cells.append(f"{ratio['estimate']:.3f}" if ratio else "none")
    cells += [milliseconds(name) for name in ("minimum", "median", "p90")]
    cells += [f"{m.costs['parameters']:,}", f"{m.costs['macs']:,.0f}"]
    if memory:
        peaks = [value for name, value in m.costs.items() if name.startswith("peak_bytes")]
        cells.append(" / ".join(f"{value:,}" for value in peaks))
    run = m.run
    flags = {
        "unstable": run["unstable"] or run["reference"]["unstable"],
        "few samples": few,
        "imprecise": run["unmet"],
        "throttled": run["dropped"],
        "bound by launches": run["launch_bound"],
    }
    return [*cells, ", ".join(name for name, found in flags.items() if found)]


def _notes(m: Measurement) -> list[str]:
    """What speaks against the figures, in full."""
    if m.outcome != "measured":
        return []
    run, reference = m.run, m.run["reference"]
    notes = {
        "unstable, ": run["unstable"],
        f"{reference['name']} beside it unstable, ": reference["unstable"],
        "not reached, ": run["unmet"],
    }
    found = [f"{what}{why}" for what, why in notes.items() if why]
    if m.ratio["groups"] < ENOUGH_GROUPS:
        found.append(f"{m.ratio['groups']:g} groups of samples, too few for an interval")
    if run["dropped"]:
        found.append(f"{run['dropped']} rounds dropped, throttled by {run['throttled']}")
    if m.graph is not None and "why" in m.graph:
        found.append(f"no graph, {m.graph['why']}")
    return found


def report(found: Iterator[Measurement], out: Path | None) -> int:
    """Append measurements to the log as they come, and print their table.

    Returns:
        The exit status: 1 if a device was throttled all the time or an output is wrong, which ends
        the run.
    """
    measurements: list[Measurement] = []
    try:
        for measurement in found:
            measurements.append(measurement)
            if out is not None:
                append(out, [measurement])
    except (Throttled, WrongOutput) as error:
        print(f"python -m benchmark: {error}", file=sys.stderr)
        return 1
    finally:  # what is measured is shown, whatever comes behind it
        if measurements:
            where = f", appended to {out}" if out is not None else ""
            print(f"{table(measurements)}\n{len(measurements)} measurements{where}")
    return 0
