"""An agent that holds one credential of each kind, and what its task looks like."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import grpc
from credbroker.v1 import (
    audit_event_pb2,
    audit_service_pb2,
    credential_service_pb2,
    issuance_pb2,
    task_pb2,
    task_service_pb2,
)
from grpc_health.v1 import health_pb2

from tests.fakes.vault_proxy import Fault
from tests.fixtures.books import Books
from tests.fixtures.waiting import until
from tests.fixtures.world import SCOPES, Caller, World

READONLY = {"role": "readonly"}
SCOPES_OF_KINDS = {"batch": "reports-secret", "service": "reports-service", "leased": "reports-db"}
# Long enough for tests that move the broker's clock.
EVIDENCE_LIFE = timedelta(hours=12)


def parameters_of(kind: str) -> dict[str, str]:
    return READONLY if kind == "leased" else {}


@dataclass
class Holder:
    """An agent with a task; for each kind the credential that it holds."""

    world: World
    agent: Caller
    auditor: Caller
    task: str
    held: dict[str, credential_service_pb2.IssueCredentialResponse]

    async def issue(self, kind: str, request_id: str = "") -> credential_service_pb2.IssueCredentialResponse:
        scope, parameters = SCOPES_OF_KINDS[kind], parameters_of(kind)
        return await self.agent.issue(scope, task_id=self.task, parameters=parameters, request_id=request_id)

    def id_of(self, kind: str) -> str:
        return self.held[kind].credential.issuance_id

    async def renew(self, kind: str, ttl: timedelta | None = None) -> issuance_pb2.Issuance:
        request = credential_service_pb2.RenewCredentialRequest(issuance_id=self.id_of(kind))
        if ttl is not None:
            request.ttl.FromTimedelta(ttl)
        reply: credential_service_pb2.RenewCredentialResponse = await self.agent.credentials.RenewCredential(request)
        return reply.issuance

    async def revoke(self, kind: str) -> issuance_pb2.Issuance:
        request = credential_service_pb2.RevokeCredentialRequest(issuance_id=self.id_of(kind))
        reply: credential_service_pb2.RevokeCredentialResponse = await self.agent.credentials.RevokeCredential(request)
        return reply.issuance

    async def complete(self) -> task_pb2.Task:
        request = task_service_pb2.CompleteTaskRequest(id=self.task)
        reply: task_service_pb2.CompleteTaskResponse = await self.agent.tasks.CompleteTask(request)
        return reply.task

    async def record(self, kind: str) -> issuance_pb2.Issuance:
        return (await self._audit(kind)).issuance

    async def events(self, kind: str) -> list[audit_event_pb2.AuditEvent]:
        return list((await self._audit(kind)).events)

    async def _audit(self, kind: str) -> audit_service_pb2.GetIssuanceResponse:
        request = audit_service_pb2.GetIssuanceRequest(id=self.id_of(kind))
        reply: audit_service_pb2.GetIssuanceResponse = await self.auditor.audit.GetIssuance(request)
        return reply

    async def revocation(self) -> int:
        """How far taking back everything of the task is."""
        reply = await self.agent.tasks.GetTask(task_service_pb2.GetTaskRequest(id=self.task))
        return int(reply.task.revocation)

    async def confirmed(self) -> bool:
        return await self.revocation() == task_pb2.REVOCATION_STATE_CONFIRMED


async def holder(world: World, *kinds: str) -> Holder:
    """Start a task and issue a credential of each of these kinds for it."""
    agent, auditor = (
        world.caller(token=world.issuer.token(subject, lifetime=EVIDENCE_LIFE).reveal())
        for subject in ("agents/reports", "auditors/one")
    )
    spec = task_pb2.TaskSpec(purpose="a test", labels={"env": "prod"})
    task = (await agent.tasks.StartTask(task_service_pb2.StartTaskRequest(spec=spec))).task.id
    found = Holder(world, agent, auditor, task, {})
    for kind in kinds:
        found.held[kind] = await found.issue(kind)
    return found


async def is_ready(world: World) -> bool:
    """What the broker says of itself to load balancers."""
    credentials = grpc.ssl_channel_credentials(world.authority.certificate_pem)
    async with grpc.aio.secure_channel(world.app.addresses["bearer"], credentials) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        reply = await check(health_pb2.HealthCheckRequest())
    return int(reply.status) == health_pb2.HealthCheckResponse.SERVING


async def start_before(fault: Fault, world: World) -> World:
    """Start a broker that meets a fault of Vault; where that is silence, it does not wait for long."""
    if fault == "hang_after":
        world.hasten()
    await world.start()
    await world.apply(*SCOPES)
    return world


async def until_ready(world: World, ready: bool = True) -> None:
    async def as_wanted() -> bool:
        return await is_ready(world) is ready

    await until(as_wanted)


# After it, what a request left half done is nobody's any more.
ABANDONED: Final = timedelta(minutes=2)


async def settled(world: World, books: Books, *agents: Holder) -> None:
    """What was left half done is settled unaided; then the tasks end, and nothing is left.

    Raises:
        AssertionError: when the books do not match, or something is left.
    """
    for last in (False, False, True):
        # A claim that is held while time jumps is good until time jumps again.
        world.clock.offset += ABANDONED
        try:
            await books.match(seconds=20 if last else 8)
        except AssertionError:
            if last:
                raise
        else:
            break
    for agent in agents:
        agent.agent.timeout = 20
        await agent.complete()
    await books.match()
    await books.none_alive()
