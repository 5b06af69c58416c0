"""Tasks."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import (
    BigInteger,
    Connection,
    and_,
    bindparam,
    case,
    exists,
    func,
    literal_column,
    or_,
    select,
    tuple_,
    type_coerce,
    update,
)

from broker.model import (
    LIVE_ISSUANCES,
    AnchorState,
    IssuanceState,
    Page,
    Revocability,
    Task,
    TaskState,
)
from broker.store import schema
from broker.store.columns import UtcTime, constant
from broker.store.filters import choice, moment, text
from broker.store.insertion import Insertion
from broker.store.paging import Listing, PageOf
from broker.store.rows import Rows
from broker.store.statement import Statement

_table = schema.tasks
_rows = Rows(_table, Task)
_by_id = _table.c.id == bindparam("id_")
_listed = _table.c.id.in_(bindparam("ids_", expanding=True))
_active = _table.c.state == constant(TaskState.ACTIVE)

_INSERT = Insertion(_table, (*_rows.names, "due_at"))
_INSERT_UNLESS_KNOWN = Insertion(_table, (*_rows.names, "due_at"), unless_known=("agent", "request_id"))
_STORED = select(_table.c.id).where(_listed)
_PIN_ACTIVE = Statement(_STORED.where(_active).with_for_update(read=True))
_GET = _rows.select(_by_id)
_BY_REQUEST = _rows.select(_table.c.agent == bindparam("agent_"), _table.c.request_id == bindparam("request_id_"))
_DUE = _rows.select(_active, _table.c.due_at <= bindparam("now_")).order_by(_table.c.due_at).limit(bindparam("limit_"))
_ACTIVE_AFTER = (
    _rows.select(_active, _table.c.id > bindparam("after_")).order_by(_table.c.id).limit(bindparam("limit_"))
)
_ACTIVE_OF_AGENT_AFTER = _ACTIVE_AFTER.where(_table.c.agent == bindparam("agent_"))
_PIN_ANCHORED = (
    select(schema.anchors.c.id, schema.anchors.c.state, _table.c.id, _table.c.state)
    .where(schema.anchors.c.id.in_(bindparam("anchor_ids_", expanding=True)), schema.anchors.c.task_id == _table.c.id)
    .with_for_update(read=True)
)

_anchored = (
    tuple_(schema.anchors.c.id, _table.c.id).in_(bindparam("pairs_", expanding=True)),
    schema.anchors.c.task_id == _table.c.id,
    schema.anchors.c.state == constant(AnchorState.ACTIVE),
    _active,
)
# One row on SQLite, whose driver pauses at each; rows can only be locked one by one.
_PIN_STANDING = {
    "sqlite": Statement(select(func.count()).where(*_anchored)),
    "postgresql": Statement(select(literal_column("1")).where(*_anchored).with_for_update(read=True)),
}

_END = (
    update(_table)
    .where(_listed, _active)
    .values(state=bindparam("state_"), ended_at=bindparam("now_"))
    .returning(*_rows.columns)
)
# SQLite finds the rows by the first condition alone.
_END_OWN = Statement(_END.where(tuple_(_table.c.id, _table.c.agent).in_(bindparam("owned_", expanding=True))))

_next_beat = (
    type_coerce(bindparam("now_", type_=UtcTime), BigInteger)
    + type_coerce(_table.c.heartbeat_interval, BigInteger) * 1000
)
_deadline = type_coerce(_table.c.deadline, BigInteger)
_needs_beats = _table.c.heartbeat_interval.is_not(None)
_HEARTBEAT = (
    update(_table)
    .where(_by_id, _active)
    .values(
        heartbeat_at=case((_needs_beats, bindparam("now_", type_=UtcTime)), else_=None),
        due_at=case((and_(_needs_beats, _next_beat < _deadline), _next_beat), else_=_deadline),
    )
    .returning(*_rows.columns)
)

_LOCK_ENDED = (
    select(_table.c.id)
    .where(_listed, _table.c.ended_at.is_not(None), _table.c.revocation_confirmed_at.is_(None))
    .order_by(_table.c.id)
    .with_for_update()
)
_CONFIRM = Statement(
    update(_table)
    .where(
        _listed,
        _table.c.ended_at.is_not(None),
        _table.c.revocation_confirmed_at.is_(None),
        ~exists().where(schema.revocations.c.task_id == _table.c.id, schema.revocations.c.confirmed_at.is_(None)),
        ~exists().where(schema.anchors.c.task_id == _table.c.id, schema.anchors.c.state != AnchorState.GONE),
        ~exists().where(
            schema.issuances.c.task_id == _table.c.id,
            schema.issuances.c.state.in_([constant(state) for state in LIVE_ISSUANCES]),
            or_(
                schema.issuances.c.state != IssuanceState.ACTIVE,
                schema.issuances.c.revocability != Revocability.AT_EXPIRY,
            ),
        ),
    )
    .values(revocation_confirmed_at=bindparam("now_"))
    .returning(_table.c.id)
)

_LISTING = Listing(
    "tasks",
    _rows,
    _table.c.id,
    sought=(_table.c.agent, _table.c.state),
    fields={
        "agent": text(_table.c.agent),
        "state": choice(_table.c.state, TaskState),
        "create_time": moment(_table.c.created_at),
    },
)


def insert(conn: Connection, task: Task) -> None:
    """Store a task."""
    _INSERT(conn, [_row(task)])


def insert_unless_known(conn: Connection, tasks: Sequence[Task]) -> set[str]:
    """Store tasks, except those for a request that started one before; return which were stored."""
    ids = [task.id for task in tasks]
    if not tasks or _INSERT_UNLESS_KNOWN(conn, [_row(task) for task in tasks]) == len(tasks):
        return set(ids)
    return set(conn.execute(_STORED, {"ids_": ids}).scalars())


def _row(task: Task) -> tuple[object, ...]:
    return (*_rows.row(task), _due_at(task))


def _due_at(task: Task) -> datetime:
    if task.heartbeat_interval is None:
        return task.deadline
    return min(task.deadline, (task.heartbeat_at or task.created_at) + task.heartbeat_interval)


def get(conn: Connection, task_id: str) -> Task | None:
    """Return a task."""
    return _rows.one(conn, _GET, {"id_": task_id})


class Pinned(NamedTuple):
    """The states of an anchor and of its task."""

    anchor: AnchorState
    task_id: str
    task: TaskState


def pin_anchored(conn: Connection, anchor_ids: Sequence[str]) -> dict[str, Pinned]:
    """Return the states of anchors and of their tasks, by anchor; none can change before this transaction ends."""
    rows = conn.execute(_PIN_ANCHORED, {"anchor_ids_": list(anchor_ids)})
    return {anchor_id: Pinned(anchor, task_id, task) for anchor_id, anchor, task_id, task in rows}


def pin_standing(conn: Connection, pairs: Collection[tuple[str, str]]) -> bool:
    """Say whether all of these anchors are active and of active tasks; that cannot change until this transaction ends.

    Args:
        conn: The transaction.
        pairs: Identifiers of an anchor and of its task.
    """
    standing = _PIN_STANDING[conn.dialect.name].firsts(conn, {"pairs_": list(pairs)})
    return (standing[0] if conn.dialect.name == "sqlite" else len(standing)) == len(pairs)


def pin_active(conn: Connection, ids: Sequence[str]) -> set[str]:
    """Return which of these tasks are active; they stay so until this transaction ends."""
    return set(_PIN_ACTIVE.firsts(conn, {"ids_": list(ids)})) if ids else set()


def by_request(conn: Connection, agent: str, request_id: str) -> Task | None:
    """Return the task that an agent started with this request."""
    return _rows.one(conn, _BY_REQUEST, {"agent_": agent, "request_id_": request_id})


def heartbeat(conn: Connection, task_id: str, now: datetime) -> Task | None:
    """Note a heartbeat and return the task; None when it is not active."""
    return _rows.one(conn, _HEARTBEAT, {"id_": task_id, "now_": now})


def end(conn: Connection, ids: Sequence[str], state: TaskState, now: datetime) -> list[Task]:
    """End those of these tasks that are active, and return them."""
    return _rows.all(conn, _END, {"ids_": list(ids), "state_": state, "now_": now}) if ids else []


def end_own(conn: Connection, owned: Sequence[tuple[str, str]], state: TaskState, now: datetime) -> list[Task]:
    """End those of these tasks, each named with an agent, that are this agent's and active, and return them."""
    ids = [task_id for task_id, _ in owned]
    values = {"ids_": ids, "owned_": list(owned), "state_": state, "now_": now}
    return _rows.records(_END_OWN.rows(conn, values)) if owned else []


