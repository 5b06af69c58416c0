"""Leases: which replica does the work that only one may do."""

from datetime import datetime, timedelta

from sqlalchemy import Connection, bindparam, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from broker.model import LeaseRecord
from broker.store import schema
from broker.store.rows import Rows

_table = schema.leases
_rows = Rows(_table, LeaseRecord)
_by_name = _table.c.name == bindparam("name_")

# What ends further ahead than any lease can was written by a clock that was wrong.
_TAKE = (
    update(_table)
    .where(
        _by_name,
        or_(_table.c.expires_at <= bindparam("now_"), _table.c.expires_at > bindparam("horizon_")),
    )
    .values(holder=bindparam("holder_"), epoch=_table.c.epoch + 1, expires_at=bindparam("until_"))
    .returning(_table.c.epoch)
)
_EXTEND = (
    update(_table)
    .where(_by_name, _table.c.epoch == bindparam("epoch_"))
    .values(expires_at=bindparam("until_"))
    .returning(_table.c.epoch)
)
_RELEASE = update(_table).where(_by_name, _table.c.epoch == bindparam("epoch_")).values(expires_at=bindparam("now_"))
_PIN = select(_table.c.epoch).where(_by_name).with_for_update(read=True)
_ALL = _rows.select().order_by(_table.c.name)
_ADD = {
    "sqlite": sqlite.insert(_table).on_conflict_do_nothing().returning(_table.c.epoch),
    "postgresql": postgresql.insert(_table).on_conflict_do_nothing().returning(_table.c.epoch),
}


def take(conn: Connection, name: str, holder: str, now: datetime, life: timedelta) -> int | None:
    """Take a lease that nobody holds and return its new epoch; None while somebody holds it.

    Args:
        conn: The transaction.
        name: Which work.
        holder: Name of the replica that takes it.
        now: The replica's time.
        life: How long it lasts from now; the same for all who ask for it.
    """
    values = {"name_": name, "holder_": holder, "now_": now, "until_": now + life, "horizon_": now + 2 * life}
    taken = conn.execute(_TAKE, values).scalar_one_or_none()
    if taken is None:
        first = {"name": name, "holder": holder, "epoch": 1, "expires_at": now + life}
        taken = conn.execute(_ADD[conn.dialect.name], first).scalar_one_or_none()
    return None if taken is None else int(taken)


def extend(conn: Connection, name: str, epoch: int, until: datetime) -> bool:
    """Keep a lease for longer; False when somebody took it meanwhile."""
    values = {"name_": name, "epoch_": epoch, "until_": until}
    return conn.execute(_EXTEND, values).scalar_one_or_none() is not None


def release(conn: Connection, name: str, epoch: int, now: datetime) -> None:
    """Let others take a lease at once."""
    conn.execute(_RELEASE, {"name_": name, "epoch_": epoch, "now_": now})


def held(conn: Connection, name: str, epoch: int) -> bool:
    """Say whether nobody took the lease since; nobody can until this transaction ends."""
    return conn.execute(_PIN, {"name_": name}).scalar_one_or_none() == epoch


def all_leases(conn: Connection) -> list[LeaseRecord]:
    """Return every lease that was ever taken, by name."""
    return _rows.all(conn, _ALL, {})
