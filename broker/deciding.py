"""Deciding about a credential: on what this replica knows, and in doubt on what the database says.

What a decision rests on, the rules and the task, rarely changes between two
requests of one task. So it is decided on what was true a moment ago, without
asking the database: the transaction that records the credential holds it only
if it is still true (`broker.record`), and otherwise it is decided again, on
what the database says. Nothing is refused on what was known: what has changed
since may be why.
"""

from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeVar

from sqlalchemy import Connection

from broker import record
from broker.audit import Call
from broker.authorize import Ask, Grant, decide
from broker.clock import Clock
from broker.errors import BrokerError, TaskEnded, TaskNotFound
from broker.mint import KINDS
from broker.model import Issuance, JsonObject, Task, TaskSpec, TaskState
from broker.policy import Policy, PolicyCache
from broker.record import Decided
from broker.step import Step, step
from broker.store import Store, issuances, tasks
from broker.tasks import check_start, new_task, view

K = TypeVar("K")
V = TypeVar("V")

KNOWN_FOR: Final = timedelta(seconds=5)
"""How long the rules count as known after they were last seen in force."""

MOST_KNOWN: Final = 4096
"""Tasks, and identifiers of requests, that are remembered."""


@dataclass(frozen=True, slots=True)
class IssueRequest:
    """What an agent asks for; ``task`` is the id of a task, or one to start."""

    request_id: str | None
    task: str | TaskSpec
    scope: str
    parameters: JsonObject
    ttl: timedelta | None


@dataclass(slots=True)
class Errand:
    """One request across its attempts.

    Attributes:
        call: The request.
        request: What it asks for.
        begun: The task that it started.
        tried: Whether it was decided before, and what came of that did not hold.
    """

    call: Call
    request: IssueRequest
    begun: Task | None = None
    tried: bool = False


class Deciding:
    """Decides whether a credential is issued."""

    def __init__(self, store: Store, rules: PolicyCache, clock: Clock) -> None:
        self._store = store
        self._rules = rules
        self._clock = clock
        self._seen_at = float("-inf")
        self._tasks: dict[str, Task] = {}
        self._requests: dict[tuple[str, str], None] = {}

    async def decide(self, errand: Errand) -> Decided:
        """Return the grant with all that must still be true when it is recorded.

        Raises:
            TaskNotFound, TaskEnded: when the caller has no such task.
            Locked, ScopeDenied, InvalidArgument: when it is not granted.
            LimitReached: when the scope's limits are reached already.
            RequestIdReused: when this request was granted before.
        """
        call, request = errand.call, errand.request
        call.scope = request.scope
        decided = self._by_what_is_known(errand)
        if decided is None:
            rules, found, earlier = await step(
                Step.ISSUE_LOOK_UP, self._store.read(lambda conn: self._look_up(conn, errand))
            )
            self._seen_at = self._clock.monotonic()
            if earlier is not None:
                raise record.reused(earlier)
            decided = _decided(call, request, rules, found)
        await self._spare_vault(call, decided.task, decided.grant)
        return decided

    def recorded(self, decided: Decided) -> None:
        """Note that a decision still held when it was recorded."""
        self._seen_at = self._clock.monotonic()
        if decided.task.heartbeat_interval is None:  # what is known of others does not say when the last one came
            _remember(self._tasks, decided.task.id, decided.task)

    def forget_task(self, task_id: str) -> None:
        """Ask the database about this task the next time."""
        self._tasks.pop(task_id, None)

    def _by_what_is_known(self, errand: Errand) -> Decided | None:
        """Return the grant that follows from what is known; None where that does not suffice for one."""
        request, again = errand.request, errand.tried
        errand.tried = True
        if request.request_id is not None:
            key = (errand.call.uri, request.request_id)
            again = again or key in self._requests
            _remember(self._requests, key, None)
        rules = self._rules.latest
        if again or rules is None or self._clock.monotonic() - self._seen_at > KNOWN_FOR.total_seconds():
            return None
        found = self._tasks.get(request.task) if isinstance(request.task, str) else None
        if found is None and isinstance(request.task, str):
            return None
        with suppress(BrokerError):
            return _decided(errand.call, request, rules, found)
        return None

    def _look_up(self, conn: Connection, errand: Errand) -> tuple[Policy, Task | None, Issuance | None]:
        call, request = errand.call, errand.request
        task, earlier = None, None
        if isinstance(request.task, str):
            task = tasks.get(conn, request.task)
        elif errand.begun is not None:
            task = tasks.get(conn, errand.begun.id)
        elif request.request_id is not None:
            task = tasks.by_request(conn, call.uri, request.request_id)
        if request.request_id is not None:
            earlier = issuances.by_request(conn, call.uri, request.request_id)
        return self._rules.read(conn, call.now), task, earlier

    async def _spare_vault(self, call: Call, task: Task, grant: Grant) -> None:
        """Refuse what a limit will refuse anyway; the record decides exactly."""
        if grant.limits.given:
            reached = await step(
                Step.ISSUE_COUNT,
                self._store.read(lambda conn: record.limit_reached(conn, grant, task, call.now, exact=False)),
            )
            if reached is not None:
                raise reached


def _decided(call: Call, request: IssueRequest, rules: Policy, found: Task | None) -> Decided:
    task = _task(call, request, found, rules)
    scope = rules.scopes.get(request.scope)
    call.scope_version = scope.version if scope is not None else None
    ask = Ask(
        identity=call.identity,
        task=view(task),
        scope=request.scope,
        parameters=request.parameters,
        ttl=request.ttl,
        now=call.now,
    )
    grant = decide(ask, scope, rules.locks)
    KINDS[grant.mapping.kind].check(grant.mapping, grant.parameters)
    return Decided(rules, task, found is None, grant, request.request_id)


def _task(call: Call, request: IssueRequest, found: Task | None, rules: Policy) -> Task:
    """Return the task that would own the credential, the one to start included.

    Raises:
        TaskNotFound: when the caller has no such task.
        TaskEnded: when it has ended.
        Locked, ScopeDenied: when the caller may not start one.
    """
    if found is None:
        if isinstance(request.task, str):
            call.task_id = request.task
            raise TaskNotFound("no such task")
        task = new_task(call, request.task, request.request_id)
        check_start(call, task, rules)
        return task
    call.task_id = found.id
    if found.agent != call.uri:
        raise TaskNotFound(f"the task belongs to {found.agent}")
    if found.state is not TaskState.ACTIVE or found.deadline <= call.now:
        raise TaskEnded(f"task {found.id} has ended")
    return found


def _remember(known: dict[K, V], key: K, value: V) -> None:
    """Keep the newest, and no more than the most that is remembered."""
    known.pop(key, None)
    known[key] = value
    if len(known) > MOST_KNOWN:
        del known[next(iter(known))]
