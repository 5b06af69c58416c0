"""A broker from memory: the contract's task and credential services behind real TLS.

It keeps state as the real one does, and does what tests need and a real one
cannot be made to: it loses replies after acting, hangs, refuses with any error,
and lives in a time of its own.
"""

import contextlib
import itertools
import threading
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeAlias, TypeVar

import grpc
from credbroker._wire import to_struct
from credbroker.v1 import credential_service_pb2 as credentials
from credbroker.v1 import credential_service_pb2_grpc, issuance_pb2, task_pb2, task_service_pb2_grpc
from credbroker.v1 import task_service_pb2 as tasks
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from broker.dev.pki import DevAuthority
from broker.errors import (
    BrokerError,
    EvidenceInvalid,
    EvidenceMissing,
    EvidenceReplayed,
    IssuanceEnded,
    IssuanceNotFound,
    NotRenewable,
    NotRevocable,
    RequestIdReused,
    ScopeDenied,
    ScopeNotDeclared,
    TaskEnded,
    TaskNotFound,
)
from broker.serve.errors import status_of

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)

DEFAULT_TOKEN = "token-of-the-agent"
DEFAULT_TIMEOUT = timedelta(hours=1)


@dataclass(frozen=True)
class Refuse:
    """Answers with an error, without acting."""

    error: BrokerError


@dataclass(frozen=True)
class Abort:
    """Answers with a bare gRPC status, without acting."""

    code: grpc.StatusCode
    message: str = "made up by the test"


@dataclass(frozen=True)
class Lose:
    """Acts, and then answers as if the connection had broken."""

    code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE


@dataclass(frozen=True)
class Hang:
    """Acts or not, and never answers."""

    act: bool = False


@dataclass(frozen=True)
class Hold:
    """Says that the call has arrived, and acts once it is released."""

    arrived: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)


Fault: TypeAlias = Refuse | Abort | Lose | Hang | Hold


@dataclass
class FakeScope:
    """What a scope grants. Without ``data`` it is a Vault token."""

    ttl: timedelta = timedelta(minutes=5)
    max_ttl: timedelta = timedelta(hours=1)
    data: dict[str, object] | None = None
    renewable: bool = False
    revocability: issuance_pb2.Revocability.ValueType = issuance_pb2.REVOCABILITY_INDIVIDUAL


@dataclass(frozen=True)
class Seen:
    """One call as it arrived."""

    method: str
    token: str | None
    request: Message
    certificate: bytes | None = None


