"""How far a run is: a bar on a terminal, plain lines elsewhere."""

import sys
import time

from tqdm import tqdm

from ablations.schedule import Job


class Progress:
    """Listens to an engine and tells people; counts epochs, so that the time left means something.

    Args:
        epochs: Epochs of each trial to run, by job.
        stream: Where to write; a bar if it is a terminal.
    """

    def __init__(self, epochs: dict[Job, int], stream=None):
        self.stream = stream if stream is not None else sys.stderr
        self.epochs = epochs
        self.total, self.num_done, self.num_ended = sum(epochs.values()), 0, 0
        self.reached: dict[Job, int] = {}
        self.start = time.monotonic()
        self.bar = None
        if self.stream.isatty():
            self.bar = tqdm(total=self.total, unit="epoch", file=self.stream, dynamic_ncols=True)

    def started(self, job: Job) -> None:
        self.reached[job] = 0

    def epoch(self, job: Job, epoch: int, values: dict[str, float]) -> None:
        self._advance(job, epoch + 1)
        if self.bar is not None:
            accuracy = values.get("validation_accuracy")
            shown = "" if accuracy is None else f" {100 * accuracy:.1f} % validation"
            self.bar.set_description_str(f"{_name(job)}{shown}")

    def finished(self, job: Job, summary: dict) -> None:
        if summary["outcome"] == "finished":
            result = f"{100 * summary['test_accuracy']:.2f} % test accuracy"
        else:
            result = summary["outcome"]
        self._end(job, f"{result}, {summary['seconds']:.0f} s")

    def failed(self, job: Job, message: str) -> None:
        self._end(job, f"FAILED\n{message.rstrip()}")

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()

    def _advance(self, job: Job, reached: int) -> None:
        step = max(0, reached - self.reached[job])
        self.reached[job] += step
        self.num_done += step
        if self.bar is not None:
            self.bar.update(step)

    def _end(self, job: Job, text: str) -> None:
        self._advance(job, self.epochs[job])  # a diverged or failed trial has no epochs left
        self.num_ended += 1
        self._write(f"[{self.num_ended}/{len(self.epochs)}] {_name(job)}: {text}{self._left()}")

    def _left(self) -> str:
        if self.bar is not None or self.num_done in (0, self.total):
            return ""
        seconds = (time.monotonic() - self.start) * (self.total - self.num_done) / self.num_done
        return f"; about {duration(seconds)} left"

    def _write(self, line: str) -> None:
        if self.bar is not None:
            self.bar.write(line, file=self.stream)
        else:
            print(line, file=self.stream, flush=True)


def duration(seconds: float) -> str:
    """``seconds`` for people: ``40 s``, ``3 min``, ``2 h 05 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"


def _name(job: Job) -> str:
    return f"{job.label} block {job.block}"
