"""Column types: how records' values are stored, alike on both databases.

What a database could not hold, or what only one of them would refuse, is
refused here before any SQL is sent.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Generic, TypeVar

from sqlalchemy import JSON, BigInteger, ColumnClause, Dialect, Text, TypeDecorator, Uuid, literal_column

from broker.errors import InvalidArgument

E = TypeVar("E", bound=StrEnum)

# A key of an index must fit into a third of a PostgreSQL page.
INDEXED_BYTES = 2048

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable(text: str) -> bool:
    """Say whether every database can hold a text."""
    return "\0" not in text if text.isascii() else UNSTORABLE.search(text) is None


class UtcTime(TypeDecorator[datetime]):
    """An aware datetime, stored as microseconds since 1970."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """Return microseconds since 1970."""
        return None if value is None else (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        """Return an aware datetime in UTC."""
        return None if value is None else _EPOCH + timedelta(microseconds=value)


class Millis(TypeDecorator[timedelta]):
    """A duration, stored in whole milliseconds."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: timedelta | None, dialect: Dialect) -> int | None:
        """Return milliseconds."""
        return None if value is None else value // timedelta(milliseconds=1)

    def process_result_value(self, value: int | None, dialect: Dialect) -> timedelta | None:
        """Return a duration."""
        return None if value is None else timedelta(milliseconds=value)


class Id(TypeDecorator[str]):
    """A UUID in canonical text form."""

    impl = Uuid(as_uuid=False)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Return the identifier.

        Raises:
            InvalidArgument: when it is no UUID in canonical form.
        """
        if value is not None and _ID.fullmatch(value) is None:
            raise InvalidArgument("an identifier is no UUID in canonical form")
        return value


class PlainText(TypeDecorator[str]):
    """Text that every database can hold.

    Args:
        max_bytes: The longest value, in UTF-8; None for no limit.
    """

    impl = Text
    cache_ok = True

    def __init__(self, max_bytes: int | None = None) -> None:
        super().__init__()
        self.max_bytes = max_bytes

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Return the text.

        Raises:
            InvalidArgument: when it holds NUL or a lone surrogate, or is too long.
        """
        if value is None:
            return None
        if not storable(value):
            raise InvalidArgument("a text holds a NUL character or a lone surrogate")
        if self.max_bytes is not None and len(value.encode()) > self.max_bytes:
            raise InvalidArgument(f"a text is longer than {self.max_bytes} bytes")
        return value


class Choice(TypeDecorator[E], Generic[E]):
    """A member of an enumeration, stored as its value."""

    impl = Text
    cache_ok = True

    def __init__(self, members: type[E]) -> None:
        super().__init__()
        self.members = members

    def process_bind_param(self, value: E | None, dialect: Dialect) -> str | None:
        """Return the member's value."""
        return None if value is None else (value if type(value) is self.members else self.members(value)).value

    def process_result_value(self, value: str | None, dialect: Dialect) -> E | None:
        """Return the member."""
        return None if value is None else self.members(value)


class Names(TypeDecorator[tuple[str, ...]]):
    """A sequence of names, stored as a JSON array."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: Sequence[str] | None, dialect: Dialect) -> list[str] | None:
        """Return a list."""
        return None if value is None else list(value)

    def process_result_value(self, value: list[str] | None, dialect: Dialect) -> tuple[str, ...] | None:
        """Return a tuple."""
        return None if value is None else tuple(value)


def constant(member: E) -> ColumnClause[E]:
    """Return a member of an enumeration as part of a statement's text.

    A planner then recognises the partial index that was made for it.
    """
    return literal_column(f"'{member.value}'", Choice(type(member)))
