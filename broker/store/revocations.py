"""The outbox of revocations: what Vault is yet to confirm."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, or_, select, tuple_, update
from sqlalchemy.sql.dml import ReturningUpdate

from broker.model import Revocation
from broker.store import schema
from broker.store.cleaning import clean
from broker.store.insertion import Insertion
from broker.store.rows import Rows
from broker.store.statement import Statement

_table = schema.revocations
_rows = Rows(_table, Revocation)
_unconfirmed = _table.c.confirmed_at.is_(None)
_of_anchor = _table.c.anchor_id.is_not(None)
# What a stale claim has to say is not written.
_claimed = (_table.c.id == bindparam("id_"), _table.c.epoch == bindparam("epoch_"), _unconfirmed)
# What is due further ahead than any claim or pause was written by a clock that was wrong.
_due = or_(_table.c.next_attempt_at <= bindparam("now_"), _table.c.next_attempt_at > bindparam("horizon_"))

_INSERT_UNLESS_KNOWN = Insertion(_table, _rows.names, unless_known=("accessor",))
_OF_TASK = _rows.select(_table.c.task_id == bindparam("task_id_")).order_by(_table.c.id)
_RETRY = (
    update(_table)
    .where(*_claimed)
    .values(
        attempts=_table.c.attempts + 1, last_error=bindparam("error_"), next_attempt_at=bindparam("next_attempt_at_")
    )
)
_CONFIRM = Statement(
    update(_table)
    .where(
        # SQLite finds the rows by the first condition alone.
        _table.c.id.in_(bindparam("ids_", expanding=True)),
        tuple_(_table.c.id, _table.c.epoch).in_(bindparam("claimed_", expanding=True)),
        _unconfirmed,
    )
    .values(confirmed_at=bindparam("now_"))
    .returning(_table.c.id)
)
_RELEASE = update(_table).where(*_claimed).values(next_attempt_at=bindparam("now_"))


def _claiming(*which: ColumnElement[bool]) -> ReturningUpdate[Any]:
    # Named, so that PostgreSQL looks for it once and the limit holds.
    wanted = (
        select(_table.c.id)
        .where(_unconfirmed, *which)
        .order_by(_table.c.next_attempt_at)
        .limit(bindparam("limit_"))
        .with_for_update(skip_locked=True)
        .cte("wanted")
    )
    return (
        update(_table)
        .where(_table.c.id.in_(select(wanted.c.id)))
        .values(epoch=_table.c.epoch + 1, claimed_by=bindparam("by_"), next_attempt_at=bindparam("until_"))
        .returning(*_rows.columns)
    )


_of_task = _table.c.task_id == bindparam("task_id_")
_CLAIM_ANCHORS = _claiming(_due, _of_anchor)
_CLAIM = _claiming(_due)
_CLAIM_OF_TASK = _claiming(_due, _of_task)
_CLAIM_UNTRIED = _claiming(_of_task, _table.c.attempts == 0, _table.c.claimed_by == bindparam("by_"))


def insert_all(conn: Connection, revocations: Sequence[Revocation]) -> None:
    """Queue revocations; accessors that are queued already, or were revoked, are left as they are."""
    _INSERT_UNLESS_KNOWN(conn, [_rows.row(revocation) for revocation in revocations])


def claim(
    conn: Connection, now: datetime, *, by: str, hold: timedelta, limit: int, task_id: str | None = None
) -> list[Revocation]:
    """Take what is due, anchors first; nobody else is given it until `hold` is over.

    Transactions that claim at the same time do not wait for one another: each
    passes over what the other takes.

    Args:
        conn: The transaction.
        now: The replica's time.
        by: Name of the replica.
        hold: How long the claim lasts; the same on every replica, and at least
            the longest pause between attempts.
        limit: Most entries to take.
        task_id: Take only what belongs to this task.
    """
    values = {"now_": now, "until_": now + hold, "horizon_": now + 2 * hold, "by_": by, "limit_": limit}
    if task_id is not None:
        return _rows.all(conn, _CLAIM_OF_TASK, {**values, "task_id_": task_id})
    claimed = _rows.all(conn, _CLAIM_ANCHORS, values)
    if len(claimed) < limit:
        claimed += _rows.all(conn, _CLAIM, {**values, "limit_": limit - len(claimed)})
    return claimed


def claim_untried(
    conn: Connection, now: datetime, *, by: str, hold: timedelta, limit: int, task_id: str
) -> list[Revocation]:
    """Take anew what a replica holds of a task and has not tried yet; the arguments are those of `claim`."""
    return _rows.all(conn, _CLAIM_UNTRIED, {"until_": now + hold, "by_": by, "task_id_": task_id, "limit_": limit})


def of_task(conn: Connection, task_id: str) -> list[Revocation]:
    """Return all revocations of a task, confirmed ones included, oldest first."""
    return _rows.all(conn, _OF_TASK, {"task_id_": task_id})


def retry(conn: Connection, claimed: Revocation, *, error: str, next_attempt_at: datetime) -> bool:
    """Note a failed attempt and when to try again; False when the claim is stale."""
    values = {
        "id_": claimed.id,
        "epoch_": claimed.epoch,
        "error_": clean(error),
        "next_attempt_at_": next_attempt_at,
    }
    return conn.execute(_RETRY, values).rowcount == 1


def confirm(conn: Connection, claimed: Sequence[Revocation], now: datetime) -> set[str]:
    """Note that Vault no longer knows these tokens.

    Returns:
        The entries of which that was not noted before, and the claim is not stale.
    """
    if not claimed:
        return set()
    ids, claims = [entry.id for entry in claimed], [(entry.id, entry.epoch) for entry in claimed]
    return set(_CONFIRM.firsts(conn, {"ids_": ids, "claimed_": claims, "now_": now}))


def release(conn: Connection, claimed: Sequence[Revocation], now: datetime) -> None:
    """Let others take what was claimed at once."""
    if claimed:
        conn.execute(_RELEASE, [{"id_": entry.id, "epoch_": entry.epoch, "now_": now} for entry in claimed])
