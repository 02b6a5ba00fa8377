"""A real Slurm: a process killed, jobs preempted and timed out, the launcher killed; and compare.

Slurm has to run on this machine, with two partitions of which one preempts the other by
requeueing (one_node_slurm.conf, beside this file, is what was measured with). A job meets its
time limit as well, if its trial takes that long. At the end every record must equal
that of a run in one process that nobody disturbed.

    python tests/faults/slurm_trials.py --into slurm.json
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster import claims, parser, undisturbed, wait_until
from kill_trials import compare
from running import Run


def jobs() -> dict[str, str]:
    """State of each job that Slurm knows."""
    command = ["squeue", "--me", "--noheader", "--array", "--format=%i %T"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return dict(line.split() for line in text.splitlines())


def at_work(results: Path) -> list[int]:
    return [claim["process"]["pid"] for claim in claims(results)]


def disturb(run: Run, results: Path, options: Namespace) -> dict[str, Any]:
    """Run to the end, with all that befalls it on the way; what was seen."""
    told: dict[str, Any] = {}
    run.start()
    wait_until(lambda: len(list(results.glob("trials/*/*/checkpoints/*.checkpoint"))) >= 3, "work")
    told["jobs_at_first"] = len(jobs())
    [killed, *_] = at_work(results)
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: killed not in at_work(results), "the trial to be let go")
    wait_until(lambda: len(at_work(results)) == options.at_once, "the trial to be taken up")

    before = at_work(results)
    preempting = ["srun", f"--partition={options.high}", f"--ntasks={options.at_once}"]
    subprocess.run([*preempting, "sleep", "5"], check=True, capture_output=True)
    told["jobs_preempted"] = sum(pid not in at_work(results) for pid in before)
    told["launcher_went_on"] = run.ended() is None
    wait_until(lambda: len(at_work(results)) == options.at_once, "the jobs to come back")

    before = at_work(results)
    assert run.launcher is not None
    run.launcher.kill()
    run.finish()
    time.sleep(5)
    told["jobs_that_outlived_the_launcher"] = sum(pid in at_work(results) for pid in before)
    run.start()
    told["status_at_the_end"] = run.finish()
    wait_until(lambda: not jobs(), "the queue to be empty")
    return told


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="slurm-", dir=options.folder) as name:
        folder = Path(name)
        reference, results, files = (
            undisturbed(options, folder),
            folder / "results",
            folder / "jobs",
        )
        given = {
            "folder": files, "slurm_partition": options.low, "timeout_min": options.minutes,
            "slurm_signal_delay_s": options.before,
        }  # fmt: skip
        more = ["--engine", "slurm", "--workers", options.at_once, "--lease", 20]
        more += ["--checkpoint-every", options.every]
        for key, value in given.items():
            more += ["--slurm", f"{key}={value}"]
        run = Run(options, results, *map(str, more))
        try:
            told = disturb(run, results, options)
        finally:
            run.send(signal.SIGKILL)
            subprocess.run(["scancel", "--me"], check=False)
        said = "".join(path.read_text(errors="replace") for path in files.rglob("*.out"))
        report = {
            "slurm": subprocess.run(["sinfo", "-V"], capture_output=True, text=True).stdout.strip(),
            **told,
            "times_asked_to_leave": said.count('{"stopped"'),
            **compare(reference, [results]),
            "seconds": time.monotonic() - started,
        }
        log = run.log.read_text()
    text = json.dumps(report, indent=2)
    print(text)
    if options.into is not None:
        options.into.write_text(text + "\n")
        options.into.with_suffix(".log").write_text(log)
    wrong = [name for name in ("lost", "doubled", "different") if report[name]]
    return 1 if wrong or report["status_at_the_end"] else 0


def _parse(arguments: Sequence[str] | None) -> Namespace:
    options = parser(__doc__)
    options.add_argument("--low", default="low", help="partition of the trials")
    options.add_argument("--high", default="high", help="partition that preempts it")
    options.add_argument("--minutes", type=int, default=1, help="time limit of a job")
    options.add_argument(
        "--before", type=int, default=30, help="seconds before it at which a job is asked to leave"
    )
    options.add_argument("--at-once", type=int, default=2, help="trials, one a processor")
    return options.parse_args(arguments)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leaving, it ends what it started
    sys.exit(main())
