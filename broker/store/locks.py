"""Locks."""

from datetime import datetime

from sqlalchemy import ColumnElement, Connection, bindparam, or_, update

from broker.model import Lock, LockKind, Page
from broker.store import schema
from broker.store.paging import Listing, PageOf
from broker.store.rows import Rows

_table = schema.locks
_rows = Rows(_table, Lock)


def _in_force(now: object) -> tuple[ColumnElement[bool], ...]:
    return _table.c.lifted_at.is_(None), or_(_table.c.expires_at.is_(None), _table.c.expires_at > now)


_IN_FORCE = _rows.select(*_in_force(bindparam("now_"))).order_by(_table.c.id)
_LIFT = (
    update(_table)
    .where(_table.c.id == bindparam("id_"), *_in_force(bindparam("now_")))
    .values(lifted_at=bindparam("now_"), lifted_by=bindparam("by_"))
    .returning(*_rows.columns)
)
_LATEST_BY = (
    _rows.select(
        _table.c.created_at > bindparam("since_"),
        _table.c.kind == LockKind.AGENT,
        _table.c.target == bindparam("agent_"),
        _table.c.creator == bindparam("creator_"),
    )
    .order_by(_table.c.id.desc())
    .limit(1)
)
_LISTING = Listing("locks", _rows, _table.c.id)


def insert(conn: Connection, lock: Lock) -> None:
    """Store a lock."""
    conn.execute(_rows.insert, _rows.values(lock))


def in_force(conn: Connection, now: datetime) -> list[Lock]:
    """Return the locks that are neither lifted nor expired, oldest first."""
    return _rows.all(conn, _IN_FORCE, {"now_": now})


def latest_of_agent(conn: Connection, agent: str, creator: str, since: datetime) -> Lock | None:
    """Return the newest lock on exactly this agent by this creator, ended or not, unless it is no newer than that."""
    return _rows.one(conn, _LATEST_BY, {"agent_": agent, "creator_": creator, "since_": since})


def lift(conn: Connection, lock_id: str, by: str, now: datetime) -> Lock | None:
    """End a lock that is in force and return it; None when it is not."""
    return _rows.one(conn, _LIFT, {"id_": lock_id, "by_": by, "now_": now})


def page(conn: Connection, page: Page, now: datetime) -> PageOf[Lock]:
    """Return a page of the locks in force, newest first.

    Raises:
        FilterInvalid: when there is a filter.
        PageTokenInvalid: when the token belongs to another list.
    """
    return _LISTING.page(conn, page, *_in_force(now))
