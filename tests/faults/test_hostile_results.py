"""A results folder that somebody else has written to: what is wrong is named, nothing else happens.

Whatever is in it, `status`, `verify` and `export` end with a line a fault and no traceback.
"""

import json
import os
import resource
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ablations.cli import main
from ablations.study import Arm, Study
from records.files import LARGEST
from records.plan import Plan
from records.record import Record, digest
from records.store import Store

ROOT = Path(__file__).parents[2]
MARKUP = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
CONTROL = "\x1b]0;owned\x07\x1b[2J\u202e"


@pytest.fixture(scope="module")
def made() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(ROOT / "tests" / "records" / "made.py")))


@pytest.fixture
def results(made, tmp_path) -> Path:
    """Two arms, two blocks, as they should be."""
    made.make_results(tmp_path / "results", {"plain": [0.8, 0.7], "gated-1": [0.9, 0.75]})
    return tmp_path / "results"


@pytest.fixture
def a_record(results) -> Path:
    return Store(results).paths()[0]


@pytest.fixture
def told(results, capsys):
    """Runs a command on the results folder; returns its exit status and all that it printed."""

    def run(command: str, *more: str) -> tuple[int, str]:
        capsys.readouterr()
        status = main([command, "--results", str(results), *more])
        captured = capsys.readouterr()
        return status, captured.out + captured.err

    return run


def test_as_it_is(told):
    """What follows would show nothing if this did not hold."""
    assert told("verify")[0] == 0
    assert told("status")[0] == 0


