"""Identifiers: UUIDv7 (RFC 9562), which sort by the time they were made."""

import re
import uuid

import uuid_utils

from broker.errors import FieldViolation, InvalidArgument

_CANONICAL = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def new_id() -> str:
    """Return a new UUIDv7 in canonical text form."""
    return str(uuid_utils.uuid7())


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
