"""Being asked to stop: the first signal is a request, the second one is obeyed at once."""

import contextlib
import os
import signal
from collections.abc import Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Request:
    """Whether somebody has asked to stop. ``status`` is what to exit with then: 130, 143; or 0."""

    def __init__(self) -> None:
        self.made, self.status = False, 0

    def __call__(self) -> bool:
        return self.made

    def make(self, status: int = 0) -> None:
        """Ask to stop."""
        self.made, self.status = True, self.status or status


@contextlib.contextmanager
def on_signals(line: str | None = None) -> Iterator[Request]:
    """Within: the first SIGINT or SIGTERM makes the request, and writes ``line``.

    Raises:
        SystemExit: At the second one, with status 128 and the signal's number.
    """
    request = Request()

    def handle(number: int, _: object) -> None:
        if request.status:
            raise SystemExit(128 + number)
        request.make(128 + number)
        if line is not None:  # not print: the signal may have come in the middle of one
            with contextlib.suppress(OSError):
                os.write(2, f"{line}\n".encode())

    before = [(number, signal.signal(number, handle)) for number in SIGNALS]
    try:
        yield request
    finally:
        for number, handler in before:
            signal.signal(number, handler)
