"""One text for each value: what identities are hashed from, and what records are compared by."""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any


def canonical(value: Any) -> str:
    """JSON of ``value`` in its one canonical form.

    Keys sorted, no spaces, ASCII, floats as Python's ``repr`` writes them (``1`` and ``1.0``
    differ), tuples as lists. NaN and the infinities are ``null``: JSON has no such numbers.

    Raises:
        ValueError: ``value`` holds something that JSON has no form for, or a key that is no string.

    >>> canonical({"b": (1, 1.0), "a": float("nan")})
    '{"a":null,"b":[1,1.0]}'
    """
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any, length: int = 16) -> str:
    """The first ``length`` hexadecimal digits of the SHA-256 of ``canonical(value)``."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:length]


def plain(value: Any) -> Any:
    """``value`` as JSON will give it back: lists for tuples, None for numbers that are not finite.

    Raises:
        ValueError: As :func:`canonical`.
    """
    match value:
        case None | bool() | int():
            return value
        case str():
            return _text(value)
        case float():
            return float(value) if math.isfinite(value) else None
        case list() | tuple():
            return [plain(item) for item in value]
        case Mapping():
            for key in value:
                if not isinstance(key, str):
                    raise ValueError(f"{key!r} cannot be a key of a record; allowed: strings")
            return {_text(key): plain(item) for key, item in value.items()}
    raise ValueError(
        f"{value!r} cannot be recorded; allowed: None, bool, int, float, str, and lists and "
        "mappings of them"
    )


def _text(value: str) -> str:
    # Half of a surrogate pair is a string of Python and of JSON, but no table or page can hold it.
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{value!r:.60} is no text; allowed: what UTF-8 can say") from None
    return value
