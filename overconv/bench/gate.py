"""The gate: may this change be merged, as far as cost goes?

Two layers. The exact one compares integers with committed ones. The timed one compares the present
tree with a base revision, each in a process of its own on the same core, in turn; without a base,
or for a case that the base does not have, with the plain counterpart and the ratio that was
recorded on a machine of the same fingerprint.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from overconv.bench import golden, ratios
from overconv.bench.host import ended_by_signals, machine, quiet_core
from overconv.bench.judging import PAIRS
from overconv.bench.locating import located
from overconv.bench.moved import by_cases
from overconv.bench.pairs import pair
from overconv.bench.plan import against_base, against_plain, missing, named, unchecked
from overconv.bench.report import Calibration as Calibration
from overconv.bench.report import Report as Report
from overconv.bench.report import Verdict as Verdict
from overconv.bench.report import line
from overconv.bench.revisions import checkout, refuse_changes
from overconv.bench.rounds import Rounds, Task
from overconv.bench.workers import (
    CannotJudge,
    Place,
    Worker,
    counted,
    placed,
)

Say = Callable[[str], None]


def silent(_: str) -> None:
    """Says nothing."""


def run(
    cases_file: Path | str,
    *,
    base: str | None = None,
    names: Sequence[str] | None = None,
    gone: Sequence[str] = (),
    exact: bool = True,
    timing: bool = True,
    allow_dirty: bool = False,
    allow_new: bool = False,
    minutes: float = 3.5,
    command: str | None = None,
    say: Say = silent,
) -> Report:
    """Run the gate on a file of cases.

    Args:
        cases_file: A Python file with a tuple ``CASES`` of :class:`overconv.bench.cases.Case`.
        base: Revision to compare times with; None: the recorded ratios to plain counterparts.
        names: Cases to judge, each alone or several with commas between; None: all.
        gone: Cases of the base that were removed, or given another shape or step, on purpose.
        exact, timing: Which of the two layers to run.
        allow_dirty: Judge the working tree though it is not what is committed.
        allow_new: Be content if no case can be timed because the base has none of them.
        minutes: After which no further case is timed.
        command: That runs this gate, for the sentence that says how to accept figures.
        say: Takes lines of progress.

    Raises:
        ValueError: There is no such file, an unknown name, nothing to do, or a committed file that
            cannot be read.
    """
    place = placed(cases_file)
    if not (exact or timing):
        raise ValueError("neither exact figures nor timing: nothing would be judged")
    if names is not None and not any(name.strip(" ,") for name in names):
        raise ValueError("names is empty: nothing would be judged")
    if not minutes > 0:
        raise ValueError(f"minutes must be above 0, got {minutes}")
    gate = _Gate(place, base, names, gone, allow_dirty, allow_new, say)
    gate.end = (started := time.monotonic()) + 60 * minutes
    with ended_by_signals():
        try:
            gate.locate(exact=exact)
            if exact:
                gate.count(alone=not timing)
            if timing:
                gate.timed()
            gate.refuse_another()
        except CannotJudge as error:
            gate.cannot = str(error)
    accept = golden.accept_command(gate.shown_file) if command is None else f"{command} --accept"
    return gate.report(timing, accept, time.monotonic() - started)


class _Gate:
    """One run: what was asked for, and what is known so far."""

    def __init__(
        self,
        place: Place,
        base: str | None,
        names: Sequence[str] | None,
        gone: Sequence[str],
        allow_dirty: bool,
        allow_new: bool,
        say: Say,
    ) -> None:
        self.base, self.names, self.gone = base, names, gone
        self.allow_dirty, self.allow_new, self.say = allow_dirty, allow_new, say
        self.place = place
        self.base_commit: str | None = None
        self.base_figures: Mapping[str, golden.Figures] | None = None
        self.head: str | None = None
        self.cases: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.differences: list[str] | None = None
        self.counted = 0
        self.notes: list[str] = []
        self.moved: list[str] = []
        self.settled: list[Verdict] = []
        self.rounds: Rounds | None = None
        self.cannot: str | None = None
        self.end = math.inf
        self.core = quiet_core()

    @property
    def shown_file(self) -> str:
        return self.place.cases.relative_to(self.place.tree).as_posix()

    def locate(self, *, exact: bool) -> None:
        """Find the base and note what it is; see :func:`located`."""
        if self.base is None:
            return
        found = located(self.place, self.base, exact=exact, allow_dirty=self.allow_dirty)
        self.place, self.base_commit, self.head = found.place, found.base, found.head
        self.base_figures = found.figures
        self.notes += found.notes
        self.moved += found.moved

    def count(self, *, alone: bool) -> None:
        """Compare exact figures; ``alone``: nothing is timed.

        A process of its own counts them, with modes of torch's that timing must not meet.
        """
        with Worker("head", self.place, self.place, self.core) as head:
            self._read(head.read(), needed=alone or self.base is None)
            if self.asked:
                self._count(head)

    def _read(self, head: Worker, *, needed: bool) -> None:
        """Note the cases of head; refuse that there are none, if they are ``needed``."""
        self.cases = head.cases
        self.asked = list(self.cases)
        if self.names is not None:
            chosen = named(self.names, self.cases, self.shown_file)
            self.asked = [name for name in self.cases if name in chosen]
        packages = ", ".join(head.description["packages"]) or "none, only the file of cases"
        fresh = [f"packages measured from the tree: {packages}", *unchecked(self.cases, self.asked)]
        self.notes += [note for note in fresh if note not in self.notes]
        if needed and not self.cases:
            raise CannotJudge(f"{self.shown_file} declares no cases: nothing would be watched")

    def _count(self, worker: Worker) -> None:
        path = golden.figures_path(self.place.cases)
        if not path.exists():
            raise CannotJudge(
                f"there are no committed exact figures, {path.name} is missing beside"
                f" {self.shown_file}: make it with --accept and commit it"
            )
        committed: Mapping[str, golden.Figures] = golden.load(path)
        if self.base_figures is not None:
            self._settle(missing(self.base_figures["any"], self.cases, self.gone, "base"))
        if self.names is not None:
            committed = golden.only(committed, self.asked)
        found, failed = counted(worker, self.asked)
        version = worker.description["torch"]
        differences = golden.compare(found, committed, version)
        # What could not be counted is said once, and not as a case that is gone.
        self.differences = failed + [
            d
            for d in differences
            if not any(d.startswith(f"{c}: ") for c in set(self.asked) - set(found))
        ]
        self.counted = len(found)
        if left_out := golden.not_compared(committed, version):
            self.notes.append(left_out)
        for difference in self.differences:
            self.say(f"changed  {difference}")

    # Timing.

    def timed(self) -> None:
        """Judge by as many pairs of processes as it needs."""
        with ExitStack() as stack:
            tree = None
            if self.base_commit is not None:
                tree = stack.enter_context(checkout(self.place.tree, self.base_commit))
            for _ in range(PAIRS):
                with pair(self.place, tree, self.core) as (head, base):
                    if self.rounds is None:
                        self._read(head, needed=self.base is None)
                        tasks = self._plan(base)
                        self.rounds = Rounds(tasks, self.say, left=self._left)
                        if not self.rounds.tasks:
                            break
                    self.rounds.measure(head, base)
                if not self.rounds.pending:
                    break
        self._refuse_nothing()

    def refuse_another(self) -> None:
        """Refuse a tree that somebody has worked on, or a commit made, while this ran."""
        if self.base is not None and not self.allow_dirty:
            refuse_changes(self.place.tree, self.head)

    def _left(self) -> float:
        return self.end - time.monotonic()

    def _plan(self, base: Worker | None) -> list[Task]:
        """What to time against what."""
        path, this = ratios.ratios_path(self.place.cases), machine(self.core)
        recorded = ratios.load(path, this["key"])
        if self.base is not None:
            old = {} if base is None else base.cases
            plan = against_base(self.cases, self.asked, old, recorded or {}, self.gone)
            self.moved += by_cases(self.cases, old, self.asked)
        elif recorded is not None:
            plan = against_plain(self.cases, self.asked, recorded, self.gone)
        else:
            raise CannotJudge(ratios.none_here(path, this))
        self.notes += plan.notes
        self._settle(plan.settled)
        return plan.tasks

    def _settle(self, verdicts: Sequence[Verdict]) -> None:
        fresh = [verdict for verdict in verdicts if verdict not in self.settled]
        self.settled += fresh
        for verdict in fresh:
            self.say(line(verdict))

    def _refuse_nothing(self) -> None:
        """A gate that timed nothing has not passed."""
        judged = self.settled + (list(self.rounds.verdicts.values()) if self.rounds else [])
        if not self.asked and not judged:
            raise CannotJudge(f"{self.shown_file} declares no cases: nothing would be watched")
        if all(v.outcome == "pass" and v.ratio is None for v in judged) and not self.allow_new:
            raise CannotJudge(
                f"no case was timed: base {self.base} has none of them. In the change that adds"
                " the first cases, say --allow-new"
            )

    def report(self, timing: bool, accept: str, seconds: float) -> Report:
        verdicts = {verdict.case: verdict for verdict in self.settled}
        if self.rounds is not None:
            verdicts |= self.rounds.verdicts
        if timing:
            for name in self.asked:
                if name not in verdicts:
                    reason = f"not judged: {self.cannot}"
                    verdicts[name] = Verdict(name, "unclear", reason)
        order = [*self.asked, *(name for name in verdicts if name not in self.cases)]
        base = None if self.base_commit is None else f"{self.base} ({self.base_commit[:12]})"
        return Report(
            cases_file=self.shown_file,
            verdicts=tuple(verdicts[name] for name in order if name in verdicts),
            calibration=None if self.rounds is None else self.rounds.calibration,
            differences=None if self.differences is None else tuple(self.differences),
            counted=self.counted,
            accept=accept,
            cannot=self.cannot,
            base=base or self.base,
            head=self.head,
            declared=len(self.cases),
            asked=len(self.asked),
            notes=tuple(self.notes),
            seconds=seconds,
            machine=machine(self.core),
            moved=tuple(self.moved),
        )
