r"""List filters: a subset of AIP-160.

::

    filter      = [ restriction *( "AND" restriction ) ]
    restriction = field operator value
    operator    = "=" | "!=" | "<" | "<=" | ">" | ">="
    value       = "quoted" | 'quoted' | bare

In quotes, a backslash takes the next character as it is. A bare value has
letters, digits and ``- _ . : / + @ % ~ # $ & *``, of which ``*`` stands for
itself. Text is compared exactly, times are RFC 3339, enumerations are named in
any case.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, NoReturn

from sqlalchemy import Column, ColumnElement

from broker.errors import FieldViolation, FilterInvalid, InvalidArgument
from broker.ids import parse_id
from broker.store.columns import UNSTORABLE

MAX_CHARACTERS: Final = 4096
MAX_RESTRICTIONS: Final = 20

_EQUALITY = ("=", "!=")
_ORDER = ("<", "<=", ">", ">=")
_MAX_NUMBER = 2**63 - 1
_SPACE = re.compile(r"[ \t\r\n]*")
_FIELD = re.compile(r"[a-z][a-z_]*")
_OPERATOR = re.compile(r"<=|>=|!=|=|<|>")
_BARE = re.compile(r"[A-Za-z0-9_.:/+@%~#$&*-]+")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"|\'((?:[^\'\\]|\\.)*)\'', re.DOTALL)
_AND = re.compile(r"AND(?![A-Za-z0-9_])")
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Field:
    """A field that a filter may compare.

    Attributes:
        column: Where its value is.
        read: Turns the value's text into what the column holds; raises
            ValueError with what was expected.
        ordered: Whether it can be compared with ``<`` and its kin.
    """

    column: Column[Any]
    read: Callable[[str], object]
    ordered: bool = False

    @property
    def operators(self) -> tuple[str, ...]:
        """The operators it can be compared with."""
        return _EQUALITY + _ORDER if self.ordered else _EQUALITY


@dataclass(frozen=True, slots=True, eq=False)
class Restriction:
    """One comparison that a filter asks for."""

    column: Column[Any]
    operator: str
    value: Any

    @property
    def condition(self) -> ColumnElement[bool]:
        """The comparison in SQL."""
        return _compare(self.column, self.operator, self.value)


def text(column: Column[str]) -> Field:
    """Return a field of text, compared exactly."""
    return Field(column, _read_text)


def identifier(column: Column[str]) -> Field:
    """Return a field of identifiers."""
    return Field(column, _read_identifier)


def number(column: Column[int]) -> Field:
    """Return a field of whole numbers."""
    return Field(column, _read_number, ordered=True)


def moment(column: Column[datetime]) -> Field:
    """Return a field of times."""
    return Field(column, _read_time, ordered=True)


def choice(column: Column[Any], members: type[StrEnum]) -> Field:
    """Return a field of an enumeration's members."""

    def read(value: str) -> StrEnum:
        for member in members:
            if member.name == value.upper():
                return member
        raise ValueError(f"must be one of {', '.join(member.name for member in members)}")

    return Field(column, read)


def parse(filter_text: str, fields: Mapping[str, Field]) -> tuple[Restriction, ...]:
    """Return the comparisons that a filter states.

    Args:
        filter_text: The filter; empty for none.
        fields: The fields that may be compared, by name.

    Raises:
        FilterInvalid: with the place and what is allowed there.
    """
    if len(filter_text) > MAX_CHARACTERS:
        _refuse(f"must be at most {MAX_CHARACTERS} characters")
    restrictions = tuple(_Reader(filter_text, fields).restrictions())
    if len(restrictions) > MAX_RESTRICTIONS:
        _refuse(f"must have at most {MAX_RESTRICTIONS} comparisons")
    return restrictions


class _Reader:
    """Reads one filter from left to right."""

    def __init__(self, filter_text: str, fields: Mapping[str, Field]) -> None:
        self._text = filter_text
        self._fields = fields
        self._at = 0

    def restrictions(self) -> Iterator[Restriction]:
        self._take(_SPACE)
        if self._at == len(self._text):
            return
        yield self._restriction()
        while self._at < len(self._text):
            if self._take(_AND) is None:
                self._fail("expected AND or the end")
            self._take(_SPACE)
            yield self._restriction()

    def _restriction(self) -> Restriction:
        field = self._field()
        operator = self._operator(field)
        value = self._value(field)
        return Restriction(field.column, operator, value)

    def _field(self) -> Field:
        if not self._fields:
            self._fail("this list takes no filter")
        start = self._at
        name = self._take(_FIELD)
        if name is None or name[0] not in self._fields:
            self._at = start
            self._fail(f"expected one of the fields {', '.join(self._fields)}")
        self._take(_SPACE)
        return self._fields[name[0]]

    def _operator(self, field: Field) -> str:
        start = self._at
        found = self._take(_OPERATOR)
        if found is None or found[0] not in field.operators:
            self._at = start
            self._fail(f"expected one of {' '.join(field.operators)}")
        self._take(_SPACE)
        return found[0]

    def _value(self, field: Field) -> object:
        start = self._at
        quoted = self._take(_QUOTED)
        bare = None if quoted is not None else self._take(_BARE)
        if quoted is not None:
            inner = quoted[1] if quoted[1] is not None else quoted[2]
            value = re.sub(r"\\(.)", r"\1", inner, flags=re.DOTALL)
        elif bare is not None:
            value = bare[0]
        else:
            self._fail("expected a value, in double quotes unless it is a single word")
        try:
            read = field.read(value)
        except ValueError as error:
            self._at = start
            self._fail(f"the value {error}")
        end = self._at
        self._take(_SPACE)
        if end == self._at < len(self._text):
            self._fail("expected a space or the end after the value")
        return read

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self._text, self._at)
        if found is not None:
            self._at = found.end()
        return found

    def _fail(self, expectation: str) -> NoReturn:
        _refuse(f"at character {self._at + 1}: {expectation}")


def _compare(column: Column[Any], operator: str, value: object) -> ColumnElement[bool]:
    match operator:
        case "=":
            return column == value
        case "!=":
            # Also true where there is no value at all.
            return column.is_distinct_from(value)
        case "<":
            return column < value
        case "<=":
            return column <= value
        case ">":
            return column > value
        case _:
            return column >= value


def _read_text(value: str) -> str:
    if UNSTORABLE.search(value) is not None:
        raise ValueError("must not hold NUL or a lone surrogate")
    return value


def _read_identifier(value: str) -> str:
    try:
        return parse_id(value, "filter")
    except InvalidArgument:
        raise ValueError("must be a UUID of 36 characters") from None


def _read_number(value: str) -> int:
    if re.fullmatch(r"[0-9]{1,19}", value) is None or int(value) > _MAX_NUMBER:
        raise ValueError("must be a whole number")
    return int(value)


def _read_time(value: str) -> datetime:
    try:
        if _TIME.fullmatch(value) is None:
            raise ValueError(value)
        in_microseconds = re.sub(r"\.(\d{6})\d+", r".\1", value.upper())
        return datetime.fromisoformat(in_microseconds).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError('must be a time such as "2026-01-31T12:00:00Z" (RFC 3339)') from None


def _refuse(description: str) -> NoReturn:
    raise FilterInvalid(
        description,
        message=f"the filter is not valid: {description}",
        violations=(FieldViolation("filter", description),),
    )
