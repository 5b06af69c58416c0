"""Locks: the kill switch. From its commit on nothing is issued, and what is out is taken back."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from sqlalchemy import Connection

from broker import deadline
from broker.audit import Call, broker_event
from broker.audit.catalogue import LOCK_CREATED, LOCK_ENFORCED, LOCK_LIFTED, TASK_LOCKED
from broker.authorize import check_pattern, matches_agent
from broker.clock import Clock
from broker.confirmation import wait_confirmed
from broker.errors import FieldViolation, InvalidArgument, LockNotFound
from broker.ids import new_id
from broker.model import AuditEvent, JsonValue, Lock, LockKind, Page, Selection, Task, TaskState
from broker.outbox import Revoker
from broker.revoke import queue_selection
from broker.step import Step, step
from broker.store import Store, events, locks, tasks
from broker.store import policy as revisions
from broker.store.issuances import Ending
from broker.store.paging import PageOf
from broker.tasks import end, requested

CHUNK: Final = 500
"""Most tasks or issuances that one transaction takes back: the others' commits wait for it."""

_BEFORE_ALL = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True)
class TakenBack:
    """What a lock ended: how many tasks, and which issuances."""

    tasks: int = 0
    issuances: tuple[str, ...] = ()

    def __add__(self, other: "TakenBack") -> "TakenBack":
        return TakenBack(self.tasks + other.tasks, self.issuances + other.issuances)


@dataclass(frozen=True, slots=True)
class CreatedLock:
    """A new lock and what it took back at once.

    ``pending_issuances`` are those of the revoked ones that Vault has not
    confirmed to be gone yet.
    """

    lock: Lock
    ended_tasks: int
    revoked_issuances: int
    pending_issuances: int


class Locks:
    """What admins do with locks, and the broker by itself.

    Args:
        wait: How long creating one waits for Vault's confirmation.
    """

    def __init__(self, store: Store, revoker: Revoker, clock: Clock, wait: timedelta) -> None:
        self._store = store
        self._revoker = revoker
        self._clock = clock
        self._wait = wait

    async def create(self, call: Call, kind: LockKind, target: str, reason: str, ttl: timedelta | None) -> CreatedLock:
        """Lock an agent, agents by pattern, a task or a scope, and wait a while for Vault's confirmation.

        Raises:
            InvalidArgument: when the pattern is not one.
        """
        if kind is LockKind.AGENT_PATTERN:
            try:
                check_pattern(target)
            except ValueError as error:
                raise InvalidArgument(violations=(FieldViolation("target.agent_pattern", str(error)),)) from None
        lock = Lock(
            id=new_id(),
            kind=kind,
            target=target,
            reason=reason,
            creator=call.uri,
            created_at=call.now,
            expires_at=call.now + ttl if ttl is not None else None,
        )
        created, enforced = call.event(LOCK_CREATED, attributes=facts(lock)), call.event(LOCK_ENFORCED)

        def begin(conn: Connection) -> TakenBack:
            store_lock(conn, lock, created)
            # Most often all there is; nobody else can come before and leave nothing to tell of.
            return _first_part(conn, lock, enforced)

        with deadline.lifted():
            taken = await step(Step.LOCK_CREATE, self._store.write(begin))
            self._revoker.wake()
            taken += await self.enforce(lock, enforced)
        pending = await step(Step.LOCK_WAIT, wait_confirmed(self._store, self._clock, taken.issuances, self._wait))
        return CreatedLock(
            lock, ended_tasks=taken.tasks, revoked_issuances=len(taken.issuances), pending_issuances=pending
        )

    async def list(self, call: Call, page: Page) -> PageOf[Lock]:
        """Return a page of the locks in force, newest first."""
        return await self._store.read(lambda conn: locks.page(conn, page, call.now))

    async def delete(self, call: Call, lock_id: str) -> None:
        """Lift a lock; what it took back stays dead.

        Raises:
            LockNotFound: when there is no such lock in force.
        """

        def lift(conn: Connection) -> Lock | None:
            lock = locks.lift(conn, lock_id, call.uri, call.now)
            if lock is not None:
                revisions.raise_revision(conn)
                events.append(conn, [call.event(LOCK_LIFTED, attributes=facts(lock))])
            return lock

        if await step(Step.LOCK_LIFT, self._store.write(lift)) is None:
            raise LockNotFound(f"no lock {lock_id} in force")

    async def enforce_all(self) -> None:
        """Take back whatever is out under any lock in force: what a process that died left out."""
        now = self._clock.now()
        for lock in await step(Step.LOCK_FIND, self._store.read(lambda conn: locks.in_force(conn, now))):
            await self.enforce(lock, broker_event(LOCK_ENFORCED, now))

    async def enforce(self, lock: Lock, cause: AuditEvent) -> TakenBack:
        """Take back what is out under a lock, in parts that keep no other commit waiting for long.

        Nothing new comes under the lock meanwhile: it is in force.

        Args:
            lock: A lock that is in force.
            cause: The event, recorded for each part with what the part took back.
        """
        if lock.kind is LockKind.SCOPE:
            return await self._take_back_scope(lock, cause)
        total, after = TakenBack(), _BEFORE_ALL
        while True:
            found = await step(Step.LOCK_FIND, self._store.read(_finding(lock, after)))
            held = _held(lock, found)
            if held:
                taken = await step(Step.LOCK_ENFORCE, self._store.write(_ending(lock, held, cause)))
                self._revoker.wake()
                total += taken
            if len(found) < CHUNK:
                return total
            after = found[-1].id

    async def _take_back_scope(self, lock: Lock, cause: AuditEvent) -> TakenBack:
        total = TakenBack()
        while True:
            taken = await step(Step.LOCK_ENFORCE, self._store.write(_revoking(lock, cause)))
            if not taken.issuances:
                return total
            self._revoker.wake()
            total += taken


