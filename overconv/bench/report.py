"""What a gate found: a verdict for each case, and all of it as JSON, Markdown and plain text."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from overconv.bench.statistics import Ratio

OUTCOMES = ("pass", "fail", "unclear")
SCHEMA = 1
PASSED, REGRESSION, CANNOT_JUDGE = 0, 1, 3  # exit status; 2 is bad usage
_WORDS = {PASSED: "pass", REGRESSION: "regression", CANNOT_JUDGE: "cannot judge"}


@dataclass(frozen=True)
class Verdict:
    """What the gate says about one case.

    Attributes:
        outcome: ``"pass"``, ``"fail"`` or ``"unclear"``.
        reason: Why, in a sentence.
        ratio: Of wall time, to the base revision or, over the recorded one, to the plain
            counterpart; None where nothing was timed.
        cpu: The same of the thread's processor time.
        against: ``"base"``, ``"plain"``, or None where there was nothing to compare with.
        limit: Of the ratio.
        groups: Of pairs, in all pairs of processes.
        pairs: Of processes.
        milliseconds: Of the shortest sample.
    """

    case: str
    outcome: str
    reason: str
    ratio: Ratio | None = None
    cpu: Ratio | None = None
    against: str | None = None
    limit: float | None = None
    groups: int = 0
    pairs: int = 0
    milliseconds: float | None = None

    def __post_init__(self) -> None:
        assert self.outcome in OUTCOMES, self.outcome


@dataclass(frozen=True)
class Calibration:
    """What the gate says about itself.

    Attributes:
        outcome: ``"pass"`` or ``"unclear"``.
        same: Ratio of equal work in both processes.
        planted: Ratio of 11 calls to 10 of the same.
    """

    outcome: str
    reason: str
    same: Ratio | None = None
    planted: Ratio | None = None


@dataclass(frozen=True)
class Report:
    """One run of the gate.

    Attributes:
        cases_file: Relative to the root of its tree.
        verdicts: One for each case that was asked for, and one for each that is gone.
        calibration: None where nothing was timed.
        differences: From the committed exact figures; None where they were not compared.
        counted: Cases whose figures were.
        accept: The command that commits the new figures.
        cannot: Why there is no verdict as a whole.
        base, head: Revisions; ``base`` is None without one.
        declared: Cases in the file.
        asked: Cases that were chosen among them.
        notes: What else has to be said.
        seconds: That it took.
        machine: Fingerprint, core, load.
        moved: What the change does to that by which it is judged.
    """

    cases_file: str
    verdicts: tuple[Verdict, ...]
    calibration: Calibration | None
    differences: tuple[str, ...] | None
    counted: int
    accept: str
    cannot: str | None
    base: str | None
    head: str | None
    declared: int
    asked: int
    notes: tuple[str, ...]
    seconds: float
    machine: Mapping[str, Any] = field(default_factory=dict)
    moved: tuple[str, ...] = ()

    def of(self, outcome: str) -> list[Verdict]:
        """The verdicts of one outcome."""
        return [verdict for verdict in self.verdicts if verdict.outcome == outcome]

    @property
    def exit_status(self) -> int:
        """0 pass, 1 regression, 3 cannot judge. What is known to be worse stays so."""
        if self.differences or self.of("fail"):
            return REGRESSION
        uncalibrated = self.calibration is not None and self.calibration.outcome != "pass"
        nothing = not self.verdicts and not self.counted
        if self.cannot is not None or self.of("unclear") or uncalibrated or nothing:
            return CANNOT_JUDGE
        return PASSED

    @property
    def sentence(self) -> str:
        """The verdict and its chief reason."""
        parts = []
        if self.differences:
            parts.append(f"{_number(len(self.differences), 'exact figure')} changed")
        if failed := self.of("fail"):
            parts.append(f"{_number(len(failed), 'case')} failed ({_names(failed)})")
        if self.cannot is not None:
            parts.append(self.cannot)
        elif unclear := self.of("unclear"):
            if self.calibration is not None and self.calibration.outcome != "pass":
                parts.append(self.calibration.reason)
            else:
                first = f": {unclear[0].reason}" if len(unclear) == 1 else ""
                parts.append(f"{_number(len(unclear), 'case')} unclear ({_names(unclear)}){first}")
        words = f"{_WORDS[self.exit_status]}: {'; '.join(parts) or self.totals}"
        if self.moved:
            places = _number(len(self.moved), "place")
            words += f"; NOTE: this change also changes what judges it, in {places}"
        return words

    @property
    def totals(self) -> str:
        """What was done, in numbers, so that a gate that measured nothing shows it."""
        against = [verdict.against for verdict in self.verdicts if verdict.ratio is not None]
        new = sum(v.outcome == "pass" and v.ratio is None for v in self.verdicts)
        groups = sum(verdict.groups for verdict in self.verdicts)
        chosen = f" ({self.asked} chosen)" if self.asked != self.declared else ""
        counts = "not compared" if self.differences is None else f"of {self.counted} compared"
        return (
            f"{_number(self.declared, 'case')} declared{chosen};"
            f" timed {against.count('base')} against base, {against.count('plain')} against plain,"
            f" {new} new and not timed; {_number(groups, 'group')} of pairs;"
            f" exact figures {counts}; {self.seconds:.0f} s"
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON: no infinities, a ``schema`` number, and what the properties say."""
        return {
            "schema": SCHEMA,
            "exit_status": self.exit_status,
            "sentence": self.sentence,
            "totals": self.totals,
            "cases_file": self.cases_file,
            "base": self.base,
            "head": self.head,
            "declared": self.declared,
            "asked": self.asked,
            "cannot": self.cannot,
            "differences": None if self.differences is None else list(self.differences),
            "counted": self.counted,
            "accept": self.accept,
            "calibration": None if self.calibration is None else _plain(self.calibration),
            "verdicts": [_plain(verdict) for verdict in self.verdicts],
            "notes": list(self.notes),
            "moved": list(self.moved),
            "seconds": self.seconds,
            "machine": dict(self.machine),
        }

    def write(self, json_file: Path | None, markdown_file: Path | None) -> None:
        """Into files, those that are given."""
        if json_file is not None:
            text = json.dumps(self.as_dict(), indent=1, allow_nan=False)
            json_file.write_text(text + "\n", encoding="utf-8")
        if markdown_file is not None:
            markdown_file.write_text(self.markdown(), encoding="utf-8")

    def markdown(self) -> str:
        """For a pull request: the verdict, what failed, and a table of all."""
        mark = {PASSED: "pass", REGRESSION: "REGRESSION", CANNOT_JUDGE: "CANNOT JUDGE"}
        lines = [f"## Gate: {mark[self.exit_status]}", "", _escaped(self.sentence), ""]
        if self.differences:
            lines += ["**Exact figures that changed**", ""]
            lines += [f"- {_escaped(difference)}" for difference in self.differences]
            lines += ["", f"If that is meant, commit the new ones: `{self.accept}`", ""]
        if self.moved:
            lines += ["**This change also changes what judges it**", ""]
            lines += [f"- {_escaped(one)}" for one in self.moved] + [""]
        for word, outcome in ("Failed", "fail"), ("Unclear", "unclear"):
            if found := self.of(outcome):
                lines += [f"**{word}**", ""]
                lines += [f"- `{v.case}`: {_escaped(v.reason)}" for v in found] + [""]
        if self.verdicts:
            lines += ["| case | verdict | time | interval | CPU time | limit | against |"]
            lines += ["|---|---|---|---|---|---|---|"]
            lines += [f"| {' | '.join(_cells(v))} |" for v in self.verdicts] + [""]
        if self.calibration is not None:
            lines += [f"Self-test: {_escaped(self.calibration.reason)}", ""]
        lines += [f"- {_escaped(note)}" for note in self.notes] + ([""] if self.notes else [])
        compared = f"Base {self.base}, head {self.head}. " if self.base else f"Head {self.head}. "
        return "\n".join([*lines, compared + self.totals + "."]) + "\n"

    def text(self) -> str:
        """For a terminal: what was not said on the way, and the totals last."""
        lines = []
        if self.differences:
            lines += [f"changed  {difference}" for difference in self.differences]
            lines += [f"to accept them: {self.accept}"]
        lines += [f"moved    {one}" for one in self.moved]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join([*lines, self.sentence, self.totals])


