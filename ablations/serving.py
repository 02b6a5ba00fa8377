"""Processes that run trials and do nothing else: a worker's, and one rank's of a trial."""

import argparse
import contextlib
import json
import os
import queue
import sys
import threading

from ablations.engines.engine import Message, Say, Task
from ablations.signals import Request, on_signals
from ablations.worker import run_task
from overconv.training.distributed import joined


def serve(options: argparse.Namespace) -> int:
    """``ablations worker``: run the tasks that come as lines on standard input, one by one.

    The end of the input is a request to stop: who gave out the tasks wants it, or is gone.
    """
    say = take_output()
    with on_signals() as request:
        lines = _read_input(request)
        while not request():
            with contextlib.suppress(queue.Empty):  # waits a little, so that a signal is seen
                run_task(Task.from_json(lines.get(timeout=0.2)), say, request)
        return request.status


def run_rank(options: argparse.Namespace) -> int:
    """``ablations trial TASK``: run one task as one of the ranks that torchrun has started.

    The end of standard input is a request to stop.
    """
    task, say = Task.from_json(options.task), take_output()
    failed: list[str] = []
    with on_signals() as request, joined(task.ranks, task.device) as world:
        _read_input(request)

        def say_once(message: Message) -> None:
            found = message.keys() & {"failed", "lost"}
            failed.extend(found)
            if world.rank == 0 or found:
                say(message)

        run_task(task, say_once, request, world)
    return 1 if failed else 0


def _read_input(request: Request) -> "queue.SimpleQueue[str]":
    """The lines of standard input, as they come; its end makes the request."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        rest = b""
        while chunk := os.read(0, 2**16):  # not sys.stdin, whose lock Python wants as it ends
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                lines.put(line.decode())
        request.make()

    threading.Thread(target=read, daemon=True).start()
    return lines


def take_output() -> Say:
    """Keep standard output for messages; what anybody prints goes to standard error instead."""
    sys.stdout.flush()
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(message: Message) -> None:
        with contextlib.suppress(BrokenPipeError):  # nobody listens; the results folder counts
            channel.write(json.dumps(message) + "\n")
            channel.flush()

    return say