def store_lock(conn: Connection, lock: Lock, event: AuditEvent) -> None:
    """Put a lock in force: no issuance can commit after this that was decided without it."""
    locks.insert(conn, lock)
    revisions.raise_revision(conn)
    events.append(conn, [event])


def facts(lock: Lock) -> dict[str, str | int]:
    """Return what an event says of a lock."""
    said: dict[str, str | int] = {
        "lock_id": lock.id,
        "kind": lock.kind.value,
        "target": lock.target,
        "reason": lock.reason,
    }
    if lock.expires_at is not None:
        said["expires_at"] = lock.expires_at.isoformat()
    return said


def _ids(found: Iterable[Ending]) -> tuple[str, ...]:
    return tuple(issuance.id for issuance in found)


def _held(lock: Lock, found: Sequence[Task]) -> list[Task]:
    by_pattern = lock.kind is LockKind.AGENT_PATTERN
    return [task for task in found if not by_pattern or matches_agent(lock.target, task.agent)]


def _first_part(conn: Connection, lock: Lock, cause: AuditEvent) -> TakenBack:
    if lock.kind is LockKind.SCOPE:
        return _revoking(lock, cause)(conn)
    held = _held(lock, _finding(lock, _BEFORE_ALL)(conn))
    return _ending(lock, held, cause)(conn) if held else TakenBack()


def _finding(lock: Lock, after: str) -> Callable[[Connection], list[Task]]:
    """Look for active tasks that a lock may hold: a part of them, those after an identifier."""

    def find(conn: Connection) -> list[Task]:
        if lock.kind is LockKind.TASK:
            task = tasks.get(conn, lock.target)
            return [task] if task is not None and task.state is TaskState.ACTIVE else []
        agent = lock.target if lock.kind is LockKind.AGENT else None
        return tasks.active_after(conn, after, CHUNK, agent=agent)

    return find


def _ending(lock: Lock, held: Sequence[Task], cause: AuditEvent) -> Callable[[Connection], TakenBack]:
    def work(conn: Connection) -> TakenBack:
        because = replace(cause, type=TASK_LOCKED, reason=f"lock {lock.id}")
        ended = end(conn, [task.id for task in held], TaskState.LOCKED, cause.time, because)
        return _note(conn, lock, cause, TakenBack(len(ended.tasks), _ids(ended.issuances)))

    return work


def _revoking(lock: Lock, cause: AuditEvent) -> Callable[[Connection], TakenBack]:
    def work(conn: Connection) -> TakenBack:
        moved = queue_selection(conn, Selection(scope=lock.target), f"lock {lock.id}", cause.time, CHUNK)
        events.append(conn, requested(moved, cause))
        return _note(conn, lock, cause, TakenBack(0, _ids(moved)))

    return work


def _note(conn: Connection, lock: Lock, cause: AuditEvent, taken: TakenBack) -> TakenBack:
    if taken != TakenBack():
        said: dict[str, JsonValue] = {
            **cause.attributes,
            "lock_id": lock.id,
            "ended_tasks": taken.tasks,
            "revoked_issuances": len(taken.issuances),
        }
        events.append(conn, [replace(cause, id=new_id(), attributes=said)])
    return taken
