"""The timing of all cases by one pair of processes after another, until each has a verdict.

A round takes a fresh pair. It first tests itself: equal work must come out equal, and 11 calls
against 10 of the same must come out slower; a pair that fails this judges nothing.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from overconv.bench.judging import (
    PAIRS,
    Judgement,
    bound_level,
    calls_in_a_sample,
    combined,
    judge,
)
from overconv.bench.report import Calibration, Verdict, line, shown
from overconv.bench.workers import CannotJudge, Refused
from overconv.timing import Sample

SELF_TEST_LIMIT = 1.05
PLANTED = (11, 10)  # calls, for a slow-down of 10 %
FASTER = 0.95


class Measures(Protocol):
    """What a round needs of :class:`overconv.bench.workers.Worker`."""

    role: str

    def prepare(self, what: str, case: str | None = None) -> float: ...

    def sample(self, what: str, calls: int) -> Sample: ...


@dataclass(frozen=True)
class Task:
    """A case to time.

    Attributes:
        against: ``"base"``, or ``"plain"`` for its plain counterpart in the same process.
        expected: Recorded ratio of wall and of processor time; of 1 against base.
    """

    case: str
    limit: float
    against: str
    expected: tuple[float, float] = (1.0, 1.0)


class Rounds:
    """What is known of the tasks so far.

    Args:
        say: Takes lines of progress.
        seed: Of the order within pairs; None: drawn.
        left: Seconds that are left for all of it.

    Attributes:
        verdicts: By case, as soon as they are final.
        calibration: Of the first pair that passed its own test, else of the last that did not.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        say: Callable[[str], None],
        *,
        seed: int | None = None,
        left: Callable[[], float] = lambda: math.inf,
    ) -> None:
        self.tasks = tuple(tasks)
        self.verdicts: dict[str, Verdict] = {}
        self.calibration: Calibration | None = None
        self.done = 0
        self._say, self._left = say, left
        self._order = random.Random(seed)
        self._level = bound_level(max(1, len(self.tasks)))
        self._found: dict[str, list[Judgement]] = {task.case: [] for task in tasks}

    @property
    def pending(self) -> list[Task]:
        """Tasks that need another pair of processes; none after the last, or when time is up."""
        if self.done == PAIRS or self.done and self._left() <= 0:
            return []
        return [task for task in self.tasks if task.case not in self.verdicts]

    def measure(self, head: Measures, base: Measures | None) -> None:
        """One round: test the pair, then judge what is pending by it."""
        pending = self.pending
        self.done += 1
        fresh = self._tested(head, base or head)
        if self.calibration is None or self.calibration.outcome != "pass":
            self.calibration = fresh
        self._say(f"self-test, pair {self.done}: {fresh.reason}")
        if fresh.outcome == "pass":
            for task in pending:
                if self._left() <= 0:
                    break
                self._judge(task, head, base)
        if not self.pending:
            self._give_up()

    def _tested(self, one: Measures, other: Measures) -> Calibration:
        seconds = [_prepared(worker, "fixed") for worker in (one, other)]
        tens = max(1, round(calls_in_a_sample(max(seconds)) / PLANTED[1]))
        takes = partial(one.sample, "fixed"), partial(other.sample, "fixed")
        same, planted = (
            judge(
                *takes,
                (calls * tens, PLANTED[1] * tens),
                limit=SELF_TEST_LIMIT,
                level=self._level,
                order=self._order,
            )
            for calls in (PLANTED[1], PLANTED[0])
        )
        words = (
            f"equal work reads {shown(same.wall)}, CPU {same.cpu.estimate:.3f};"
            f" 10 % more reads {shown(planted.wall)}, CPU {planted.cpu.estimate:.3f}"
        )
        if (same.outcome, planted.outcome) == ("pass", "fail"):
            return Calibration("pass", words, same.wall, planted.wall)
        reason = f"this machine cannot resolve 10 % now: {words}"
        return Calibration("unclear", reason, same.wall, planted.wall)

    def _judge(self, task: Task, head: Measures, base: Measures | None) -> None:
        other, what = (base, "case") if task.against == "base" else (head, "plain")
        assert other is not None, "a case against base needs the base's process"
        try:
            seconds = _prepared(head, "case", task.case)
        except Refused as refused:
            words = "" if refused.kind == "output" else f"it fails in {head.role}: "
            return self._settle(Verdict(task.case, "fail", f"{words}{refused}", limit=task.limit))
        try:
            seconds = max(seconds, _prepared(other, what, task.case))
        except Refused as refused:
            name = f"its plain counterpart in {head.role}" if what == "plain" else other.role
            reason = f"there is nothing right to compare with, {name} fails: {refused}"
            if what == "case":
                reason += f"; if head mends it, say --gone {task.case}"
            return self._settle(Verdict(task.case, "unclear", reason, limit=task.limit))
        calls = calls_in_a_sample(seconds)
        judgement = judge(
            partial(head.sample, "case"),
            partial(other.sample, what),
            (calls, calls),
            limit=task.limit,
            level=self._level,
            order=self._order,
            expected=task.expected,
        )
        found = self._found[task.case]
        found.append(judgement)
        outcome = combined([one.outcome for one in found])
        if outcome is None:
            self._say(
                f"again    {task.case}: {shown(judgement.wall)} of {_what(task)}; a fresh pair of"
                " processes has to say so too"
            )
            return None
        return self._settle(self._verdict(task, outcome))

    def _settle(self, verdict: Verdict) -> None:
        self.verdicts[verdict.case] = verdict
        self._say(line(verdict))

    def _give_up(self) -> None:
        """After the last pair: what is left is unclear."""
        assert self.calibration is not None
        why = self.calibration.reason
        if self.calibration.outcome == "pass":
            why = "the time of this run is used up: give it more with --minutes"
        for task in self.tasks:
            if task.case in self.verdicts:
                continue
            if self._found[task.case]:
                self._settle(self._verdict(task, "unclear"))
            else:
                self._settle(Verdict(task.case, "unclear", f"not timed: {why}", limit=task.limit))

    def _verdict(self, task: Task, outcome: str) -> Verdict:
        found = self._found[task.case]
        return Verdict(
            case=task.case,
            outcome=outcome,
            reason=reason(task, outcome, found),
            ratio=found[-1].wall,
            cpu=found[-1].cpu,
            against=task.against,
            limit=task.limit,
            groups=sum(one.groups for one in found),
            pairs=len(found),
            milliseconds=min(one.milliseconds for one in found),
        )


