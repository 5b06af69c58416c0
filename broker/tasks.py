"""Tasks: their start, their heartbeats and their end, which takes everything back."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from broker import deadline, policy, revoke
from broker.anchors import Anchors
from broker.audit import Call, broker_event
from broker.audit.catalogue import (
    CREDENTIAL_REVOCATION_REQUESTED,
    TASK_COMPLETED,
    TASK_DEADLINE_EXCEEDED,
    TASK_HEARTBEAT_MISSED,
    TASK_LOCKED,
    TASK_STARTED,
)
from broker.authorize import TaskView, check_declared, hold
from broker.errors import Locked, TaskEnded, TaskNotFound
from broker.ids import new_id
from broker.model import AuditEvent, Page, Revocation, Role, Task, TaskSpec, TaskState
from broker.outbox import Revoker
from broker.policy import Policy, PolicyCache
from broker.revoke import Hold
from broker.step import Step, step
from broker.store import Store, events, tasks
from broker.store.issuances import Ending
from broker.store.paging import PageOf

_OPERATORS: Final = frozenset({Role.ADMIN, Role.AUDITOR})

END_EVENTS: Final = {
    TaskState.COMPLETED: TASK_COMPLETED,
    TaskState.DEADLINE_EXCEEDED: TASK_DEADLINE_EXCEEDED,
    TaskState.HEARTBEAT_MISSED: TASK_HEARTBEAT_MISSED,
    TaskState.LOCKED: TASK_LOCKED,
}


def new_task(call: Call, spec: TaskSpec, request_id: str | None) -> Task:
    """Return the task that a caller wants to start; nothing is stored."""
    return Task(
        id=new_id(),
        agent=call.uri,
        purpose=spec.purpose,
        labels=spec.labels,
        declared_scopes=spec.declared_scopes,
        state=TaskState.ACTIVE,
        created_at=call.now,
        deadline=call.now + spec.timeout,
        heartbeat_interval=spec.heartbeat_interval,
        heartbeat_at=call.now if spec.heartbeat_interval else None,
        request_id=request_id,
    )


def view(task: Task) -> TaskView:
    """Return what a decision may know of a task."""
    return TaskView(
        id=task.id,
        purpose=task.purpose,
        labels=task.labels,
        declared_scopes=task.declared_scopes,
        deadline=task.deadline,
    )


def check_start(call: Call, task: Task, rules: Policy) -> None:
    """Check that the caller may start this task.

    Raises:
        Locked: when a lock holds the agent.
        ScopeDenied: when a declared scope would not be granted.
    """
    held = hold(rules.locks, agent=task.agent, task_id=None, scope=None, now=call.now)
    if held is not None:
        raise Locked(f"lock {held.id} holds the agent: {held.reason}")
    if task.declared_scopes:
        check_declared(call.identity, view(task), rules.scopes, rules.locks, call.now)


def started(call: Call, task: Task) -> AuditEvent:
    """Return the event of a task's start."""
    call.task_id = task.id
    return replace(
        call.event(
            TASK_STARTED,
            attributes={
                "purpose": task.purpose,
                "labels": dict(task.labels),
                "declared_scopes": list(task.declared_scopes),
                "deadline": task.deadline.isoformat(),
            },
        ),
        scope="",
        scope_version=None,
        issuance_id=None,
    )


@dataclass(frozen=True, slots=True)
class Ended:
    """Tasks that were active until now, and the issuances of theirs that were alive."""

    tasks: list[Task]
    issuances: list[Ending]


def end(conn: Connection, task_ids: Sequence[str], state: TaskState, now: datetime, cause: AuditEvent) -> Ended:
    """End those of these tasks that are active, put up for revocation what they hold, and record all of it.

    Args:
        conn: The transaction.
        task_ids: Which tasks.
        state: How they end.
        now: When.
        cause: The event, once; it is recorded for each task as that task's.
    """
    ended = tasks.end(conn, task_ids, state, now)
    queued = revoke.queue_tasks(conn, [task.id for task in ended], cause.type, now)
    _append(conn, ended, queued.issuances, dict.fromkeys(task_ids, cause))
    return Ended(ended, queued.issuances)


@dataclass(frozen=True, slots=True)
class Completion:
    """A task that an agent says it has done.

    Attributes:
        task_id: Which.
        event: What is recorded of it, if it is an active task of the event's actor.
        hold: This replica's claim on what is put up for revocation.
    """

    task_id: str
    event: AuditEvent
    hold: Hold


@dataclass(frozen=True, slots=True)
class Completed:
    """A task that was completed, and what is to be done for it now."""

    task: Task
    entries: list[Revocation]


def complete(conn: Connection, completions: Sequence[Completion]) -> list[Completed | None]:
    """Complete those of these that are their actors' own and active; None for each other one, and for repetitions."""
    asked: dict[tuple[str, str], Completion] = {}
    for one in completions:
        asked.setdefault((one.task_id, one.event.actor), one)
    now = max(one.event.time for one in completions)
    ended = tasks.end_own(conn, list(asked), TaskState.COMPLETED, now)
    queued = revoke.queue_tasks(conn, [task.id for task in ended], TASK_COMPLETED, now, completions[0].hold)
    _append(conn, ended, queued.issuances, {task.id: asked[task.id, task.agent].event for task in ended})
    done: dict[tuple[str, str], Completed] = {}
    for task in ended:
        confirmed_at = now if task.id in queued.without else None
        entries = [entry for entry in queued.entries if entry.task_id == task.id]
        done[task.id, task.agent] = Completed(replace(task, revocation_confirmed_at=confirmed_at), entries)
    return [done.pop((one.task_id, one.event.actor), None) for one in completions]


