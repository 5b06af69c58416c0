"""The tables. Everything a replica must agree on with the others is here.

Times are microseconds since 1970 in UTC, so that both databases order and
index them alike; identifiers are UUIDv7, so that ordering by them is ordering
by creation.

Lists are shown newest first: an index that ends in the time and the identifier
gives a page of a filtered list without sorting, from any moment on. Each costs
every issuance, so what a filter can do without has none. The sweepers' indices cover only
the rows that still need them, and stay small however long the history grows;
they name the state, which is the same in all of their rows, so that SQLite
prefers them to those of the lists.
"""

from sqlalchemy import JSON, BigInteger, Boolean, Column, ForeignKey, Index, Integer, MetaData, Table, UniqueConstraint
from sqlalchemy import text as sql
from sqlalchemy.sql.elements import TextClause

from broker.model import (
    AnchorState,
    IssuanceState,
    LockKind,
    Outcome,
    Revocability,
    TaskState,
)
from broker.store.columns import INDEXED_BYTES, Choice, Id, Millis, Names, PlainText, UtcTime

Key = PlainText(INDEXED_BYTES)
Words = PlainText()

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _partial(name: str, *columns: str, where: str, unique: bool = False) -> Index:
    predicate: TextClause = sql(where)
    return Index(name, *columns, unique=unique, sqlite_where=predicate, postgresql_where=predicate)


# One row. Every change of scopes or locks raises it; an issuance commits only
# under the revision it was decided under.
policy_revision = Table(
    "policy_revision",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("revision", BigInteger, nullable=False),
)

