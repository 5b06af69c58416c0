"""Agents before the broker, and the same agents without one: each logs in to Vault with the token that it has.

Each caller has an identity, a connection and at most one request under way.
Every reply's status and content is checked as it comes; after each span, what
was got last is shown to the server that it is for: it must work, or be refused
where its task has ended.
"""

import asyncio
import json
import ssl
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Final

from credbroker.v1 import credential_service_pb2 as credential
from credbroker.v1 import task_pb2
from credbroker.v1 import task_service_pb2 as task_service
from grpc_health.v1 import health_pb2

from tests.bench.client import CALL_SECONDS, Servers
from tests.bench.samples import Samples, Unit, check_refused, content_of, honours
from tests.bench.vault_alone import VaultCaller
from tests.bench.wire import GrpcConnection, HttpConnection, WrongReply, grpc_connection, http_connection
from tests.bench.worker import Access, Link

ISSUE: Final = "credbroker.v1.CredentialService/IssueCredential"
RENEW: Final = "credbroker.v1.CredentialService/RenewCredential"
START: Final = "credbroker.v1.TaskService/StartTask"
COMPLETE: Final = "credbroker.v1.TaskService/CompleteTask"
HEALTH: Final = "grpc.health.v1.Health/Check"
SPEC: Final = task_pb2.TaskSpec(purpose="to be measured")


class BrokerCaller:
    """An agent before the broker."""

    def __init__(self, connection: GrpcConnection, scope: str, samples: Samples) -> None:
        self._connection = connection
        self._scope = scope
        self._samples = samples
        self._long_task = ""
        self.last = ""

    async def begin(self) -> str:
        """Return the id of a task with a first credential."""
        return (await self._issue(credential.IssueCredentialRequest(scope=self._scope, new_task=SPEC))).task.id

    async def issue(self, task_id: str) -> credential.IssueCredentialResponse:
        """Get a further credential."""
        reply = await self._issue(credential.IssueCredentialRequest(scope=self._scope, task_id=task_id))
        if reply.task.id != task_id:
            raise WrongReply("a credential for another task")
        return reply

    async def complete(self, task_id: str) -> None:
        """End the task; what was issued for it is refused by then, or soon where it has leases."""
        request = task_service.CompleteTaskRequest(id=task_id).SerializeToString()
        began = time.perf_counter()
        reply = task_service.CompleteTaskResponse.FromString(await self._connection.call(COMPLETE, request))
        self._samples.ends.append(time.perf_counter() - began)
        if reply.task.id != task_id or reply.task.state != task_pb2.TASK_STATE_COMPLETED:
            raise WrongReply(f"a completed task in state {reply.task.state}")
        if reply.task.revocation != task_pb2.REVOCATION_STATE_CONFIRMED and self._scope == "batch":
            raise WrongReply("the end of a task is not confirmed")

    async def _issue(self, request: credential.IssueCredentialRequest) -> credential.IssueCredentialResponse:
        request.request_id = str(uuid.uuid4())  # as the client library does
        began = time.perf_counter()
        answer = await self._connection.call(ISSUE, request.SerializeToString())
        reply = credential.IssueCredentialResponse.FromString(answer)
        self._samples.waits.append(time.perf_counter() - began)
        given = reply.credential
        self.last = given.vault_token.token or _database_user(given)
        if not self.last or not given.issuance_id or not reply.task.id:
            raise WrongReply("a credential without a secret, or without a record")
        if given.expire_time.seconds <= time.time():
            raise WrongReply("a credential that has expired")
        self._samples.secrets.append(self.last)
        return reply

    async def steady(self) -> Unit:
        """Return what gets one credential for a long task."""
        task_id = self._long_task = await self.begin()

        async def unit() -> None:
            await self.issue(task_id)

        return unit

    async def tasks_of(self, count: int) -> Unit:
        """Return what gets that many credentials for a task of their own, and ends it."""

        async def unit() -> None:
            task_id = await self.begin()
            for _ in range(count - 1):
                await self.issue(task_id)
            await self.complete(task_id)

        return unit

    async def empty_tasks(self) -> Unit:
        """Return what starts a task, and ends it."""

        async def unit() -> None:
            request = task_service.StartTaskRequest(spec=SPEC, request_id=str(uuid.uuid4()))
            began = time.perf_counter()
            answer = await self._connection.call(START, request.SerializeToString())
            task = task_service.StartTaskResponse.FromString(answer).task
            self._samples.waits.append(time.perf_counter() - began)
            if not task.id or task.state != task_pb2.TASK_STATE_ACTIVE:
                raise WrongReply(f"a started task in state {task.state}")
            await self.complete(task.id)

        return unit

    async def health_checks(self) -> Unit:
        """Return what asks for the broker's health: a call that does next to nothing."""

        async def unit() -> None:
            began = time.perf_counter()
            answer = await self._connection.call(HEALTH, b"")
            self._samples.waits.append(time.perf_counter() - began)
            if health_pb2.HealthCheckResponse.FromString(answer).status != health_pb2.HealthCheckResponse.SERVING:
                raise WrongReply("a broker that does not serve")

        return unit

    async def renewals(self) -> Unit:
        """Return what renews one credential of a long task."""
        self._long_task = await self.begin()
        issued = await self.issue(self._long_task)
        issuance_id = issued.credential.issuance_id
        request = credential.RenewCredentialRequest(issuance_id=issuance_id).SerializeToString()

        async def unit() -> None:
            began = time.perf_counter()
            answer = await self._connection.call(RENEW, request)
            issuance = credential.RenewCredentialResponse.FromString(answer).issuance
            self._samples.waits.append(time.perf_counter() - began)
            if issuance.id != issuance_id or issuance.expire_time.seconds < issued.credential.expire_time.seconds:
                raise WrongReply("a renewal that does not prolong")

        return unit

    async def finish(self, servers: Servers) -> None:
        """End what goes on, and check that what was got last worked until then, and does not any more."""
        if self._long_task:
            if not await honours(servers, self.last):
                raise WrongReply("a credential of a task that goes on is refused")
            await self.complete(self._long_task)
        if self.last:
            await check_refused(servers, self.last)


