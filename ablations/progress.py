"""How far a run is: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from typing import TextIO

from tqdm import tqdm

from ablations.engines.engine import Message, Task


class Progress:
    """Listens to an engine and tells people; counts epochs, so that the time left means something.

    Args:
        epochs: Epochs of each trial to run, by task.
        stream: Where to write; a bar if it is a terminal.
    """

    def __init__(self, epochs: dict[Task, int], stream: TextIO | None = None):
        self.stream = stream if stream is not None else sys.stderr
        self.epochs = epochs
        self.total, self.num_done, self.num_ended = sum(epochs.values()), 0, 0
        self.num_trained = 0  # epochs, here: those of others and before a checkpoint cost no time
        self.reached: dict[Task, int] = {}
        self.start = time.monotonic()
        self.bar = None
        if self.stream.isatty():
            self.bar = tqdm(total=self.total, unit="epoch", file=self.stream, dynamic_ncols=True)

    def heard(self, task: Task, message: Message) -> None:
        match message:
            case {"epoch": epoch, "values": values}:
                self.num_trained += 1
                self._advance(task, epoch + 1)
                accuracy = values.get("validation_accuracy")
                shown = "" if accuracy is None else f" {100 * accuracy:.1f} % validation"
                if self.bar is not None:
                    self.bar.set_description_str(f"{task.name}{shown}")
            case {"resumed": step}:
                self._write(f"{task.name}: taken up from its checkpoint at step {step}")
            case {"note": text}:
                self._write(f"{task.name}: {text}")
            case {"retried": why}:
                self._write(f"{task.name}: {_last_line(why)}; tried once more")
            case {"held": who} if task not in self.reached:
                self.reached[task] = 0
                self._write(f"{task.name}: is being run by {who}; looked at again later")
            case {"stopped": step}:
                self._write(f"{task.name}: stopped after step {step}, checkpoint kept")
            case {"finished": summary}:
                self._end(task, _result(summary))
            case {"recorded": summary}:
                found = "" if summary is None else f", {_result(summary)}"
                self._end(task, f"recorded by another launcher{found}")
            case {"failed": text}:
                self._end(task, f"FAILED\n{text.rstrip()}")

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()

    def _advance(self, task: Task, reached: int) -> None:
        step = max(0, reached - self.reached.get(task, 0))
        self.reached[task] = self.reached.get(task, 0) + step
        self.num_done += step
        if self.bar is not None:
            self.bar.update(step)

    def _end(self, task: Task, text: str) -> None:
        self._advance(task, self.epochs[task])  # a diverged or failed trial has no epochs left
        self.num_ended += 1
        self._write(f"[{self.num_ended}/{len(self.epochs)}] {task.name}: {text}{self._left()}")

    def _left(self) -> str:
        if self.bar is not None or self.num_trained == 0 or self.num_done == self.total:
            return ""
        seconds = time.monotonic() - self.start
        left = seconds * (self.total - self.num_done) / self.num_trained
        return f"; about {duration(left)} left"

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


def _result(summary: dict) -> str:
    if summary["outcome"] != "finished":
        return f"{summary['outcome']}, {summary['seconds']:.0f} s"
    # Not the test's score: whoever watches trials one by one would come to choose by it.
    accuracy = summary["validation_accuracy"]
    if accuracy is None:  # nothing was set aside
        return f"training loss {summary['train_loss']:.3f}, {summary['seconds']:.0f} s"
    return f"{100 * accuracy:.2f} % validation accuracy, {summary['seconds']:.0f} s"


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["lost"])[-1]
