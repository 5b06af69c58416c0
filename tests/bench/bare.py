"""The least that a broker in Python could be: what is left when everything that makes it one is taken away.

It takes the same requests over the same gRPC and TLS, asks Vault for the same
tokens, commits the same rows to the same tables, in transactions that requests
share, and replies with the same message. It knows nobody, checks no request,
decides nothing, counts, logs and traces nothing, and takes back what it gave
only when a task is completed, with one attempt. What it costs bounds what a
broker with these parts can cost.
"""

import gc
import hashlib
import json
import ssl
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import grpc.aio
import uvloop
from credbroker.v1 import credential_service_pb2 as credential
from credbroker.v1 import task_pb2
from credbroker.v1 import task_service_pb2 as task_service
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2
from sqlalchemy import Connection

from broker import attest, config
from broker.audit.catalogue import CREDENTIAL_ISSUED, TASK_COMPLETED, TASK_STARTED
from broker.clock import SystemClock
from broker.http1.pool import Pool
from broker.ids import new_id
from broker.mint.anchor import create_anchor
from broker.mint.children import ISSUANCE_META
from broker.mint.login import VaultLogin
from broker.mint.tokens import TokenRequest
from broker.mint.transport import MAX_REPLY_BYTES
from broker.mint.vault import INSTALLATION_META, VaultClient
from broker.model import (
    Anchor,
    AnchorRecord,
    AnchorState,
    AuditEvent,
    Issuance,
    IssuanceState,
    Outcome,
    Revocability,
    Task,
    TaskState,
)
from broker.revoke import Hold, confirm
from broker.secret import Secret
from broker.serve.options import server_options
from broker.serve.tls import Certificates
from broker.store import Store, anchors, events, issuances, tasks
from broker.tasks import Completion, complete

_LIFE = timedelta(minutes=15)
_LONG = timedelta(hours=1)
_NOBODY = "spiffe://bare.test/agent"
_SCOPE = "batch"
_CREDENTIALS = "credbroker.v1.CredentialService"
_TASKS = "credbroker.v1.TaskService"
_HEALTH = "grpc.health.v1.Health"
_PLACE = b"00000000-0000-0000-0000-000000000000"


@dataclass(slots=True)
class _Open:
    """A task with what is needed to give credentials for it, and whether its anchor is recorded."""

    task: task_pb2.Task
    anchor: Anchor
    request: bytes
    adopted: bool = False


@dataclass(frozen=True, slots=True)
class _Delivery:
    """A credential to be recorded, with the anchor that is yet to be."""

    issuance: Issuance
    event: AuditEvent
    anchor: Anchor | None


class _Bare:
    """Issues credentials for tasks that it started itself, and completes those.

    Args:
        role: Name of the token role and of the policy that the scope's credentials have.
    """

    def __init__(self, settings: config.Vault, store: Store, vault: VaultClient, role: str) -> None:
        context = ssl.create_default_context(cafile=settings.ca_file)
        self._pool = Pool(settings.address, context)
        self._address = settings.address
        self._store = store
        self._vault = vault
        self._role = role
        self._open: dict[str, _Open] = {}

    async def issue(
        self, request: credential.IssueCredentialRequest, context: object
    ) -> credential.IssueCredentialResponse:
        """Mint, record, reply."""
        known = self._open.get(request.task_id) or await self._begin()
        issuance_id, now = new_id(), datetime.now(UTC)
        body = known.request.replace(_PLACE, issuance_id.encode())
        reply = await self._pool.exchange(body, MAX_REPLY_BYTES)
        auth = json.loads(reply.content)["auth"]
        expires = now + timedelta(seconds=auth["lease_duration"])
        fingerprint = hashlib.sha256(auth["client_token"].encode()).hexdigest()
        issuance = _issuance(issuance_id, known.anchor, request.request_id or None, fingerprint, now, expires)
        until = Timestamp()
        until.FromDatetime(expires)
        await self._store.write_each(
            _record, _Delivery(issuance, _event(issuance), None if known.adopted else known.anchor)
        )
        known.adopted = True
        return credential.IssueCredentialResponse(
            credential=credential.Credential(
                issuance_id=issuance_id,
                expire_time=until,
                max_expire_time=until,
                vault_token=credential.VaultToken(token=auth["client_token"], vault_address=self._address),
            ),
            task=known.task,
        )

    async def complete(
        self, request: task_service.CompleteTaskRequest, context: object
    ) -> task_service.CompleteTaskResponse:
        """Record the end, revoke, record the confirmation, reply."""
        known, now = self._open.pop(request.id), datetime.now(UTC)
        event = AuditEvent(id=new_id(), time=now, type=TASK_COMPLETED, outcome=Outcome.SUCCESS, actor=_NOBODY)
        completion = Completion(request.id, event, Hold("bare", now + _LONG))
        done = await self._store.write_each(complete, completion)
        if done is None:
            raise ValueError("a task that has ended")
        (entry,) = done.entries
        await self._vault.revoke_token(known.anchor.accessor)
        await self._store.write_each(confirm, (entry, datetime.now(UTC)))
        task = task_pb2.Task(
            id=request.id,
            state=task_pb2.TASK_STATE_COMPLETED,
            revocation=task_pb2.REVOCATION_STATE_CONFIRMED,
        )
        return task_service.CompleteTaskResponse(task=task)

    async def _begin(self) -> _Open:
        task_id, anchor_id, now = new_id(), new_id(), datetime.now(UTC)
        task = Task(task_id, _NOBODY, "", {}, (), TaskState.ACTIVE, now, now + _LONG, None, None)
        intent = AnchorRecord(anchor_id, task_id, self._role, "", AnchorState.CREATING, None, now, now + _LONG)
        await self._store.write_each(_begin, (task, intent))
        anchor = await create_anchor(
            self._vault, anchor_id=anchor_id, task_id=task_id, role=self._role, policy=self._role, ttl=_LONG
        )
        told = task_pb2.Task(id=task_id, state=task_pb2.TASK_STATE_ACTIVE)
        known = self._open[task_id] = _Open(told, anchor, self._child_request(anchor))
        return known

    def _child_request(self, anchor: Anchor) -> bytes:
        """Return a request as the broker sends it, with a place for the identifier of the record."""
        request = TokenRequest(
            type="batch",
            policies=(self._role,),
            ttl=_LIFE // timedelta(seconds=1),
            max_ttl=None,
            renewable=False,
            display_name=self._role,
            meta={ISSUANCE_META: _PLACE.decode(), INSTALLATION_META: new_id()},
        )
        content = json.dumps(request.body({})).encode()
        head = (
            f"POST /v1/auth/token/create HTTP/1.1\r\nHost: {urlsplit(self._address).netloc}\r\n"
            f"User-Agent: credbroker\r\nX-Vault-Request: true\r\nX-Vault-Token: {anchor.token.reveal()}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        return head.encode() + content


async def _check(request: health_pb2.HealthCheckRequest, context: object) -> health_pb2.HealthCheckResponse:
    return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)


