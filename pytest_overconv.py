"""What pytest loads of overconv when it starts: options, and none of torch.

``import overconv`` loads torch, which takes over a second, and an entry point below the package
would have every session of pytest pay for it. So the entry point is this module beside the package;
:mod:`overconv.bench.plugin` is loaded when one of the options is given.
"""

import pytest

HELP = {
    "base": ("REV", "gate layers against regressions of cost, paired with this revision"),
    "cases": ("FILE", "the file of cases to gate (default: benchmark/cases.py)"),
    "json": ("FILE", "write the gate's report as JSON"),
    "markdown": ("FILE", "write the gate's report as Markdown, for a pull request"),
}
FLAGS = {
    "allow-dirty": "judge the working tree though it is not what is committed",
    "allow-new": "be content if the base has none of the cases",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("overconv", "gate against regressions of cost (overconv)")
    for name, (metavar, text) in HELP.items():
        group.addoption(f"--gate-{name}", metavar=metavar, help=text)
    for name, text in FLAGS.items():
        group.addoption(f"--gate-{name}", action="store_true", help=text)
    group.addoption(
        "--gate-gone",
        action="append",
        default=[],
        metavar="CASE",
        help="a case of the base that is removed on purpose; may be given again",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "gate: verdicts of overconv's gate; -m gate runs them alone")
    given = {name for name in (*HELP, *FLAGS, "gone") if config.getoption(f"--gate-{name}")}
    if not given:
        return
    if not given & {"base", "cases"}:
        raise pytest.UsageError(f"--gate-{min(given)} needs --gate-base or --gate-cases")
    from overconv.bench.plugin import Gate

    config.pluginmanager.register(Gate(config), "overconv-gate")