def reason(task: Task, outcome: str, found: Sequence[Judgement]) -> str:
    """The verdict in words, with the figures that it rests on."""
    last = found[-1]
    words = f"{shown(last.wall)} of {_what(task)}, CPU {last.cpu.estimate:.3f}"
    earlier = ", ".join(f"{one.outcome} at {one.wall.estimate:.3f}" for one in found[:-1])
    before = f"; earlier pairs of processes: {earlier}" if earlier else ""
    if outcome == "fail":
        return f"{words}; limit {task.limit:g}{before}"
    if outcome == "pass":
        gain = "; faster" if max(last.wall.high, last.cpu.high) < FASTER else ""
        return words + gain + before
    return f"{words}; limit {task.limit:g}: {_why(task, found)}{before}"


def _why(task: Task, found: Sequence[Judgement]) -> str:
    """What keeps a case unclear."""
    last = found[-1]
    if last.outcome != "unclear":
        return "no other pair of processes confirms it"
    if math.isinf(last.wall.low):
        return "too few groups for any bound"
    wall, cpu = last.wall, last.cpu
    if wall.low > cpu.high or cpu.low > wall.high:
        return (
            "the clock and the processor's time do not agree; a layer that waits, or that starts"
            " threads, cannot be judged"
        )
    return f"{last.groups} groups do not settle it"


def _what(task: Task) -> str:
    return "base" if task.against == "base" else "the recorded ratio to plain"


def _prepared(worker: Measures, what: str, case: str | None = None) -> float:
    """Prepare, where code from elsewhere ends all."""
    try:
        return worker.prepare(what, case)
    except Refused as refused:
        if refused.kind == "revision":
            raise CannotJudge(f"in {worker.role}, {refused}") from None
        raise
