"""The record of one trial: what was run, what came out, and where."""

import base64
import binascii
import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from records.canonical import canonical, digest, plain
from records.value import END_OF_TIME, VersionedValue

__all__ = ["Record", "canonical", "digest", "pack_bits", "unpack_bits"]

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]  # they name folders
# What JSON cannot hold never enters, so a record equals the one that is read back from its bytes.
Plain = BeforeValidator(plain)


class Record(VersionedValue):
    """One trial, finished or diverged.

    Args:
        schema_version: Of this class.
        trial: Identity of what was run: the digest of ``configuration``.
        stratum: Identity of where it was run: the digest of the environment that decides bits.
        configuration: ``arm``, ``network``, ``data``, ``recipe`` and ``block``, resolved.
        outcome: ``"diverged"`` if the loss became infinite or no number.
        metrics: Final figures by name; accuracies are fractions. None: there is none.
        curves: One value an epoch, by name. NaN is None.
        costs: Parameters, MACs and FLOPs by name.
        correct: One bit a test example (:func:`pack_bits`); None if it was not tested.
        environment: Description of the stratum.
        times: All that may differ between two runs of the same trial in the same stratum. Has
            ``finished``, and may have ``started``, in seconds since 1970.
    """

    schema_version: int = 1
    trial: Name
    stratum: Name
    configuration: Annotated[dict[str, Any], Plain]
    outcome: Literal["finished", "diverged"]
    metrics: Annotated[dict[str, float | None], Plain]
    curves: Annotated[dict[str, list[float | None]], Plain]
    costs: Annotated[dict[str, int | float], Plain]
    correct: str | None
    environment: Annotated[dict[str, Any], Plain]
    times: Annotated[dict[str, Any], Plain]

    def model_post_init(self, context: Any) -> None:
        for name, default in (("finished", None), ("started", 0)):
            moment: Any = self.times.get(name, default)
            is_number = isinstance(moment, int | float) and not isinstance(moment, bool)
            if not (is_number and 0 <= moment < END_OF_TIME):
                raise ValueError(f"times.{name} is {moment!r:.60}; allowed: seconds since 1970")
        block = self.configuration.get("block")
        if isinstance(block, bool) or not isinstance(block, int) or not 0 <= block < 2**63:
            raise ValueError(
                f"configuration.block is {block!r:.60}; allowed: whole numbers from 0, below 2**63"
            )

    @property
    def cell(self) -> str:
        """Identity of the arm under its setting, in any block."""
        return cell_id(self.configuration)

    def compared(self) -> bytes:
        """Canonical bytes of all that two runs in one stratum must agree on: not of ``times``."""
        fields = self.plain()
        del fields["times"]
        return canonical(fields).encode()


def cell_id(configuration: dict[str, Any]) -> str:
    """Digest of ``configuration`` without its block."""
    return digest({key: value for key, value in configuration.items() if key != "block"})


def pack_bits(bits: Sequence[bool]) -> str:
    """``bits`` in base64, eight to a byte, the first in the highest place; zeros fill the last.

    >>> pack_bits([True, False, False, False, False, False, False, True, True])
    'gYA='
    """
    packed = bytearray((len(bits) + 7) // 8)
    for index, bit in enumerate(bits):
        if bit:
            packed[index // 8] |= 0x80 >> index % 8
    return base64.b64encode(packed).decode()


def unpack_bits(text: str, n: int) -> list[bool]:
    """The ``n`` bits that :func:`pack_bits` made ``text`` from.

    Raises:
        ValueError: ``text`` is no base64, or does not hold ``n`` bits and zeros behind them.

    >>> unpack_bits("gYA=", 9)
    [True, False, False, False, False, False, False, True, True]
    """
    try:
        packed = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"bits are no base64: {error}") from None
    if len(packed) != math.ceil(n / 8):
        raise ValueError(f"{len(packed)} bytes of bits; allowed for {n} bits: {math.ceil(n / 8)}")
    bits = [bool(packed[index // 8] & 0x80 >> index % 8) for index in range(8 * len(packed))]
    if any(bits[n:]):
        raise ValueError(f"bits are set behind the last of {n}")
    return bits[:n]
