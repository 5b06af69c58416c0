"""What the stack's PostgreSQL holds: the broker's own database, and one that agents query."""

import psycopg
from psycopg import sql

from broker.dev.postgres import Postgres
from broker.secret import Secret, SecretText

BROKER_DATABASE = "credbroker"
REPORTS_DATABASE = "reports"
READER_ROLE = "reports_reader"
VAULT_USER = "vault"

_TABLE = """
CREATE TABLE IF NOT EXISTS quarters (quarter text PRIMARY KEY, revenue integer NOT NULL);
INSERT INTO quarters VALUES ('2025-Q3', 1180), ('2025-Q4', 1340), ('2026-Q1', 1410) ON CONFLICT DO NOTHING;
"""


def prepare(server: Postgres, vault_password: SecretText) -> None:
    """Make the databases and roles; what is there already stays.

    Vault gets a user of its own that can make users and end their sessions,
    and is no superuser.

    Args:
        server: The running server.
        vault_password: For that user.
    """
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        found = {row[0] for row in connection.execute("SELECT datname FROM pg_database")}
        for name in (BROKER_DATABASE, REPORTS_DATABASE):
            if name not in found:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        _prepare_vault_user(connection, vault_password)
    with psycopg.connect(server.dsn(REPORTS_DATABASE), autocommit=True) as connection:
        for statement in _TABLE.strip().splitlines():
            connection.execute(statement.encode())
        connection.execute(sql.SQL("GRANT SELECT ON quarters TO {}").format(sql.Identifier(READER_ROLE)))


def _prepare_vault_user(connection: psycopg.Connection, password: SecretText) -> None:
    roles = {row[0] for row in connection.execute("SELECT rolname FROM pg_roles")}
    reader, vault = sql.Identifier(READER_ROLE), sql.Identifier(VAULT_USER)
    if READER_ROLE not in roles:
        connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(reader))
    if VAULT_USER not in roles:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN CREATEROLE").format(vault))
    connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(vault, sql.Literal(password.reveal())))
    connection.execute(sql.SQL("GRANT {} TO {} WITH ADMIN OPTION").format(reader, vault))
    connection.execute(sql.SQL("GRANT pg_signal_backend TO {}").format(vault))


def reports_dsn(server: Postgres, username: str, password: Secret[str]) -> str:
    """Return a libpq URL for an agent's user. It holds the password."""
    return f"postgresql://{username}:{password.reveal()}@{server.host}:{server.port}/{REPORTS_DATABASE}"
