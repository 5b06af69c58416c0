"""Statements that are compiled once, and given to the driver as they are.

SQLAlchemy finds out anew at each execution what a statement is, and wraps the
driver's cursor and rows in several objects of its own: four times the work that
the database has with a row in its cache. Here the text, and the way of values
to the driver and back, are kept by dialect. Errors are SQLAlchemy's own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import Connection, Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql import visitors
from sqlalchemy.sql.elements import BindParameter, ClauseElement
from sqlalchemy.sql.selectable import ReturnsRows

_Processor = Callable[[Any], Any]
Row = Sequence[Any]


class Cursor(Protocol):
    """What a driver answers with; both have it."""

    @property
    def rowcount(self) -> int:
        """How many rows were changed."""
        ...

    def fetchall(self) -> list[Row]:
        """Return all rows."""
        ...


def run(conn: Connection, text: str, values: Sequence[object] | Mapping[str, object]) -> Cursor:
    """Give a statement to the driver.

    Args:
        conn: The transaction.
        text: In the driver's own style.
        values: As the driver takes them.

    Raises:
        DBAPIError: as SQLAlchemy raises them.
    """
    driver: Any = conn.connection.dbapi_connection
    try:
        cursor: Cursor = driver.execute(text, values)
    except conn.dialect.loaded_dbapi.Error as error:
        raise _wrapped(conn, text, error) from error
    return cursor


def fetch(conn: Connection, text: str, values: Sequence[object] | Mapping[str, object]) -> list[Row]:
    """Give a statement to the driver, and return its rows; as `run`, where the driver may fail at any row."""
    cursor = run(conn, text, values)
    try:
        return cursor.fetchall()
    except conn.dialect.loaded_dbapi.Error as error:
        raise _wrapped(conn, text, error) from error


def _wrapped(conn: Connection, text: str, error: Any) -> BaseException:
    dialect = conn.dialect
    lost = dialect.is_disconnect(error, conn.connection, None)
    if lost:
        conn.invalidate(error)
    wrapped: BaseException = DBAPIError.instance(
        text,
        None,
        error,
        dialect.loaded_dbapi.Error,
        hide_parameters=True,
        connection_invalidated=lost,
        dialect=dialect,
    )
    return wrapped


@dataclass(frozen=True, slots=True)
class _Place:
    """Where one value that the driver is given comes from.

    Attributes:
        name: Of the parameter; None for a value that is the statement's own.
        item: Position in the parameter's list, or None.
        part: Position in an item of that list, or None.
        process: Makes the value fit for the driver.
        constant: The statement's own value, as the driver takes it.
    """

    name: str | None
    item: int | None = None
    part: int | None = None
    process: _Processor | None = None
    constant: object = None

    def value(self, values: Mapping[str, Any]) -> object:
        """Return what the driver is given."""
        if self.name is None:
            return self.constant
        value = values[self.name]
        if self.item is not None:
            value = value[self.item]
            if self.part is not None:
                value = value[self.part]
        return value if self.process is None else self.process(value)


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A statement for one dialect, and for lists of certain lengths.

    Attributes:
        text: What the driver is given.
        places: Where its values come from.
        names: What the driver knows them by; None where their order tells.
        results: Of each column whose values are not the driver's, its position and what makes them so.
    """

    text: str
    places: tuple[_Place, ...]
    names: tuple[str, ...] | None
    results: tuple[tuple[int, _Processor], ...]

    def values(self, given: Mapping[str, Any]) -> Sequence[object] | Mapping[str, object]:
        """Return the values as the driver takes them."""
        values = [place.value(given) for place in self.places]
        return values if self.names is None else dict(zip(self.names, values, strict=True))

    def row(self, row: Row) -> Row:
        """Return a row with values as records have them."""
        if not self.results:
            return row
        values = list(row)
        for place, process in self.results:
            values[place] = process(values[place])
        return values


class Statement:
    """A statement with named parameters.

    Args:
        statement: What SQLAlchemy would execute. A parameter that expands is
            given a list, of values or of tuples; its last item may be named
            more than once to the database.

    Attributes:
        source: That statement.
    """

    def __init__(self, statement: ClauseElement) -> None:
        self.source = statement
        self._lists = frozenset(
            bind.key for bind in visitors.iterate(statement) if isinstance(bind, BindParameter) and bind.expanding
        )
        self._compiled: dict[tuple[object, ...], _Compiled] = {}

    def rows(self, conn: Connection, values: Mapping[str, Any]) -> list[Row]:
        """Execute it and return the rows.

        Raises:
            InvalidArgument: when a value cannot be stored.
            DBAPIError: as SQLAlchemy raises them.
        """
        compiled, given = self._for(conn.dialect, values)
        rows = fetch(conn, compiled.text, given)
        return [compiled.row(row) for row in rows]

    def firsts(self, conn: Connection, values: Mapping[str, Any]) -> list[Any]:
        """Execute it and return the first value of each row; raises as `rows`."""
        return [row[0] for row in self.rows(conn, values)]

    def run(self, conn: Connection, values: Mapping[str, Any]) -> int:
        """Execute it and return how many rows it changed; raises as `rows`."""
        compiled, given = self._for(conn.dialect, values)
        return run(conn, compiled.text, given).rowcount

    def _for(
        self, dialect: Dialect, values: Mapping[str, Any]
    ) -> tuple[_Compiled, Sequence[object] | Mapping[str, object]]:
        given = dict(values)
        key: tuple[object, ...] = (dialect.name,)
        for name in self._lists:
            padded = given[name] = _padded(given[name])
            key = (*key, len(padded))
        compiled = self._compiled.get(key)
        if compiled is None:
            compiled = self._compiled[key] = _compile(self.source, dialect, given)
        return compiled, compiled.values(given)


def _padded(values: list[Any]) -> list[Any]:
    """Return a list of one of few lengths, so that few texts are kept: its last value is repeated."""
    missing = (1 << (len(values) - 1).bit_length()) - len(values) if values else 0
    return values + values[-1:] * missing


def _compile(statement: ClauseElement, dialect: Dialect, values: Mapping[str, Any]) -> _Compiled:
    compiled: Any = statement.compile(dialect=dialect)
    expanded = compiled.construct_expanded_state(values)
    of_lists = {
        name: (parameter, place)
        for parameter, names in expanded.parameter_expansion.items()
        for place, name in enumerate(names)
    }

    def place(name: str) -> _Place:
        if name in of_lists:
            parameter, number = of_lists[name]
            first = values[parameter][0]
            width = len(first) if isinstance(first, tuple) else None
            item, part = (number, None) if width is None else divmod(number, width)
            return _Place(parameter, item, part, expanded.processors.get(name))
        process = compiled.binds[name].type.dialect_impl(dialect).bind_processor(dialect)
        if name in values:
            return _Place(name, process=process)
        own = expanded.parameters[name]
        return _Place(None, constant=own if process is None else process(own))

    positions = expanded.positiontup
    names = tuple(expanded.parameters if positions is None else positions)
    columns = statement.exported_columns if isinstance(statement, ReturnsRows) else ()
    results = tuple(
        (number, process)
        for number, column in enumerate(columns)
        if (process := column.type.dialect_impl(dialect).result_processor(dialect, None)) is not None
    )
    return _Compiled(expanded.statement, tuple(map(place, names)), names if positions is None else None, results)
