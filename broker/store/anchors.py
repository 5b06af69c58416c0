"""Anchors, without their secrets."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, update

from broker.model import Anchor, AnchorRecord, AnchorState
from broker.store import schema
from broker.store.columns import constant
from broker.store.insertion import Insertion
from broker.store.rows import Rows
from broker.store.statement import Statement

_table = schema.anchors
_rows = Rows(_table, AnchorRecord)
_by_id = _table.c.id == bindparam("id_")
_creating = _table.c.state == constant(AnchorState.CREATING)

_INSERT = Insertion(_table, _rows.names)
_ACTIVATE = (
    update(_table)
    .where(_by_id, _creating)
    .values(state=AnchorState.ACTIVE, accessor=bindparam("accessor_"), expires_at=bindparam("expires_at_"))
)
_OF_TASK = _rows.select(_table.c.task_id == bindparam("task_id_")).order_by(_table.c.id)
_CREATING_BEFORE = (
    _rows.select(_creating, _table.c.created_at < bindparam("before_"))
    .order_by(_table.c.created_at)
    .limit(bindparam("limit_"))
)
_NOTE_GONE = Statement(
    update(_table).where(_table.c.id.in_(bindparam("ids_", expanding=True))).values(state=AnchorState.GONE)
)
_REVOKE = (
    update(_table)
    .where(_table.c.state == constant(AnchorState.ACTIVE), _table.c.accessor.is_not(None))
    .values(state=AnchorState.REVOKING)
    .returning(_table.c.id, _table.c.task_id, _table.c.accessor)
)
_REVOKE_LISTED = _REVOKE.where(_table.c.id.in_(bindparam("ids_", expanding=True)))
_REVOKE_OF_TASKS = Statement(_REVOKE.where(_table.c.task_id.in_(bindparam("task_ids_", expanding=True))))


class Ending(NamedTuple):
    """An anchor that is to be revoked."""

    id: str
    task_id: str
    accessor: str


def insert(conn: Connection, *records: AnchorRecord) -> None:
    """Store anchors."""
    _INSERT(conn, [_rows.row(record) for record in records])


def activate(conn: Connection, anchor_id: str, accessor: str, expires_at: datetime) -> bool:
    """Note what Vault made of the intent; False when the anchor is not CREATING any more."""
    values = {"id_": anchor_id, "accessor_": accessor, "expires_at_": expires_at}
    return conn.execute(_ACTIVATE, values).rowcount == 1


def adopt(conn: Connection, made: Sequence[Anchor]) -> None:
    """Do as `activate` for anchors that this replica has made."""
    if not made:
        return
    given = [{"id_": one.id, "accessor_": one.accessor, "expires_at_": one.expires_at} for one in made]
    conn.execute(_ACTIVATE, given)


def of_task(conn: Connection, task_id: str) -> list[AnchorRecord]:
    """Return the anchors of a task, oldest first."""
    return _rows.all(conn, _OF_TASK, {"task_id_": task_id})


def creating_before(conn: Connection, before: datetime, limit: int) -> list[AnchorRecord]:
    """Return anchors that are CREATING since before a moment, oldest first."""
    return _rows.all(conn, _CREATING_BEFORE, {"before_": before, "limit_": limit})


def revoke(conn: Connection, ids: Sequence[str]) -> list[Ending]:
    """Move those of these that are ACTIVE to REVOKING and return them."""
    return [Ending(*row) for row in conn.execute(_REVOKE_LISTED, {"ids_": list(ids)})] if ids else []


def revoke_of_tasks(conn: Connection, task_ids: Sequence[str]) -> list[Ending]:
    """Move the ACTIVE ones of these tasks to REVOKING and return them."""
    return [Ending(*row) for row in _REVOKE_OF_TASKS.rows(conn, {"task_ids_": list(task_ids)})] if task_ids else []


def note_gone(conn: Connection, ids: Sequence[str]) -> None:
    """Note that Vault does not know these anchors, or never did."""
    if ids:
        _NOTE_GONE.run(conn, {"ids_": list(ids)})
