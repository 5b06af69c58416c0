"""The tables of the first release."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_LIVE = "state IN ('minting', 'active', 'revoking')"


def upgrade() -> None:
    """Apply."""
    _policy_revision()
    _scopes()
    _locks()
    _tasks()
    _anchors()
    _issuances()
    _revocations()
    _proofs()
    _events()
    if op.get_bind().dialect.name == "postgresql":
        _append_only_postgres()
    else:
        _append_only_sqlite()


def _id(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Uuid(as_uuid=False), nullable=nullable)


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=nullable)


def _number(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def _index(table: str, *columns: str) -> None:
    op.create_index(f"ix_{table}_{'_'.join(columns)}", table, columns)


def _partial(name: str, table: str, *columns: str, where: str, unique: bool = False) -> None:
    predicate = sa.text(where)
    op.create_index(name, table, columns, unique=unique, sqlite_where=predicate, postgresql_where=predicate)


def _policy_revision() -> None:
    table = op.create_table(
        "policy_revision",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        _number("revision"),
        sa.PrimaryKeyConstraint("id", name="pk_policy_revision"),
    )
    op.bulk_insert(table, [{"id": 1, "revision": 1}])


def _scopes() -> None:
    op.create_table(
        "scopes",
        _text("name"),
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        _text("etag"),
        _text("document"),
        sa.Column("current", sa.Boolean(), nullable=False),
        _number("created_at"),
        _text("creator"),
        sa.PrimaryKeyConstraint("name", "version", name="pk_scopes"),
    )
    _partial("uq_scopes_current", "scopes", "name", where="current", unique=True)


def _locks() -> None:
    op.create_table(
        "locks",
        _id("id"),
        _text("kind"),
        _text("target"),
        _text("reason"),
        _text("creator"),
        _number("created_at"),
        _number("expires_at", nullable=True),
        _number("lifted_at", nullable=True),
        _text("lifted_by", nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_locks"),
    )
    _partial("ix_locks_unlifted", "locks", "id", where="lifted_at IS NULL")


def _tasks() -> None:
    op.create_table(
        "tasks",
        _id("id"),
        _text("agent"),
        _text("purpose"),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("declared_scopes", sa.JSON(), nullable=False),
        _text("state"),
        _number("created_at"),
        _number("deadline"),
        _number("heartbeat_interval", nullable=True),
        _number("heartbeat_at", nullable=True),
        _number("due_at"),
        _number("ended_at", nullable=True),
        _number("revocation_confirmed_at", nullable=True),
        _id("request_id", nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_tasks"),
        sa.UniqueConstraint("agent", "request_id", name="uq_tasks_agent_request_id"),
    )
    _index("tasks", "agent", "id")
    _index("tasks", "state", "id")
    _index("tasks", "created_at")
    _partial("ix_tasks_active_due_at", "tasks", "due_at", where="state = 'active'")


def _anchors() -> None:
    op.create_table(
        "anchors",
        _id("id"),
        _id("task_id"),
        _text("role"),
        _text("replica"),
        _text("state"),
        _text("accessor", nullable=True),
        _number("created_at"),
        _number("expires_at"),
        sa.PrimaryKeyConstraint("id", name="pk_anchors"),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name="fk_anchors_task_id"),
    )
    _index("anchors", "task_id")
    _partial("ix_anchors_creating_created_at", "anchors", "created_at", where="state = 'creating'")


def _issuances() -> None:
    op.create_table(
        "issuances",
        _id("id"),
        _id("task_id"),
        _id("anchor_id"),
        _text("agent"),
        _text("scope"),
        _number("scope_version"),
        _text("kind"),
        sa.Column("parameters", sa.JSON(), nullable=False),
        _text("state"),
        _text("revocability"),
        sa.Column("renewable", sa.Boolean(), nullable=False),
        _number("created_at"),
        _number("expires_at"),
        _number("max_expires_at"),
        _text("fingerprint"),
        _text("accessor", nullable=True),
        _text("lease_id", nullable=True),
        _id("request_id", nullable=True),
        _number("renewed_at", nullable=True),
        _number("revoke_requested_at", nullable=True),
        _text("end_reason"),
        _number("ended_at", nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_issuances"),
        sa.UniqueConstraint("agent", "request_id", name="uq_issuances_agent_request_id"),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name="fk_issuances_task_id"),
        sa.ForeignKeyConstraint(["anchor_id"], ["anchors.id"], name="fk_issuances_anchor_id"),
    )
    _issuance_indices()


def _issuance_indices() -> None:
    _index("issuances", "task_id", "id")
    _index("issuances", "agent", "id")
    _index("issuances", "scope", "id")
    _index("issuances", "state", "id")
    _index("issuances", "agent", "scope", "created_at")
    _index("issuances", "created_at")
    _index("issuances", "fingerprint")
    _partial("ix_issuances_live_scope", "issuances", "scope", "agent", where=_LIVE)
    _partial("ix_issuances_live_anchor", "issuances", "anchor_id", where=_LIVE)
    _partial("ix_issuances_active_expires_at", "issuances", "expires_at", where="state = 'active'")
    _partial("ix_issuances_minting_created_at", "issuances", "created_at", where="state = 'minting'")


def _revocations() -> None:
    op.create_table(
        "revocations",
        _id("id"),
        _text("accessor"),
        _text("lease_id", nullable=True),
        _id("task_id"),
        _id("anchor_id", nullable=True),
        _id("issuance_id", nullable=True),
        _text("reason"),
        _number("requested_at"),
        sa.Column("attempts", sa.Integer(), nullable=False),
        _number("next_attempt_at"),
        _text("last_error"),
        _number("confirmed_at", nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_revocations"),
        sa.UniqueConstraint("accessor", name="uq_revocations_accessor"),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name="fk_revocations_task_id"),
        sa.ForeignKeyConstraint(["anchor_id"], ["anchors.id"], name="fk_revocations_anchor_id"),
        sa.ForeignKeyConstraint(["issuance_id"], ["issuances.id"], name="fk_revocations_issuance_id"),
    )
    _index("revocations", "task_id")
    _partial("ix_revocations_backlog", "revocations", "next_attempt_at", where="confirmed_at IS NULL")


def _proofs() -> None:
    op.create_table(
        "proofs", _text("digest"), _number("expires_at"), sa.PrimaryKeyConstraint("digest", name="pk_proofs")
    )
    _index("proofs", "expires_at")


def _events() -> None:
    op.create_table(
        "events",
        _id("id"),
        _number("time"),
        _text("type"),
        _text("outcome"),
        _text("actor"),
        _text("method"),
        _text("reason"),
        _text("detail"),
        _text("agent"),
        _id("task_id", nullable=True),
        _id("issuance_id", nullable=True),
        _text("scope"),
        _number("scope_version", nullable=True),
        _text("peer"),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
    )
    for column in ("task_id", "issuance_id", "agent", "scope", "type"):
        _index("events", column, "id")
    _index("events", "time")


def _append_only_postgres() -> None:
    op.execute(
        "CREATE FUNCTION events_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'events are append-only' USING ERRCODE = 'restrict_violation'; END $$"
    )
    op.execute(
        "CREATE TRIGGER events_no_change BEFORE UPDATE OR DELETE ON events "
        "FOR EACH ROW EXECUTE FUNCTION events_append_only()"
    )
    op.execute(
        "CREATE TRIGGER events_no_truncate BEFORE TRUNCATE ON events "
        "FOR EACH STATEMENT EXECUTE FUNCTION events_append_only()"
    )


def _append_only_sqlite() -> None:
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER events_no_{change.lower()} BEFORE {change} ON events "
            "BEGIN SELECT RAISE(ABORT, 'events are append-only'); END"
        )
