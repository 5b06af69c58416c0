"""The tables. Everything a replica must agree on with the others is here.

Times are microseconds since 1970 in UTC, so that both databases order and
index them alike; identifiers are UUIDv7, so that ordering by them is ordering
by creation.
"""

from datetime import UTC, datetime, timedelta

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    Uuid,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class UtcTime(TypeDecorator[datetime]):
    """An aware datetime, stored as microseconds since 1970."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """Return microseconds since 1970."""
        return None if value is None else (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        """Return an aware datetime in UTC."""
        return None if value is None else _EPOCH + timedelta(microseconds=value)


class Millis(TypeDecorator[timedelta]):
    """A duration, stored in whole milliseconds."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: timedelta | None, dialect: Dialect) -> int | None:
        """Return milliseconds."""
        return None if value is None else value // timedelta(milliseconds=1)

    def process_result_value(self, value: int | None, dialect: Dialect) -> timedelta | None:
        """Return a duration."""
        return None if value is None else timedelta(milliseconds=value)


Id = Uuid(as_uuid=False)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

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
    Column("name", String(63), primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("etag", String(64), nullable=False),
    Column("document", Text, nullable=False),
    Column("current", Boolean, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("creator", Text, nullable=False),
)

locks = Table(
    "locks",
    metadata,
    Column("id", Id, primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("target", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("creator", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime),
    Column("lifted_at", UtcTime),
    Column("lifted_by", Text),
)

tasks = Table(
    "tasks",
    metadata,
    Column("id", Id, primary_key=True),
    Column("agent", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("labels", JSON, nullable=False),
    Column("declared_scopes", JSON, nullable=False),
    Column("state", String(24), nullable=False),
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
    Index(None, "state", "due_at"),
)

anchors = Table(
    "anchors",
    metadata,
    Column("id", Id, primary_key=True),
    Column("task_id", Id, ForeignKey("tasks.id"), nullable=False, index=True),
    Column("role", String(128), nullable=False),
    Column("replica", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("accessor", String(128)),
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    Index(None, "state", "expires_at"),
)

issuances = Table(
    "issuances",
    metadata,
    Column("id", Id, primary_key=True),
    Column("task_id", Id, ForeignKey("tasks.id"), nullable=False),
    Column("anchor_id", Id, ForeignKey("anchors.id"), nullable=False),
    Column("agent", Text, nullable=False),
    Column("scope", String(63), nullable=False),
    Column("scope_version", BigInteger, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("parameters", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    Column("revocability", String(16), nullable=False),
    Column("renewable", Boolean, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    Column("max_expires_at", UtcTime, nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("accessor", String(128)),
    Column("lease_id", Text),
    Column("request_id", Id),
    Column("renewed_at", UtcTime),
    Column("revoke_requested_at", UtcTime),
    Column("end_reason", String(64), nullable=False),
    Column("ended_at", UtcTime),
    UniqueConstraint("agent", "request_id"),
    Index(None, "task_id", "id"),
    Index(None, "anchor_id", "state"),
    Index(None, "agent", "id"),
    Index(None, "scope", "id"),
    Index(None, "state", "expires_at"),
    Index(None, "fingerprint"),
)

revocations = Table(
    "revocations",
    metadata,
    Column("id", Id, primary_key=True),
    Column("accessor", String(128), nullable=False, unique=True),
    Column("lease_id", Text),
    Column("task_id", Id, ForeignKey("tasks.id"), nullable=False, index=True),
    Column("anchor_id", Id, ForeignKey("anchors.id")),
    Column("issuance_id", Id, ForeignKey("issuances.id")),
    Column("reason", String(64), nullable=False),
    Column("requested_at", UtcTime, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_attempt_at", UtcTime, nullable=False),
    Column("last_error", Text, nullable=False),
    Column("confirmed_at", UtcTime),
    Index(None, "confirmed_at", "next_attempt_at"),
)

# One-time evidence that was consumed. The primary key decides, across replicas.
proofs = Table(
    "proofs",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("expires_at", UtcTime, nullable=False, index=True),
)

# Append-only: triggers refuse UPDATE and DELETE.
events = Table(
    "events",
    metadata,
    Column("id", Id, primary_key=True),
    Column("time", UtcTime, nullable=False),
    Column("type", String(64), nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("actor", Text, nullable=False),
    Column("method", String(128), nullable=False),
    Column("reason", String(64), nullable=False),
    Column("detail", Text, nullable=False),
    Column("agent", Text, nullable=False),
    Column("task_id", Id),
    Column("issuance_id", Id),
    Column("scope", Text, nullable=False),
    Column("scope_version", BigInteger),
    Column("peer", Text, nullable=False),
    Column("attributes", JSON, nullable=False),
    Index(None, "task_id", "id"),
    Index(None, "issuance_id", "id"),
    Index(None, "agent", "id"),
    Index(None, "type", "id"),
)
