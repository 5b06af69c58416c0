"""The sweeper: ends what is over, and takes back what a process that died left half done.

One replica does it for all. It reads what is due in parts, so that no
transaction of it keeps an agent's commit waiting for long.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
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
from broker.lease import Lease, LeaseLost
from broker.locks import Locks
from broker.model import AuditEvent, Issuance, TaskState
from broker.outbox import Revoker
from broker.store import Store, events, issuances, policy, proofs, tasks
from broker.store.issuances import Expired
from broker.tasks import end, ended_by_broker

INTERVAL: Final = 0.5
# Far longer than the Vault calls of one issuance can take: what is still
# half done after this time belongs to a process that is gone.
ABANDONED: Final = timedelta(seconds=60)
# A batch token's end is decided by Vault's clock; the record waits this long.
GRACE: Final = timedelta(seconds=2)

CHUNK: Final = 100
"""Most records that one transaction changes."""

T = TypeVar("T")

log = structlog.get_logger(__name__)


class Sweeper:
    """Looks at the database again and again, and does what time asks for.

    Args:
        lease: Of this work; without it, nothing is done.
        guard: Says whether the clock can be trusted, and how far it is ahead of
            Vault's; in doubt nothing ends by time.
    """

    def __init__(
        self,
        store: Store,
        anchors: Anchors,
        revoker: Revoker,
        locks: Locks,
        clock: Clock,
        lease: Lease,
        guard: ClockGuard,
    ) -> None:
        self._store = store
        self._anchors = anchors
        self._revoker = revoker
        self._locks = locks
        self._clock = clock
        self._lease = lease
        self._guard = guard
        self._enforced = -1
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> asyncio.Task[None]:
        """Sweep in the background until `stop`; return that work."""
        self._loop = asyncio.create_task(self._run(), name="sweeper")
        return self._loop

    async def stop(self) -> None:
        """End the background work, and let another replica take it over."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        await self._lease.release()

    async def turn(self) -> None:
        """Do once what is due now, where this replica is the one that does it.

        Raises:
            StoreUnavailable: when the database cannot be reached.
            LeaseLost: when another replica took over meanwhile.
        """
        self._anchors.forget_expired(self._clock.now())
        if not await self._lease.hold():
            self._enforced = -1
            return
        await self._enforce_locks()
        await self._in_parts(self._end_tasks)
        await self._in_parts(self._expire)
        await self._in_parts(self._settle_intents)
        now = self._clock.now()
        if not self._guard.in_doubt():
            await self._lease.write(lambda conn: proofs.purge(conn, now))

    async def _run(self) -> None:
        while True:
            try:
                await self.turn()
            except BrokerError as error:
                log.warning("sweeping failed, will retry", reason=error.detail)
            except LeaseLost:
                pass
            except Exception:
                log.exception("sweeping failed, will retry")
            await self._clock.sleep(INTERVAL)

    async def _in_parts(self, part: Callable[[datetime], Awaitable[int]]) -> None:
        """Do a part again and again until one settles less than it could; none at a moment that is in doubt."""
        while True:
            now, began = self._clock.now(), self._clock.monotonic()
            if self._guard.in_doubt() or await part(now) < CHUNK:
                return
            # As long as the part took: what agents wait for goes on in between.
            await self._clock.sleep(self._clock.monotonic() - began)
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
        """Record what has run out; what has a token of its own is revoked, so that Vault confirms its end."""
        ahead = max(self._guard.difference or timedelta(), timedelta())
        over = await self._store.read(lambda conn: issuances.expired(conn, now - ahead - GRACE, CHUNK))
        return await self._settle(over, partial(_expiring, now=now))

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


def _expiring(over: Sequence[Expired], *, now: datetime) -> Callable[[Connection], None]:
    own = [issuance.id for issuance in over if issuance.has_token]
    silent = [issuance.id for issuance in over if not issuance.has_token]

    def expire(conn: Connection) -> None:
        revoke.queue_issuances(conn, own, revoke.EXPIRED, now)
        events.append(conn, [_expired(issuance, now) for issuance in issuances.expire(conn, silent, now)])

    return expire


def _expired(issuance: Issuance, now: datetime) -> AuditEvent:
    return broker_event(
        CREDENTIAL_EXPIRED,
        now,
        agent=issuance.agent,
        task_id=issuance.task_id,
        issuance_id=issuance.id,
        scope=issuance.scope,
        scope_version=issuance.scope_version,
        attributes={"confirmed_by": "time"},
    )
