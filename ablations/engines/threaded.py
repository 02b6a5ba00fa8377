"""A task that runs in a thread, for a process whose first thread has to listen to somebody."""

import queue
import threading
from collections.abc import Iterator

from ablations.engines.engine import LAST, Message, Task
from ablations.signals import Request
from ablations.worker import run_task


class TaskThread(threading.Thread):
    """``run_task`` in a thread; what it says is read in another."""

    def __init__(self, task: Task) -> None:
        super().__init__(name=task.name, daemon=True)
        self.task, self.request = task, Request()
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()

    def run(self) -> None:
        try:
            run_task(self.task, self._messages.put, self.request)
        except BaseException as error:  # whoever reads waits for a last word
            self._messages.put({"lost": f"{type(error).__name__}: {error}"})
            raise

    def messages(self) -> Iterator[Message]:
        """What is said, to the last word; interruptible."""
        last = False
        while not last:
            try:
                message = self._messages.get(timeout=0.2)
            except queue.Empty:
                continue
            last = not LAST.isdisjoint(message)
            yield message
