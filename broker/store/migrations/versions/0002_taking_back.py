"""Claims on the outbox, leases, replicas, the installation's name; indices that SQLite's sweepers use too."""

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_LIVE = "state IN ('minting', 'active', 'revoking')"


def upgrade() -> None:
    """Apply."""
    op.add_column("revocations", sa.Column("epoch", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("revocations", sa.Column("claimed_by", sa.Text(), nullable=False, server_default=""))
    _partial(
        "ix_revocations_backlog_anchors",
        "revocations",
        "next_attempt_at",
        where="confirmed_at IS NULL AND anchor_id IS NOT NULL",
    )
    _partial("ix_revocations_backlog_id", "revocations", "id", where="confirmed_at IS NULL")
    _partial(
        "ix_tasks_unconfirmed",
        "tasks",
        "ended_at",
        where="ended_at IS NOT NULL AND revocation_confirmed_at IS NULL",
    )
    _again("ix_tasks_active_due_at", "tasks", "state", "due_at", where="state = 'active'")
    _again("ix_anchors_creating_created_at", "anchors", "state", "created_at", where="state = 'creating'")
    _again("ix_issuances_active_expires_at", "issuances", "state", "expires_at", where="state = 'active'")
    _again("ix_issuances_minting_created_at", "issuances", "state", "created_at", where="state = 'minting'")
    _partial("ix_anchors_active", "anchors", "state", "id", where="state = 'active'")
    _partial("ix_issuances_live_agent", "issuances", "agent", where=_LIVE)
    _partial("ix_events_refused", "events", "agent", "id", where="outcome = 'denied' AND reason <> 'LOCKED'")
    _tables()


def _tables() -> None:
    op.create_table(
        "leases",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_leases"),
    )
    op.create_table(
        "replicas",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_replicas"),
    )
    installation = op.create_table(
        "installation",
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_installation"),
    )
    op.bulk_insert(installation, [{"id": str(uuid.uuid4())}])


def _partial(name: str, table: str, *columns: str, where: str) -> None:
    predicate = sa.text(where)
    op.create_index(name, table, columns, sqlite_where=predicate, postgresql_where=predicate)


def _again(name: str, table: str, *columns: str, where: str) -> None:
    op.drop_index(name, table)
    _partial(name, table, *columns, where=where)