class FakeBroker:
    """The state, and what tests say about it."""

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.now = now
        self.address = ""
        self.mutual_address = ""
        self.scopes: dict[str, FakeScope] = {}
        self.tokens = {DEFAULT_TOKEN}
        self.one_time = False
        self.secrets = (f"secret-{number}" for number in itertools.count(1))
        self.calls: list[Seen] = []
        self.tasks: dict[str, task_pb2.Task] = {}
        self.issuances: dict[str, issuance_pb2.Issuance] = {}
        self._lock = threading.RLock()
        self._arrival = threading.Condition(self._lock)
        self._used: set[str] = set()
        self._faults: defaultdict[str, deque[Fault | None]] = defaultdict(deque)
        self._started: dict[str, str] = {}
        self._granted: dict[str, str] = {}

    def script(self, method: str, *faults: Fault | None) -> None:
        """Say what happens to the next calls of a method, one by one; None for nothing special."""
        self._faults[method].extend(faults)

    def count(self, method: str) -> int:
        """Return how many calls of a method have arrived."""
        with self._lock:
            return sum(seen.method == method for seen in self.calls)

    def requests(self, kind: type[Q]) -> list[Q]:
        """Return the requests of one kind, in the order in which they arrived."""
        with self._lock:
            return [seen.request for seen in self.calls if isinstance(seen.request, kind)]

    def wait_for(self, method: str, count: int) -> None:
        """Wait until that many calls of a method have arrived."""
        with self._arrival:
            if not self._arrival.wait_for(lambda: self.count(method) >= count, timeout=30):
                raise TimeoutError(f"{method} came {self.count(method)} times instead of {count}")

    def live(self) -> list[str]:
        """Return the issuances that are neither revoked nor past their time."""
        alive = issuance_pb2.ISSUANCE_STATE_ACTIVE
        with self._lock:
            return [
                key
                for key, record in self.issuances.items()
                if record.state == alive and record.expire_time.ToDatetime(UTC) > self.now()
            ]

    def end(self, task_id: str, state: task_pb2.TaskState.ValueType = task_pb2.TASK_STATE_LOCKED) -> None:
        """End a task and everything issued for it."""
        with self._lock:
            task = self.tasks[task_id]
            task.state = state
            task.end_time.FromDatetime(self.now())
            task.revocation = task_pb2.REVOCATION_STATE_CONFIRMED
            for record in self.issuances.values():
                if record.task_id == task_id:
                    record.state = issuance_pb2.ISSUANCE_STATE_REVOKED

    def handle(self, method: str, act: Callable[[Q], R], request: Q, context: grpc.ServicerContext) -> R:
        """Answer one call, or spoil it as the script says."""
        metadata = dict(context.invocation_metadata())
        header = metadata.get("authorization")
        token = header.removeprefix("Bearer ") if isinstance(header, str) else None
        certificate = _certificate(context)
        with self._arrival:
            self.calls.append(Seen(method, token, request, certificate))
            fault = self._faults[method].popleft() if self._faults[method] else None
            self._arrival.notify_all()
        if isinstance(fault, Hold):
            fault.arrived.set()
            if not fault.release.wait(30):
                raise TimeoutError("a held call was never released")
        try:
            with self._lock:
                self._identify(token, certificate)
                if isinstance(fault, Refuse):
                    raise fault.error
                if isinstance(fault, Abort):
                    context.abort(fault.code, fault.message)
                answer = act(request) if not isinstance(fault, Hang) or fault.act else None
        except BrokerError as error:
            context.abort_with_status(status_of(error))
        if isinstance(fault, Lose):
            context.abort(fault.code, "the connection broke")
        if answer is None or isinstance(fault, Hang):
            over = threading.Event()
            if context.add_callback(over.set):
                over.wait(30)
            context.abort(grpc.StatusCode.CANCELLED, "the caller has gone away")
        return answer

    def start_task(self, request: tasks.StartTaskRequest) -> tasks.StartTaskResponse:
        earlier = self._started.get(request.request_id)
        if earlier is None:
            for scope in request.spec.declared_scopes:
                self._scope(scope)
            earlier = self._started[request.request_id] = self._start(request.spec).id
        return tasks.StartTaskResponse(task=self.tasks[earlier])

    def get_task(self, request: tasks.GetTaskRequest) -> tasks.GetTaskResponse:
        return tasks.GetTaskResponse(task=self._task(request.id))

    def list_tasks(self, request: tasks.ListTasksRequest) -> tasks.ListTasksResponse:
        return tasks.ListTasksResponse(tasks=list(reversed(self.tasks.values())))

    def heartbeat_task(self, request: tasks.HeartbeatTaskRequest) -> tasks.HeartbeatTaskResponse:
        task = self._active(request.id)
        task.last_heartbeat_time.FromDatetime(self.now())
        return tasks.HeartbeatTaskResponse(task=task)

    def complete_task(self, request: tasks.CompleteTaskRequest) -> tasks.CompleteTaskResponse:
        task = self._task(request.id)
        if task.state == task_pb2.TASK_STATE_ACTIVE:
            self.end(request.id, task_pb2.TASK_STATE_COMPLETED)
        return tasks.CompleteTaskResponse(task=task)

    def issue(self, request: credentials.IssueCredentialRequest) -> credentials.IssueCredentialResponse:
        earlier = self._granted.get(request.request_id)
        if earlier is not None:
            known = {"issuance_id": earlier, "task_id": self.issuances[earlier].task_id}
            raise RequestIdReused(metadata=known)
        scope = self._scope(request.scope)
        starts = request.WhichOneof("task") == "new_task"
        task = self._start(request.new_task) if starts else self._active(request.task_id)
        if task.declared_scopes and request.scope not in task.declared_scopes:
            raise ScopeNotDeclared
        record = self._record(scope, task, request)
        self._granted[request.request_id] = record.id
        credential = credentials.Credential(
            issuance_id=record.id,
            expire_time=record.expire_time,
            max_expire_time=record.max_expire_time,
            renewable=scope.renewable,
            revocability=scope.revocability,
        )
        if scope.data is None:
            credential.vault_token.token = next(self.secrets)
            credential.vault_token.vault_address = "https://vault.test:8200"
            credential.vault_token.vault_namespace = "agents"
        else:
            credential.leased.data.CopyFrom(to_struct({**scope.data, "password": next(self.secrets)}))
        return credentials.IssueCredentialResponse(credential=credential, task=task)

    def renew(self, request: credentials.RenewCredentialRequest) -> credentials.RenewCredentialResponse:
        record = self._issuance(request.issuance_id)
        self._active(record.task_id)
        scope = self._scope(record.scope)
        if not scope.renewable:
            raise NotRenewable
        if record.state != issuance_pb2.ISSUANCE_STATE_ACTIVE:
            raise IssuanceEnded
        now = self.now()
        ttl = request.ttl.ToTimedelta() if request.HasField("ttl") else scope.ttl
        record.renew_time.FromDatetime(now)
        record.expire_time.FromDatetime(min(now + ttl, record.max_expire_time.ToDatetime(UTC)))
        return credentials.RenewCredentialResponse(issuance=record)

    def revoke(self, request: credentials.RevokeCredentialRequest) -> credentials.RevokeCredentialResponse:
        record = self._issuance(request.issuance_id)
        if record.revocability != issuance_pb2.REVOCABILITY_INDIVIDUAL:
            raise NotRevocable
        record.state = issuance_pb2.ISSUANCE_STATE_REVOKED
        record.revocation = task_pb2.REVOCATION_STATE_CONFIRMED
        return credentials.RevokeCredentialResponse(issuance=record)

    def _identify(self, token: str | None, certificate: bytes | None) -> None:
        if certificate is not None and token is None:
            return
        if token is None:
            raise EvidenceMissing
        if self.one_time and token in self._used:
            raise EvidenceReplayed
        if token not in self.tokens and not self.one_time:
            raise EvidenceInvalid
        self._used.add(token)

    def _scope(self, name: str) -> FakeScope:
        if name not in self.scopes:
            raise ScopeDenied
        return self.scopes[name]

    def _start(self, spec: task_pb2.TaskSpec) -> task_pb2.Task:
        now = self.now()
        timeout = spec.timeout.ToTimedelta() if spec.HasField("timeout") else DEFAULT_TIMEOUT
        task = task_pb2.Task(
            id=new_id(now),
            agent="spiffe://example.test/agent",
            purpose=spec.purpose,
            labels=spec.labels,
            declared_scopes=spec.declared_scopes,
            state=task_pb2.TASK_STATE_ACTIVE,
            create_time=_time(now),
            deadline=_time(now + timeout),
            revocation=task_pb2.REVOCATION_STATE_NOT_REQUESTED,
        )
        if spec.HasField("heartbeat_interval"):
            task.heartbeat_interval.CopyFrom(spec.heartbeat_interval)
            task.last_heartbeat_time.FromDatetime(now)
        self.tasks[task.id] = task
        return task

    def _task(self, task_id: str) -> task_pb2.Task:
        if task_id not in self.tasks:
            raise TaskNotFound
        return self.tasks[task_id]

    def _active(self, task_id: str) -> task_pb2.Task:
        task = self._task(task_id)
        if task.state == task_pb2.TASK_STATE_ACTIVE and task.deadline.ToDatetime(UTC) <= self.now():
            self.end(task_id, task_pb2.TASK_STATE_DEADLINE_EXCEEDED)
        if task.state != task_pb2.TASK_STATE_ACTIVE:
            raise TaskEnded
        return task

    def _issuance(self, issuance_id: str) -> issuance_pb2.Issuance:
        if issuance_id not in self.issuances:
            raise IssuanceNotFound
        return self.issuances[issuance_id]

    def _record(
        self, scope: FakeScope, task: task_pb2.Task, request: credentials.IssueCredentialRequest
    ) -> issuance_pb2.Issuance:
        now = self.now()
        deadline = task.deadline.ToDatetime(UTC)
        ttl = request.ttl.ToTimedelta() if request.HasField("ttl") else scope.ttl
        parameters = Struct()
        parameters.CopyFrom(request.parameters)
        record = issuance_pb2.Issuance(
            id=new_id(now),
            task_id=task.id,
            scope=request.scope,
            parameters=parameters,
            state=issuance_pb2.ISSUANCE_STATE_ACTIVE,
            revocability=scope.revocability,
            create_time=_time(now),
            expire_time=_time(min(now + ttl, deadline)),
            max_expire_time=_time(min(now + max(scope.max_ttl, ttl), deadline)),
        )
        self.issuances[record.id] = record
        return record


