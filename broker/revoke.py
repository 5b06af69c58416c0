"""Taking back: what has to die is written down first, then Vault is asked until it confirms.

The outbox in the database holds one entry per Vault token: a task's anchors,
whose end refuses everything that hangs from them at once, and the tokens
behind single issuances, whose own end (and that of their leases) is confirmed
one by one.
"""

import asyncio
import contextlib
import random
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import structlog
from sqlalchemy import Connection

from broker.audit import broker_event
from broker.audit.catalogue import CREDENTIAL_EXPIRED, CREDENTIAL_REVOKED, TASK_REVOCATION_CONFIRMED
from broker.clock import Clock
from broker.errors import BrokerError
from broker.ids import new_id
from broker.mint.retract import retract
from broker.mint.vault import VaultClient
from broker.model import AnchorRecord, AnchorState, AuditEvent, Issuance, Revocation, Task
from broker.store import Store, anchors, events, issuances, revocations, tasks

EXPIRED = "expired"

_BATCH = 200
_CONCURRENCY = 16
_IDLE_SECONDS = 1.0
_FIRST_RETRY = timedelta(milliseconds=200)
_LONGEST_RETRY = timedelta(seconds=30)

log = structlog.get_logger(__name__)


def queue_anchors(conn: Connection, records: Iterable[AnchorRecord], reason: str, now: datetime) -> list[Issuance]:
    """Put anchors and all that hangs from them up for revocation.

    An anchor that is still being created has no accessor yet; whoever creates
    it finds its task ended and queues it then.

    Returns:
        The issuances that were alive until now.
    """
    moved: list[Issuance] = []
    for record in records:
        if record.state is not AnchorState.ACTIVE or record.accessor is None:
            continue
        anchors.set_state(conn, record.id, AnchorState.REVOKING)
        revocations.insert(conn, _entry(record.task_id, record.accessor, reason, now, anchor_id=record.id))
        moved += [
            issuance
            for issuance in issuances.live_of_anchor(conn, record.id)
            if queue_issuance(conn, issuance, reason, now)
        ]
    return moved


def queue_issuance(conn: Connection, issuance: Issuance, reason: str, now: datetime) -> bool:
    """Put one issuance up for revocation; False when it was already.

    One without a token of its own (a batch token) dies with its anchor, which
    the caller queues.
    """
    if not issuances.request_revocation(conn, issuance.id, reason, now):
        return False
    if issuance.accessor is not None:
        revocations.insert(
            conn,
            _entry(
                issuance.task_id,
                issuance.accessor,
                reason,
                now,
                issuance_id=issuance.id,
                lease_id=issuance.lease_id,
            ),
        )
    return True


def queue_task(conn: Connection, task: Task, reason: str, now: datetime) -> list[Issuance]:
    """Put everything that an ended task holds up for revocation.

    Returns:
        The issuances that were alive until now.
    """
    moved = queue_anchors(conn, anchors.of_task(conn, task.id), reason, now)
    tasks.confirm_revoked(conn, task.id, now)
    return moved


def _entry(
    task_id: str,
    accessor: str,
    reason: str,
    now: datetime,
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
        next_attempt_at=now,
    )


