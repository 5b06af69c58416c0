"""Automatic locks: an agent that goes wrong is stopped before a person notices.

Requests only leave a note of who made them. A moment later, and off their way,
what such an agent did of late is counted in the database, which knows of all
replicas; beyond a threshold the agent is locked as an admin would do it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog
from sqlalchemy import Connection

from broker import config
from broker.audit import BROKER, Call, broker_event
from broker.audit.catalogue import LOCK_CREATED, LOCK_ENFORCED
from broker.authorize import hold
from broker.clock import Clock
from broker.duty import Duty
from broker.errors import (
    InvalidArgument,
    IssuanceNotFound,
    LimitReached,
    ParametersInvalid,
    RoleRequired,
    ScopeDenied,
    ScopeNotDeclared,
    TaskNotFound,
    TtlExceeded,
)
from broker.ids import new_id
from broker.locks import Locks, facts, store_lock
from broker.model import Lock, LockKind, Role
from broker.store import Store, events, issuances, locks
from broker.store import policy as revisions

INTERVAL: Final = 0.25
MOST_AT_ONCE: Final = 64
"""Most agents that one look counts for; the others wait for the next."""
MOST_WAITING: Final = 4096
"""Most agents that wait to be looked at; whoever goes on will be noted again."""

# What an agent asks that it may not have. Not among them: what others can
# cause in its name, what only came too late, and what a lock itself refuses.
WRONG: Final = frozenset(
    error.reason
    for error in (
        RoleRequired,
        ScopeDenied,
        ScopeNotDeclared,
        InvalidArgument,
        ParametersInvalid,
        TtlExceeded,
        TaskNotFound,
        IssuanceNotFound,
        LimitReached,
    )
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Passed:
    """Which threshold an agent has passed."""

    what: str
    count: int
    within: timedelta

    def __str__(self) -> str:
        return f"{self.count} {self.what} within {self.within.total_seconds():g} seconds"


class Watch(Duty):
    """Watches agents, and locks those that pass a threshold."""

    def __init__(self, store: Store, locks: Locks, clock: Clock, settings: config.AutomaticLocks) -> None:
        super().__init__(clock, "watch", INTERVAL)
        self._store = store
        self._locks = locks
        self._settings = settings
        self._noted: dict[str, None] = {}

    def note(self, call: Call, reason: str) -> None:
        """Take note of a request that has ended, its event being durable.

        Only who is an agent and nothing else counts: operators are not locked,
        and nobody is for what was sent without its evidence.

        Args:
            call: The request.
            reason: Why it was refused; empty when it was not.
        """
        caller = call.caller
        if caller is None or caller.roles != {Role.AGENT}:
            return
        counts = self._settings.refusals is not None if reason in WRONG else self._issued(call, reason)
        if counts and len(self._noted) < MOST_WAITING:
            self._noted[caller.identity.uri] = None

    def _issued(self, call: Call, reason: str) -> bool:
        return self._settings.issuances is not None and not reason and call.issuance_id is not None

    async def turn(self) -> None:
        """Look at those who were noted.

        Raises:
            StoreUnavailable: when the database cannot be reached.
        """
        for agent in list(self._noted)[:MOST_AT_ONCE]:
            # Before counting: whoever goes on meanwhile is noted again.
            del self._noted[agent]
            try:
                await self._look_at(agent)
            except BaseException:
                self._noted[agent] = None
                raise

    async def _look_at(self, agent: str) -> None:
        now = self._clock.now()
        if await self._store.read(self._judging(agent, now)) is None:
            return
        lock = await self._store.write(self._locking(agent, now))
        if lock is not None:
            log.warning("an agent was locked", agent=agent, reason=lock.reason, lock=lock.id)
            await self._locks.enforce(lock, broker_event(LOCK_ENFORCED, now, agent=agent))

    def _judging(self, agent: str, now: datetime) -> Callable[[Connection], Passed | None]:
        return lambda conn: self._passed(conn, agent, now)

    def _locking(self, agent: str, now: datetime) -> Callable[[Connection], Lock | None]:
        def work(conn: Connection) -> Lock | None:
            # Judged again while nobody else can: two replicas make one lock.
            revisions.hold(conn)
            passed = self._passed(conn, agent, now)
            if passed is None:
                return None
            lock = Lock(
                id=new_id(),
                kind=LockKind.AGENT,
                target=agent,
                reason=f"automatic: {passed}",
                creator=BROKER,
                created_at=now,
                expires_at=now + self._settings.ttl,
            )
            counted = {passed.what: passed.count, "within_seconds": passed.within.total_seconds()}
            store_lock(conn, lock, broker_event(LOCK_CREATED, now, agent=agent, attributes={**facts(lock), **counted}))
            return lock

        return work

    def _passed(self, conn: Connection, agent: str, now: datetime) -> Passed | None:
        """Return the threshold that an agent has passed while no lock holds it."""
        passed = self._counted(conn, agent, "refusals", self._settings.refusals, _refused, now)
        passed = passed or self._counted(
            conn, agent, "issuances", self._settings.issuances, issuances.count_issued, now
        )
        if passed is None or hold(locks.in_force(conn, now), agent=agent, task_id=None, scope=None, now=now):
            return None
        return passed

    def _counted(
        self,
        conn: Connection,
        agent: str,
        what: str,
        threshold: config.Threshold | None,
        count: Callable[[Connection, str, datetime, int], int],
        now: datetime,
    ) -> Passed | None:
        if threshold is None:
            return None
        since = now - threshold.within
        if count(conn, agent, since, threshold.count) < threshold.count:
            return None
        # What led to a lock leads to no second one, once that has ended.
        last = locks.latest_of_agent(conn, agent, BROKER, since)
        if last is not None and count(conn, agent, last.created_at, threshold.count) < threshold.count:
            return None
        return Passed(what, threshold.count, threshold.within)


def _refused(conn: Connection, agent: str, since: datetime, most: int) -> int:
    return events.count_refused(conn, agent, since, WRONG, most)
