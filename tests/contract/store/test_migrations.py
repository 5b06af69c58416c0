"""Migrations: they make exactly the tables of the schema, once, as a whole."""

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text

from broker.dev.postgres import Postgres
from broker.errors import StoreUnavailable
from broker.secret import Secret
from broker.store import Store, migrate, policy
from broker.store.schema import metadata
from tests.fixtures.store import running

UPGRADE = """
import os
from broker.secret import Secret
from broker.store import migrate
input()
migrate.upgrade(Secret(os.environ["URL"]))
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Secret[str]:
    """The URL of a database without anything in it."""
    if request.param == "sqlite":
        return Secret(f"sqlite:///{tmp_path / 'empty.db'}")
    postgres: Postgres = request.getfixturevalue("postgres")
    name = f"empty_{uuid4().hex}"
    postgres.create_database(name)
    return postgres.sqlalchemy_url(name)


@contextmanager
def connected(url: Secret[str]) -> Iterator[Connection]:
    engine = create_engine(url.reveal())
    try:
        with engine.begin() as conn:
            yield conn
    finally:
        engine.dispose()


def shape(conn: Connection) -> list[tuple[object, ...]]:
    """Return everything that the database knows of its tables and indices."""
    if conn.dialect.name == "sqlite":
        query = "SELECT type, name, sql FROM sqlite_schema WHERE type != 'trigger' AND tbl_name != 'alembic_version'"
    else:
        query = """
            SELECT 'column', table_name, column_name, data_type, is_nullable, column_default, ordinal_position
            FROM information_schema.columns WHERE table_schema = 'public' AND table_name != 'alembic_version'
            UNION ALL
            SELECT 'index', tablename, indexname, indexdef, NULL, NULL, NULL
            FROM pg_indexes WHERE schemaname = 'public' AND tablename != 'alembic_version'
            UNION ALL
            SELECT 'constraint', relname, conname, pg_get_constraintdef(pg_constraint.oid), NULL, NULL, NULL
            FROM pg_constraint JOIN pg_class ON pg_class.oid = conrelid
            WHERE connamespace = 'public'::regnamespace AND relname != 'alembic_version'
        """
    rows = [tuple(" ".join(str(value).split()) for value in row) for row in conn.execute(text(query))]
    return sorted(rows)


def test_migrating_from_nothing_gives_exactly_the_schema(empty: Secret[str]) -> None:
    migrate.upgrade(empty)
    with connected(empty) as conn:
        assert compare_metadata(MigrationContext.configure(conn), metadata) == []


def test_not_even_the_predicates_of_indices_differ(empty: Secret[str], tmp_path: Path, postgres: Postgres) -> None:
    migrate.upgrade(empty)
    with connected(empty) as conn:
        migrated = shape(conn)
    if empty.reveal().startswith("sqlite"):
        direct = Secret(f"sqlite:///{tmp_path / 'direct.db'}")
    else:
        name = f"direct_{uuid4().hex}"
        postgres.create_database(name)
        direct = postgres.sqlalchemy_url(name)
    with connected(direct) as conn:
        metadata.create_all(conn)
        assert sorted(map(squeezed, migrated)) == sorted(map(squeezed, shape(conn)))


def squeezed(row: tuple[object, ...]) -> str:
    # The order in which SQLite keeps the constraints of one table says nothing.
    words = str(row).replace("(", " ( ").replace(")", " ) ").replace(",", " ").split()
    return " ".join(sorted(words))


async def test_a_migrated_database_is_ready(empty: Secret[str]) -> None:
    migrate.upgrade(empty)
    migrate.upgrade(empty)
    assert migrate.current_revision(empty) == migrate.head_revision()
    assert not migrate.pending(empty)
    async with running(empty) as store:
        await store.check()
        assert await store.read(policy.revision) == 1


async def test_a_database_without_tables_is_refused_with_what_to_do(empty: Secret[str], tmp_path: Path) -> None:
    assert migrate.pending(empty)
    assert migrate.current_revision(empty) is None
    assert not (tmp_path / "empty.db").exists()
    if empty.reveal().startswith("sqlite"):
        sqlite3.connect(tmp_path / "empty.db").close()
    async with running(empty) as store:
        with pytest.raises(StoreUnavailable, match="run `broker db upgrade`") as refused:
            await store.check()
    assert "broker db upgrade" in refused.value.message


async def test_a_newer_database_is_refused_and_left_alone(empty: Secret[str]) -> None:
    migrate.upgrade(empty)
    with connected(empty) as conn:
        conn.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreUnavailable, match="9999, which this broker does not know"):
        migrate.upgrade(empty)
    assert migrate.pending(empty)
    store = Store(empty)
    await store.start()
    try:
        with pytest.raises(StoreUnavailable, match="9999, which this broker does not know"):
            await store.check()
    finally:
        await store.close()


def test_a_migration_that_fails_leaves_nothing(empty: Secret[str]) -> None:
    if empty.reveal().startswith("sqlite"):
        Path(empty.reveal().removeprefix("sqlite:///")).touch()
    with connected(empty) as conn:
        conn.execute(text("CREATE TABLE events (in_the_way int)"))
        before = shape(conn)
    with pytest.raises(StoreUnavailable):
        migrate.upgrade(empty)
    with connected(empty) as conn:
        assert shape(conn) == before
        conn.execute(text("DROP TABLE events"))
    migrate.upgrade(empty)
    assert not migrate.pending(empty)


def test_several_processes_may_migrate_at_once(empty: Secret[str]) -> None:
    environment = {**os.environ, "URL": empty.reveal()}
    command = [sys.executable, "-c", UPGRADE]
    running = [
        subprocess.Popen(command, env=environment, text=True, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    for process in running:
        if process.stdin is not None:
            print("go", file=process.stdin, flush=True)
    errors = [process.communicate()[1] for process in running]
    assert [process.returncode for process in running] == [0] * 4, errors
    assert not migrate.pending(empty)


async def test_a_migration_waits_for_the_one_before(postgres: Postgres) -> None:
    name = f"empty_{uuid4().hex}"
    postgres.create_database(name)
    url = postgres.sqlalchemy_url(name)
    with psycopg.connect(postgres.dsn(name)) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", [migrate.LOCK])
        upgrading = asyncio.create_task(asyncio.to_thread(migrate.upgrade, url))
        waits = "SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"
        while (await asyncio.to_thread(other.execute, waits)).fetchone() is None:
            assert not upgrading.done()
        assert other.execute("SELECT to_regclass('events')").fetchone() == (None,)
    await upgrading
    assert not migrate.pending(url)


def test_a_new_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "new.db"
    migrate.upgrade(Secret(f"sqlite:///{file}"))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_server_that_is_away_is_reported_without_its_password(postgres: Postgres) -> None:
    away = Secret("postgresql+psycopg://postgres:hunter2@127.0.0.1:1/x")
    for attempt in (migrate.upgrade, migrate.pending):
        with pytest.raises(StoreUnavailable, match="refused") as refused:
            attempt(away)
        assert "hunter2" not in str(refused.value)


def test_a_folder_that_is_not_there_is_reported(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="No such file"):
        migrate.upgrade(Secret(f"sqlite:///{tmp_path / 'none' / 'new.db'}"))


def test_the_names_of_the_files_say_which_migrations_there_are() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).with_name("migrations")))
    scripts = ScriptDirectory.from_config(config)
    assert {script.revision for script in scripts.walk_revisions()} == migrate.known_revisions()
    assert scripts.get_current_head() == migrate.head_revision()
