"""Which process this is, told apart from all others, and whether another one is gone."""

import os
import socket
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field

from records.value import Value

_PROC = Path("/proc")


class Process(Value):
    """A process of some machine, as it described itself.

    Args:
        host: Name of the machine, for people; two containers may share one.
        boot: Identity of the kernel's start. None: the system does not say.
        namespaces: Those in which the number and the start of a process are counted. None: the
            system does not say.
        pid: Number of the process there.
        start: When it started, in ticks since the boot: numbers are used again. None: unknown.
    """

    host: str
    boot: str | None
    namespaces: str | None
    pid: Annotated[int, Field(ge=1, le=2**22)]
    start: Annotated[int, Field(ge=0)] | None

    @classmethod
    def current(cls) -> Self:
        """This process."""
        pid = os.getpid()
        try:
            boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
            names = [_namespace(kind) for kind in ("pid", "time")]
            start = _stat(pid)[1]
            # Under the /proc of other namespaces, a number would be another process's.
            ours = (_PROC / "self").resolve().name == str(pid)
        except OSError:
            ours = False
        if not ours:
            return cls(host=socket.gethostname(), boot=None, namespaces=None, pid=pid, start=None)
        namespaces = " ".join(names)
        return cls(
            host=socket.gethostname(), boot=boot, namespaces=namespaces, pid=pid, start=start
        )

    def is_gone(self) -> bool | None:
        """Whether the process has ended; None: that cannot be seen from this one."""
        here = Process.current()
        place = (here.host, here.boot, here.namespaces)
        if place != (self.host, self.boot, self.namespaces) or None in (*place, self.start):
            return None
        try:
            state, start = _stat(self.pid)
        except (FileNotFoundError, ProcessLookupError):
            return _has_no_number(self.pid)
        except OSError:
            return None
        return start != self.start or state in "ZX"  # one that nobody has waited for has ended too


def _namespace(kind: str) -> str:
    link = _PROC / "self/ns" / kind
    return str(link.readlink()) if link.parent.is_dir() and os.path.lexists(link) else f"no {kind}"


def _stat(pid: int) -> tuple[str, int]:
    """State and start of a process of this machine."""
    # The second field is a name in brackets, which may hold both blanks and brackets.
    fields = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    return fields[0].decode(), int(fields[19])


def _has_no_number(pid: int) -> bool | None:
    # Some machines hide other people's processes in /proc, but not from a signal.
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return None
    return None