class Revoker:
    """Works the outbox off: asks Vault, and records when it confirmed.

    Asking twice does no harm, so several replicas may work on one entry.
    """

    def __init__(self, store: Store, vault: VaultClient, clock: Clock) -> None:
        self._store = store
        self._vault = vault
        self._clock = clock
        self._wake = asyncio.Event()
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(_CONCURRENCY)
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> asyncio.Task[None]:
        """Work in the background until `stop`; return that work."""
        self._loop = asyncio.create_task(self._run(), name="revoker")
        return self._loop

    async def stop(self) -> None:
        """End the background work; entries left stay in the outbox."""
        running = [task for task in (self._loop, *self._under_way.values()) if task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def wake(self) -> None:
        """Look at the outbox now rather than at the next turn."""
        self._wake.set()

    async def settle(self, task_id: str, wait: timedelta) -> None:
        """Work off what one task has in the outbox, waiting no longer than `wait`.

        Returns in either case: the record says what is confirmed, and the
        background work goes on with the rest.
        """
        with contextlib.suppress(TimeoutError, BrokerError):
            async with asyncio.timeout(wait.total_seconds()):
                entries = await self._store.read(lambda conn: revocations.of_task(conn, task_id))
                await self._work_off([entry for entry in entries if entry.confirmed_at is None])
        self.wake()

    async def turn(self) -> int:
        """Work off what is due now and return how many entries that were."""
        now = self._clock.now()
        due = await self._store.read(lambda conn: revocations.due(conn, now, _BATCH))
        await self._work_off(due)
        return len(due)

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                worked = await self.turn()
            except BrokerError as error:
                log.warning("the outbox of revocations cannot be read", reason=error.detail)
                worked = 0
            if worked < _BATCH:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), _IDLE_SECONDS)

    async def _work_off(self, entries: Sequence[Revocation]) -> None:
        anchored = [entry for entry in entries if entry.anchor_id is not None]
        single = [entry for entry in entries if entry.anchor_id is None]
        for group in (anchored, single):
            if group:
                await asyncio.wait([self._working_on(entry) for entry in group])

    def _working_on(self, entry: Revocation) -> asyncio.Task[None]:
        task = self._under_way.get(entry.id)
        if task is None:
            task = asyncio.create_task(self._work(entry), name=f"revoke {entry.id}")
            self._under_way[entry.id] = task
            task.add_done_callback(lambda _: self._under_way.pop(entry.id, None))
        return task

    async def _work(self, entry: Revocation) -> None:
        async with self._slots:
            error = ""
            try:
                gone = await retract(self._vault, entry.accessor, entry.lease_id, insist=entry.attempts > 0)
            except BrokerError as failure:
                gone, error = False, failure.detail
            try:
                await self._record(entry, gone, error)
            except BrokerError as failure:
                log.warning("the end of a revocation cannot be recorded", entry=entry.id, reason=failure.detail)

    async def _record(self, entry: Revocation, gone: bool, error: str) -> None:
        now = self._clock.now()
        if gone:
            await self._store.write(lambda conn: confirm(conn, entry, now))
            return
        retry_at = now + _backoff(entry.attempts)
        await self._store.write(
            lambda conn: revocations.retry(conn, entry.id, error=error or "not gone yet", next_attempt_at=retry_at)
        )
        if error:
            log.warning("revocation failed, will retry", task=entry.task_id, attempts=entry.attempts + 1, reason=error)


def confirm(conn: Connection, entry: Revocation, now: datetime) -> None:
    """Record that Vault no longer knows a token, and all that follows from it."""
    if not revocations.confirm(conn, entry.id, now):
        return
    if entry.anchor_id is not None:
        anchors.set_state(conn, entry.anchor_id, AnchorState.GONE)
        ended = [issuance for issuance in issuances.live_of_anchor(conn, entry.anchor_id) if issuance.accessor is None]
    else:
        found = issuances.get(conn, entry.issuance_id) if entry.issuance_id is not None else None
        ended = [found] if found is not None else []
    issuances.confirm(conn, [issuance.id for issuance in ended], now, expired=entry.reason == EXPIRED)
    records = [_revoked(issuance, entry, now) for issuance in ended]
    if tasks.confirm_revoked(conn, entry.task_id, now):
        records.append(broker_event(TASK_REVOCATION_CONFIRMED, now, task_id=entry.task_id, reason=entry.reason))
    events.append(conn, records)


def _revoked(issuance: Issuance, entry: Revocation, now: datetime) -> AuditEvent:
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


def _backoff(attempts: int) -> timedelta:
    """Return how long to wait after that many failed attempts, with jitter."""
    longest: timedelta = min(_FIRST_RETRY * (1 << min(attempts, 16)), _LONGEST_RETRY)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, decides nothing