def _issuance(
    issuance_id: str, anchor: Anchor, request_id: str | None, fingerprint: str, now: datetime, expires: datetime
) -> Issuance:
    return Issuance(
        id=issuance_id,
        task_id=anchor.task_id,
        anchor_id=anchor.id,
        agent=_NOBODY,
        scope=_SCOPE,
        scope_version=1,
        kind="vault_token",
        parameters={},
        state=IssuanceState.ACTIVE,
        revocability=Revocability.WITH_TASK,
        renewable=False,
        created_at=now,
        expires_at=expires,
        max_expires_at=expires,
        fingerprint=fingerprint,
        request_id=request_id,
    )


def _event(issuance: Issuance) -> AuditEvent:
    return AuditEvent(
        id=new_id(),
        time=issuance.created_at,
        type=CREDENTIAL_ISSUED,
        outcome=Outcome.SUCCESS,
        actor=_NOBODY,
        agent=_NOBODY,
        task_id=issuance.task_id,
        issuance_id=issuance.id,
        scope=_SCOPE,
        scope_version=1,
        attributes={"kind": issuance.kind, "expires_at": issuance.expires_at.isoformat()},
    )


def _started(task: Task) -> AuditEvent:
    return AuditEvent(
        id=new_id(),
        time=task.created_at,
        type=TASK_STARTED,
        outcome=Outcome.SUCCESS,
        actor=_NOBODY,
        agent=_NOBODY,
        task_id=task.id,
    )


def _begin(conn: Connection, begun: Sequence[tuple[Task, AnchorRecord]]) -> Sequence[None]:
    tasks.insert_unless_known(conn, [task for task, _ in begun])
    anchors.insert(conn, *(intent for _, intent in begun))
    events.append(conn, [_started(task) for task, _ in begun])
    return [None] * len(begun)


def _record(conn: Connection, delivered: Sequence[_Delivery]) -> Sequence[None]:
    anchors.adopt(conn, [one.anchor for one in delivered if one.anchor is not None])
    issuances.insert_unless_reused(conn, [one.issuance for one in delivered])
    events.append(conn, [one.event for one in delivered])
    return [None] * len(delivered)


async def serve(settings: config.Settings, tls: config.Tls, port: int, role: str) -> None:
    """Serve until the process is ended."""
    clock, store = SystemClock(), Store(Secret(settings.database.url.get_secret_value()))
    await store.start()
    login = VaultLogin(settings.vault, settings.vault.auth, clock)
    await login.start()
    bare = _Bare(settings.vault, store, VaultClient(settings.vault, login, clock), role)
    server = grpc.aio.server(options=server_options(settings.limits, share_ports=False))
    for service, method, handler, request, reply in (
        (
            _CREDENTIALS,
            "IssueCredential",
            bare.issue,
            credential.IssueCredentialRequest,
            credential.IssueCredentialResponse,
        ),
        (_TASKS, "CompleteTask", bare.complete, task_service.CompleteTaskRequest, task_service.CompleteTaskResponse),
        (_HEALTH, "Check", _check, health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse),
    ):
        served = grpc.unary_unary_rpc_method_handler(handler, request.FromString, reply.SerializeToString)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: served}),))
    server.add_secure_port(f"127.0.0.1:{port}", Certificates(tls).credentials())
    await server.start()
    gc.collect()
    gc.freeze()
    await server.wait_for_termination()


def _main(file: Path, port: int, role: str) -> None:
    settings = config.load_settings(file, attest.SETTINGS)
    if settings.listen.bearer is None:
        raise ValueError(f"{file}: no listener for callers with a token")
    uvloop.run(serve(settings, settings.listen.bearer.tls, port, role))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