class _TaskService(task_service_pb2_grpc.TaskServiceServicer):
    def __init__(self, broker: FakeBroker) -> None:
        self._broker = broker

    def StartTask(self, request: tasks.StartTaskRequest, context: grpc.ServicerContext) -> tasks.StartTaskResponse:
        return self._broker.handle("StartTask", self._broker.start_task, request, context)

    def GetTask(self, request: tasks.GetTaskRequest, context: grpc.ServicerContext) -> tasks.GetTaskResponse:
        return self._broker.handle("GetTask", self._broker.get_task, request, context)

    def ListTasks(self, request: tasks.ListTasksRequest, context: grpc.ServicerContext) -> tasks.ListTasksResponse:
        return self._broker.handle("ListTasks", self._broker.list_tasks, request, context)

    def HeartbeatTask(
        self, request: tasks.HeartbeatTaskRequest, context: grpc.ServicerContext
    ) -> tasks.HeartbeatTaskResponse:
        return self._broker.handle("HeartbeatTask", self._broker.heartbeat_task, request, context)

    def CompleteTask(
        self, request: tasks.CompleteTaskRequest, context: grpc.ServicerContext
    ) -> tasks.CompleteTaskResponse:
        return self._broker.handle("CompleteTask", self._broker.complete_task, request, context)