def _append(conn: Connection, ended: Iterable[Task], moved: Iterable[Ending], causes: Mapping[str, AuditEvent]) -> None:
    records = [replace(causes[task.id], id=new_id(), task_id=task.id, agent=task.agent) for task in ended]
    records += [_requested(issuance, causes[issuance.task_id]) for issuance in moved]
    events.append(conn, records)


def ended_by_broker(state: TaskState, now: datetime) -> AuditEvent:
    """Return the event of tasks that the broker itself ends."""
    return broker_event(END_EVENTS[state], now)


def requested(moved: Iterable[Ending], cause: AuditEvent) -> list[AuditEvent]:
    """Return the events that say of issuances that they are to be revoked, and why."""
    return [_requested(issuance, cause) for issuance in moved]


def _requested(issuance: Ending, cause: AuditEvent) -> AuditEvent:
    return replace(
        cause,
        id=new_id(),
        type=CREDENTIAL_REVOCATION_REQUESTED,
        reason=issuance.end_reason,
        agent=issuance.agent,
        task_id=issuance.task_id,
        issuance_id=issuance.id,
        scope=issuance.scope,
        scope_version=issuance.scope_version,
    )


class Tasks:
    """What callers do with tasks.

    Args:
        wait: How long completing waits for Vault's confirmation.
    """

    def __init__(self, store: Store, rules: PolicyCache, anchors: Anchors, revoker: Revoker, wait: timedelta) -> None:
        self._store = store
        self._rules = rules
        self._anchors = anchors
        self._revoker = revoker
        self._wait = wait

    async def start(self, call: Call, spec: TaskSpec, request_id: str | None) -> Task:
        """Start a task, or return the one that an earlier request with this id started.

        Raises:
            Locked: when a lock holds the agent.
            ScopeDenied: when a declared scope would not be granted.
        """

        async def attempt() -> Task:
            def read(conn: Connection) -> tuple[Policy, Task | None]:
                earlier = tasks.by_request(conn, call.uri, request_id) if request_id else None
                return self._rules.read(conn, call.now), earlier

            rules, earlier = await step(Step.TASK_LOOK_UP, self._store.read(read))
            if earlier is not None:
                return earlier
            task = new_task(call, spec, request_id)
            check_start(call, task, rules)
            return await step(Step.TASK_START, self._store.write(lambda conn: _store_new(conn, call, task, rules)))

        return await policy.until_settled(attempt)

    async def get(self, call: Call, task_id: str) -> Task:
        """Return a task: the caller's own, or any for operators.

        Raises:
            TaskNotFound: when there is none, or it is another agent's.
        """
        call.task_id = task_id
        task = await step(Step.TASK_LOOK_UP, self._store.read(lambda conn: tasks.get(conn, task_id)))
        if task is None or not (task.agent == call.uri or _is_operator(call)):
            raise TaskNotFound(_why_not_found(task))
        return task

    async def list(self, call: Call, page: Page) -> PageOf[Task]:
        """Return a page of tasks: the caller's own, or all for operators."""
        agent = None if _is_operator(call) else call.uri
        return await self._store.read(lambda conn: tasks.page(conn, page, agent))

    async def heartbeat(self, call: Call, task_id: str) -> Task:
        """Note that the caller still works on its task.

        Raises:
            TaskNotFound: when the caller has no such task.
            TaskEnded: when it has ended.
        """
        task = await self._own(call, task_id)
        beaten = None
        if task.state is TaskState.ACTIVE:
            beaten = await step(
                Step.TASK_HEARTBEAT, self._store.write(lambda conn: tasks.heartbeat(conn, task_id, call.now))
            )
        if beaten is None:
            raise TaskEnded(f"task {task_id} has ended")
        return beaten

    async def complete(self, call: Call, task_id: str) -> Task:
        """End the caller's task and take back everything it holds.

        Raises:
            TaskNotFound: when the caller has no such task.
        """
        call.task_id = task_id
        completion = Completion(task_id, call.event(TASK_COMPLETED), self._revoker.hold())
        try:
            with deadline.lifted():
                done = await step(Step.TASK_COMPLETE, self._store.write_each(complete, completion))
        except BaseException:
            self._revoker.resume(task_id)
            raise
        if done is None:
            await self._own(call, task_id)
            await self._revoker.settle(task_id, self._wait)
            return await self._own(call, task_id)
        self._anchors.forget_task(task_id)
        if done.task.revocation_confirmed_at is not None:
            return done.task
        confirmed_at = await self._revoker.carry_out(task_id, done.entries, self._wait)
        if confirmed_at is None:
            return await self._own(call, task_id)
        return replace(done.task, revocation_confirmed_at=confirmed_at)

    async def _own(self, call: Call, task_id: str) -> Task:
        call.task_id = task_id
        task = await step(Step.TASK_LOOK_UP, self._store.read(lambda conn: tasks.get(conn, task_id)))
        if task is None or task.agent != call.uri:
            raise TaskNotFound(_why_not_found(task))
        return task


def _store_new(conn: Connection, call: Call, task: Task, rules: Policy) -> Task:
    policy.pin(conn, rules)
    if task.request_id is not None:
        earlier = tasks.by_request(conn, task.agent, task.request_id)
        if earlier is not None:
            return earlier
    tasks.insert(conn, task)
    events.append(conn, [started(call, task)])
    return task


def _is_operator(call: Call) -> bool:
    return call.caller is not None and not _OPERATORS.isdisjoint(call.caller.roles)


def _why_not_found(task: Task | None) -> str:
    return "no such task" if task is None else f"the task belongs to {task.agent}"
