"""What the library's one core needs of the world: blocking and asyncio each provide it.

The core is written as coroutines. Over the asyncio side they are awaited; the
blocking side never suspends, so that `credbroker._blocking.run` drives the same
coroutines to their end in one step.
"""

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Protocol, TypeAlias, TypeVar

from google.protobuf.message import Message

from credbroker._clock import Clock
from credbroker._evidence import Bearer
from credbroker.v1 import credential_service_pb2 as credentials
from credbroker.v1 import task_service_pb2 as tasks

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)


@dataclass(frozen=True, slots=True)
class Method(Generic[Q, R]):
    """One RPC of the contract."""

    path: str
    serialize: Callable[[Q], bytes]
    parse: Callable[[bytes], R]

    @property
    def name(self) -> str:
        """The method's name without its service."""
        return self.path.rpartition("/")[2]


_TASKS = "/credbroker.v1.TaskService/"
_CREDENTIALS = "/credbroker.v1.CredentialService/"

START_TASK = Method(_TASKS + "StartTask", tasks.StartTaskRequest.SerializeToString, tasks.StartTaskResponse.FromString)
HEARTBEAT_TASK = Method(
    _TASKS + "HeartbeatTask", tasks.HeartbeatTaskRequest.SerializeToString, tasks.HeartbeatTaskResponse.FromString
)
COMPLETE_TASK = Method(
    _TASKS + "CompleteTask", tasks.CompleteTaskRequest.SerializeToString, tasks.CompleteTaskResponse.FromString
)
ISSUE_CREDENTIAL = Method(
    _CREDENTIALS + "IssueCredential",
    credentials.IssueCredentialRequest.SerializeToString,
    credentials.IssueCredentialResponse.FromString,
)
RENEW_CREDENTIAL = Method(
    _CREDENTIALS + "RenewCredential",
    credentials.RenewCredentialRequest.SerializeToString,
    credentials.RenewCredentialResponse.FromString,
)
REVOKE_CREDENTIAL = Method(
    _CREDENTIALS + "RevokeCredential",
    credentials.RevokeCredentialRequest.SerializeToString,
    credentials.RevokeCredentialResponse.FromString,
)

Pause: TypeAlias = Callable[[float], Awaitable[bool]]
"""Waits for that many seconds; true when the work is to end instead."""

Work: TypeAlias = Callable[[Pause], Coroutine[object, None, None]]


class Gate(Protocol):
    """Lets one through at a time."""

    def busy(self) -> bool:
        """Whether somebody is inside."""
        ...

    async def __aenter__(self) -> None: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class Worker(Protocol):
    """Work in the background."""

    async def stop(self) -> None:
        """Have it end; harmless when it has."""
        ...


class Io(Protocol):
    """Calls, waiting, exclusion and background work."""

    @property
    def clock(self) -> Clock:
        """Where time comes from."""
        ...

    def closed(self) -> bool:
        """Whether the client was closed."""
        ...

    async def bearer(self) -> Bearer | None:
        """Return the token for the next attempt; None with mutual TLS."""
        ...

    async def call(self, method: Method[Q, R], request: Q, bearer: Bearer | None, seconds: float) -> R:
        """Make one attempt at one call, which may take that many seconds.

        Raises:
            Error: when it failed.
            RuntimeError: when the client is closed.
        """
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait for that many seconds."""
        ...

    def gate(self) -> Gate:
        """Return a new gate."""
        ...

    def spawn(self, work: Work, name: str) -> Worker:
        """Begin work in the background; it must not raise."""
        ...
