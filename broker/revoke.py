"""Taking back: what has to die is written down, and what Vault confirmed is recorded.

The outbox in the database holds one entry per Vault token: a task's anchors,
whose end refuses everything that hangs from them at once, and the tokens
behind single issuances, whose own end (and that of their leases) is confirmed
one by one. Each function here is work for one transaction; `broker.outbox`
asks Vault.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from broker.audit import broker_event
from broker.audit.catalogue import CREDENTIAL_EXPIRED, CREDENTIAL_REVOKED, TASK_REVOCATION_CONFIRMED
from broker.ids import new_id
from broker.model import AuditEvent, Issuance, Revocation, Selection
from broker.store import anchors, events, issuances, revocations, tasks
from broker.store.issuances import Ending

EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Hold:
    """A claim on what is only being queued.

    Attributes:
        by: Name of the replica.
        until: The moment from which on others may take it.
    """

    by: str
    until: datetime


@dataclass(frozen=True, slots=True)
class Queued:
    """What was put up for revocation.

    Attributes:
        issuances: Those that were alive until now.
        entries: What is in the outbox for them.
        without: Tasks that held nothing: their end is confirmed.
    """

    issuances: list[Ending]
    entries: list[Revocation]
    without: list[str]


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What became of a revocation that Vault confirmed.

    Attributes:
        known: Whether it was recorded; not when the claim is stale.
        task_confirmed_at: When everything of its task was found to be gone, if
            this was the last of it.
    """

    known: bool
    task_confirmed_at: datetime | None = None


def queue_anchors(conn: Connection, anchor_ids: Sequence[str], reason: str, now: datetime) -> list[Ending]:
    """Put anchors and all that hangs from them up for revocation.

    An anchor that is still being created has no accessor yet; whoever creates
    it finds its task ended and queues it then.

    Returns:
        The issuances that were alive until now.
    """
    ended = anchors.revoke(conn, anchor_ids)
    moved = issuances.revoke_of_anchors(conn, [anchor.id for anchor in ended], reason, now)
    _queue(conn, ended, moved, reason, now)
    return moved


def queue_issuance(conn: Connection, issuance: Issuance, reason: str, now: datetime) -> bool:
    """Put one issuance up for revocation; False when it was already.

    One without a token of its own (a batch token) dies with its anchor, which
    the caller queues.
    """
    if not issuances.request_revocation(conn, issuance.id, reason, now):
        return False
    _queue(conn, (), [issuance], reason, now)
    return True


def queue_issuances(conn: Connection, ids: Sequence[str], reason: str, now: datetime) -> list[Ending]:
    """Put several issuances up for revocation, as `queue_issuance`; return those that were not already."""
    moved = issuances.revoke(conn, ids, reason, now)
    _queue(conn, (), moved, reason, now)
    return moved


def queue_tasks(
    conn: Connection, task_ids: Sequence[str], reason: str, now: datetime, hold: Hold | None = None
) -> Queued:
    """Put everything that ended tasks hold up for revocation, claimed by `hold` or for anyone to claim."""
    ended = anchors.revoke_of_tasks(conn, task_ids)
    moved = issuances.revoke_of_tasks(conn, task_ids, reason, now)
    entries = _queue(conn, ended, moved, reason, now, hold)
    holding = {anchor.task_id for anchor in ended} | {issuance.task_id for issuance in moved}
    without = tasks.confirm_revoked(conn, [task_id for task_id in task_ids if task_id not in holding], now)
    return Queued(moved, entries, without)


def queue_selection(conn: Connection, wanted: Selection, reason: str, now: datetime, limit: int) -> list[Ending]:
    """Put some of what is selected up for revocation: to be called until nothing is left.

    Everything of an agent, a task or a scope goes with the anchors it hangs
    from. Of a single issuance or one version of a scope, what can be revoked by
    itself is, and what cannot takes its anchor along with all that hangs from it.

    Returns:
        The issuances that were alive until now, siblings under an anchor included.

    Raises:
        ValueError: when the selection does not say what it selects.
    """
    found = issuances.revocable(conn, wanted, limit)
    whole = wanted.issuance_id is None and wanted.scope_version is None
    anchored = sorted({issuance.anchor_id for issuance in found if whole or issuance.accessor is None})
    moved = queue_anchors(conn, anchored, reason, now)
    return [*moved, *queue_issuances(conn, [issuance.id for issuance in found], reason, now)]