class _CredentialService(credential_service_pb2_grpc.CredentialServiceServicer):
    def __init__(self, broker: FakeBroker) -> None:
        self._broker = broker

    def IssueCredential(
        self, request: credentials.IssueCredentialRequest, context: grpc.ServicerContext
    ) -> credentials.IssueCredentialResponse:
        return self._broker.handle("IssueCredential", self._broker.issue, request, context)

    def RenewCredential(
        self, request: credentials.RenewCredentialRequest, context: grpc.ServicerContext
    ) -> credentials.RenewCredentialResponse:
        return self._broker.handle("RenewCredential", self._broker.renew, request, context)

    def RevokeCredential(
        self, request: credentials.RevokeCredentialRequest, context: grpc.ServicerContext
    ) -> credentials.RevokeCredentialResponse:
        return self._broker.handle("RevokeCredential", self._broker.revoke, request, context)


def _certificate(context: grpc.ServicerContext) -> bytes | None:
    """Return the caller's certificate, which the stubs of grpcio have as numbers."""
    (certificate,) = context.auth_context().get("x509_pem_cert") or (None,)
    return certificate if isinstance(certificate, bytes) else None


def _time(moment: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def new_id(now: datetime) -> str:
    """Return a UUIDv7 (RFC 9562, section 5.7) made at a time of the test's choosing."""
    milliseconds = int(now.timestamp() * 1000)
    noise = uuid.uuid4().int & ((1 << 80) - 1)
    value = (milliseconds << 80) | noise
    value = (value & ~(0xF << 76)) | (7 << 76)
    return str(uuid.UUID(int=(value & ~(0x3 << 62)) | (2 << 62)))


@contextlib.contextmanager
def running(broker: FakeBroker, authority: DevAuthority, host: str = "127.0.0.1") -> Iterator[FakeBroker]:
    """Serve a fake broker on loopback: one listener for bearer tokens, one for mutual TLS.

    Args:
        host: The address that its certificate names.
    """
    certificate, key = authority.issue(addresses=[host])
    server = grpc.server(ThreadPoolExecutor(max_workers=32))
    task_service_pb2_grpc.add_TaskServiceServicer_to_server(_TaskService(broker), server)
    credential_service_pb2_grpc.add_CredentialServiceServicer_to_server(_CredentialService(broker), server)
    plain = grpc.ssl_server_credentials([(key, certificate)])
    mutual = grpc.ssl_server_credentials([(key, certificate)], authority.certificate_pem, require_client_auth=True)
    broker.address = f"127.0.0.1:{server.add_secure_port('127.0.0.1:0', plain)}"
    broker.mutual_address = f"127.0.0.1:{server.add_secure_port('127.0.0.1:0', mutual)}"
    server.start()
    try:
        yield broker
    finally:
        server.stop(grace=None).wait()
