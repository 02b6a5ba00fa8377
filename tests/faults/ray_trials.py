"""A Ray cluster of two nodes on this machine: kill a worker, the launcher and a node, and compare.

Head and second node are processes of their own, started as docs/running.md says, with a key of
their own. At the end every record must equal that of a run in one process that nobody disturbed.

    python tests/faults/ray_trials.py --into ray.json
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cluster import claims, parser, undisturbed, wait_until
from kill_trials import compare
from running import Run

RAY = Path(sys.executable).with_name("ray")
PORT = 6399


class Node:
    """A node of the cluster with one processor: a process, and all that it starts."""

    def __init__(self, folder: Path, *more: str) -> None:
        with (folder / "ray.log").open("ab") as log:
            self.process = subprocess.Popen(
                [RAY, "start", "--num-cpus=1", "--block", *more], start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def kill(self) -> None:
        """As if its machine died."""
        everyone = [self.process.pid, *_children(self.process.pid)]
        for process in everyone:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.process.wait()

    def runs(self, process: int) -> bool:
        """Whether ``process`` was started by this node."""
        return process in _children(self.process.pid)


def _children(process: int) -> list[int]:
    found = [process]
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            parents[int(folder.name)] = int(fields[1])
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[tuple[Node, Node]]:
    """Head and second node; a home of their own, in which the key is."""
    os.environ |= {"HOME": str(folder), "RAY_AUTH_MODE": "token"}
    subprocess.run([RAY, "get-auth-token", "--generate"], check=True, capture_output=True)
    head = Node(folder, "--head", f"--port={PORT}", "--include-dashboard=false")
    nodes = [head]
    try:
        wait_until(_answers, "the head of the cluster")
        nodes.append(Node(folder, f"--address=127.0.0.1:{PORT}"))
        yield head, nodes[1]
    finally:
        for node in reversed(nodes):
            node.kill()


def _answers() -> bool:
    asked = [RAY, "status", f"--address=127.0.0.1:{PORT}"]
    return subprocess.run(asked, capture_output=True, check=False).returncode == 0


def disturb(run: Run, head: Node, second: Node, results: Path) -> dict[str, Any]:
    """Run to the end, with three deaths on the way; what was seen."""
    told: dict[str, Any] = {}
    run.start()
    wait_until(lambda: len(list(results.glob("trials/*/*/checkpoints/*.checkpoint"))) >= 3, "work")
    wait_until(lambda: all(_at_work(results, head, second)), "work on both nodes")
    at_head, at_second = _at_work(results, head, second)
    told["trials_on_head_and_second_node"] = [len(at_head), len(at_second)]
    os.kill(at_second[0], signal.SIGKILL)
    wait_until(lambda: _new(results, at_second, head, second), "the trial to be taken up")
    told["launcher_went_on_after_a_worker_was_killed"] = run.ended() is None
    time.sleep(10)
    assert run.launcher is not None
    before = sum(_at_work(results, head, second), [])
    run.launcher.kill()
    run.finish()
    told["records_when_the_launcher_was_killed"] = len(list(results.glob("trials/*/*/record.json")))
    run.start()
    wait_until(lambda: _new(results, before, head, second), "both nodes to work again")
    time.sleep(5)
    second.kill()
    told["status_at_the_end"] = run.finish()
    return told


def _at_work(results: Path, head: Node, second: Node) -> list[list[int]]:
    """The processes that hold trials, by node."""
    holders = [claim["process"]["pid"] for claim in claims(results)]
    return [list(filter(node.runs, holders)) for node in (head, second)]


def _new(results: Path, before: list[int], head: Node, second: Node) -> bool:
    """Whether both nodes are at trials, by processes that are none of ``before``."""
    found = _at_work(results, head, second)
    return all(found) and not set(before) & set(sum(found, []))


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser(__doc__).parse_args(arguments)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ray-", dir=options.folder) as name:
        folder = Path(name)
        reference, results = undisturbed(options, folder), folder / "results"
        more = ("--engine", "ray", "--address", f"127.0.0.1:{PORT}")
        more += ("--checkpoint-every", str(options.every), "--lease", "20")
        with cluster(folder) as (head, second):
            run = Run(options, results, *more)
            try:
                told = disturb(run, head, second, results)
            finally:
                run.send(signal.SIGKILL)
        report = {**told, **compare(reference, [results]), "seconds": time.monotonic() - started}
        log = run.log.read_text()
    return _tell(report, log, options)


def _tell(report: dict[str, Any], log: str, options: argparse.Namespace) -> int:
    text = json.dumps(report, indent=2)
    print(text)
    if options.into is not None:
        options.into.write_text(text + "\n")
        options.into.with_suffix(".log").write_text(log)
    wrong = [name for name in ("lost", "doubled", "different") if report[name]]
    return 1 if wrong or report["status_at_the_end"] else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leaving, it ends what it started
    sys.exit(main())