def confirm(conn: Connection, gone: Sequence[tuple[Revocation, datetime]]) -> list[Confirmation]:
    """Record that Vault no longer knows tokens, found out each at a moment, and all that follows from it."""
    now = max(at for _, at in gone)
    recorded = revocations.confirm(conn, [entry for entry, _ in gone], now)
    entries = [entry for entry, _ in gone if entry.id in recorded]
    because = {entry.anchor_id or entry.issuance_id: entry for entry in entries}
    ended_anchors = [entry.anchor_id for entry in entries if entry.anchor_id is not None]
    anchors.note_gone(conn, ended_anchors)
    ended = issuances.confirm_of_anchors(conn, ended_anchors, now)
    for expired in (False, True):
        ids = [
            entry.issuance_id
            for entry in entries
            if entry.issuance_id is not None and (entry.reason == EXPIRED) is expired
        ]
        ended += issuances.confirm(conn, ids, now, expired=expired)
    of_task = {entry.task_id: entry for entry in entries}
    confirmed = tasks.confirm_revoked(conn, list(of_task), now)
    records = [_revoked(issuance, because, now) for issuance in ended]
    records += [
        broker_event(TASK_REVOCATION_CONFIRMED, now, task_id=task_id, reason=of_task[task_id].reason)
        for task_id in confirmed
    ]
    events.append(conn, records)
    return [
        Confirmation(entry.id in recorded, now if entry.id in recorded and entry.task_id in confirmed else None)
        for entry, _ in gone
    ]


def never_made(conn: Connection, anchor_id: str, task_id: str, now: datetime) -> None:
    """Record that Vault has made nothing of the intent of an anchor, for which the end of its task may have waited."""
    anchors.note_gone(conn, [anchor_id])
    if tasks.confirm_revoked(conn, [task_id], now):
        events.append(conn, [broker_event(TASK_REVOCATION_CONFIRMED, now, task_id=task_id)])


def _queue(
    conn: Connection,
    ended: Iterable[anchors.Ending],
    moved: Iterable[Ending | Issuance],
    reason: str,
    now: datetime,
    hold: Hold | None = None,
) -> list[Revocation]:
    entries = [_entry(anchor.accessor, anchor.task_id, reason, now, hold, anchor_id=anchor.id) for anchor in ended]
    entries += [
        _entry(
            issuance.accessor, issuance.task_id, reason, now, hold, issuance_id=issuance.id, lease_id=issuance.lease_id
        )
        for issuance in moved
        if issuance.accessor is not None
    ]
    revocations.insert_all(conn, entries)
    return entries


def _entry(
    accessor: str,
    task_id: str,
    reason: str,
    now: datetime,
    hold: Hold | None,
    *,
    anchor_id: str | None = None,
    issuance_id: str | None = None,
    lease_id: str | None = None,
) -> Revocation:
    return Revocation(
        id=new_id(),
        accessor=accessor,
        lease_id=lease_id,
        task_id=task_id,
        anchor_id=anchor_id,
        issuance_id=issuance_id,
        reason=reason,
        requested_at=now,
        attempts=0,
        next_attempt_at=now if hold is None else hold.until,
        epoch=0 if hold is None else 1,
        claimed_by="" if hold is None else hold.by,
    )


def _revoked(issuance: Ending, because: Mapping[str | None, Revocation], now: datetime) -> AuditEvent:
    entry = because[issuance.anchor_id if issuance.accessor is None else issuance.id]
    lag = now - entry.requested_at
    return broker_event(
        CREDENTIAL_EXPIRED if entry.reason == EXPIRED else CREDENTIAL_REVOKED,
        now,
        reason=entry.reason,
        agent=issuance.agent,
        task_id=issuance.task_id,
        issuance_id=issuance.id,
        scope=issuance.scope,
        scope_version=issuance.scope_version,
        attributes={"confirmed_by": "vault", "lag_ms": lag // timedelta(milliseconds=1)},
    )
