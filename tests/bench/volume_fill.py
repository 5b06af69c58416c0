"""Fills a database with a history, as a broker in use would have left it: a million issuances in about a minute.

Nothing else should use the database meanwhile. Indices are dropped and made
again, which sorts once instead of a million times. What is still alive in the
records was never minted; where Vault is to know the anchors that it hangs from,
the caller makes them.
"""

import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import psycopg
from psycopg import sql

from broker.dev.people import TRUST_DOMAIN
from broker.secret import SecretText
from broker.store.engine import parse_url, to_json

Row = tuple[object, ...]

_TABLES: Final = ("tasks", "anchors", "issuances", "events")
_AT_ONCE: Final = 10  # tasks that are under way at the same time
_TTL: Final = timedelta(minutes=15)
_LONG: Final = timedelta(days=1)
_LABELS: Final = to_json({"team": "search", "run": "nightly"})
_PARAMETERS: Final = to_json({"path": "reports/2026/weekly", "format": "parquet"})
_EVIDENCE: Final = to_json({"evidence": "jwt_svid", "evidence_sha256": "0" * 64})


@dataclass(frozen=True, slots=True)
class History:
    """What happened.

    Attributes:
        issuances: How many there were, evenly over time.
        live: How many of them, the newest, are alive.
        per_task: How many each task had.
        agents: Number of agents; a few of them have most of the tasks.
        scopes: Number of scopes, named like `scope_name` says.
        span: How long ago it began.
        until: When it ended; what is alive has begun by then and lives for a day.
    """

    issuances: int = 1_000_000
    live: int = 0
    per_task: int = 100
    agents: int = 1_000
    scopes: int = 50
    span: timedelta = timedelta(days=90)
    until: datetime = field(default_factory=lambda: datetime.now(UTC))


def agent_name(number: int) -> str:
    """Return the URI of an agent; the lower its number, the more it did."""
    return f"spiffe://{TRUST_DOMAIN}/agents/agent-{number}"


def scope_name(number: int) -> str:
    """Return the name of a scope; the lower its number, the more was issued under it."""
    return f"scope-{number}"


def fill(url: SecretText, history: History, anchor: Callable[[], str] | None = None) -> None:
    """Add a history to a database that is at the newest migration.

    Each issuance comes with an event, and those that have ended with a second
    one; of a hundred requests, one more was refused.

    Args:
        url: The database.
        history: What happened.
        anchor: Makes a token in Vault that lives as long as what is alive, and
            returns its accessor; without it, Vault knows none of the anchors.
    """
    parsed = parse_url(url)
    parts = _rows(history, anchor)
    if parsed.drivername == "sqlite":
        with closing(sqlite3.connect(str(parsed.database), isolation_level=None)) as connection:
            _fill_sqlite(connection, parts)
    else:
        dsn = parsed.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(dsn, autocommit=True) as connected:
            _fill_postgres(connected, parts)


@dataclass(frozen=True, slots=True)
class _Part:
    """What happened in a while, as rows by table."""

    tables: dict[str, list[Row]]


def _rows(history: History, anchor: Callable[[], str] | None) -> Iterator[_Part]:
    """Give the history in parts: tasks that were under way together, with all that is theirs."""
    chance = random.Random(7)
    end, span = _micros(history.until), history.span // timedelta(microseconds=1)
    step = span / history.issuances
    together = _AT_ONCE * history.per_task
    for first in range(0, history.issuances, together):
        part = _Part({name: [] for name in _TABLES})
        begun = int(end - span + first * step)
        over = int(end - span + (first + together) * step)
        owners = []
        for number in range(first, min(first + _AT_ONCE, history.issuances)):
            last = number + _AT_ONCE * (history.per_task - 1)
            living = last >= history.issuances - history.live
            owners.append(_Owner.begin(chance, history, begun, over, living))
            accessor = anchor() if living and anchor is not None else None
            owners[-1].record(part, over, (end if living else over) + _micros_of(_LONG), accessor)
        for number in range(first, min(first + together, history.issuances)):
            owner = owners[number % _AT_ONCE % len(owners)]
            living = number >= history.issuances - history.live
            _issue(chance, part, owner, int(end - span + number * step), end if living else None)
        yield part


@dataclass(frozen=True, slots=True)
class _Owner:
    """A task with its anchor."""

    task: str
    anchor: str
    agent: str
    scope: str
    begun: int
    living: bool

    @classmethod
    def begin(cls, chance: random.Random, history: History, begun: int, over: int, living: bool) -> "_Owner":
        agent = agent_name(int(history.agents * chance.random() ** 3))
        scope = scope_name(int(history.scopes * chance.random() ** 3))
        return cls(_id(chance, begun), _id(chance, begun), agent, scope, begun, living)

    def record(self, part: _Part, over: int, deadline: int, accessor: str | None) -> None:
        state = "active" if self.living else "completed"
        ended = None if self.living else over
        scopes = to_json([self.scope])
        task = (self.task, self.agent, "index the wiki", _LABELS, scopes, state, self.begun, deadline, deadline)
        part.tables["tasks"].append((*task, ended, ended))
        anchor = (self.anchor, self.task, f"credbroker-{self.scope}", "replica-1", "active" if self.living else "gone")
        part.tables["anchors"].append((*anchor, accessor or f"accessor-{self.anchor}", self.begun, deadline))