def writable(path: Path | None) -> Path | None:
    """``path``, if a report can be written there: told before a gate has run, not after.

    Raises:
        ValueError: It is a folder, or in none.
    """
    if path is not None and path.is_dir():
        raise ValueError(f"a report has to go into a file, and {str(path)!r} is a folder")
    if path is not None and not path.parent.is_dir():
        raise ValueError(f"a report cannot go into {path}: there is no folder {path.parent}")
    return path


def shown(ratio: Ratio) -> str:
    """
    >>> shown(Ratio(1.0023, 0.991, 1.0149, 20)), shown(Ratio(1.0, float("-inf"), float("inf"), 3))
    ('1.002 (0.991 to 1.015)', '1.000 (no bounds from 3 groups)')
    """
    if math.isinf(ratio.low):
        return f"{ratio.estimate:.3f} (no bounds from {ratio.groups} groups)"
    return f"{ratio.estimate:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"


def line(verdict: Verdict) -> str:
    """One verdict, for a terminal."""
    return f"{verdict.outcome:8} {verdict.case}: {verdict.reason}"


def _cells(verdict: Verdict) -> list[str]:
    case, limit = f"`{verdict.case}`", "" if verdict.limit is None else f"{verdict.limit:g}"
    if verdict.ratio is None or verdict.cpu is None:
        return [case, verdict.outcome, "", "", "", limit, verdict.against or "nothing"]
    estimate, interval = shown(verdict.ratio).split(" ", 1)
    cpu = f"{verdict.cpu.estimate:.3f}"
    against = verdict.against or ""
    return [case, verdict.outcome, estimate, interval.strip("()"), cpu, limit, against]


def _plain(found: Verdict | Calibration) -> dict[str, Any]:
    return {
        name: _ratio(value) if isinstance(value, Ratio) else value
        for name, value in vars(found).items()
    }


def _ratio(ratio: Ratio) -> dict[str, float | int | None]:
    return {name: value if math.isfinite(value) else None for name, value in vars(ratio).items()}


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _names(verdicts: Sequence[Verdict], most: int = 3) -> str:
    names = [verdict.case for verdict in verdicts]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _escaped(words: str) -> str:
    """A sentence may hold what an error of the code under test says."""
    return words.replace("\n", " ").replace("|", "\\|").replace("<", "&lt;")
