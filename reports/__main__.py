"""`python -m reports build`: the report, from records alone.

Exit status: 0 done, 1 the report differs from its records (`--check`), 2 usage or bad input.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from records.files import replace_file
from records.store import Store
from reports.drawings import without_drawings
from reports.page import GENERATOR
from reports.readme import filled
from reports.render import MANIFEST, PAGE, Report, render

HERE = Path(__file__).parent
README = HERE.parent / "README.md"


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = Parser(prog="python -m reports", description="The report, from records alone.")
    commands = parser.add_subparsers(required=True, metavar="command", parser_class=Parser)
    build = commands.add_parser("build", help="tables, figures and one page")
    build.add_argument("--results", metavar="DIR", help="records (default: reports/data)")
    build.add_argument(
        "--out", metavar="DIR", help="default: DIR/report; without --results: reports"
    )
    build.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 if it would change anything"
    )
    options = parser.parse_args(arguments)
    results = Path(options.results) if options.results else HERE / "data"
    out = Path(options.out or (results / "report" if options.results else HERE))
    # The committed report alone is spoken of in README.md.
    readme = None if options.results or options.out else README
    try:
        if not results.is_dir():
            raise ValueError(f"no results folder {str(results)!r}")
        report = render(Store(results))
        if options.check:
            return _check(report, out, readme)
        _refuse_foreign(out / PAGE)
        _write(report, out, readme)
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    for table in report.tables:
        print(table.to_text(), end="\n\n")
    print(f"page: {out / PAGE}")
    return 0


def _write(report: Report, out: Path, readme: Path | None) -> None:
    """Write what changed, and remove what an earlier report wrote and this one does not have."""
    if readme is not None and (text := _filled(report, readme)) != readme.read_bytes():
        replace_file(readme, text)
    for name in sorted(_listed(out) - set(report.files)):
        (out / name).unlink(missing_ok=True)
    for name, content in report.files.items():
        if _bytes(out / name) != content:
            replace_file(out / name, content)


def _filled(report: Report, readme: Path) -> bytes:
    return filled(readme.read_text(encoding="utf-8"), report.readme).encode()


def _check(report: Report, out: Path, readme: Path | None) -> int:
    """Whether ``out`` holds ``report``, and ``readme`` what is said of it; says what differs."""
    there = {name: _bytes(out / name) for name in {*report.files, *_listed(out)}}
    here: dict[str, bytes | None] = dict(report.files)
    drawn_by, drawn_here = (
        _manifest(content).get("versions") for content in (there[MANIFEST], here[MANIFEST])
    )
    if there[MANIFEST] is not None and drawn_by != drawn_here:
        print(
            f"drawn by {drawn_by}, here is {drawn_here}: numbers are compared instead of drawings"
        )
        for files in (there, here):
            for name in [name for name in files if name.startswith("figures/")]:
                del files[name]
            files[PAGE] = without_drawings(files[PAGE] or b"")
            files[MANIFEST] = json.dumps(_manifest(files[MANIFEST]).get("numbers")).encode()
    if readme is not None:
        name = os.path.relpath(readme, out)
        here[name], there[name] = _filled(report, readme), readme.read_bytes()
    differ = sorted(name for name in {*here, *there} if here.get(name) != there.get(name))
    for name in differ:
        state = "missing" if there.get(name) is None else "differs" if name in here else "left over"
        print(f"{out / name}: {state}", file=sys.stderr)
    print(f"{len(here)} files, {len(differ)} not as the records say")
    return 1 if differ else 0


def _refuse_foreign(page: Path) -> None:
    content = _bytes(page)
    if content is not None and GENERATOR.encode() not in content:
        raise ValueError(f"{page} was not written by this command: it is kept, nothing is written")


def _listed(out: Path) -> set[str]:
    """The files that the manifest of ``out`` names, itself included; those below ``out`` only."""
    content = _bytes(out / MANIFEST)
    names = {MANIFEST, *_manifest(content).get("files", {})} if content is not None else set()
    return {name for name in names if (out / name).resolve().is_relative_to(out.resolve())}


def _manifest(content: bytes | None) -> dict:
    try:
        found = json.loads(content or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


if __name__ == "__main__":
    sys.exit(main())
