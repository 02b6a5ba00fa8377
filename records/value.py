"""What records, plans and claims have in common: frozen, closed, and wrong in one line."""

import json
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from records.canonical import canonical, plain

END_OF_TIME = 253_402_300_800.0  # the year 10,000, which no calendar here can print
Moment = Annotated[float, Field(ge=0, lt=END_OF_TIME)]  # in seconds since 1970


class Value(BaseModel):
    """A frozen value that allows no unknown field.

    Raises:
        ValueError: A field is missing, unknown or wrong; one line that names class and field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **fields: Any):
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise ValueError(f"{type(self).__name__}: {_complaint(error)}") from None


class VersionedValue(Value):
    """A value that is a file of its own: it carries the version of its schema."""

    schema_version: int

    def __init__(self, **fields: Any):
        known = type(self).model_fields["schema_version"].default
        version = fields.get("schema_version", known)
        # Before anything else: a newer schema may have fields that this one does not know.
        if isinstance(version, int) and version > known:
            raise ValueError(
                f"schema version {version} is newer than {known}, the newest that can be read here"
            )
        if version != known or isinstance(version, bool):
            raise ValueError(f"schema version {version!r} is unknown; allowed: {known}")
        super().__init__(**fields)

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """The value whose JSON is ``content``.

        Raises:
            ValueError: ``content`` is cut short, no JSON, of a newer schema, or lacks something.
        """
        return cls(**parse_object(content))

    def to_bytes(self) -> bytes:
        """Canonical bytes of all fields, and a newline."""
        return canonical(self.plain()).encode() + b"\n"

    def plain(self) -> dict[str, Any]:
        """All fields, as JSON will give them back."""
        return plain(self.model_dump())


def parse_object(content: bytes) -> dict[str, Any]:
    """The JSON object in ``content``.

    Raises:
        ValueError: ``content`` is cut short, no JSON, no object, or holds what is no text.
    """
    try:
        found = json.loads(content, parse_constant=_refuse)
    except ValueError as error:
        raise ValueError(f"cut short, or no JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"holds a {type(found).__name__}; allowed: a JSON object")
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair, which no page or table can hold
        raise ValueError(f"{error.object[error.start]!r} is no text; allowed: UTF-8") from None
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _complaint(error: ValidationError) -> str:
    parts = []
    for detail in error.errors(include_url=False, include_context=False):
        place = ".".join(str(part) for part in detail["loc"])
        message = detail["msg"].removeprefix("Value error, ")
        if detail["type"] not in ("missing", "extra_forbidden", "value_error"):
            message += f", got {str(detail['input'])[:60]}"
        parts.append(f"{place}: {message}" if place else message)
    return "; ".join(parts)
