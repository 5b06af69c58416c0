"""Identifiers: UUIDv7 (RFC 9562), which sort by the time they were made."""

import uuid

import uuid_utils

from broker.errors import FieldViolation, InvalidArgument


def new_id() -> str:
    """Return a new UUIDv7 in canonical text form."""
    return str(uuid_utils.uuid7())


def parse_id(text: str, field: str) -> str:
    """Return an identifier that a caller sent, in canonical text form.

    Raises:
        InvalidArgument: when it is no UUID in its 36-character form.
    """
    try:
        value = str(uuid.UUID(text)) if len(text) == 36 else None
    except ValueError:
        value = None
    if value is None:
        raise InvalidArgument(violations=(FieldViolation(field, "must be a UUID of 36 characters"),))
    return value
