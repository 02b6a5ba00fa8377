"""The gate's verdicts as results of pytest: an item for each case, collected beside other tests.

Loaded when ``--gate-base`` or ``--gate-cases`` is given (``pytest_overconv.py``). The first item
that runs has the whole gate run, and each item then says what that found. A verdict that could not
be reached is a failure with words of its own: ``cannot judge`` is not ``regression``.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from overconv.bench.gate import Report, Verdict, run
from overconv.bench.loading import load_cases
from overconv.bench.report import writable

DEFAULT_CASES = "benchmark/cases.py"


class Complaint(Exception):
    """Why an item fails; shown without a traceback."""


class Gate:
    """One gate in one session of pytest.

    Raises:
        pytest.UsageError: Something else that was asked for contradicts it.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.base: str | None = config.getoption("gate_base")
        given: str | None = config.getoption("gate_cases")
        if given is None:
            self.file = config.rootpath / DEFAULT_CASES
        else:
            self.file = config.invocation_params.dir / given
        if config.getoption("numprocesses", None):
            raise pytest.UsageError(
                "the gate needs the machine to itself: run it without --numprocesses"
            )
        if config.getoption("benchmark_only", False):
            raise pytest.UsageError("--benchmark-only leaves the gate out: run it without")
        try:
            self._files = tuple(map(writable, self._reports()))
        except ValueError as error:
            raise pytest.UsageError(str(error)) from None
        self.declared: list[str] = []
        self._found: Report | Complaint | None = None

    # Before -k, -m and other selections, so that they apply to these items too.
    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(
        self, session: pytest.Session, items: list[pytest.Item]
    ) -> None:
        try:
            cases = load_cases(self.file)
        except Exception as error:  # the file is the user's, and may raise anything
            raise pytest.UsageError(
                f"the gate cannot read its cases: {type(error).__name__}: {error}"
            ) from error
        self.declared = [case.name for case in cases]
        group = GateGroup.from_parent(session, name="gate", nodeid="gate", gate=self)
        items.extend(group.collect())

    def report(self, session: pytest.Session) -> Report:
        """What the gate found on the cases that are left in the session; runs it the first time.

        Raises:
            Complaint: There is none.
        """
        if self._found is None:
            try:
                self._found = self._run(self.names(session))
                self._found.write(*self._files)
            except ValueError as error:
                self._found = Complaint(f"cannot judge: {error}")
        if isinstance(self._found, Complaint):
            raise self._found
        return self._found

    def _run(self, names: list[str]) -> Report:
        return run(
            self.file,
            base=self.base,
            names=None if len(names) == len(self.declared) else names,
            gone=self.config.getoption("gate_gone"),
            allow_dirty=self.config.getoption("gate_allow_dirty"),
            allow_new=self.config.getoption("gate_allow_new"),
            say=self._say,
        )

    def _say(self, line: str) -> None:
        """Lines of progress, with ``-v``: a gate may take minutes."""
        terminal = self.config.pluginmanager.getplugin("terminalreporter")
        capture = self.config.pluginmanager.getplugin("capturemanager")
        if terminal is None or capture is None or self.config.getoption("verbose") < 1:
            return
        with capture.global_and_fixture_disabled():
            terminal.ensure_newline()
            terminal.write_line(line)

    def names(self, session: pytest.Session) -> list[str]:
        """The cases that were not deselected."""
        return [item.name for item in session.items if isinstance(item, CaseItem)]

    def _reports(self) -> Iterator[Path | None]:
        """Where to write as JSON and as Markdown."""
        for kind in "json", "markdown":
            given: str | None = self.config.getoption(f"gate_{kind}")
            yield None if given is None else self.config.invocation_params.dir / given

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if isinstance(self._found, Report):
            terminalreporter.section("gate")
            terminalreporter.write_line(self._found.sentence)
            for one in self._found.moved:
                terminalreporter.write_line(f"moved: {one}")
            for note in self._found.notes:
                terminalreporter.write_line(f"note: {note}")


class GateGroup(pytest.Collector):
    """What the gate's items hang on."""

    def __init__(self, *, gate: Gate, **more: Any) -> None:
        super().__init__(**more)
        self.gate = gate
        self.add_marker("gate")

    def collect(self) -> Iterator["GateItem"]:
        yield CalibrationItem.from_parent(self, name="calibration")
        for name in self.gate.declared:
            yield CaseItem.from_parent(self, name=name)
        yield WholeItem.from_parent(self, name="all cases")


class GateItem(pytest.Item):
    """One thing that the gate has to say."""

    @property
    def gate(self) -> Gate:
        assert isinstance(self.parent, GateGroup)
        return self.parent.gate

    def runtest(self) -> None:
        names = self.gate.names(self.session)
        if not names:
            raise Complaint("cannot judge: every case was deselected")
        self.judge(self.gate.report(self.session), names)

    def judge(self, report: Report, names: list[str]) -> None:
        """Raise a Complaint unless the report is what this item asks for."""
        raise NotImplementedError(f"{type(self).__name__} defines no judge()")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, Complaint):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.gate.file, None, f"gate: {self.name}"


class CalibrationItem(GateItem):
    """Whether this machine, now, tells ten per cent apart."""

    def judge(self, report: Report, names: list[str]) -> None:
        found = report.calibration
        if found is not None and found.outcome != "pass":
            raise Complaint(f"cannot judge: {found.reason}")
        if found is None and report.cannot is not None:
            raise Complaint(f"cannot judge: {report.cannot}")
        if found is None:
            pytest.skip("nothing had to be timed, so the machine was not tested")


def said(verdict: Verdict, case: str = "") -> str:
    """A verdict other than a pass, with what it amounts to in front."""
    word = "cannot judge" if verdict.outcome == "unclear" else "regression"
    return f"{word}: {case and f'{case}: '}{verdict.reason}"


class CaseItem(GateItem):
    """The verdict on one case."""

    def judge(self, report: Report, names: list[str]) -> None:
        changed = [d for d in report.differences or () if d.startswith(f"{self.name}: ")]
        words = [f"regression: {difference}" for difference in changed]
        if changed:
            words.append(f"if that is meant, commit the new figures: {report.accept}")
        found = [verdict for verdict in report.verdicts if verdict.case == self.name]
        words += [said(v) for v in found if v.outcome != "pass"]
        if not found:
            words.append("cannot judge: the gate gave no verdict on it")
        if words:
            raise Complaint("\n".join(words))


class WholeItem(GateItem):
    """What is not about one of the declared cases, and whether each of them was judged."""

    def judge(self, report: Report, names: list[str]) -> None:
        own = tuple(f"{name}: " for name in names)
        words = [f"regression: {d}" for d in report.differences or () if not d.startswith(own)]
        words += [said(v, v.case) for v in report.verdicts if v.case not in names]
        judged = [verdict.case for verdict in report.verdicts]
        words += [
            f"cannot judge: {name} is declared and was not judged"
            for name in names
            if name not in judged
        ]
        if report.cannot is not None:
            words.append(f"cannot judge: {report.cannot}")
        if words:
            raise Complaint("\n".join(words))
