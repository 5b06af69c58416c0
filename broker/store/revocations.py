"""The outbox of revocations: what Vault is yet to confirm."""

from datetime import datetime

from sqlalchemy import Connection, bindparam, func, select, update

from broker.model import Revocation
from broker.store import schema
from broker.store.cleaning import clean
from broker.store.rows import InsertUnlessKnown, Rows

_table = schema.revocations
_rows = Rows(_table, Revocation)
_unconfirmed = _table.c.confirmed_at.is_(None)
_open = (_table.c.id == bindparam("id_"), _unconfirmed)

_INSERT = InsertUnlessKnown(_table, "accessor")
_DUE = (
    _rows.select(_unconfirmed, _table.c.next_attempt_at <= bindparam("now_"))
    .order_by(_table.c.next_attempt_at)
    .limit(bindparam("limit_"))
)
_OF_TASK = _rows.select(_table.c.task_id == bindparam("task_id_")).order_by(_table.c.id)
_RETRY = (
    update(_table)
    .where(*_open)
    .values(
        attempts=_table.c.attempts + 1, last_error=bindparam("error_"), next_attempt_at=bindparam("next_attempt_at_")
    )
)
_CONFIRM = update(_table).where(*_open).values(confirmed_at=bindparam("now_"))
_BACKLOG = select(func.count()).where(_unconfirmed)


def insert(conn: Connection, revocation: Revocation) -> bool:
    """Queue a revocation; False when the accessor is queued already, or was revoked."""
    return _INSERT(conn, _rows.values(revocation))


def due(conn: Connection, now: datetime, limit: int) -> list[Revocation]:
    """Return what is to be tried now, the longest due first."""
    return _rows.all(conn, _DUE, {"now_": now, "limit_": limit})


def of_task(conn: Connection, task_id: str) -> list[Revocation]:
    """Return all revocations of a task, confirmed ones included, oldest first."""
    return _rows.all(conn, _OF_TASK, {"task_id_": task_id})


def retry(conn: Connection, revocation_id: str, *, error: str, next_attempt_at: datetime) -> None:
    """Note a failed attempt and when to try again."""
    conn.execute(_RETRY, {"id_": revocation_id, "error_": clean(error), "next_attempt_at_": next_attempt_at})


def confirm(conn: Connection, revocation_id: str, now: datetime) -> bool:
    """Note that Vault no longer knows the token; False when that was noted before."""
    return conn.execute(_CONFIRM, {"id_": revocation_id, "now_": now}).rowcount == 1


def backlog(conn: Connection) -> int:
    """Count what Vault is yet to confirm."""
    return int(conn.execute(_BACKLOG).scalar_one())
