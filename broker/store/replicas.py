"""Replicas: the processes that serve this database, for people to see. Nothing depends on them."""

from datetime import datetime

from sqlalchemy import Connection, bindparam, delete, update

from broker.model import ReplicaRecord
from broker.store import schema
from broker.store.rows import InsertUnlessKnown, Rows

_table = schema.replicas
_rows = Rows(_table, ReplicaRecord)
_by_name = _table.c.name == bindparam("name_")

_ADD = InsertUnlessKnown(_table, "name")
_TOUCH = update(_table).where(_by_name).values(seen_at=bindparam("seen_at_"))
_REMOVE = delete(_table).where(_by_name)
_PURGE = delete(_table).where(_table.c.seen_at < bindparam("before_"))
_ALL = _rows.select().order_by(_table.c.started_at, _table.c.name)


def touch(conn: Connection, replica: ReplicaRecord) -> None:
    """Note that a replica is there."""
    seen = conn.execute(_TOUCH, {"name_": replica.name, "seen_at_": replica.seen_at}).rowcount
    if not seen:
        _ADD(conn, _rows.values(replica))


def remove(conn: Connection, name: str) -> None:
    """Forget a replica that ended."""
    conn.execute(_REMOVE, {"name_": name})


def purge(conn: Connection, before: datetime) -> int:
    """Forget replicas that were last seen before a moment, and return how many."""
    return conn.execute(_PURGE, {"before_": before}).rowcount


def seen(conn: Connection) -> list[ReplicaRecord]:
    """Return every replica that is there, or was until a while ago, the longest-running first."""
    return _rows.all(conn, _ALL, {})
