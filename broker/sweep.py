"""The sweeper: ends what is over, and takes back what a process that died left half done.

One replica does it for all. It reads what is due in parts, so that no
transaction of it keeps an agent's commit waiting for long.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Final, TypeVar

import structlog
from sqlalchemy import Connection

from broker import revoke
from broker.anchors import Anchors
from broker.audit import broker_event
from broker.audit.catalogue import CREDENTIAL_EXPIRED
from broker.clock import Clock
from broker.clock_guard import ClockGuard
from broker.errors import BrokerError
from broker.lease import Lease, LeaseLost, SingleDuty
from broker.locks import Locks
from broker.mint.retract import is_gone
from broker.mint.vault import VaultClient
from broker.model import AuditEvent, TaskState
from broker.outbox import Revoker
from broker.store import Store, events, issuances, policy, proofs, tasks
from broker.store.issuances import Ending, Expired
from broker.tasks import end, ended_by_broker

INTERVAL: Final = 0.5
# Far longer than the Vault calls of one issuance can take: what is still
# half done after this time belongs to a process that is gone.
ABANDONED: Final = timedelta(seconds=60)
# A batch token's end is decided by Vault's clock; the record waits this long.
GRACE: Final = timedelta(seconds=2)

ASKERS: Final = 16
ASKING: Final = 2.0
"""Seconds in which Vault is asked what it has ended by itself."""

CHUNK: Final = 100
"""Most records that one transaction changes."""

T = TypeVar("T")

log = structlog.get_logger(__name__)


class Sweeper(SingleDuty):
    """Looks at the database again and again, and does what time asks for.

    Args:
        vault: With the broker's own identity.
        lease: Of this work; without it, nothing is done.
        guard: Says whether the clock can be trusted, and how far it is ahead of
            Vault's; in doubt nothing ends by time.
    """

    def __init__(
        self,
        store: Store,
        vault: VaultClient,
        anchors: Anchors,
        revoker: Revoker,
        locks: Locks,
        clock: Clock,
        lease: Lease,
        guard: ClockGuard,
    ) -> None:
        super().__init__(clock, lease, INTERVAL)
        self._store = store
        self._vault = vault
        self._anchors = anchors
        self._revoker = revoker
        self._locks = locks
        self._guard = guard
        self._enforced = -1

    async def turn(self) -> None:
        """Sweep once, where this replica is the one that does it; forget what is over here in any case."""
        self._anchors.forget_expired(self._clock.now())
        await super().turn()

    async def work(self, *, taken_over: bool) -> None:
        """Do once what is due now.

        Raises:
            StoreUnavailable: when the database cannot be reached.
            LeaseLost: when another replica took over meanwhile.
        """
        if taken_over:
            self._enforced = -1
        await self._enforce_locks()
        await self._in_parts(self._end_tasks)
        await self._in_parts(self._expire)
        await self._in_parts(self._settle_intents)
        now = self._clock.now()
        if not self._guard.in_doubt():
            await self._lease.write(lambda conn: proofs.purge(conn, now))

    async def _in_parts(self, part: Callable[[datetime], Awaitable[int]]) -> None:
        """Do a part again and again until one settles less than it could; none at a moment that is in doubt."""
        while True:
            now, began = self._clock.now(), self._clock.monotonic()
            if self._guard.in_doubt() or await part(now) < CHUNK:
                return
            # Half as long as the part took: what agents wait for goes on in between.
            await self._clock.sleep((self._clock.monotonic() - began) / 2)
            await self._lease.hold()

    async def _enforce_locks(self) -> None:
        """Carry on where a replica died while it took back what it had locked."""
        revision = await self._store.read(policy.revision)
        if revision != self._enforced:
            await self._locks.enforce_all()
            self._enforced = revision

    async def _end_tasks(self, now: datetime) -> int:
        due = await self._store.read(lambda conn: tasks.due(conn, now, CHUNK))
        missed = [task.id for task in due if task.deadline > now]
        overdue = [task.id for task in due if task.deadline <= now]
        ended = 0
        for state, ids in ((TaskState.HEARTBEAT_MISSED, missed), (TaskState.DEADLINE_EXCEEDED, overdue)):
            ended += await self._settle(ids, partial(_ending, state=state, now=now))
        for task in due:
            self._anchors.forget_task(task.id)
        return ended

    async def _expire(self, now: datetime) -> int:
        """Record what has run out: by time, or by Vault's word where it can be asked; what lives on is revoked."""
        ahead = max(self._guard.difference or timedelta(), timedelta())
        over = await self._store.read(lambda conn: issuances.expired(conn, now - ahead - GRACE, CHUNK))
        gone = await self._gone(over) if over else frozenset[str]()
        return await self._settle(over, partial(_expiring, gone=gone, now=now))

    async def _gone(self, over: Sequence[Expired]) -> frozenset[str]:
        """Ask Vault which of these it has ended by itself, as it should; those it does not say so of are left out."""
        gone: set[str] = set()
        left = iter(over)

        async def ask() -> None:
            for one in left:
                if one.accessor is not None:
                    with suppress(BrokerError):
                        if await is_gone(self._vault, one.accessor, one.lease_id):
                            gone.add(one.id)

        with suppress(TimeoutError):
            async with asyncio.timeout(ASKING), asyncio.TaskGroup() as asking:
                for _ in range(ASKERS):
                    asking.create_task(ask())
        return frozenset(gone)

    async def _settle_intents(self, now: datetime) -> int:
        """Take back what a process was minting when it died."""
        left = await self._store.read(lambda conn: issuances.minting_before(conn, now - ABANDONED, CHUNK))
        return await self._settle([issuance.id for issuance in left], partial(_interrupting, now=now))

    async def _settle(self, items: Sequence[T], work: Callable[[Sequence[T]], Callable[[Connection], object]]) -> int:
        """Settle several records in one transaction, and return how many were.

        Should the database refuse one of them, the others are settled all the same.
        """
        if not items:
            return 0
        try:
            await self._lease.write(work(items))
        except LeaseLost:
            raise
        except Exception as error:
            await self._store.check()  # what concerns all of them ends the turn
            if len(items) == 1:
                log.error("a record cannot be settled, will retry", record=_name(items[0]), exc_info=error)
                return 0
        else:
            self._revoker.wake()
            return len(items)
        middle = len(items) // 2
        return await self._settle(items[:middle], work) + await self._settle(items[middle:], work)


