"""Credentials through the broker, and by logging in to Vault with the same token: in turns, within one run.

Each caller has an identity, a connection and at most one request under way.
What a login gives is compared with what the broker gives, to the same end: a
token of Vault's that can be taken back. Where a task of the broker's ends, the
direct side revokes each token that it got.

=============  ============================  ======================================
workload       broker                        directly
=============  ============================  ======================================
steady         one long task; issue          log in
tasks of ten   issue ten, complete           log in ten times, revoke each
tasks of one   issue, complete               log in, revoke
=============  ============================  ======================================
"""

import asyncio
import json
import ssl
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final, TypeVar

from credbroker.v1 import credential_service_pb2 as credential
from credbroker.v1 import task_pb2
from credbroker.v1 import task_service_pb2 as task_service

from tests.bench.wire import GrpcConnection, HttpConnection, WrongReply, grpc_connection, http_connection
from tests.bench.worker import Access, Link

ISSUE: Final = "credbroker.v1.CredentialService/IssueCredential"
COMPLETE: Final = "credbroker.v1.TaskService/CompleteTask"

Unit = Callable[[], Awaitable[None]]
T = TypeVar("T")


@dataclass(slots=True)
class Samples:
    """What one span of load did: seconds that each credential took to get, and how many were got."""

    waits: list[float]


class BrokerCaller:
    """An agent before the broker."""

    def __init__(self, connection: GrpcConnection, scope: str, waits: list[float]) -> None:
        self._connection = connection
        self._scope = scope
        self._waits = waits

    async def begin(self) -> str:
        """Return the id of a task with a first credential."""
        spec = task_pb2.TaskSpec(purpose="to be measured")
        return (await self._issue(credential.IssueCredentialRequest(scope=self._scope, new_task=spec))).task.id

    async def issue(self, task_id: str) -> None:
        """Get a further credential."""
        await self._issue(credential.IssueCredentialRequest(scope=self._scope, task_id=task_id))

    async def complete(self, task_id: str) -> None:
        """End the task; what was issued for it is refused by then."""
        request = task_service.CompleteTaskRequest(id=task_id).SerializeToString()
        reply = task_service.CompleteTaskResponse.FromString(await self._connection.call(COMPLETE, request))
        if reply.task.state != task_pb2.TASK_STATE_COMPLETED:
            raise WrongReply(f"a completed task in state {reply.task.state}")
        if reply.task.revocation != task_pb2.REVOCATION_STATE_CONFIRMED:
            raise WrongReply("the end of a task is not confirmed")

    async def _issue(self, request: credential.IssueCredentialRequest) -> credential.IssueCredentialResponse:
        request.request_id = str(uuid.uuid4())  # as the client library does
        began = time.perf_counter()
        answer = await self._connection.call(ISSUE, request.SerializeToString())
        reply = credential.IssueCredentialResponse.FromString(answer)
        self._waits.append(time.perf_counter() - began)
        if not reply.credential.vault_token.token or not reply.credential.issuance_id:
            raise WrongReply("a credential without a token")
        return reply

    async def steady(self) -> Unit:
        """Return what gets one credential for a long task."""
        task_id = await self.begin()
        return lambda: self.issue(task_id)

    async def tasks_of(self, count: int) -> Unit:
        """Return what gets that many credentials for a task of their own, and ends it."""

        async def unit() -> None:
            task_id = await self.begin()
            for _ in range(count - 1):
                await self.issue(task_id)
            await self.complete(task_id)

        return unit


class DirectCaller:
    """The same agent without a broker: it logs in to Vault with the token that it has."""

    def __init__(self, connection: HttpConnection, role: str, token: str, waits: list[float]) -> None:
        self._connection = connection
        self._waits = waits
        self._login = json.dumps({"role": role, "jwt": token}).encode()

    async def login(self) -> str:
        """Return a token."""
        began = time.perf_counter()
        status, content = await self._connection.post("/v1/auth/jwt/login", self._login)
        if status != 200:
            raise WrongReply(f"OpenBao answered a login with {status}: {content!r}")
        token: str = json.loads(content)["auth"]["client_token"]
        self._waits.append(time.perf_counter() - began)
        if not token:
            raise WrongReply("a login without a token")
        return token

    async def revoke(self, token: str) -> None:
        """Take a token back."""
        status, content = await self._connection.post("/v1/auth/token/revoke-self", b"", token)
        if status != 204:
            raise WrongReply(f"OpenBao answered a revocation with {status}: {content!r}")

    async def steady(self) -> Unit:
        """Return what gets one token."""

        async def unit() -> None:
            await self.login()

        return unit

    async def tasks_of(self, count: int) -> Unit:
        """Return what gets that many tokens, and takes each back."""

        async def unit() -> None:
            for token in [await self.login() for _ in range(count)]:
                await self.revoke(token)

        return unit


WORKLOADS: Final[dict[str, Callable[[BrokerCaller | DirectCaller], Awaitable[Unit]]]] = {
    "steady": lambda caller: caller.steady(),
    "tasks of ten": lambda caller: caller.tasks_of(10),
    "tasks of one": lambda caller: caller.tasks_of(1),
}


async def callers(link: Link, access: Access, tokens: list[str], scope: str, role: str) -> None:
    """Do what the parent orders: ``{side, workload, callers, seconds}``; answer with the waits, in seconds."""
    context = ssl.create_default_context(cafile=access.ca_file)
    async with AsyncExitStack() as connected:
        brokers = [await grpc_connection(access.broker, context, token) for token in tokens]
        context = ssl.create_default_context(cafile=access.ca_file)
        vaults = [await http_connection(access.vault, context) for _ in tokens]
        for connection in (*brokers, *vaults):
            connected.callback(connection.transport.close)
        link.say("connected")
        while True:
            order = await link.hear()
            waits: list[float] = []
            asking: list[BrokerCaller] | list[DirectCaller]
            if order["side"] == "broker":
                asking = [BrokerCaller(one, scope, waits) for one in brokers]
            else:
                asking = [DirectCaller(one, role, token, waits) for one, token in zip(vaults, tokens, strict=True)]
            units = [await WORKLOADS[order["workload"]](one) for one in asking[: order["callers"]]]
            waits.clear()
            began, cpu = time.perf_counter(), time.process_time()
            await asyncio.gather(*(_repeat(unit, began + order["seconds"]) for unit in units))
            link.say({"waits": waits, "seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu})


async def _repeat(unit: Unit, end: float) -> None:
    while time.perf_counter() < end:
        await unit()
