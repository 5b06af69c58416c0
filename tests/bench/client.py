"""An agent with the generated stubs, and the servers that honour or refuse what it was given."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp
import grpc
import psycopg
from credbroker.v1 import credential_service_pb2, credential_service_pb2_grpc, task_pb2, task_service_pb2
from credbroker.v1.task_service_pb2_grpc import TaskServiceStub

from broker.dev.vault import SECRET_PATH
from tests.bench.wire import WrongReply
from tests.bench.worker import Access

CALL_SECONDS = 30
_POLL_SECONDS = 0.002


class Agent:
    """One agent on a connection of its own."""

    def __init__(self, access: Access, token: str) -> None:
        credentials = grpc.ssl_channel_credentials(Path(access.ca_file).read_bytes())
        # Without a pool of its own, channels to one address share a connection.
        self._channel = grpc.aio.secure_channel(access.broker, credentials, [("grpc.use_local_subchannel_pool", 1)])
        self._options: dict[str, Any] = {"metadata": [("authorization", f"Bearer {token}")], "timeout": CALL_SECONDS}
        self._tasks: Any = TaskServiceStub(self._channel)
        self._credentials: Any = credential_service_pb2_grpc.CredentialServiceStub(self._channel)

    async def __aenter__(self) -> "Agent":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close()

    async def issue(self, scope: str, task_id: str = "") -> credential_service_pb2.IssueCredentialResponse:
        """Return a credential, for a task of its own unless one is given."""
        request = credential_service_pb2.IssueCredentialRequest(scope=scope)
        if task_id:
            request.task_id = task_id
        else:
            request.new_task.CopyFrom(task_pb2.TaskSpec(purpose="to be measured"))
        reply: credential_service_pb2.IssueCredentialResponse = await self._credentials.IssueCredential(
            request, **self._options
        )
        if not reply.credential.WhichOneof("secret"):
            raise WrongReply("a credential without a secret")
        return reply

    async def complete(self, task_id: str) -> task_pb2.Task:
        """End a task."""
        reply = await self._tasks.CompleteTask(task_service_pb2.CompleteTaskRequest(id=task_id), **self._options)
        task: task_pb2.Task = reply.task
        if task.state != task_pb2.TASK_STATE_COMPLETED:
            raise WrongReply(f"a completed task in state {task.state}")
        return task


def tls(access: Access) -> ssl.SSLContext:
    """Return what it takes to trust the servers."""
    return ssl.create_default_context(cafile=access.ca_file)


class Servers:
    """OpenBao and PostgreSQL, asked whether a credential still works."""

    def __init__(self, access: Access, connections: int = 64) -> None:
        self._access = access
        self._connections = connections
        self._exit = AsyncExitStack()

    async def __aenter__(self) -> "Servers":
        connector = aiohttp.TCPConnector(ssl=tls(self._access), limit=self._connections)
        self._session = await self._exit.enter_async_context(aiohttp.ClientSession(connector=connector))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._exit.aclose()

    async def honours_token(self, token: str) -> bool:
        """Say whether OpenBao accepts a token, by reading the secret it is for."""
        url = f"{self._access.vault}/v1/secret/data/{SECRET_PATH}"
        async with self._session.get(url, headers={"X-Vault-Token": token}) as reply:
            await reply.read()
            if reply.status not in (200, 403):
                raise WrongReply(f"OpenBao answered a read with {reply.status}")
            return reply.status == 200

    async def honours_login(self, user: str, password: str) -> bool:
        """Say whether PostgreSQL lets a user in."""
        try:
            connection = await psycopg.AsyncConnection.connect(
                self._access.reports, user=user, password=password, connect_timeout=10
            )
        except psycopg.OperationalError as error:
            text = str(error)
            if "authentication failed" in text or "not permitted to log in" in text or "does not exist" in text:
                return False
            raise WrongReply("PostgreSQL refused a login for another reason") from None
        await connection.close()
        return True

    async def honours(self, credential: credential_service_pb2.Credential) -> bool:
        """Say whether the server that a credential is for accepts it."""
        if credential.WhichOneof("secret") == "vault_token":
            return await self.honours_token(credential.vault_token.token)
        data = credential.leased.data
        return await self.honours_login(str(data["username"]), str(data["password"]))

    async def until_refused(self, credential: credential_service_pb2.Credential) -> None:
        """Ask again and again, and return when the credential is refused."""
        await _until_not(lambda: self.honours(credential))

    async def until_token_refused(self, token: str) -> None:
        """Ask again and again, and return when the token is refused."""
        await _until_not(lambda: self.honours_token(token))

    async def until_login_refused(self, user: str, password: str) -> None:
        """Ask again and again, and return when the user is not let in."""
        await _until_not(lambda: self.honours_login(user, password))


async def _until_not(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(CALL_SECONDS):
        while await holds():  # noqa: ASYNC110 - no event tells when another server refuses
            await asyncio.sleep(_POLL_SECONDS)
