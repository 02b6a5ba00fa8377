"""Strata that were shown to equal others, so that what was recorded in them can be compared.

A change of source that should not matter makes another stratum. Once trials trained anew have shown
that it does not, a record of the new stratum says what the old one would have said. So it is read
as a record of the old one, whether it was published before that was shown or after: a block that
was begun in the new stratum meanwhile goes on, and is compared as a whole. Files stay as they were.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field

from records.canonical import digest, plain
from records.record import Record
from records.value import Value, parse_object


class Accepted(Value):
    """The stratum that another one was shown to equal, and its description.

    Raises:
        ValueError: ``stratum`` is not the digest of ``environment``.
    """

    stratum: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
    environment: Annotated[dict[str, Any], BeforeValidator(plain)]

    def model_post_init(self, context: Any) -> None:
        if digest(self.environment) != self.stratum:
            raise ValueError(f"stratum {self.stratum} is not the hash of its environment")

    @classmethod
    def from_description(cls, content: bytes) -> Self | None:
        """What is said in the file of a stratum; None if it was shown to equal no other."""
        same = parse_object(content).get("same_as")
        if same is None:
            return None
        if not isinstance(same, dict):
            raise ValueError(f"same_as is {same!r:.60}; allowed: stratum and environment")
        return cls(**same)


def followed(said: dict[str, Accepted | None]) -> dict[str, Accepted]:
    """The last stratum in each chain: of those that equal one that equals another in turn."""
    ends = {}
    for stratum, accepted in said.items():
        passed = {stratum}
        while accepted is not None and accepted.stratum not in passed:
            ends[stratum] = accepted
            passed.add(accepted.stratum)
            accepted = said.get(accepted.stratum)
    return ends


def joined(records: Iterable[Record], accepted: dict[str, Accepted]) -> list[Record]:
    """Records of one trial, each stratum in place of those that equal it.

    Of two that were trained in such strata, the one that needs no replacing is kept.
    """
    found: dict[str, Record] = {}
    for record in records:
        same = accepted.get(record.stratum)
        if same is None:
            found[record.stratum] = record
        else:
            found.setdefault(same.stratum, record.model_copy(update=same.model_dump()))
    return [found[stratum] for stratum in sorted(found)]
