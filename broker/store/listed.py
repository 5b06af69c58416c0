"""Statements about any number of rows, whose text is kept.

At each execution SQLAlchemy looks a statement up, writes its lists into its
text and describes its result. That takes several times as long as what SQLite
does with it, and is the same each time for lists of the same length.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, CursorResult, Dialect, Select, Update
from sqlalchemy.sql.compiler import SQLCompiler

_Processor = Callable[[Any], Any]

_CONSTANTS: Final = ""


class _Place(NamedTuple):
    """Where a parameter comes from, and the way from there to what the driver takes."""

    source: str
    number: int
    process: _Processor | None


class _Text(NamedTuple):
    """A statement for lists of certain lengths."""

    sql: str
    names: tuple[str, ...]
    places: tuple[_Place, ...]
    positional: bool
    constants: list[Any]
    results: tuple[tuple[int, _Processor], ...]


class Listed:
    """A statement with lists among its values.

    Args:
        statement: The statement. What is listed is an expanding parameter, and
            may be named twice in a list.
    """

    def __init__(self, statement: Select[Any] | Update) -> None:
        self._statement = statement
        self._texts: dict[tuple[str, tuple[tuple[str, int], ...]], _Text] = {}

    def rows(self, conn: Connection, values: Mapping[str, object]) -> list[Sequence[Any]]:
        """Run it and return the rows that it returns."""
        text, result = self._run(conn, values)
        rows: list[Sequence[Any]] = []
        for row in result:
            converted = list(row)
            for place, process in text.results:
                converted[place] = process(converted[place])
            rows.append(converted)
        return rows

    def firsts(self, conn: Connection, values: Mapping[str, object]) -> list[Any]:
        """Run it and return the first value of each row."""
        return [row[0] for row in self.rows(conn, values)]

    def run(self, conn: Connection, values: Mapping[str, object]) -> None:
        """Run it."""
        self._run(conn, values)

    def _run(self, conn: Connection, values: Mapping[str, object]) -> tuple[_Text, CursorResult[Any]]:
        given = {name: _padded(value) if isinstance(value, list) else value for name, value in values.items()}
        lengths = tuple((name, len(value)) for name, value in given.items() if isinstance(value, list))
        text = self._texts.get((conn.dialect.name, lengths))
        if text is None:
            text = self._texts[conn.dialect.name, lengths] = _compiled(self._statement, conn.dialect, given)
        sources = {name: _flat(value) for name, value in given.items()}
        sources[_CONSTANTS] = text.constants
        parameters = tuple(
            sources[source][number] if process is None else process(sources[source][number])
            for source, number, process in text.places
        )
        return text, conn.exec_driver_sql(
            text.sql, parameters if text.positional else dict(zip(text.names, parameters, strict=True))
        )


def _padded(values: list[Any]) -> list[Any]:
    """Return a list of one of few lengths, so that few texts are kept: its last value is repeated."""
    missing = (1 << (len(values) - 1).bit_length()) - len(values) if values else 0
    return values + values[-1:] * missing


def _flat(value: object) -> list[Any]:
    if not isinstance(value, list):
        return [value]
    return [part for item in value for part in item] if value and isinstance(value[0], tuple) else value


def _compiled(statement: Select[Any] | Update, dialect: Dialect, values: Mapping[str, object]) -> _Text:
    compiled = statement.compile(dialect=dialect)
    if not isinstance(compiled, SQLCompiler):
        raise TypeError("the statement has no parameters")
    state = compiled.construct_expanded_state(dict(values))
    known = {
        expanded: (name, number)
        for name in values
        for number, expanded in enumerate(state.parameter_expansion.get(name, [name]))
    }
    names = tuple(state.positiontup if state.positiontup is not None else state.parameters)
    constants: list[Any] = []
    places: list[_Place] = []
    for name in names:
        process: Any = state.processors.get(name)
        if name in compiled.binds:
            process = compiled.binds[name].type.dialect_impl(dialect).bind_processor(dialect)
        if name not in known:
            constants.append(state.parameters[name])
        source, number = known.get(name, (_CONSTANTS, len(constants) - 1))
        places.append(_Place(source, number, process))
    results = tuple(
        (place, process)
        for place, column in enumerate(statement.exported_columns)
        if (process := column.type.dialect_impl(dialect).result_processor(dialect, None)) is not None
    )
    return _Text(state.statement, names, tuple(places), state.positiontup is not None, constants, results)