class DirectCaller:
    """The same agent without a broker.

    Args:
        connection: To Vault.
        role: Of the JWT auth method.
        token: What it shows there.
        path: What it reads with what it got, for a credential with a lease.
        samples: Gets what was done.
    """

    def __init__(self, connection: HttpConnection, role: str, token: str, path: str, samples: Samples) -> None:
        self._connection = connection
        self._path = path
        self._samples = samples
        self._login = json.dumps({"role": role, "jwt": token}).encode()
        self._goes_on = False
        self._tokens: list[str] = []
        self.last = ""

    async def login(self) -> str:
        """Return a token, after reading the credential with it if there is one to read."""
        began = time.perf_counter()
        auth = content_of(await self._connection.post("/v1/auth/jwt/login", self._login))["auth"]
        token: str = auth["client_token"]
        if not token or auth["lease_duration"] <= 0 or not auth["token_policies"]:
            raise WrongReply("a login without a token, or without rights")
        self.last = token
        if self._path:
            data = content_of(await self._connection.get(self._path, token))["data"]
            self.last = f"{data['username']} {data['password']}"
        self._samples.waits.append(time.perf_counter() - began)
        self._samples.secrets.append(self.last)
        return token

    async def revoke(self, token: str) -> None:
        """Take a token back."""
        status, content = await self._connection.post("/v1/auth/token/revoke-self", b"", token)
        if status != 204:
            raise WrongReply(f"OpenBao answered a revocation with {status}: {content!r}")

    async def steady(self) -> Unit:
        """Return what gets one token."""
        self._goes_on = True

        async def unit() -> None:
            await self.login()

        return unit

    async def tasks_of(self, count: int) -> Unit:
        """Return what gets that many tokens, and takes each back."""

        async def unit() -> None:
            tokens = [await self.login() for _ in range(count)]
            began = time.perf_counter()
            for token in tokens:
                await self.revoke(token)
            self._samples.ends.append(time.perf_counter() - began)

        return unit

    async def empty_tasks(self) -> Unit:
        """Vault knows no tasks."""
        raise ValueError("nothing to be done directly")

    async def health_checks(self) -> Unit:
        """Only the broker's are compared with anything."""
        raise ValueError("nothing to be done directly")

    async def renewals(self) -> Unit:
        """Return what renews one lease."""
        token = await self.login()
        self._goes_on = True
        self._tokens.append(token)
        lease_id = content_of(await self._connection.get(self._path, token))["lease_id"]
        body = json.dumps({"lease_id": lease_id}).encode()

        async def unit() -> None:
            began = time.perf_counter()
            renewed = content_of(await self._connection.post("/v1/sys/leases/renew", body, token))
            self._samples.waits.append(time.perf_counter() - began)
            if renewed["lease_id"] != lease_id or renewed["lease_duration"] <= 0:
                raise WrongReply("a renewal that does not prolong")

        return unit

    async def finish(self, servers: Servers) -> None:
        """Check that what was got last works, or is refused where it was taken back."""
        if self._goes_on:
            if not await honours(servers, self.last):
                raise WrongReply("a credential of a fresh login is refused")
            for token in self._tokens:
                await self.revoke(token)
        elif self.last:
            await check_refused(servers, self.last)


