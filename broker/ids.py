"""Identifiers: UUIDv7 (RFC 9562), which sort by the time they were made."""

import re
import uuid
from datetime import timedelta

import uuid_utils

from broker.errors import FieldViolation, InvalidArgument

_CANONICAL = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def new_id() -> str:
    """Return a new UUIDv7 in canonical text form."""
    return str(uuid_utils.uuid7())


def first_id(within: timedelta) -> str:
    """Return the least identifier that can have been made within the last such span, by the clock that makes them."""
    made_now = uuid_utils.uuid7().int >> 80  # milliseconds since 1970
    milliseconds = max(made_now - within // timedelta(milliseconds=1), 0)
    text = f"{milliseconds:012x}"
    return f"{text[:8]}-{text[8:]}-7000-8000-000000000000"


def parse_id(text: str, field: str) -> str:
    """Return an identifier that a caller sent, in canonical text form.

    Raises:
        InvalidArgument: when it is no UUID in its 36-character form.
    """
    if _CANONICAL.fullmatch(text) is not None:
        return text
    try:
        value = str(uuid.UUID(text)) if len(text) == 36 else None
    except ValueError:
        value = None
    if value is None:
        raise InvalidArgument(violations=(FieldViolation(field, "must be a UUID of 36 characters"),))
    return value
