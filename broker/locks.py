"""Locks: the kill switch. From its commit on nothing is issued, and what is out is taken back."""

from dataclasses import dataclass, replace
from datetime import timedelta

from sqlalchemy import Connection

from broker import deadline, revoke
from broker.audit import Call
from broker.audit.catalogue import LOCK_CREATED, LOCK_LIFTED, TASK_LOCKED
from broker.authorize import check_pattern, matches_agent
from broker.errors import FieldViolation, InvalidArgument, LockNotFound
from broker.ids import new_id
from broker.model import AnchorRecord, Issuance, Lock, LockKind, Page, Task, TaskState
from broker.revoke import Revoker
from broker.store import Store, anchors, events, issuances, locks, tasks
from broker.store import policy as revisions
from broker.store.paging import PageOf
from broker.tasks import end


@dataclass(frozen=True, slots=True)
class CreatedLock:
    """A new lock and what it took back at once."""

    lock: Lock
    ended_tasks: int
    revoked_issuances: int


class Locks:
    """What admins do with locks."""

    def __init__(self, store: Store, revoker: Revoker) -> None:
        self._store = store
        self._revoker = revoker

    async def create(self, call: Call, kind: LockKind, target: str, reason: str, ttl: timedelta | None) -> CreatedLock:
        """Lock an agent, agents by pattern, a task or a scope.

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
        with deadline.lifted():
            created = await self._store.write(lambda conn: _create(conn, call, lock))
        self._revoker.wake()
        return created

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
                events.append(conn, [call.event(LOCK_LIFTED, attributes=_facts(lock))])
            return lock

        if await self._store.write(lift) is None:
            raise LockNotFound(f"no lock {lock_id} in force")


def _create(conn: Connection, call: Call, lock: Lock) -> CreatedLock:
    locks.insert(conn, lock)
    # Before anything is looked up: from here on no issuance can commit that was
    # decided without this lock, so none can be missed below.
    revisions.raise_revision(conn)
    if lock.kind is LockKind.SCOPE:
        held: list[Task] = []
        moved = _take_back_scope(conn, call, lock)
    else:
        held = _held_tasks(conn, lock)
        moved = []
        for task in held:
            event = replace(call.event(TASK_LOCKED, reason=f"lock {lock.id}"), task_id=task.id, agent=task.agent)
            moved += end(conn, task.id, TaskState.LOCKED, call.now, event) or []
    facts = {**_facts(lock), "ended_tasks": len(held), "revoked_issuances": len(moved)}
    events.append(conn, [call.event(LOCK_CREATED, attributes=facts)])
    return CreatedLock(lock, ended_tasks=len(held), revoked_issuances=len(moved))


def _held_tasks(conn: Connection, lock: Lock) -> list[Task]:
    if lock.kind is LockKind.AGENT:
        return tasks.active(conn, agent=lock.target)
    if lock.kind is LockKind.TASK:
        task = tasks.get(conn, lock.target)
        return [task] if task is not None and task.state is TaskState.ACTIVE else []
    return [task for task in tasks.active(conn) if matches_agent(lock.target, task.agent)]


def _take_back_scope(conn: Connection, call: Call, lock: Lock) -> list[Issuance]:
    """Revoke the anchors that the scope's credentials hang from; their tasks go on."""
    wanted = {issuance.anchor_id: issuance.task_id for issuance in issuances.live_of_scope(conn, lock.target)}
    records: list[AnchorRecord] = [
        record
        for task_id in sorted(set(wanted.values()))
        for record in anchors.of_task(conn, task_id)
        if record.id in wanted
    ]
    return revoke.queue_anchors(conn, records, f"lock {lock.id}", call.now)


def _facts(lock: Lock) -> dict[str, str | int]:
    facts: dict[str, str | int] = {
        "lock_id": lock.id,
        "kind": lock.kind.value,
        "target": lock.target,
        "reason": lock.reason,
    }
    if lock.expires_at is not None:
        facts["expires_at"] = lock.expires_at.isoformat()
    return facts