def _issue(chance: random.Random, part: _Part, owner: _Owner, at: int, alive_at: int | None) -> None:
    """Add an issuance and its events; what is alive ends a day after `alive_at`."""
    issuance = _id(chance, at)
    expires = at + _micros_of(_TTL) if alive_at is None else alive_at + _micros_of(_LONG)
    ended = expires if alive_at is None else None
    roll = chance.random()
    state = "active" if alive_at is not None else "failed" if roll < 0.001 else "expired" if roll < 0.3 else "revoked"
    named = (issuance, owner.task, owner.anchor, owner.agent, owner.scope, 1, "vault_token", _PARAMETERS, state)
    times = (at, expires, expires)
    fingerprint, request = f"{chance.getrandbits(256):064x}", f"{chance.getrandbits(128):032x}"
    end = ("task.completed" if state == "revoked" else "", ended)
    part.tables["issuances"].append((*named, "with_task", False, *times, fingerprint, request, *end))
    events = part.tables["events"]
    events.append(_event(chance, at, "credential.issued", owner, issuance))
    if ended is not None:
        events.append(
            _event(chance, ended, f"credential.{state if state != 'failed' else 'mint_failed'}", owner, issuance)
        )
    if roll > 0.99:
        events.append(_event(chance, at, "request.refused", owner, None, "SCOPE_DENIED"))


def _event(chance: random.Random, at: int, kind: str, owner: _Owner, issuance: str | None, refused: str = "") -> Row:
    outcome = "denied" if refused else "success"
    what = (_id(chance, at), at, kind, outcome, owner.agent, "/credbroker.v1.CredentialService/IssueCredential")
    return (*what, refused, "", owner.agent, owner.task, issuance, owner.scope, 1, "ipv4:10.0.0.7:40112", _EVIDENCE)


_COLUMNS: Final = {
    "tasks": "id agent purpose labels declared_scopes state created_at deadline due_at ended_at "
    "revocation_confirmed_at",
    "anchors": "id task_id role replica state accessor created_at expires_at",
    "issuances": "id task_id anchor_id agent scope scope_version kind parameters state revocability renewable "
    "created_at expires_at max_expires_at fingerprint request_id end_reason ended_at",
    "events": "id time type outcome actor method reason detail agent task_id issuance_id scope scope_version "
    "peer attributes",
}


def _fill_sqlite(connection: sqlite3.Connection, parts: Iterator[_Part]) -> None:
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA cache_size = -500000")
    indices = connection.execute(
        f"SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL AND tbl_name IN {_TABLES}"
    ).fetchall()
    connection.execute("BEGIN IMMEDIATE")
    for name, _ in indices:
        connection.execute(f'DROP INDEX "{name}"')
    for part in parts:
        for table, rows in part.tables.items():
            columns = _COLUMNS[table].split()
            places = ", ".join("?" * len(columns))
            connection.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})", rows)
    for _, definition in indices:
        connection.execute(definition)
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _fill_postgres(connection: psycopg.Connection, parts: Iterator[_Part]) -> None:
    with connection.transaction():
        # The keys are right by construction; checking each takes most of the time.
        connection.execute("SET LOCAL session_replication_role = replica")
        indices = connection.execute(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = ANY(%s) AND indexname LIKE %s",
            (list(_TABLES), "ix_%"),
        ).fetchall()
        for name, _ in indices:
            connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(name)))
        for part in parts:
            for table, rows in part.tables.items():
                columns = sql.SQL(", ").join(map(sql.Identifier, _COLUMNS[table].split()))
                into = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), columns)
                with connection.cursor() as cursor, cursor.copy(into) as copy:
                    for row in rows:
                        copy.write_row(row)
        for _, definition in indices:
            connection.execute(definition)
    # As autovacuum would in time.
    for table in _TABLES:
        connection.execute(sql.SQL("VACUUM ANALYZE {}").format(sql.Identifier(table)))


def _id(chance: random.Random, at: int) -> str:
    """Return a UUIDv7 of a moment in microseconds, without dashes: both databases take it."""
    return f"{at // 1000:012x}7{chance.getrandbits(12):03x}8{chance.getrandbits(60):015x}"


def _micros(moment: datetime) -> int:
    return _micros_of(moment - datetime(1970, 1, 1, tzinfo=UTC))


def _micros_of(span: timedelta) -> int:
    return span // timedelta(microseconds=1)
