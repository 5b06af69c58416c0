"""How much of everything there is: what a person or a monitor looks at first."""

from datetime import datetime
from typing import Final

from sqlalchemy import Connection, and_, bindparam, case, func, or_, select

from broker.model import LIVE_ISSUANCES, Standing, TaskState
from broker.store import schema
from broker.store.columns import constant

IRREVOCABLE_ATTEMPTS: Final = 6
"""Vault gives a lease up after that many failed attempts of its own."""

_tasks, _issuances, _revocations, _locks = schema.tasks, schema.issuances, schema.revocations, schema.locks
_failing = _revocations.c.attempts >= 1
_given_up = and_(_revocations.c.attempts >= IRREVOCABLE_ATTEMPTS, _revocations.c.lease_id.is_not(None))

_ACTIVE = select(func.count()).where(_tasks.c.state == constant(TaskState.ACTIVE))
_UNCONFIRMED = select(func.count()).where(_tasks.c.ended_at.is_not(None), _tasks.c.revocation_confirmed_at.is_(None))
_LIVE = select(func.count()).where(_issuances.c.state.in_([constant(state) for state in LIVE_ISSUANCES]))
_IN_FORCE = select(func.count()).where(
    _locks.c.lifted_at.is_(None), or_(_locks.c.expires_at.is_(None), _locks.c.expires_at > bindparam("now_"))
)
_PENDING = select(
    func.count(),
    func.count(case((_failing, 1))),
    func.count(case((_given_up, 1))),
    func.min(_revocations.c.requested_at),
).where(_revocations.c.confirmed_at.is_(None))


def standing(conn: Connection, now: datetime) -> Standing:
    """Count what is under way, by indices that hold nothing else.

    The cost grows with what is alive and unfinished, not with the history.
    """
    pending, failing, given_up, oldest = conn.execute(_PENDING).one()
    return Standing(
        active_tasks=int(conn.execute(_ACTIVE).scalar_one()),
        unconfirmed_tasks=int(conn.execute(_UNCONFIRMED).scalar_one()),
        live_issuances=int(conn.execute(_LIVE).scalar_one()),
        pending_revocations=int(pending),
        failing_revocations=int(failing),
        irrevocable_leases=int(given_up),
        oldest_pending_at=oldest,
        locks_in_force=int(conn.execute(_IN_FORCE, {"now_": now}).scalar_one()),
    )
