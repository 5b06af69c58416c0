"""The asyncio client: the same as `credbroker.Client`, awaited.

::

    async with credbroker.aio.AsyncClient() as client:
        async with client.task("monthly report") as task:
            credential = await task.credential("reports-db", role="ro")

One client belongs to one event loop, the one it makes its first call on.
"""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from types import TracebackType
from typing import NoReturn, Self

from credbroker._asyncio import AsyncIo
from credbroker._broker import Broker
from credbroker._clock import Clock, SystemClock
from credbroker._evidence import AsyncTokenCallable
from credbroker._holding import Holding
from credbroker._io import COMPLETE_TASK
from credbroker._requests import make_ask, make_spec
from credbroker._settings import AnyPath, Arguments, resolve
from credbroker._task import TaskCore
from credbroker._views import CredentialView, TaskView
from credbroker.v1 import task_service_pb2

__all__ = ["AsyncClient", "AsyncCredential", "AsyncTask"]


class AsyncCredential(CredentialView):
    """One issued credential; see `credbroker.Credential`.

    Reading it needs no ``await``; `fresh`, `renew` and `revoke` do::

        await connect(**await credential.fresh())
    """

    __slots__ = ()

    async def fresh(self) -> "AsyncCredential":
        """Return a credential with life left: this one, or the one that took its place.

        See `credbroker.Credential.fresh`.
        """
        issued = await self._holding.fresh()
        return self if issued is self._issued else AsyncCredential(self._holding, issued)

    async def renew(self, ttl: timedelta | None = None) -> None:
        """Prolong it now; see `credbroker.Credential.renew`."""
        await self._holding.renew(self._issued, ttl)

    async def revoke(self) -> None:
        """Take it back before its time; see `credbroker.Credential.revoke`."""
        await self._holding.revoke(self._issued)


class AsyncTask(TaskView):
    """One unit of an agent's work; see `credbroker.Task`.

    Used in an ``async with`` statement it is completed when the block is left,
    also when that is because of a cancellation.
    """

    def __init__(self, core: TaskCore, io: AsyncIo, *, eager: bool) -> None:
        super().__init__(core, eager=eager)
        self._io = io

    async def start(self) -> Self:
        """Start the task now; see `credbroker.Task.start`."""
        await self._core.start()
        return self

    async def credential(
        self,
        scope: str,
        parameters: Mapping[str, object] | None = None,
        /,
        *,
        ttl: timedelta | None = None,
        **named: object,
    ) -> AsyncCredential:
        """Get a credential; see `credbroker.Task.credential`."""
        ask = make_ask(scope, parameters, ttl, named)
        issued = await self._core.issue(ask)
        return AsyncCredential(Holding(self._core, ask, issued), issued)

    async def complete(self) -> None:
        """End the task and revoke everything issued for it; see `credbroker.Task.complete`.

        Goes on when the caller is cancelled; closing the client waits for it.
        """
        await self._io.finish(self._core.complete())

    async def __aenter__(self) -> Self:
        return await self.start() if self._eager else self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self.complete()
        except Exception as failure:
            if error is None:
                raise
            self._failed_to_complete(failure, error)


class AsyncClient:
    """A connection to the broker; see `credbroker.Client` for the arguments.

    ``token`` may also be an asynchronous callable. A plain one is called on a
    thread, so that it may block.

    Raises:
        Misconfigured: when something is missing, contradictory or malformed.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        token: str | AsyncTokenCallable | None = None,
        token_file: AnyPath | None = None,
        certificate_file: AnyPath | None = None,
        key_file: AnyPath | None = None,
        ca_file: AnyPath | None = None,
        timeout: float | timedelta = 10.0,
        total_timeout: float | timedelta = 30.0,
        clock: Clock | None = None,
    ) -> None:
        given = Arguments(address, token, token_file, certificate_file, key_file, ca_file, timeout, total_timeout)
        settings = resolve(given)
        self._address = settings.address
        self._io = AsyncIo(settings, clock or SystemClock())
        self._broker = Broker(self._io, settings.policy)

    def task(
        self,
        purpose: str,
        *,
        labels: Mapping[str, str] | None = None,
        scopes: Iterable[str] = (),
        timeout: float | timedelta | None = None,
        heartbeat_interval: float | timedelta | None = None,
        start: bool | None = None,
    ) -> AsyncTask:
        """Describe a task; use it in an ``async with`` statement. See `credbroker.Client.task`."""
        spec = make_spec(purpose, labels, scopes, timeout, heartbeat_interval)
        core = TaskCore(self._broker, spec)
        return AsyncTask(core, self._io, eager=bool(spec.declared_scopes) if start is None else start)

    async def complete(self, task_id: str) -> None:
        """End a task that was started elsewhere; see `credbroker.Client.complete`."""
        request = task_service_pb2.CompleteTaskRequest(id=task_id)
        await self._broker.invoke(COMPLETE_TASK, request, self._broker.attempts())

    async def close(self) -> None:
        """Close the connection, after completing what was left half completed. See `credbroker.Client.close`."""
        await self._io.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._address}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a client cannot be pickled or copied")
