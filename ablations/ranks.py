"""A trial whose batch several processes share: they are started here, by torchrun."""

import contextlib
import os
import queue
import subprocess
import sys
import threading

from ablations.engines.engine import LAST, Message, Say, Stop, Task, child_variables, parse_message

PATIENCE = 30.0  # seconds for whoever has been asked to keep a checkpoint and leave


def run_ranks(task: Task, say: Say, stop: Stop) -> Message:
    """Run ``task`` in its ranks and pass on what they say; returns what is to be said last."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        f"--nproc-per-node={task.ranks}", "-m", "ablations", "trial", task.to_json(),
    ]  # fmt: skip
    # The ranks inherit the input, and leave in order when it ends: if this process dies, too.
    # A session of its own: signals of the terminal are for this process.
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        start_new_session=True, env={"OMP_NUM_THREADS": "1", **os.environ, **child_variables()},
    )  # fmt: skip
    try:
        return _listen(process, say, stop)
    finally:
        _end(process)


def _listen(process: subprocess.Popen[str], say: Say, stop: Stop) -> Message:
    assert process.stdin is not None
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(process, lines), daemon=True).start()
    last: Message | None = None
    while True:
        if stop():
            process.stdin.close()
        with contextlib.suppress(queue.Empty):
            line = lines.get(timeout=0.2)
            if line is None:
                break
            message = parse_message(line)
            if message is None:
                sys.stderr.write(line)  # somebody printed something
            elif LAST.isdisjoint(message):
                say(message)
            elif last is None or "lost" in last:  # of several, the one that knows why
                last = message
    status = process.wait()
    return last or {"lost": f"its ranks ended with status {status}"}


def _read(process: subprocess.Popen[str], lines: "queue.SimpleQueue[str | None]") -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put(None)


def _end(process: subprocess.Popen[str]) -> None:
    """See to it that no rank is left."""
    if process.poll() is None:
        process.terminate()  # torchrun passes it on to the ranks
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
