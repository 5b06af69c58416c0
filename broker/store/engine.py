"""Connections to the database: how they are opened, and what bounds them.

One engine writes and one reads, so that each has the transactions it needs:
writes exclude one another on SQLite from their first statement on, and are
READ COMMITTED on PostgreSQL, where rows are locked by name; reads see one
state of the whole database.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

from broker.errors import ConfigError, StoreUnavailable
from broker.secret import Secret
from broker.store import statement

if TYPE_CHECKING:
    import sqlite3

READERS: Final = 4
BUSY_SECONDS: Final = 5
CONNECT_SECONDS: Final = 5

_ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"))
_POOL_SECONDS = 10
_SQLITE_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    # Without it, REPLACE would delete rows without asking the triggers.
    "PRAGMA recursive_triggers = ON",
    "PRAGMA trusted_schema = OFF",
    # What it takes to undo one statement alone is kept meanwhile; in a file that took more calls than the WAL.
    "PRAGMA temp_store = MEMORY",
    # 16 MiB. Pages that every transaction changes are copied back less often than with the 1000 that are the default.
    "PRAGMA wal_autocheckpoint = 4000",
)
# Bounds every wait: for a statement, for a lock, and, should this process be
# paused in a transaction, of the others for its locks.
_POSTGRES_SESSION = {
    "statement_timeout": "10s",
    "lock_timeout": "3s",
    "idle_in_transaction_session_timeout": "10s",
    "timezone": "UTC",
}
_POSTGRES_CONNECT = {
    "connect_timeout": CONNECT_SECONDS,
    "application_name": "credbroker",
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}


@dataclass(frozen=True, slots=True)
class Engines:
    """The two ways to the database."""

    writer: Engine
    reader: Engine

    def dispose(self) -> None:
        """Close all connections."""
        self.writer.dispose()
        self.reader.dispose()


def parse_url(url: Secret[str]) -> URL:
    """Return the database's URL.

    Raises:
        ConfigError: when it is none of the two kinds; the URL is not repeated.
    """
    try:
        parsed = make_url(url.reveal())
    except (ArgumentError, ValueError):
        parsed = None
    in_file = parsed is not None and parsed.database not in (None, "", ":memory:")
    if parsed is None or not in_file or parsed.drivername not in ("sqlite", "postgresql+psycopg"):
        raise ConfigError("database.url: must be sqlite:///file or postgresql+psycopg://user:password@host/database")
    return parsed


def open_engines(url: URL) -> Engines:
    """Return engines for a running broker. Nothing is connected yet."""
    if url.drivername == "sqlite":
        return Engines(
            writer=_sqlite(url, begin="BEGIN IMMEDIATE", pool_size=1),
            reader=_sqlite(url, begin="BEGIN", pool_size=READERS),
        )
    return Engines(
        writer=_postgres(url, isolation_level="READ COMMITTED", pool_size=1),
        reader=_postgres(url, isolation_level="REPEATABLE READ", pool_size=READERS).execution_options(
            postgresql_readonly=True
        ),
    )


def open_for_migration(url: URL) -> Engine:
    """Return an engine whose transactions exclude all others on SQLite, where it creates the file.

    Raises:
        StoreUnavailable: when the file cannot be created.
    """
    if url.drivername != "sqlite":
        return create_engine(url, hide_parameters=True, pool_size=1, connect_args=dict(_POSTGRES_CONNECT))
    path = Path(str(url.database))
    try:
        path.touch(mode=0o600, exist_ok=True)
    except OSError as error:
        raise StoreUnavailable(f"{path}: {error.strerror}") from None
    return _sqlite(url, begin="BEGIN EXCLUSIVE", pool_size=1)


def transaction_holds(conn: Connection) -> bool:
    """Say whether the transaction can still be committed.

    Both databases can drop a transaction on their own and still answer COMMIT
    with success.
    """
    raw: object = conn.connection.dbapi_connection
    # Each where it is needed: psycopg takes 9 MB, sqlite3 takes 2.
    if conn.dialect.name == "sqlite":
        import sqlite3

        return isinstance(raw, sqlite3.Connection) and raw.in_transaction
    import psycopg
    from psycopg.pq import TransactionStatus

    if isinstance(raw, psycopg.Connection):
        return raw.info.transaction_status in (TransactionStatus.IDLE, TransactionStatus.INTRANS)
    return False


def _sqlite(url: URL, *, begin: str, pool_size: int) -> Engine:
    engine = create_engine(
        "sqlite://",
        creator=partial(_connect_sqlite, Path(str(url.database)), read_only=begin == "BEGIN"),
        poolclass=QueuePool,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=_POOL_SECONDS,
        hide_parameters=True,
        json_serializer=to_json,
    )
    event.listen(engine, "begin", _beginning_with(begin))
    return engine


def _connect_sqlite(path: Path, *, read_only: bool) -> "sqlite3.Connection":
    import sqlite3

    # mode=rw: a file that is not there is an error, not a new database.
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode=rw",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        for pragma in _SQLITE_PRAGMAS:
            connection.execute(pragma)
        if read_only:
            connection.execute("PRAGMA query_only = ON")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _beginning_with(text: str) -> Callable[[Connection], None]:
    def begin(conn: Connection) -> None:
        statement.run(conn, text, ())

    return begin


def _postgres(url: URL, *, isolation_level: str, pool_size: int) -> Engine:
    session = " ".join(f"-c {name}={value}" for name, value in _POSTGRES_SESSION.items())
    given = url.query.get("options", ())
    options = " ".join((session, *((given,) if isinstance(given, str) else given)))
    arguments: dict[str, Any] = {**_POSTGRES_CONNECT, "options": options}
    return create_engine(
        url.difference_update_query(["options"]),
        connect_args=arguments,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=_POOL_SECONDS,
        isolation_level=isolation_level,
        use_native_hstore=False,
        hide_parameters=True,
        json_serializer=to_json,
    )


def to_json(value: object) -> str:
    """Return JSON as RFC 8259 has it.

    Raises:
        ValueError: for NaN and infinities, which JSON cannot say.
    """
    return _ENCODER.encode(value)
