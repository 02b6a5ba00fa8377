"""What was measured of speed: a log, one line of JSON a measurement.

Times never repeat, so a measurement is not published once, as a trial is: it is appended. It names
the arm that it is of in the words of :mod:`records.record`, by which the two are joined.
"""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from records.canonical import canonical
from records.record import Plain
from records.value import VersionedValue

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
# Wall and CPU seconds of a call, and how often the thread was made to wait during the sample.
SampleRow = tuple[Seconds, Annotated[float, Field(ge=0, allow_inf_nan=False)], int]

FIGURES = ("minimum", "p20", "median", "p90", "first_call")


class Measurement(VersionedValue):
    """One thing timed in one situation, beside its plain reference.

    Args:
        schema_version: Of this class.
        kind: What was timed, a layer or a network.
        name: For people, such as ``"MDConv2d depth=3"``.
        arm: ``layer`` (class by its public name, all options; None: plain) and ``where``.
        subject: The shape of the layer, or the network.
        situation: ``mode``, ``state``, ``step``, ``batch``, ``image``, ``dtype``,
            ``memory_format``, ``device``, ``threads``.
        outcome: ``"measured"``, or that there was not memory enough: then nothing is known of
            its speed.
        costs: ``parameters``, and ``macs`` of one image; peak bytes of a run apart, if asked for.
        seconds: ``minimum``, ``p20``, ``median``, ``p90`` (None: too few samples), ``first_call``.
        ratio: ``estimate``, ``low``, ``high``, ``groups``: time over that of the reference.
        samples, reference: Those of the thing and of its reference, round by round, interleaved.
        run: How it was measured, and what speaks against it.
        graph: The same as a CUDA graph, or ``why`` there is none; None on a CPU.
        fingerprint: Stable description of machine and settings; ``key`` is its digest.
        environment: All else about the machine, of that moment.
        taken: In seconds since 1970.
    """

    schema_version: int = 1
    kind: Literal["operator", "network"]
    name: str
    arm: Annotated[dict[str, Any], Plain]
    subject: Annotated[dict[str, Any], Plain]
    situation: Annotated[dict[str, Any], Plain]
    outcome: Literal["measured", "out of memory"]
    costs: Annotated[dict[str, int | float | None], Plain]
    seconds: Annotated[dict[str, float | None], Plain]
    ratio: Annotated[dict[str, float | None], Plain]
    samples: list[SampleRow]
    reference: list[SampleRow]
    run: Annotated[dict[str, Any], Plain]
    graph: Annotated[dict[str, Any] | None, Plain]
    fingerprint: dict[str, str | int]
    key: str
    environment: Annotated[dict[str, Any], Plain]
    taken: Annotated[float, Field(allow_inf_nan=False)]

    def model_post_init(self, context: Any) -> None:
        if len(self.samples) != len(self.reference):
            raise ValueError(
                f"there are {len(self.samples)} samples and {len(self.reference)} of the reference;"
                " allowed: as many, since they come in pairs"
            )
        if (self.outcome == "measured") != bool(self.samples):
            raise ValueError(f"outcome {self.outcome!r} with {len(self.samples)} samples")
        if self.outcome == "measured":
            missing = [name for name in FIGURES if name not in self.seconds]
            if missing or not math.isfinite(self.ratio.get("estimate") or math.nan):
                raise ValueError(f"a measurement lacks {', '.join(missing) or 'its ratio'}")

    def to_line(self) -> bytes:
        """Canonical bytes, and a newline."""
        return canonical(self.plain()).encode() + b"\n"


def append(path: Path, measurements: Sequence[Measurement]) -> None:
    """Add measurements to a log, in one write, durably; a log that is not there is begun."""
    content = b"".join(measurement.to_line() for measurement in measurements)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # a line that was cut short stays alone
                content = b"\n" + content
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> list[Measurement]:
    """All measurements of a log, in their order.

    Raises:
        ValueError: A line is no measurement; the message names it.
        FileNotFoundError: There is no log.
    """
    found = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            found.append(Measurement.from_bytes(line))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
    return found


def arm_key(arm: dict[str, Any]) -> str:
    """Canonical text of what two arms must agree on to be one: the layer, and where it is."""
    return json.dumps({name: arm.get(name) for name in ("layer", "where")}, sort_keys=True)
