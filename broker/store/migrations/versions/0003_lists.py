"""Lists in the order of time, found by an index whatever their filter; fewer indices on what each issuance adds."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_REFUSED = "outcome = 'denied' AND reason <> 'LOCKED'"


def upgrade() -> None:
    """Apply."""
    for name in ("task_id_id", "agent_id", "scope_id", "state_id", "created_at", "agent_scope_created_at"):
        op.drop_index(f"ix_issuances_{name}", "issuances")
    for columns in (("task_id",), ("agent",), ("scope",), ("state",), ()):
        _index("issuances", *columns, "created_at", "id")
    for name in ("task_id_id", "issuance_id_id", "agent_id", "scope_id", "type_id", "time", "refused"):
        op.drop_index(f"ix_events_{name}", "events")
    for columns in (("task_id",), ("agent",), ("type",), ()):
        _index("events", *columns, "time", "id")
    _index("events", "issuance_id")
    _partial("ix_events_refused", "events", "agent", "time", where=_REFUSED)
    _partial("ix_events_of_task", "events", "task_id", "id", where="issuance_id IS NULL AND outcome <> 'denied'")


def _index(table: str, *columns: str) -> None:
    op.create_index(f"ix_{table}_{'_'.join(columns)}", table, columns)


def _partial(name: str, table: str, *columns: str, where: str) -> None:
    predicate = sa.text(where)
    op.create_index(name, table, columns, sqlite_where=predicate, postgresql_where=predicate)