def _name(item: object) -> str:
    return item.id if isinstance(item, Expired) else str(item)


def _ending(ids: Sequence[str], *, state: TaskState, now: datetime) -> Callable[[Connection], object]:
    return lambda conn: end(conn, ids, state, now, ended_by_broker(state, now))


def _interrupting(ids: Sequence[str], *, now: datetime) -> Callable[[Connection], object]:
    return lambda conn: revoke.queue_issuances(conn, ids, "mint.interrupted", now)


def _expiring(over: Sequence[Expired], *, gone: frozenset[str], now: datetime) -> Callable[[Connection], None]:
    ended = [one.id for one in over if one.accessor is None or one.id in gone]
    living = [one.id for one in over if one.accessor is not None and one.id not in gone]

    def expire(conn: Connection) -> None:
        revoke.queue_issuances(conn, living, revoke.EXPIRED, now)
        events.append(conn, [_expired(issuance, now) for issuance in issuances.expire(conn, ended, now)])

    return expire


def _expired(issuance: Ending, now: datetime) -> AuditEvent:
    return broker_event(
        CREDENTIAL_EXPIRED,
        now,
        agent=issuance.agent,
        task_id=issuance.task_id,
        issuance_id=issuance.id,
        scope=issuance.scope,
        scope_version=issuance.scope_version,
        attributes={"confirmed_by": "time" if issuance.accessor is None else "vault"},
    )
