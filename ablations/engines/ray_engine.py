"""On a Ray cluster, or on a local Ray: a Ray task for each trial, scheduled where there is room."""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablations.engines.engine import LAST, Backlog, Message, Stop, Task, child_variables
from ablations.engines.threaded import TaskThread
from ablations.ranks import PATIENCE

WAIT = 0.5  # seconds between two looks at whether to stop


@dataclass(frozen=True)
class Ray:
    """Ray tasks that take ``cpus`` processors and ``gpus`` GPUs each, fractions allowed.

    A task whose process or node dies costs its trial an attempt. If the launcher dies Ray ends its
    tasks; their checkpoints stay.

    Args:
        address: Of a cluster, ``"auto"`` for the one that this machine belongs to; None: start
            one for this run, on this machine.
        most: Trials at a time, at most; None: as many as there is room for.
        cpus, gpus: Of each trial.
        threads: Of each process.
    """

    address: str | None
    most: int | None
    cpus: int
    gpus: float
    threads: int

    @property
    def elsewhere(self) -> bool:
        return self.address is not None

    def run(self, backlog: Backlog, stop: Stop) -> None:
        """As :meth:`ablations.engines.engine.Engine.run`.

        Raises:
            ValueError: Ray is not installed, or there is no cluster at the address.
        """
        ray = self._connect()
        try:
            self._run(ray, backlog, stop)
        finally:
            ray.shutdown()

    def _connect(self) -> Any:
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # read when ray is imported
        try:
            import ray
        except ImportError:
            raise ValueError("--engine ray needs Ray: pip install '.[ray]'") from None
        local: dict[str, Any] = {}
        if self.address is None:
            local = {"num_cpus": None if self.most is None else self.most * self.cpus}
        try:
            ray.init(
                self.address or "local", include_dashboard=False, log_to_driver=False,
                configure_logging=False, **local,
            )  # fmt: skip
        except (ConnectionError, ray.exceptions.RayError, RuntimeError) as error:
            raise ValueError(f"no Ray at {self.address!r}: {error}") from error
        with contextlib.suppress(OSError):  # Ray writes the key to all of it as any file
            (Path.home() / ".ray" / "auth_token").chmod(0o600)
        return ray

    def _run(self, ray: Any, backlog: Backlog, stop: Stop) -> None:
        submit = ray.remote(_stream).options(
            num_cpus=self.cpus, num_gpus=self.gpus, max_retries=0,
            runtime_env={"env_vars": child_variables(self.threads)}, name="trial",
        ).remote  # fmt: skip
        running: dict[Any, Task] = {}
        cancelled = None
        while running or (backlog.open and not stop()):
            while not stop() and (self.most is None or len(running) < self.most):
                task = backlog.next()
                if task is None:
                    break
                running[submit(task.to_json())] = task
            if stop() and cancelled is None:
                cancelled = time.monotonic()
                for stream in running:
                    ray.cancel(stream)
            if cancelled is not None and time.monotonic() > cancelled + PATIENCE:
                return  # ends what is left of them
            if not running:
                time.sleep(WAIT)
                continue
            ready, _ = ray.wait(list(running), num_returns=1, timeout=WAIT)
            for stream in ready:
                message = _next_message(ray, stream, stop)
                if not LAST.isdisjoint(message):
                    backlog.heard(running.pop(stream), message)
                else:
                    backlog.heard(running[stream], message)


def _next_message(ray: Any, stream: Any, stop: Stop) -> Message:
    try:
        return ray.get(next(stream))
    except StopIteration:
        return {"lost": "its Ray task ended without a word"}
    except ray.exceptions.RayError as error:
        if stop():
            return {"stopped": None}
        lines = str(error).strip().splitlines() or [""]
        return {"lost": f"{type(error).__name__}: {lines[0]}"}


def _stream(text: str) -> Iterator[Message]:
    """The trial of a task, in a Ray worker; what it says. To cancel it is to ask it to stop."""
    thread = TaskThread(Task.from_json(text))
    thread.start()
    try:
        yield {"started": f"{os.uname().nodename} process {os.getpid()}"}
        yield from thread.messages()
    finally:  # when cancelled, an exception is raised here, and the thread knows nothing of it
        thread.request.make()
        thread.join(PATIENCE)
