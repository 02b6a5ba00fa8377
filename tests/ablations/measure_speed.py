"""How near two workers come to twice one: `python tests/ablations/measure_speed.py local ray`.

The same trials alone, one after the other in one process, and two at a time; wall time of the
whole command in all cases, its start included. Ideal is half of the sum of the trials alone.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from records.store import Store

ROOT = Path(__file__).parents[2]
STUDY = """
from ablations.study import Arm, Study

RECIPE = {{"epochs": {epochs}, "ema": 0.95}}
STUDY = Study(
    name="speed",
    question="How long does it take?",
    baseline="plain",
    arms={{"plain": Arm(recipe=RECIPE), "other": Arm(recipe={{**RECIPE, "lr": 0.05}})}},
)
"""


def run(study: Path, results: Path, blocks: str, *more: str) -> float:
    """Seconds of a run."""
    start = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "ablations", "run", str(study), "--blocks", blocks,
         "--results", str(results), *more],
        cwd=ROOT, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engines", nargs="*", metavar="local|ray", default=["local"])
    parser.add_argument("--blocks", type=int, default=8, help="of two trials each")
    parser.add_argument("--epochs", type=int, default=330)
    options = parser.parse_args()
    half, last = options.blocks // 2, options.blocks - 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        study = folder / "speed_study.py"
        study.write_text(STUDY.format(epochs=options.epochs))
        # Half of them before and half after, since the machine may become faster or slower.
        whole = run(study, folder / "alone", f"0-{half - 1}")
        took = {
            engine: run(study, folder / engine, f"0-{last}", "--engine", engine, "--workers", "2")
            for engine in options.engines
        }
        whole += run(study, folder / "alone", f"{half}-{last}")
        found = {
            where: {record.trial: record for record in Store(folder / where).records()}
            for where in ("alone", *options.engines)
        }
    trained = {
        where: sum(record.times["seconds"] for record in records.values())
        for where, records in found.items()
    }
    alone = {trial: record.compared() for trial, record in found.pop("alone").items()}
    print(f"{len(alone)} trials alone: {trained['alone']:.1f} s of training, {whole:.1f} s in all")
    ideal = trained["alone"] / 2
    for engine, records in found.items():
        equal = alone == {trial: record.compared() for trial, record in records.items()}
        print(
            f"two at a time ({engine}): {trained[engine]:.1f} s of training, "
            f"{took[engine]:.1f} s in all; records equal: {equal}\n"
            f"  of the ideal, {ideal:.1f} s: {ideal / took[engine]:.1%}\n"
            f"  had training been as fast beside another: {trained[engine] / 2 / took[engine]:.1%}"
        )


if __name__ == "__main__":
    main()
