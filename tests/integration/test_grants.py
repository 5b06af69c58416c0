"""What deploy/sql/grants.sql leaves to the serving broker: enough, and no more."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import NullPool, Update, create_engine

import broker.store
from broker.dev.postgres import Postgres
from broker.ids import new_id
from broker.model import AuditEvent, Outcome
from broker.secret import Secret
from broker.store import Store, events, migrate, schema
from broker.store.statement import Statement

GRANTS = Path(__file__).resolve().parents[2] / "deploy" / "sql" / "grants.sql"
ROLE = "credbroker_runtime"
# The server listens on loopback for the tests alone.
PASSWORD = "only-for-tests"
DELETABLE = ("proofs", "replicas")


@pytest.fixture(scope="session")
def database(postgres: Postgres) -> str:
    name = "grants"
    postgres.create_database(name)
    with psycopg.connect(postgres.dsn(name), autocommit=True) as owner:
        owner.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'")
        migrate.upgrade(postgres.sqlalchemy_url(name))
        for _ in range(2):
            owner.execute(GRANTS.read_text())
    with create_engine(postgres.sqlalchemy_url(name).reveal(), poolclass=NullPool).begin() as conn:
        events.append(conn, [event()])
    return name


def event() -> AuditEvent:
    return AuditEvent(new_id(), datetime.now(UTC), "task.started", Outcome.SUCCESS, "agent")


@pytest.fixture
def runtime(postgres: Postgres, database: str) -> Iterator[psycopg.Connection]:
    dsn = f"postgresql://{ROLE}:{PASSWORD}@{postgres.host}:{postgres.port}/{database}"
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


async def test_the_store_works_with_them(postgres: Postgres, database: str) -> None:
    store = Store(Secret(f"postgresql+psycopg://{ROLE}:{PASSWORD}@{postgres.host}:{postgres.port}/{database}"))
    await store.start()
    try:
        await store.check()
        await store.write(lambda conn: events.append(conn, [event()]))
    finally:
        await store.close()


def updates() -> Iterator[tuple[str, str]]:
    """Yield table and column of everything that the store's statements change."""
    dialect = create_engine("postgresql+psycopg://").dialect
    for module in pkgutil.iter_modules(broker.store.__path__, "broker.store."):
        for found in vars(importlib.import_module(module.name)).values():
            value = found.source if isinstance(found, Statement) else found
            if isinstance(value, Update):
                sql = str(value.compile(dialect=dialect))
                table, changes = re.findall(r"\bUPDATE (\w+) SET (.*?)(?: WHERE | RETURNING |$)", sql, re.DOTALL)[0]
                yield from ((table, column) for column in re.findall(r"(\w+)=", changes))


def test_every_column_that_the_store_changes_may_be_changed(runtime: psycopg.Connection) -> None:
    query = """
        SELECT table_name, column_name FROM information_schema.column_privileges
        WHERE table_schema = 'public' AND privilege_type = 'UPDATE'
    """
    granted = set(runtime.execute(query).fetchall())
    assert set(updates()) == granted


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET detail = ''",
        "TRUNCATE events",
        "ALTER TABLE events DISABLE TRIGGER ALL",
        "DROP TRIGGER events_no_change ON events",
        "CREATE TABLE other (id integer)",
        "UPDATE alembic_version SET version_num = 'x'",
        "SET session_replication_role = replica",
        *(f"DELETE FROM {table.name}" for table in schema.metadata.sorted_tables if table.name not in DELETABLE),
        "UPDATE issuances SET agent = 'somebody'",
        "UPDATE scopes SET document = ''",
        "UPDATE tasks SET deadline = 0",
    ],
)
def test_nothing_else_may_be_done(runtime: psycopg.Connection, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        runtime.execute(statement)


def test_events_cannot_be_changed_by_the_owner_either(postgres: Postgres, database: str) -> None:
    with psycopg.connect(postgres.dsn(database), autocommit=True) as owner:
        for statement in ("UPDATE events SET detail = ''", "DELETE FROM events", "TRUNCATE events"):
            with pytest.raises(psycopg.errors.RestrictViolation):
                owner.execute(statement)
