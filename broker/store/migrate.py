"""Brings a database to the tables that this version of the broker needs.

Alembic is loaded to upgrade alone: a server only compares numbers, and would
pay for it with 11 MB.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import SQLAlchemyError

from broker.errors import StoreUnavailable
from broker.secret import Secret
from broker.store.engine import open_for_migration, parse_url
from broker.store.failures import translate

# Key of the advisory lock that one migration at a time holds on PostgreSQL.
LOCK: Final = 0x63726564_6D696772

_MIGRATIONS = Path(__file__).with_name("migrations")
_REVISION = text("SELECT version_num FROM alembic_version")
_STAND_IN_LINE = text(f"SELECT pg_advisory_xact_lock({LOCK})")


def upgrade(url: Secret[str]) -> None:
    """Bring the database to the newest migration, creating the file of an SQLite one.

    Safe to run in several processes at once: one migrates, the others wait and
    find nothing left to do.

    Raises:
        StoreUnavailable: when it cannot be reached, or is newer than this broker.
        ConfigError: when the URL is of no supported kind.
    """
    from alembic import command
    from alembic.config import Config

    with _exclusively(url) as connection:
        _refuse_newer(revision(connection))
        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def current_revision(url: Secret[str]) -> str | None:
    """Return the migration that a database is at; None for an empty one.

    Raises:
        StoreUnavailable: when it cannot be reached.
        ConfigError: when the URL is of no supported kind.
    """
    parsed = parse_url(url)
    if parsed.drivername == "sqlite" and not Path(str(parsed.database)).exists():
        return None
    with _exclusively(url) as connection:
        return revision(connection)


def pending(url: Secret[str]) -> bool:
    """Say whether `upgrade` has something to do.

    Raises:
        StoreUnavailable: when the database cannot be reached.
        ConfigError: when the URL is of no supported kind.
    """
    return current_revision(url) != head_revision()


def revision(conn: Connection) -> str | None:
    """Return the migration that the database of a connection is at; None for an empty one."""
    if not inspect(conn).has_table("alembic_version"):
        return None
    found = conn.execute(_REVISION).scalar_one_or_none()
    return None if found is None else str(found)


def head_revision() -> str:
    """Return the newest migration this broker knows."""
    return max(known_revisions())


def check(conn: Connection) -> None:
    """Check that a database is at the newest migration.

    Raises:
        StoreUnavailable: when it is not; says what to do.
    """
    found = revision(conn)
    _refuse_newer(found)
    if found != head_revision():
        text_ = "the database needs to be migrated: run `broker db upgrade`"
        raise StoreUnavailable(text_, message=text_)


@cache
def known_revisions() -> frozenset[str]:
    """Return all migrations this broker knows: a migration's file begins with its number."""
    return frozenset(file.name.partition("_")[0] for file in (_MIGRATIONS / "versions").glob("[0-9]*_*.py"))


def _refuse_newer(revision: str | None) -> None:
    if revision is not None and revision not in known_revisions():
        text_ = f"the database is at migration {revision}, which this broker does not know: run a newer broker"
        raise StoreUnavailable(text_, message=text_)


@contextmanager
def _exclusively(url: Secret[str]) -> Iterator[Connection]:
    """Open a transaction that no other migration runs beside."""
    engine = open_for_migration(parse_url(url))
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(_STAND_IN_LINE)
            yield connection
    except SQLAlchemyError as error:
        known = translate(error)
        if known is error:
            raise
        raise known from None
    finally:
        engine.dispose()