def deep(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


SPOILED = {
    "empty": (b"", "cut short, or no JSON"),
    "no text": (b"\xff\xfe\x00", "cut short, or no JSON"),
    "a list": (b"[]", "holds a list"),
    "nested too deep": (b'{"schema_version": 1, "trial": ' + deep(10**5) + b"}", "nested too deep"),
    "a number of many digits": (b'{"schema_version": ' + b"9" * 10**5 + b"}", "digits"),
    "NaN": (b'{"schema_version": NaN}', "NaN is no JSON"),
    "half a character": (b'{"schema_version": 1, "a": "\\ud800"}', "is no text"),
    "half a character, as it is": (b'{"schema_version": 1, "a": "\xed\xa0\x80"}', "is no text"),
}


@pytest.mark.parametrize("name", SPOILED)
@pytest.mark.parametrize("kind", ["record", "plan", "stratum"])
def test_a_file_of_nonsense(told, results, a_record, name, kind):
    content, complaint = SPOILED[name]
    (results / "strata").mkdir()
    path = {
        "record": a_record,
        "plan": Store(results).plan_paths()[0],
        "stratum": results / "strata" / "0123456789abcdef.json",
    }[kind]
    path.write_bytes(content)
    status, text = told("verify")
    assert status == 1
    [line] = [line for line in text.splitlines() if str(path) in line and complaint in line]
    assert len(line) < 600
    if kind != "stratum":
        assert told("status")[0] == 2


def plant(path: Path, kind: str, elsewhere: Path) -> None:
    """Put something that is no plain file in the place of ``path``."""
    path.unlink(missing_ok=True)
    match kind:
        case "symlink":
            path.symlink_to(elsewhere)
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "device":
            path.symlink_to("/dev/zero")


@pytest.mark.parametrize("kind", ["symlink", "pipe", "folder", "device"])
@pytest.mark.parametrize("what", ["record", "plan"])
def test_no_plain_file(told, results, a_record, tmp_path, kind, what):
    """A link could make anybody's file part of the results; who reads a pipe waits for ever."""
    path = a_record if what == "record" else Store(results).plan_paths()[0]
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_bytes(path.read_bytes())
    plant(path, kind, elsewhere)
    status, text = told("verify")
    assert status == 1
    assert str(path) in text
    status, text = told("export", "--format", "store", "--to", str(tmp_path / "copy"))
    assert status == 2
    assert str(path) in text
    assert elsewhere.exists()


def test_a_folder_that_is_a_link(told, results, a_record, tmp_path):
    """A trial's folder that leads out of the results folder is not read and not written."""
    folder = a_record.parent.parent
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    status, text = told("verify")
    assert status == 1
    assert "symbolic link" in text
    with pytest.raises(ValueError, match="symbolic link"):
        Store(results).publish(Record.from_bytes(a_record.read_bytes()))


def test_a_record_of_one_gigabyte(results, a_record):
    """Refused by its size, before anything is read: in memory that could not hold it."""
    a_record.write_bytes(b"")
    os.truncate(a_record, 2**30)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (2**29, 2**29))

    code = (
        "from records.audit import faults; from records.store import Store; import sys\n"
        "print(*faults(Store(sys.argv[1])), sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(results)],
        cwd=ROOT, preexec_fn=limit, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert f"{a_record}: has 1,073,741,824 bytes; allowed: {LARGEST:,}" in done.stdout


@pytest.mark.parametrize("block", [None, "one", [1], {"a": 1}, -1, 10**400, True, 0.5])
def test_a_record_whose_block_is_none(told, results, block):
    """Its identities fit, so only what it says is wrong."""
    store = Store(results)
    [plan] = store.plans()
    record = next(store.records())
    configuration = {**plan.arms["plain"], "block": block}
    if block is None:
        del configuration["block"]
    planted = record.plain() | {"configuration": configuration, "trial": digest(configuration)}
    path = results / "trials" / planted["trial"] / record.stratum / "record.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(planted))
    status, text = told("verify")
    assert status == 1, text
    assert str(path) in text
    assert told("status")[0] in (0, 2)


@pytest.mark.parametrize("field", ["trial", "stratum"])
@pytest.mark.parametrize("name", ["../../../evil", "a/b", "..", "", "a\n", "a\0b", "/etc"])
def test_a_name_that_leads_elsewhere(record, tmp_path, field, name):
    """Names become folders, so they are checked wherever they come from."""
    with pytest.raises(ValueError, match=field):
        Record(**record.plain() | {field: name})
    with pytest.raises(ValueError, match="is no name"):
        Store(tmp_path).checkpoints_path(**{"trial": "a", "stratum": "b", field: name})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../evil", "a/b", "..", "", "a b", "a\n"])
def test_a_study_named_elsewhere(made, name):
    """In a study's file, and in a plan that somebody put into the folder."""
    with pytest.raises(ValueError, match="name"):
        Study(name=name, question="?", arms={"plain": Arm()}, baseline="plain")
    with pytest.raises(ValueError, match="name"):
        Plan.from_bytes(json.dumps(made.make_plan().plain() | {"name": name}).encode())


@pytest.mark.parametrize("study", ["../tests/faults/long_study", "../../evil", "/etc/passwd", "."])
def test_a_study_asked_for_by_a_path(tmp_path, capsys, study):
    """Only a path that ends in .py is a file to be run; anything else is a name, or refused."""
    assert main(["run", study, "--results", str(tmp_path / "results")]) == 2
    assert f"no study {study!r}" in capsys.readouterr().err


def hostile_plan(made, text: str) -> Plan:
    """A plan with ``text`` wherever one may be written."""
    label = "x " + "".join(c for c in text if c not in ",$" and ord(c) >= 32)
    plan = made.make_plan(("plain", "gated-1")).plain()
    arms = {"plain": plan["arms"]["plain"], label: plan["arms"]["gated-1"]}
    for arm in arms.values():
        arm["data"] = {"name": text, "fingerprint": text}
        arm["network"]["class"] = text
    contrasts = [{"arm": label, "against": "plain"}]
    claim = {"name": "C", "wording": text, "direction": "greater", "margin": 0.01}
    changed = {"arms": arms, "question": text, "preset": text, "notes": {label: text}}
    return Plan(**plan | changed | {"claims": [claim | {"contrasts": contrasts}]})


def hostile_record(record: Record, text: str) -> Record:
    environment = {**record.environment, "torch": text, text: text}
    times = {**record.times, "host": text, "commit": text, text: text}
    changed = {"environment": environment, "stratum": digest(environment), "times": times}
    return Record(**record.plain() | changed)


@pytest.fixture
def hostile(made, tmp_path):
    """A results folder with a text in every string that one can have."""

    def make(text: str) -> Store:
        store = Store(tmp_path / "hostile")
        plan = hostile_plan(made, text)
        store.save_plan(plan)
        for label in plan.arms:
            for block in range(2):
                plain = made.make_record(plan, label, block, 0.5)
                store.publish(hostile_record(plain, text))
        [label] = [label for label in plan.arms if label != "plain"]
        stratum = hostile_record(plain, text).stratum
        store.note_failure(plan.trial_id(label, 7), stratum, f"Error: {text}")
        return store

    return make


def test_html_in_every_string(hostile, tmp_path):
    """In the page it is text; there is no element and no script but the page's own."""
    from html.parser import HTMLParser

    store = hostile(MARKUP)
    out = tmp_path / "report"
    done = subprocess.run(
        [sys.executable, "-m", "reports", "build", "--results", str(store.root), "--out", str(out)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    page = (out / "index.html").read_text()
    found: list[str] = []

    class Elements(HTMLParser):
        def handle_starttag(self, tag, attributes):
            found.extend(f"{tag} {name}" for name, _ in attributes if name.startswith("on"))
            found.extend(f"{tag} {dict(attributes).get('src')}" for _ in [0] if tag == "img")

        def handle_data(self, data):
            if self.cdata_elem == "script" and "alert(1)</" in data:
                found.append(data)

    Elements().feed(page)
    assert not [line for line in found if "alert" in line or line == "img x"]
    assert "&lt;script&gt;alert(1)" in page, "it is shown"
    for path in out.rglob("*"):
        if path.suffix == ".svg":
            assert "<script" not in path.read_text()


@pytest.mark.parametrize("command", ["status", "verify", "export"])
def test_what_would_move_a_terminal_is_not_printed(hostile, tmp_path, capsys, command):
    """Escape sequences of records and tracebacks reach no terminal as such."""
    root = hostile(CONTROL).root
    more = ["--format", "jsonl", "--to", str(tmp_path / "out.jsonl")] if command == "export" else []
    assert main([command, "--results", str(root), *more]) in (0, 1)
    captured = capsys.readouterr()
    assert all(c.isprintable() or c == "\n" for c in captured.out + captured.err)


@pytest.mark.parametrize("command", ["status", "verify", "export"])
def test_what_an_error_quotes_is_not_printed_as_it_is(told, a_record, tmp_path, command):
    fields = json.loads(a_record.read_bytes()) | {"outcome": CONTROL}
    a_record.write_text(json.dumps(fields, ensure_ascii=False))
    more = ["--to", str(tmp_path / "copy")] if command == "export" else []
    status, text = told(command, *more)
    assert status == (1 if command == "verify" else 2)
    assert str(a_record) in text
    assert all(c.isprintable() or c == "\n" for c in text)
