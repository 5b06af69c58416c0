"""A broker in memory, as far as operators' commands see it: scopes, locks, tasks and the audit trail.

It keeps state, pages its lists, and refuses with the same error details as the real one, over real TLS.
"""

import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn, TypeAlias, TypeVar

import grpc
from credbroker.v1 import (
    audit_event_pb2,
    audit_service_pb2,
    audit_service_pb2_grpc,
    issuance_pb2,
    lock_pb2,
    lock_service_pb2,
    lock_service_pb2_grpc,
    revocation_pb2,
    revocation_service_pb2,
    revocation_service_pb2_grpc,
    scope_pb2,
    scope_service_pb2,
    scope_service_pb2_grpc,
    status_service_pb2,
    status_service_pb2_grpc,
    task_pb2,
    task_service_pb2,
    task_service_pb2_grpc,
)
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from broker.dev.pki import DevAuthority
from broker.document import parse_document
from broker.errors import BrokerError, ScopeDocumentInvalid
from broker.mint import MAPPINGS

NOW = datetime(2026, 1, 31, 12, 0, 0, 250_000, tzinfo=UTC)
TOKEN = "good-token"
ADMIN = "https://issuer.test#admin"

Item = TypeVar("Item")
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


def refuse(context: grpc.ServicerContext, code: grpc.StatusCode, reason: str, message: str) -> NoReturn:
    """End a call the way the broker does: status, reason and domain."""
    error = BrokerError(message)
    error.reason = reason  # type: ignore[misc]  # the fake stands for every class of the tree
    error.message = message
    refuse_as(context, code, error)


def refuse_as(context: grpc.ServicerContext, code: grpc.StatusCode, error: BrokerError) -> NoReturn:
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain="credbroker.dev")
    violations = [
        error_details_pb2.BadRequest.FieldViolation(field=item.field, description=item.description)
        for item in error.violations
    ]
    details = [info, *([error_details_pb2.BadRequest(field_violations=violations)] if violations else [])]
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    status = status_pb2.Status(code=code.value[0], message=error.message, details=packed)
    context.abort_with_status(rpc_status.to_status(status))
    raise RuntimeError("abort_with_status always raises")


class RequireToken(grpc.ServerInterceptor):
    """Refuses every call without the one token that is good."""

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], "Handler | None"],
        details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        sent = dict(details.invocation_metadata).get("authorization")
        if sent == f"Bearer {TOKEN}":
            return continuation(details)
        reason = "EVIDENCE_INVALID" if sent else "EVIDENCE_MISSING"
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: refuse(context, grpc.StatusCode.UNAUTHENTICATED, reason, "no such caller")
        )


