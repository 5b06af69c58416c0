"""Rows to records and back: a record's fields are columns of its table, by name."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from operator import attrgetter
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from sqlalchemy import ColumnElement, Connection, Executable, Insert, Select, Table, insert, select
from sqlalchemy.dialects import postgresql, sqlite


class Record(Protocol):
    """A dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


R = TypeVar("R", bound=Record)


class Rows(Generic[R]):
    """The rows of one table as records.

    Args:
        table: The table; it may have columns beyond the record's fields.
        record: The dataclass.
    """

    def __init__(self, table: Table, record: type[R]) -> None:
        self._record = record
        self.names = tuple(field.name for field in fields(record))
        self.columns: tuple[ColumnElement[Any], ...] = tuple(table.c[name] for name in self.names)
        self._read: Callable[[R], tuple[object, ...]] = attrgetter(*self.names)
        self.insert: Insert = insert(table)

    def select(self, *where: ColumnElement[bool]) -> Select[Any]:
        """Return a statement for the records that satisfy all conditions."""
        return select(*self.columns).where(*where)

    def values(self, record: R) -> dict[str, object]:
        """Return a record's values by column."""
        return dict(zip(self.names, self._read(record), strict=True))

    def row(self, record: R) -> tuple[object, ...]:
        """Return a record's values in the order of the columns."""
        return self._read(record)

    def one(self, conn: Connection, statement: Executable, values: Mapping[str, object]) -> R | None:
        """Return the first record of a statement."""
        row = conn.execute(statement, values).first()
        return None if row is None else self._record(*row)

    def all(self, conn: Connection, statement: Executable, values: Mapping[str, object]) -> list[R]:
        """Return all records of a statement."""
        return self.records(conn.execute(statement, values))

    def records(self, rows: Iterable[Iterable[Any]]) -> list[R]:
        """Return rows as records."""
        return [self._record(*row) for row in rows]


class InsertUnlessKnown:
    """Inserts a row unless one with the same key is there, or is being added by another transaction.

    Args:
        table: The table.
        key: The columns of a unique key.
    """

    def __init__(self, table: Table, *key: str) -> None:
        returned = table.c[key[0]]
        self._statements = {
            "sqlite": sqlite.insert(table).on_conflict_do_nothing(index_elements=key).returning(returned),
            "postgresql": postgresql.insert(table).on_conflict_do_nothing(index_elements=key).returning(returned),
        }

    def __call__(self, conn: Connection, values: Mapping[str, object]) -> bool:
        """Insert the row; False when its key is known."""
        return conn.execute(self._statements[conn.dialect.name], values).first() is not None
