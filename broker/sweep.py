"""The sweeper: ends what is over, and settles what a crash left half done."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import structlog
from sqlalchemy import Connection

from broker import revoke
from broker.anchors import Anchors
from broker.audit import broker_event
from broker.audit.catalogue import CREDENTIAL_EXPIRED, TASK_REVOCATION_CONFIRMED
from broker.clock import Clock
from broker.errors import BrokerError
from broker.mint.reap import find_anchors
from broker.mint.vault import VaultClient
from broker.model import AnchorRecord, AnchorState, AuditEvent, TaskState
from broker.revoke import Revoker
from broker.store import Store, anchors, events, issuances, proofs, tasks
from broker.tasks import end, ended_by_broker

INTERVAL: Final = 0.5
# Far longer than the Vault calls of one issuance can take: what is still
# half done after this time belongs to a process that is gone.
ABANDONED: Final = timedelta(seconds=60)
# A batch token's end is decided by Vault's clock; the record waits this long.
GRACE: Final = timedelta(seconds=2)

_BATCH: Final = 1000

log = structlog.get_logger(__name__)


class Sweeper:
    """Looks at the database again and again, and does what time asks for.

    Args:
        reaper: A Vault client that may list token accessors; None when the
            configuration has no such identity.
    """

    def __init__(
        self,
        store: Store,
        anchors: Anchors,
        revoker: Revoker,
        clock: Clock,
        reaper: VaultClient | None,
    ) -> None:
        self._store = store
        self._anchors = anchors
        self._revoker = revoker
        self._clock = clock
        self._reaper = reaper
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> asyncio.Task[None]:
        """Sweep in the background until `stop`; return that work."""
        self._loop = asyncio.create_task(self._run(), name="sweeper")
        return self._loop

    async def stop(self) -> None:
        """End the background work."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)

    async def turn(self) -> None:
        """Do once what is due now.

        Raises:
            StoreUnavailable: when the database cannot be reached.
        """
        now = self._clock.now()
        self._anchors.forget_expired(now)
        ended = await self._end_tasks(now)
        expired = await self._store.write(lambda conn: _expire(conn, now))
        settled = await self._store.write(lambda conn: _settle_intents(conn, now))
        await self._settle_anchors(now)
        await self._store.write(lambda conn: proofs.purge(conn, now))
        if ended or expired or settled:
            self._revoker.wake()

    async def _run(self) -> None:
        while True:
            try:
                await self.turn()
            except BrokerError as error:
                log.warning("sweeping failed, will retry", reason=error.detail)
            except Exception:
                log.exception("sweeping failed, will retry")
            await self._clock.sleep(INTERVAL)

    async def _end_tasks(self, now: datetime) -> int:
        due = await self._store.read(lambda conn: tasks.due(conn, now, _BATCH))
        for task in due:
            missed = task.deadline > now
            state = TaskState.HEARTBEAT_MISSED if missed else TaskState.DEADLINE_EXCEEDED
            event = ended_by_broker(task, state, now)
            await self._store.write(_ending(task.id, state, now, event))
            self._anchors.forget_task(task.id)
        return len(due)

    async def _settle_anchors(self, now: datetime) -> None:
        """Find in Vault what was intended by a process that then died."""
        left = await self._store.read(lambda conn: anchors.creating_before(conn, now - ABANDONED, _BATCH))
        if not left:
            return
        try:
            found = await find_anchors(self._reaper, [record.id for record in left]) if self._reaper else {}
        except BrokerError as error:
            log.warning("abandoned anchors cannot be looked for, will retry", reason=error.detail)
            return
        for record in left:
            accessor = found.get(record.id)
            # Without an identity that may look, only time proves that nothing is there.
            if accessor is not None or self._reaper is not None or record.expires_at <= now:
                await self._store.write(_settling(record, accessor, now))
        self._revoker.wake()


def _ending(task_id: str, state: TaskState, now: datetime, event: AuditEvent) -> Callable[[Connection], object]:
    return lambda conn: end(conn, task_id, state, now, event)


def _expire(conn: Connection, now: datetime) -> int:
    """Record what has run out; what has a token of its own is revoked, so that Vault confirms its end."""
    over = issuances.expired(conn, now - GRACE, _BATCH)
    for issuance in over:
        if issuance.accessor is not None:
            revoke.queue_issuance(conn, issuance, revoke.EXPIRED, now)
    silent = [issuance for issuance in over if issuance.accessor is None]
    issuances.expire(conn, [issuance.id for issuance in silent], now)
    events.append(
        conn,
        [
            broker_event(
                CREDENTIAL_EXPIRED,
                now,
                agent=issuance.agent,
                task_id=issuance.task_id,
                issuance_id=issuance.id,
                scope=issuance.scope,
                scope_version=issuance.scope_version,
                attributes={"confirmed_by": "time"},
            )
            for issuance in silent
        ],
    )
    return len(over)


def _settle_intents(conn: Connection, now: datetime) -> int:
    """Take back what a process was minting when it died."""
    left = issuances.minting_before(conn, now - ABANDONED, _BATCH)
    for issuance in left:
        revoke.queue_issuance(conn, issuance, "mint.interrupted", now)
    return len(left)


def _settling(record: AnchorRecord, accessor: str | None, now: datetime) -> Callable[[Connection], None]:
    def settle(conn: Connection) -> None:
        if accessor is None:
            anchors.set_state(conn, record.id, AnchorState.GONE)
            if tasks.confirm_revoked(conn, record.task_id, now):
                events.append(conn, [broker_event(TASK_REVOCATION_CONFIRMED, now, task_id=record.task_id)])
        elif anchors.activate(conn, record.id, accessor, record.expires_at):
            active = replace(record, state=AnchorState.ACTIVE, accessor=accessor)
            revoke.queue_anchors(conn, [active], "anchor.abandoned", now)

    return settle
