"""Checks of single fields. Violations are collected and raised together."""

import re
import unicodedata
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from google.protobuf.duration_pb2 import Duration

from broker.errors import FieldViolation, InvalidArgument
from broker.ids import parse_id

MAX_DURATION: Final = timedelta(days=3660)
SECOND: Final = timedelta(seconds=1)
MAX_PURPOSE: Final = 500
MAX_LABELS: Final = 32
MAX_LABEL_KEY: Final = 63
MAX_LABEL_VALUE: Final = 255

_SCOPE_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_AGENT_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]+")
_MAX_URI = 2048

# Control characters, lone surrogates, line and paragraph separators; and what
# reorders the text around it, by which a name can pass for another.
_UNSAFE_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def is_plain(text: str) -> bool:
    """Say whether text is free of control characters, surrogates and reordering."""
    if text.isprintable():
        return True
    return not any(unicodedata.category(char) in _UNSAFE_CATEGORIES or char in _BIDI_CONTROLS for char in text)


class Checks:
    """Checks the fields of one request.

    Each check returns the field's value in the broker's terms; for a wrong
    field it notes a violation and returns a stand-in, which nobody sees since
    `done` raises. Lengths count characters.
    """

    def __init__(self) -> None:
        self._violations: list[FieldViolation] = []

    def violate(self, field: str, description: str) -> None:
        """Note a violation: the field's path, and what was expected."""
        self._violations.append(FieldViolation(field, description))

    def done(self) -> None:
        """Finish the request's checks.

        Raises:
            InvalidArgument: with all violations, when there is any.
        """
        if self._violations:
            first = self._violations[0]
            raise InvalidArgument(
                "; ".join(f"{item.field}: {item.description}" for item in self._violations),
                message=f"the request is not valid: {first.field}: {first.description}",
                violations=tuple(self._violations),
            )

    def text(self, value: str, field: str, *, longest: int, shortest: int = 1) -> str:
        """Check free text on one line."""
        if not shortest <= len(value) <= longest or (shortest and not value.strip()):
            self.violate(field, f"must be {shortest} to {longest} characters")
        elif not is_plain(value):
            self.violate(field, "must not contain control characters")
        return value

    def labels(self, values: Mapping[str, str], field: str) -> dict[str, str]:
        """Check a task's labels."""
        if len(values) > MAX_LABELS:
            self.violate(field, f"must be at most {MAX_LABELS} labels")
            return {}
        for key, value in values.items():
            self.text(key, f"{field}.key", longest=MAX_LABEL_KEY)
            self.text(value, f"{field}.value", shortest=0, longest=MAX_LABEL_VALUE)
        return dict(values)

    def scope_name(self, value: str, field: str) -> str:
        """Check the name of a scope."""
        if _SCOPE_NAME.fullmatch(value) is None:
            self.violate(field, "must be 1 to 63 lower-case letters, digits and inner hyphens")
        return value

    def agent_uri(self, value: str, field: str) -> str:
        """Check the URI of one agent."""
        if len(value) > _MAX_URI or _AGENT_URI.fullmatch(value) is None:
            self.violate(field, f"must be a URI of at most {_MAX_URI} visible ASCII characters")
        return value

    def identifier(self, value: str, field: str) -> str:
        """Check an identifier and return it in canonical form."""
        try:
            return parse_id(value, field)
        except InvalidArgument as error:
            self._violations += error.violations
            return value

    def optional_identifier(self, value: str, field: str) -> str | None:
        """Check an identifier that may be left empty."""
        return self.identifier(value, field) if value else None

    def duration(
        self, value: Duration, field: str, *, shortest: timedelta = SECOND, longest: timedelta = MAX_DURATION
    ) -> timedelta:
        """Check a duration, which on the wire can be any pair of numbers."""
        if not 0 <= value.nanos <= 999_999_999:
            self.violate(field, "must have nanos between 0 and 999999999")
            return shortest
        in_range = shortest // SECOND <= value.seconds <= longest // SECOND
        found = timedelta(seconds=value.seconds, microseconds=value.nanos // 1000) if in_range else None
        if found is None or not shortest <= found <= longest:
            self.violate(field, f"must be {shortest // SECOND} to {longest // SECOND} seconds")
            return shortest
        return found