def _database_user(given: credential.Credential) -> str:
    data = given.leased.data.fields
    if not {"username", "password"} <= set(data):
        return ""
    return f"{data['username'].string_value} {data['password'].string_value}"


Caller = BrokerCaller | DirectCaller | VaultCaller

WORKLOADS: Final[dict[str, Callable[[Caller], Awaitable[Unit]]]] = {
    "steady": lambda caller: caller.steady(),
    "tasks of ten": lambda caller: caller.tasks_of(10),
    "tasks of one": lambda caller: caller.tasks_of(1),
    "empty tasks": lambda caller: caller.empty_tasks(),
    "renewals": lambda caller: caller.renewals(),
    "health checks": lambda caller: caller.health_checks(),
}


async def callers(
    link: Link,
    access: Access,
    tokens: list[str],
    scope: str,
    role: str,
    path: str = "",
    identity: tuple[str, str] = ("", ""),
) -> None:
    """Do what the parent orders.

    ``{side, workload, callers, seconds}`` is one span of load, answered with
    ``{waits, ends, seconds, cpu}``; ``"finish"`` after it ends what goes on and
    checks what was got last.

    Args:
        link: To the parent.
        access: Where the servers are.
        tokens: Of the agents, one for each caller.
        scope: What they ask the broker for.
        role: Which role they log in for.
        path: What they read with what a login gave.
        identity: For the side ``OpenBao``: the broker's own token, and the name of the scope's role.
    """
    async with AsyncExitStack() as connected:
        context = ssl.create_default_context(cafile=access.ca_file)
        brokers = [await grpc_connection(access.broker, context, token) for token in tokens]
        context = ssl.create_default_context(cafile=access.ca_file)
        vaults = [await http_connection(access.vault, context) for _ in tokens]
        for connection in (*brokers, *vaults):
            connected.callback(connection.transport.close)
        for vault in vaults:
            # Vault closes a connection on which nothing comes for ten seconds, unless something came before.
            content_of(await vault.get("/v1/sys/health", ""))
        servers = await connected.enter_async_context(Servers(access))
        link.say("connected")
        asking: list[Caller] = []
        while True:
            order = await link.hear()
            if order == "finish":
                await asyncio.gather(*(one.finish(servers) for one in asking))
                link.say("finished")
                continue
            samples = Samples()
            asking = []
            for broker, vault, token in list(zip(brokers, vaults, tokens, strict=True))[: order["callers"]]:
                if order["side"] == "broker":
                    asking.append(BrokerCaller(broker, scope, samples))
                elif order["side"] == "OpenBao":
                    asking.append(VaultCaller(vault, *identity, samples))
                else:
                    asking.append(DirectCaller(vault, role, token, path, samples))
            link.say(await _load(asking, order["workload"], order["seconds"], samples))


async def _load(asking: list[Caller], workload: str, seconds: float, samples: Samples) -> dict[str, object]:
    async with asyncio.timeout(seconds + 2 * CALL_SECONDS):
        units = [await WORKLOADS[workload](one) for one in asking]
        samples.clear()
        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(_repeat(unit, began + seconds) for unit in units))
        ended, used = time.perf_counter() - began, time.process_time() - cpu
    if len(set(samples.secrets)) != len(samples.secrets):
        raise WrongReply("a credential was given twice")
    return {"waits": samples.waits, "ends": samples.ends, "seconds": ended, "cpu": used}


async def _repeat(unit: Unit, end: float) -> None:
    while time.perf_counter() < end:
        await unit()