scopes = Table(
    "scopes",
    metadata,
    Column("name", Key, primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("etag", Words, nullable=False),
    Column("document", Words, nullable=False),
    Column("current", Boolean, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("creator", Words, nullable=False),
    _partial("uq_scopes_current", "name", where="current", unique=True),
)

locks = Table(
    "locks",
    metadata,
    Column("id", Id, primary_key=True),
    Column("kind", Choice(LockKind), nullable=False),
    Column("target", Words, nullable=False),
    Column("reason", Words, nullable=False),
    Column("creator", Words, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime),
    Column("lifted_at", UtcTime),
    Column("lifted_by", Words),
    _partial("ix_locks_unlifted", "id", where="lifted_at IS NULL"),
)

tasks = Table(
    "tasks",
    metadata,
    Column("id", Id, primary_key=True),
    Column("agent", Key, nullable=False),
    Column("purpose", Words, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("declared_scopes", Names, nullable=False),
    Column("state", Choice(TaskState), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("deadline", UtcTime, nullable=False),
    Column("heartbeat_interval", Millis),
    Column("heartbeat_at", UtcTime),
    # The moment from which the sweeper ends the task: the deadline, or the
    # missed heartbeat if that is earlier.
    Column("due_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime),
    Column("revocation_confirmed_at", UtcTime),
    Column("request_id", Id),
    UniqueConstraint("agent", "request_id"),
    Index(None, "agent", "id"),
    Index(None, "state", "id"),
    Index(None, "created_at"),
    _partial("ix_tasks_active_due_at", "state", "due_at", where="state = 'active'"),
    _partial("ix_tasks_unconfirmed", "ended_at", where="ended_at IS NOT NULL AND revocation_confirmed_at IS NULL"),
)

anchors = Table(
    "anchors",
    metadata,
    Column("id", Id, primary_key=True),
    Column("task_id", Id, ForeignKey("tasks.id"), nullable=False, index=True),
    Column("role", Words, nullable=False),
    Column("replica", Words, nullable=False),
    Column("state", Choice(AnchorState), nullable=False),
    Column("accessor", Words),
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    _partial("ix_anchors_creating_created_at", "state", "created_at", where="state = 'creating'"),
    _partial("ix_anchors_active", "state", "id", where="state = 'active'"),
)

issuances = Table(
    "issuances",
    metadata,
    Column("id", Id, primary_key=True),
    Column("task_id", Id, ForeignKey("tasks.id"), nullable=False),
    Column("anchor_id", Id, ForeignKey("anchors.id"), nullable=False),
    Column("agent", Key, nullable=False),
    Column("scope", Key, nullable=False),
    Column("scope_version", BigInteger, nullable=False),
    Column("kind", Words, nullable=False),
    Column("parameters", JSON, nullable=False),
    Column("state", Choice(IssuanceState), nullable=False),
    Column("revocability", Choice(Revocability), nullable=False),
    Column("renewable", Boolean, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    Column("max_expires_at", UtcTime, nullable=False),
    Column("fingerprint", Key, nullable=False),
    Column("accessor", Words),
    Column("lease_id", Words),
    Column("request_id", Id),
    Column("renewed_at", UtcTime),
    Column("revoke_requested_at", UtcTime),
    Column("end_reason", Words, nullable=False),
    Column("ended_at", UtcTime),
    UniqueConstraint("agent", "request_id"),
    Index(None, "task_id", "created_at", "id"),
    Index(None, "agent", "created_at", "id"),
    Index(None, "scope", "created_at", "id"),
    Index(None, "state", "created_at", "id"),
    Index(None, "created_at", "id"),
    Index(None, "fingerprint"),
    _partial("ix_issuances_live_scope", "scope", "agent", where="state IN ('minting', 'active', 'revoking')"),
    _partial("ix_issuances_live_agent", "agent", where="state IN ('minting', 'active', 'revoking')"),
    _partial("ix_issuances_live_anchor", "anchor_id", where="state IN ('minting', 'active', 'revoking')"),
    _partial("ix_issuances_active_expires_at", "state", "expires_at", where="state = 'active'"),
    _partial("ix_issuances_minting_created_at", "state", "created_at", where="state = 'minting'"),
)

revocations = Table(
    "revocations",
    metadata,
    Column("id", Id, primary_key=True),
    Column("accessor", Key, nullable=False, unique=True),
    Column("lease_id", Words),
    Column("task_id", Id, ForeignKey("tasks.id"), nullable=False, index=True),
    Column("anchor_id", Id, ForeignKey("anchors.id")),
    Column("issuance_id", Id, ForeignKey("issuances.id")),
    Column("reason", Words, nullable=False),
    Column("requested_at", UtcTime, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_attempt_at", UtcTime, nullable=False),
    Column("last_error", Words, nullable=False),
    Column("confirmed_at", UtcTime),
    # Raised by every claim: only the newest one may record what came of it.
    Column("epoch", BigInteger, nullable=False, server_default="0"),
    Column("claimed_by", Words, nullable=False, server_default=""),
    _partial("ix_revocations_backlog", "next_attempt_at", where="confirmed_at IS NULL"),
    _partial("ix_revocations_backlog_id", "id", where="confirmed_at IS NULL"),
    _partial(
        "ix_revocations_backlog_anchors", "next_attempt_at", where="confirmed_at IS NULL AND anchor_id IS NOT NULL"
    ),
)

# Work that one replica does for all. Whoever takes a lease raises its epoch,
# and what was written under an older one is refused.
leases = Table(
    "leases",
    metadata,
    Column("name", Key, primary_key=True),
    Column("holder", Words, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
)

# The processes that serve, for people to see.
replicas = Table(
    "replicas",
    metadata,
    Column("name", Key, primary_key=True),
    Column("version", Words, nullable=False),
    Column("started_at", UtcTime, nullable=False),
    Column("seen_at", UtcTime, nullable=False),
)

# One row: what the tokens of this database's broker are marked with in Vault.
installation = Table("installation", metadata, Column("id", Id, primary_key=True))

# One-time evidence that was consumed. The primary key decides, across replicas.
proofs = Table(
    "proofs",
    metadata,
    Column("digest", Key, primary_key=True),
    Column("expires_at", UtcTime, nullable=False, index=True),
)

# Append-only: triggers refuse UPDATE and DELETE.
events = Table(
    "events",
    metadata,
    Column("id", Id, primary_key=True),
    Column("time", UtcTime, nullable=False),
    Column("type", Key, nullable=False),
    Column("outcome", Choice(Outcome), nullable=False),
    Column("actor", Words, nullable=False),
    Column("method", Words, nullable=False),
    Column("reason", Words, nullable=False),
    Column("detail", Words, nullable=False),
    Column("agent", Key, nullable=False),
    Column("task_id", Id),
    Column("issuance_id", Id),
    Column("scope", Key, nullable=False),
    Column("scope_version", BigInteger),
    Column("peer", Words, nullable=False),
    Column("attributes", JSON, nullable=False),
    Index(None, "task_id", "time", "id"),
    Index(None, "issuance_id"),
    Index(None, "agent", "time", "id"),
    Index(None, "type", "time", "id"),
    Index(None, "time", "id"),
    _partial("ix_events_refused", "agent", "time", where="outcome = 'denied' AND reason <> 'LOCKED'"),
    # A task may have any number of credentials: its own start and end are found without theirs.
    _partial("ix_events_of_task", "task_id", "id", where="issuance_id IS NULL AND outcome <> 'denied'"),
)