def due(conn: Connection, now: datetime, limit: int) -> list[Task]:
    """Return active tasks whose deadline has passed or whose heartbeat is missing, the longest due first."""
    return _rows.all(conn, _DUE, {"now_": now, "limit_": limit})


def active_after(conn: Connection, task_id: str, limit: int, *, agent: str | None = None) -> list[Task]:
    """Return active tasks whose identifiers come after one, in their order: the next part of all, or of an agent's."""
    values = {"after_": task_id, "limit_": limit}
    if agent is None:
        return _rows.all(conn, _ACTIVE_AFTER, values)
    return _rows.all(conn, _ACTIVE_OF_AGENT_AFTER, {**values, "agent_": agent})


def confirm_revoked(conn: Connection, ids: Sequence[str], now: datetime) -> list[str]:
    """Note of ended tasks that nothing issued for them is alive in Vault any more.

    Returns:
        Those, once, that have ended and of which nothing awaits revocation.
        What can only expire is not waited for.
    """
    if not ids:
        return []
    if conn.dialect.name == "postgresql":
        # First the row, then the look: of two transactions that each confirm one
        # of the last two revocations, the later sees what the earlier did. On
        # SQLite they exclude one another anyway.
        conn.execute(_LOCK_ENDED, {"ids_": list(ids)})
    return _CONFIRM.firsts(conn, {"ids_": list(ids), "now_": now})


def page(conn: Connection, page: Page, agent: str | None) -> PageOf[Task]:
    """Return a page of tasks, of one agent or of all, newest first.

    Raises:
        FilterInvalid: when the filter cannot be understood.
        PageTokenInvalid: when the token belongs to another question.
    """
    if agent is None:
        return _LISTING.page(conn, page)
    return _LISTING.page(conn, page, _table.c.agent == agent, bound_to=agent)
