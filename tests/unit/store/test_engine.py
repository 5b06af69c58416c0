"""Which databases are accepted, and how connections are bounded."""

import traceback
from pathlib import Path

import pytest
from sqlalchemy import text

from broker.errors import ConfigError
from broker.secret import Secret
from broker.store import Store
from broker.store.engine import open_engines, parse_url, to_json


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hunter2",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite+aiosqlite:///x.db",
        "postgresql://u:hunter2@h/d",
        "postgresql+psycopg2://u:hunter2@h/d",
        "postgresql+psycopg://u:hunter2@h",
        "postgresql+psycopg://u:hunter2@h:port/d",
        "mysql://u:hunter2@h/d",
    ],
)
def test_other_databases_are_refused_without_repeating_the_url(url: str) -> None:
    with pytest.raises(ConfigError, match="must be sqlite:///file or postgresql") as refused:
        Store(Secret(url))
    assert "hunter2" not in "".join(traceback.format_exception(refused.value))


def test_a_store_does_not_show_its_password() -> None:
    url = Secret("postgresql+psycopg://u:hunter2@h/d")
    engines = open_engines(parse_url(url))
    assert "hunter2" not in repr(engines) + str(vars(Store(url)))


def test_sqlite_connections_are_durable_and_guarded(sqlite_url: Secret[str]) -> None:
    engines = open_engines(parse_url(sqlite_url))
    wanted = {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "recursive_triggers": 1,
        "trusted_schema": 0,
        "busy_timeout": 5000,
    }
    try:
        for engine, query_only in ((engines.writer, 0), (engines.reader, 1)):
            with engine.connect() as conn:
                for name, value in {**wanted, "query_only": query_only}.items():
                    assert conn.exec_driver_sql(f"PRAGMA {name}").scalar_one() == value, name
    finally:
        engines.dispose()


def test_postgresql_sessions_are_bounded(postgres_url: Secret[str]) -> None:
    engines = open_engines(parse_url(postgres_url))
    wanted = {
        "statement_timeout": "10s",
        "lock_timeout": "3s",
        "idle_in_transaction_session_timeout": "10s",
        "synchronous_commit": "on",
        "application_name": "credbroker",
    }
    try:
        for engine, level, read_only in (
            (engines.writer, "read committed", "off"),
            (engines.reader, "repeatable read", "on"),
        ):
            settings = {**wanted, "transaction_isolation": level, "transaction_read_only": read_only}
            with engine.connect() as conn:
                for name, value in settings.items():
                    found = conn.execute(text("SELECT current_setting(:name)"), {"name": name}).scalar_one()
                    assert found == value, name
    finally:
        engines.dispose()


@pytest.mark.parametrize("name", ["with space.db", "ü.db", "q?mode=memory.db", "h#x.db", "p%20.db"])
def test_any_file_name_works(sqlite_template: Path, tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_bytes(sqlite_template.read_bytes())
    url = parse_url(Secret("sqlite:///x")).set(database=str(file))
    engines = open_engines(url)
    try:
        with engines.reader.connect() as conn:
            assert conn.exec_driver_sql("SELECT revision FROM policy_revision").scalar_one() == 1
    finally:
        engines.dispose()


def test_json_is_compact_and_strict() -> None:
    assert to_json({"a": [1, "ü"]}) == '{"a":[1,"\\u00fc"]}'
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON compliant"):
            to_json(value)