class FakeBroker(
    scope_service_pb2_grpc.ScopeServiceServicer,
    lock_service_pb2_grpc.LockServiceServicer,
    revocation_service_pb2_grpc.RevocationServiceServicer,
    status_service_pb2_grpc.StatusServiceServicer,
    audit_service_pb2_grpc.AuditServiceServicer,
    task_service_pb2_grpc.TaskServiceServicer,
):
    """The services and what they hold.

    Attributes:
        scopes: Every version of each scope, oldest first; an empty list when deleted.
        lists: How often ListScopes was asked.
        filters: The filters of list calls, as they arrived.
        answering: Cleared, GetScope does not answer.
        meddle: Whether somebody else changes a scope just before each update.
        pending: How many credentials a new lock leaves unconfirmed.
        orders: What RevokeIssuances was asked.
        taken_back: What it answers.
        status: What GetStatus answers.
        page_size: The most items of a page, whatever is asked for.
        message: What GetScope says of a scope that is not there.
        explanation: What ExplainAccess answers.
        questions: What ExplainAccess was asked.
    """

    def __init__(self) -> None:
        self.scopes: dict[str, list[scope_pb2.Scope]] = {}
        self.lists = 0
        self.locks: list[lock_pb2.Lock] = []
        self.pending = 0
        self.orders: list[revocation_service_pb2.RevokeIssuancesRequest] = []
        self.taken_back = revocation_service_pb2.RevokeIssuancesResponse()
        self.revocations: list[revocation_pb2.Revocation] = []
        self.status = status_service_pb2.GetStatusResponse()
        self.tasks: list[task_pb2.Task] = []
        self.issuances: list[issuance_pb2.Issuance] = []
        self.events: list[audit_event_pb2.AuditEvent] = []
        self.filters: list[str] = []
        self.questions: list[scope_service_pb2.ExplainAccessRequest] = []
        self.explanation = scope_service_pb2.ExplainAccessResponse()
        self.page_size = 1000
        self.meddle = False
        self.answering = threading.Event()
        self.answering.set()
        self.message = "there is no such scope"

    def page(self, items: Sequence[Item], size: int, token: str) -> tuple[Sequence[Item], str]:
        start = int(token or "0")
        end = start + min(size or 50, self.page_size)
        return items[start:end], str(end) if end < len(items) else ""

    def current(self, name: str, context: grpc.ServicerContext) -> scope_pb2.Scope:
        versions = self.scopes.get(name)
        if not versions:
            refuse(context, grpc.StatusCode.NOT_FOUND, "SCOPE_NOT_FOUND", self.message)
        return versions[-1]

    def store(self, text: str, context: grpc.ServicerContext) -> scope_pb2.Scope:
        try:
            document = parse_document(text, MAPPINGS)
        except ScopeDocumentInvalid as error:
            refuse_as(context, grpc.StatusCode.INVALID_ARGUMENT, error)
        name = document.metadata.name
        versions = self.scopes.setdefault(name, [])
        scope = scope_pb2.Scope(
            name=name,
            version=len(versions) + 1,
            etag=f"etag-{name}-{len(versions) + 1}",
            document=text,
            description=document.spec.description,
            kind=document.spec.credential.kind,
            creator=ADMIN,
        )
        scope.create_time.FromDatetime(NOW)
        versions.append(scope)
        return scope

    def CreateScope(
        self, request: scope_service_pb2.CreateScopeRequest, context: grpc.ServicerContext
    ) -> scope_service_pb2.CreateScopeResponse:
        return scope_service_pb2.CreateScopeResponse(scope=self.store(request.document, context))

    def GetScope(
        self, request: scope_service_pb2.GetScopeRequest, context: grpc.ServicerContext
    ) -> scope_service_pb2.GetScopeResponse:
        self.answering.wait()
        found = self.current(request.name, context)
        if request.version:
            found = self.scopes[request.name][request.version - 1]
        return scope_service_pb2.GetScopeResponse(scope=found)

    def ListScopes(
        self, request: scope_service_pb2.ListScopesRequest, context: grpc.ServicerContext
    ) -> scope_service_pb2.ListScopesResponse:
        self.lists += 1
        everything = [self.scopes[name][-1] for name in sorted(self.scopes) if self.scopes[name]]
        items, token = self.page(everything, request.page_size, request.page_token)
        return scope_service_pb2.ListScopesResponse(scopes=items, next_page_token=token)

    def UpdateScope(
        self, request: scope_service_pb2.UpdateScopeRequest, context: grpc.ServicerContext
    ) -> scope_service_pb2.UpdateScopeResponse:
        name = parse_document(request.document, MAPPINGS).metadata.name
        if self.meddle:
            self.current(name, context).etag += "-meddled"
        self.check_etag(self.current(name, context), request.etag, context)
        return scope_service_pb2.UpdateScopeResponse(scope=self.store(request.document, context))

    def DeleteScope(
        self, request: scope_service_pb2.DeleteScopeRequest, context: grpc.ServicerContext
    ) -> scope_service_pb2.DeleteScopeResponse:
        self.check_etag(self.current(request.name, context), request.etag, context)
        self.scopes[request.name] = []
        return scope_service_pb2.DeleteScopeResponse()

    def check_etag(self, scope: scope_pb2.Scope, etag: str, context: grpc.ServicerContext) -> None:
        if scope.etag != etag:
            refuse(context, grpc.StatusCode.ABORTED, "ETAG_MISMATCH", "the scope was changed by somebody else")

    def ExplainAccess(
        self, request: scope_service_pb2.ExplainAccessRequest, context: grpc.ServicerContext
    ) -> scope_service_pb2.ExplainAccessResponse:
        self.questions.append(request)
        return self.explanation

    def CreateLock(
        self, request: lock_service_pb2.CreateLockRequest, context: grpc.ServicerContext
    ) -> lock_service_pb2.CreateLockResponse:
        lock = lock_pb2.Lock(id=str(uuid.uuid4()), target=request.target, reason=request.reason, creator=ADMIN)
        lock.create_time.FromDatetime(NOW)
        if request.HasField("ttl"):
            lock.expire_time.FromDatetime(NOW + request.ttl.ToTimedelta())
        self.locks.insert(0, lock)
        held = [task for task in self.tasks if task.agent == request.target.agent]
        for task in held:
            task.state = task_pb2.TASK_STATE_LOCKED
        return lock_service_pb2.CreateLockResponse(
            lock=lock,
            ended_tasks=len(held),
            revoked_issuances=2 * len(held),
            confirmed_issuances=2 * len(held) - self.pending,
            pending_issuances=self.pending,
        )

    def ListLocks(
        self, request: lock_service_pb2.ListLocksRequest, context: grpc.ServicerContext
    ) -> lock_service_pb2.ListLocksResponse:
        items, token = self.page(self.locks, request.page_size, request.page_token)
        return lock_service_pb2.ListLocksResponse(locks=items, next_page_token=token)

    def DeleteLock(
        self, request: lock_service_pb2.DeleteLockRequest, context: grpc.ServicerContext
    ) -> lock_service_pb2.DeleteLockResponse:
        left = [lock for lock in self.locks if lock.id != request.id]
        if len(left) == len(self.locks):
            refuse(context, grpc.StatusCode.NOT_FOUND, "LOCK_NOT_FOUND", "there is no such lock in force")
        self.locks = left
        return lock_service_pb2.DeleteLockResponse()

    def RevokeIssuances(
        self, request: revocation_service_pb2.RevokeIssuancesRequest, context: grpc.ServicerContext
    ) -> revocation_service_pb2.RevokeIssuancesResponse:
        asked = revocation_service_pb2.RevokeIssuancesRequest()
        asked.CopyFrom(request)
        self.orders.append(asked)
        answer = revocation_service_pb2.RevokeIssuancesResponse()
        answer.CopyFrom(self.taken_back)
        if request.validate_only:
            answer.id, answer.confirmed_issuances, answer.pending_issuances = "", 0, 0
        return answer

    def ListRevocations(
        self, request: revocation_service_pb2.ListRevocationsRequest, context: grpc.ServicerContext
    ) -> revocation_service_pb2.ListRevocationsResponse:
        items, token = self.page(self.revocations, request.page_size, request.page_token)
        return revocation_service_pb2.ListRevocationsResponse(revocations=items, next_page_token=token)

    def GetStatus(
        self, request: status_service_pb2.GetStatusRequest, context: grpc.ServicerContext
    ) -> status_service_pb2.GetStatusResponse:
        return self.status

    def ListIssuances(
        self, request: audit_service_pb2.ListIssuancesRequest, context: grpc.ServicerContext
    ) -> audit_service_pb2.ListIssuancesResponse:
        self.filters.append(request.filter)
        items, token = self.page(self.issuances, request.page_size, request.page_token)
        return audit_service_pb2.ListIssuancesResponse(issuances=items, next_page_token=token)

    def GetIssuance(
        self, request: audit_service_pb2.GetIssuanceRequest, context: grpc.ServicerContext
    ) -> audit_service_pb2.GetIssuanceResponse:
        for issuance in self.issuances:
            if issuance.id == request.id:
                events = [event for event in self.events if event.task_id == issuance.task_id]
                return audit_service_pb2.GetIssuanceResponse(issuance=issuance, events=events)
        refuse(context, grpc.StatusCode.NOT_FOUND, "ISSUANCE_NOT_FOUND", "there is no such issuance")

    def ListAuditEvents(
        self, request: audit_service_pb2.ListAuditEventsRequest, context: grpc.ServicerContext
    ) -> audit_service_pb2.ListAuditEventsResponse:
        self.filters.append(request.filter)
        items, token = self.page(self.events, request.page_size, request.page_token)
        return audit_service_pb2.ListAuditEventsResponse(events=items, next_page_token=token)

    def GetTask(
        self, request: task_service_pb2.GetTaskRequest, context: grpc.ServicerContext
    ) -> task_service_pb2.GetTaskResponse:
        for task in self.tasks:
            if task.id == request.id:
                return task_service_pb2.GetTaskResponse(task=task)
        refuse(context, grpc.StatusCode.NOT_FOUND, "TASK_NOT_FOUND", "you have no such task")

    def ListTasks(
        self, request: task_service_pb2.ListTasksRequest, context: grpc.ServicerContext
    ) -> task_service_pb2.ListTasksResponse:
        self.filters.append(request.filter)
        items, token = self.page(self.tasks, request.page_size, request.page_token)
        return task_service_pb2.ListTasksResponse(tasks=items, next_page_token=token)

    # Agents' own calls: operators make none of them.
    def StartTask(self, request: object, context: grpc.ServicerContext) -> NoReturn:
        refuse(context, grpc.StatusCode.PERMISSION_DENIED, "ROLE_REQUIRED", "not for operators")

    HeartbeatTask = CompleteTask = StartTask


@contextmanager
def serving(broker: FakeBroker, authority: DevAuthority) -> Iterator[str]:
    """Serve on a free port of loopback, over TLS; gives the address."""
    certificate, key = authority.issue(names=["localhost"], addresses=["127.0.0.1"], lifetime=timedelta(hours=1))
    server = grpc.server(futures.ThreadPoolExecutor(4), interceptors=[RequireToken()])
    scope_service_pb2_grpc.add_ScopeServiceServicer_to_server(broker, server)
    lock_service_pb2_grpc.add_LockServiceServicer_to_server(broker, server)
    revocation_service_pb2_grpc.add_RevocationServiceServicer_to_server(broker, server)
    status_service_pb2_grpc.add_StatusServiceServicer_to_server(broker, server)
    audit_service_pb2_grpc.add_AuditServiceServicer_to_server(broker, server)
    task_service_pb2_grpc.add_TaskServiceServicer_to_server(broker, server)
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)]))
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
