"""The number that every change of scopes and locks raises."""

from sqlalchemy import Connection, select, text, update

from broker.store.schema import policy_revision
from broker.store.statement import Statement

_revision = select(policy_revision.c.revision)

_READ = Statement(_revision)
_PIN = Statement(_revision.with_for_update(read=True))
_RAISE = Statement(
    update(policy_revision).values(revision=policy_revision.c.revision + 1).returning(policy_revision.c.revision)
)
# Table locks are granted in turn; without this one, replicas that keep pinning
# the row could keep a change of the rules waiting.
_STAND_IN_LINE = text("LOCK TABLE policy_revision IN EXCLUSIVE MODE")


def revision(conn: Connection) -> int:
    """Return the revision in force."""
    return _READ.number(conn)


def pin_revision(conn: Connection) -> int:
    """Return the revision in force; it cannot change before this transaction ends."""
    return _PIN.number(conn)


def hold(conn: Connection) -> None:
    """Let nobody else record a decision or change the rules before this transaction ends.

    On SQLite a write transaction does so anyway.
    """
    if conn.dialect.name == "postgresql":
        conn.execute(_STAND_IN_LINE)


def raise_revision(conn: Connection) -> int:
    """Make what was decided before unfit to be recorded, and return the new revision."""
    hold(conn)
    return _RAISE.number(conn)
