"""The number that every change of scopes and locks raises."""

from sqlalchemy import Connection, select, text, update

from broker.store.schema import policy_revision
from broker.store.statement import Statement

_READ = select(policy_revision.c.revision)
_PIN = Statement(_READ.with_for_update(read=True))
_RAISE = update(policy_revision).values(revision=policy_revision.c.revision + 1).returning(policy_revision.c.revision)
# Table locks are granted in turn; without this one, replicas that keep pinning
# the row could keep a change of the rules waiting.
_STAND_IN_LINE = text("LOCK TABLE policy_revision IN EXCLUSIVE MODE")


def revision(conn: Connection) -> int:
    """Return the revision in force."""
    return int(conn.execute(_READ).scalar_one())


def pin_revision(conn: Connection) -> int:
    """Return the revision in force; it cannot change before this transaction ends."""
    ((pinned,),) = _PIN.rows(conn, {})
    return int(pinned)


def hold(conn: Connection) -> None:
    """Let nobody else record a decision or change the rules before this transaction ends.

    On SQLite a write transaction does so anyway.
    """
    if conn.dialect.name == "postgresql":
        conn.execute(_STAND_IN_LINE)


def raise_revision(conn: Connection) -> int:
    """Make what was decided before unfit to be recorded, and return the new revision."""
    hold(conn)
    return int(conn.execute(_RAISE).scalar_one())
