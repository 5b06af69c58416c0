"""The workflows behind the gRPC layer, in memory: state, and nothing decided.

Each can be told to fail, or to make its callers wait.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from broker.audit import Call
from broker.authorize import Explanation, Step
from broker.deciding import IssueRequest
from broker.document import ScopeDocument, parse_document
from broker.errors import (
    EtagMismatch,
    IssuanceNotFound,
    LockNotFound,
    ScopeExists,
    ScopeNotFound,
    TaskNotFound,
)
from broker.ids import new_id
from broker.issue import Issued
from broker.locks import CreatedLock
from broker.mint import MAPPINGS
from broker.model import (
    AuditEvent,
    Issuance,
    IssuanceState,
    JsonValue,
    Lock,
    LockKind,
    Page,
    Revocability,
    Revocation,
    ScopeRecord,
    Selection,
    Task,
    TaskSpec,
    TaskState,
)
from broker.scopes import Question, ScopeView
from broker.secret import Secret
from broker.status import Report
from broker.store.paging import PageOf
from broker.store.selections import Extent
from broker.takeback import Revoked
from tests.fixtures.records import NOW, a_report


class Controls:
    """What tests do to a workflow, and what they see of it."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.pages: list[Page] = []
        self.error: BaseException | None = None
        self.cancelled = 0
        self._waiting = 0
        self._changed = asyncio.Condition()
        self._open = asyncio.Event()
        self._open.set()

    def pause(self) -> None:
        """Make every call wait from now on."""
        self._open.clear()

    def resume(self) -> None:
        self._open.set()

    async def until_waiting(self, count: int) -> None:
        """Wait until so many calls wait."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._waiting >= count)

    async def until_cancelled(self, count: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self.cancelled >= count)

    async def enter(self, call: Call) -> None:
        """Begin one call of the workflow."""
        self.calls.append(call)
        if self.error is not None:
            raise self.error
        if self._open.is_set():
            return
        await self._count(waiting=1)
        try:
            await self._open.wait()
        except asyncio.CancelledError:
            await self._count(cancelled=1)
            raise
        finally:
            await self._count(waiting=-1)

    async def _count(self, waiting: int = 0, cancelled: int = 0) -> None:
        async with self._changed:
            self._waiting += waiting
            self.cancelled += cancelled
            self._changed.notify_all()

    def page(self, page: Page, items: Sequence[object]) -> str:
        """Note which page was asked for; return the token for the next one."""
        self.pages.append(page)
        return "next" if len(items) > page.size else ""


class FakeTasks(Controls):
    def __init__(self) -> None:
        super().__init__()
        self.tasks: dict[str, Task] = {}

    async def start(self, call: Call, spec: TaskSpec, request_id: str | None) -> Task:
        await self.enter(call)
        for task in self.tasks.values():
            if request_id and (task.agent, task.request_id) == (call.uri, request_id):
                return task
        return self.add(call, spec, request_id)

    def add(self, call: Call, spec: TaskSpec, request_id: str | None) -> Task:
        task = Task(
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
        self.tasks[task.id] = task
        return task

    async def get(self, call: Call, task_id: str) -> Task:
        await self.enter(call)
        call.task_id = task_id
        if task_id not in self.tasks:
            raise TaskNotFound(f"no task {task_id}")
        return self.tasks[task_id]

    async def list(self, call: Call, page: Page) -> PageOf[Task]:
        await self.enter(call)
        items = list(self.tasks.values())
        return PageOf(items[: page.size], self.page(page, items))

    async def heartbeat(self, call: Call, task_id: str) -> Task:
        return self._change(await self.get(call, task_id), heartbeat_at=call.now)

    async def complete(self, call: Call, task_id: str) -> Task:
        task = await self.get(call, task_id)
        return self._change(task, state=TaskState.COMPLETED, ended_at=call.now, revocation_confirmed_at=call.now)

    def _change(self, task: Task, **changes: object) -> Task:
        changed = self.tasks[task.id] = replace(task, **changes)  # type: ignore[arg-type]  # any of its fields
        return changed


class FakeIssuer(Controls):
    """Mints nothing: hands out `secret`, of `kind`."""

    def __init__(self, tasks: FakeTasks) -> None:
        super().__init__()
        self._tasks = tasks
        self.requests: list[IssueRequest] = []
        self.issuances: dict[str, Issuance] = {}
        self.kind = "vault_token"
        self.secret: dict[str, JsonValue] = {"token": "hvb.issued"}

    async def issue(self, call: Call, request: IssueRequest) -> Issued:
        await self.enter(call)
        self.requests.append(request)
        if isinstance(request.task, TaskSpec):
            task = self._tasks.add(call, request.task, request.request_id)
        else:
            task = await self._tasks.get(call, request.task)
        ttl = request.ttl or timedelta(minutes=15)
        issuance = Issuance(
            id=new_id(),
            task_id=task.id,
            anchor_id=new_id(),
            agent=call.uri,
            scope=request.scope,
            scope_version=3,
            kind=self.kind,
            parameters=request.parameters,
            state=IssuanceState.ACTIVE,
            revocability=Revocability.WITH_TASK,
            renewable=True,
            created_at=call.now,
            expires_at=call.now + ttl,
            max_expires_at=call.now + 2 * ttl,
            fingerprint="f" * 64,
        )
        self.issuances[issuance.id] = issuance
        return Issued(issuance, Secret(self.secret), task)


class FakeHoldings(Controls):
    def __init__(self, issuer: FakeIssuer) -> None:
        super().__init__()
        self._issuances = issuer.issuances

    async def renew(self, call: Call, issuance_id: str, ttl: timedelta | None) -> Issuance:
        issuance = await self._find(call, issuance_id)
        expires_at = call.now + (ttl or timedelta(minutes=15))
        return self._put(replace(issuance, expires_at=expires_at, renewed_at=call.now))

    async def revoke(self, call: Call, issuance_id: str) -> Issuance:
        issuance = await self._find(call, issuance_id)
        return self._put(
            replace(
                issuance,
                state=IssuanceState.REVOKING,
                revoke_requested_at=call.now,
                end_reason="agent.revoked",
                accessor="accessor",
                lease_id="lease",
            )
        )

    async def _find(self, call: Call, issuance_id: str) -> Issuance:
        await self.enter(call)
        if issuance_id not in self._issuances:
            raise IssuanceNotFound(f"no issuance {issuance_id}")
        return self._issuances[issuance_id]

    def _put(self, issuance: Issuance) -> Issuance:
        self._issuances[issuance.id] = issuance
        return issuance


class FakeScopes(Controls):
    def __init__(self) -> None:
        super().__init__()
        self.scopes: dict[str, ScopeView] = {}
        self.questions: list[Question] = []
        self.versions: list[int | None] = []

    async def create(self, call: Call, document: str, validate_only: bool) -> ScopeView:
        await self.enter(call)
        parsed = parse_document(document, MAPPINGS)
        if parsed.metadata.name in self.scopes:
            raise ScopeExists
        return self._put(call, document, parsed, 1, validate_only)

    async def get(self, call: Call, name: str, version: int | None) -> ScopeView:
        await self.enter(call)
        self.versions.append(version)
        if name not in self.scopes:
            raise ScopeNotFound
        return self.scopes[name]

    async def list(self, call: Call, page: Page) -> PageOf[ScopeView]:
        await self.enter(call)
        items = list(self.scopes.values())
        return PageOf(items[: page.size], self.page(page, items))

    async def update(self, call: Call, document: str, etag: str, validate_only: bool) -> ScopeView:
        parsed = parse_document(document, MAPPINGS)
        known = (await self.get(call, parsed.metadata.name, None)).record
        if known.etag != etag:
            raise EtagMismatch
        return self._put(call, document, parsed, known.version + 1, validate_only)

    async def delete(self, call: Call, name: str, etag: str) -> None:
        known = await self.get(call, name, None)
        if known.record.etag != etag:
            raise EtagMismatch
        del self.scopes[name]

    async def explain(self, call: Call, question: Question) -> Explanation:
        await self.enter(call)
        self.questions.append(question)
        return Explanation(
            allowed=False,
            reason="SCOPE_DENIED",
            deciding_rule="spec.when",
            steps=(Step("locks", True, "none"), Step("spec.when", False, "is false")),
            scope_version=None,
        )

    def _put(self, call: Call, text: str, document: ScopeDocument, version: int, validate_only: bool) -> ScopeView:
        record = ScopeRecord(document.metadata.name, version, f"etag-{version}", text, call.now, call.uri)
        view = ScopeView(record, document)
        if not validate_only:
            self.scopes[record.name] = view
        return view


class FakeLocks(Controls):
    def __init__(self) -> None:
        super().__init__()
        self.locks: dict[str, Lock] = {}

    async def create(self, call: Call, kind: LockKind, target: str, reason: str, ttl: timedelta | None) -> CreatedLock:
        await self.enter(call)
        lock = Lock(
            id=new_id(),
            kind=kind,
            target=target,
            reason=reason,
            creator=call.uri,
            created_at=call.now,
            expires_at=call.now + ttl if ttl else None,
        )
        self.locks[lock.id] = lock
        return CreatedLock(lock, ended_tasks=2, revoked_issuances=5, pending_issuances=1)

    async def list(self, call: Call, page: Page) -> PageOf[Lock]:
        await self.enter(call)
        items = list(self.locks.values())
        return PageOf(items[: page.size], self.page(page, items))

    async def delete(self, call: Call, lock_id: str) -> None:
        await self.enter(call)
        if self.locks.pop(lock_id, None) is None:
            raise LockNotFound


class FakeTakeback(Controls):
    def __init__(self) -> None:
        super().__init__()
        self.unconfirmed: list[Revocation] = []
        self.wanted: list[tuple[Selection, str | None]] = []
        self.extent = Extent(matching=3, siblings=1, expiring=2, earlier=4, last_expires_at=NOW)

    async def pending(self, call: Call, page: Page) -> PageOf[Revocation]:
        await self.enter(call)
        return PageOf(self.unconfirmed[: page.size], self.page(page, self.unconfirmed))

    async def count(self, call: Call, wanted: Selection) -> Extent:
        await self.enter(call)
        self.wanted.append((wanted, None))
        return self.extent

    async def revoke(self, call: Call, wanted: Selection, reason: str) -> Revoked:
        await self.enter(call)
        self.wanted.append((wanted, reason))
        return Revoked(id=new_id(), extent=self.extent, matching=5, siblings=2, pending=3)


class FakeStatus(Controls):
    """Reports what it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.report = a_report()

    async def get(self, call: Call) -> Report:
        await self.enter(call)
        return self.report


class FakeQuery(Controls):
    def __init__(self, issuer: FakeIssuer) -> None:
        super().__init__()
        self._issuances = issuer.issuances
        self.recorded: list[AuditEvent] = []

    async def issuances(self, call: Call, page: Page) -> PageOf[Issuance]:
        await self.enter(call)
        items = list(self._issuances.values())
        return PageOf(items[: page.size], self.page(page, items))

    async def issuance(self, call: Call, issuance_id: str) -> tuple[Issuance, Sequence[AuditEvent]]:
        await self.enter(call)
        if issuance_id not in self._issuances:
            raise IssuanceNotFound
        return self._issuances[issuance_id], self.recorded

    async def events(self, call: Call, page: Page) -> PageOf[AuditEvent]:
        await self.enter(call)
        return PageOf(self.recorded[: page.size], self.page(page, self.recorded))
