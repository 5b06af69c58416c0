"""Inserting many rows with few statements.

SQLite's driver lets other threads run at every step of a statement, and waits
for their turn to end before it goes on; one statement for all rows is one
step. On PostgreSQL it is one round trip. The statement's text and the way from
values to what the driver takes are found once, which is most of what an
insertion costs otherwise.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Dialect, Table

from broker.store import statement

MOST_AT_ONCE: Final = 64
"""Rows of one statement."""

_EXACT: Final = 16

_Processor = Callable[[Any], Any]


class Insertion:
    """Inserts rows into one table.

    Args:
        table: The table.
        columns: Names of the columns that are given.
        unless_known: Columns of a unique key: a row whose key is there, or is
            being added by another transaction, is left out.
    """

    def __init__(self, table: Table, columns: Sequence[str], *, unless_known: Sequence[str] = ()) -> None:
        self._table = table
        self._columns = tuple(columns)
        self._unless_known = tuple(unless_known)
        self._processors: dict[str, tuple[tuple[int, _Processor], ...]] = {}
        self._texts: dict[tuple[str, int], str] = {}

    def __call__(self, conn: Connection, rows: Sequence[Sequence[object]]) -> int:
        """Insert rows, each with its values in the order of the columns; return how many were not left out.

        Raises:
            InvalidArgument: when a value cannot be stored.
        """
        given = self._given(conn.dialect, rows)
        inserted, at = 0, 0
        while at < len(given):
            count = _share(len(given) - at)
            values = tuple(value for row in given[at : at + count] for value in row)
            inserted += statement.run(conn, self._text(conn.dialect, count), values).rowcount
            at += count
        return inserted

    def _given(self, dialect: Dialect, rows: Sequence[Sequence[object]]) -> list[list[object]]:
        """Return rows as the driver takes them."""
        processors = self._processors.get(dialect.name)
        if processors is None:
            processors = self._processors[dialect.name] = tuple(
                (place, processor)
                for place, name in enumerate(self._columns)
                if (processor := self._table.c[name].type.dialect_impl(dialect).bind_processor(dialect)) is not None
            )
        given = [list(row) for row in rows]
        for row in given:
            for place, process in processors:
                row[place] = process(row[place])
        return given

    def _text(self, dialect: Dialect, count: int) -> str:
        key = (dialect.name, count)
        if key not in self._texts:
            mark = "?" if dialect.paramstyle == "qmark" else "%s"
            rows = ", ".join([f"({', '.join([mark] * len(self._columns))})"] * count)
            names = ", ".join(self._columns)
            text = f"INSERT INTO {self._table.name} ({names}) VALUES {rows}"  # noqa: S608 - names are the schema's
            if self._unless_known:
                text += f" ON CONFLICT ({', '.join(self._unless_known)}) DO NOTHING"
            self._texts[key] = text
        return self._texts[key]


def _share(left: int) -> int:
    """Return how many of these rows the next statement takes: few sizes, so that few texts are kept."""
    return left if left <= _EXACT else min(MOST_AT_ONCE, 1 << left.bit_length() - 1)
