"""The asyncio side: tasks of the running loop."""

import asyncio
import inspect
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from grpc import aio

from credbroker._channel import Channels, Held
from credbroker._clock import Clock
from credbroker._errors import Error
from credbroker._evidence import Bearer, TokenCall, TokenFile, read_token
from credbroker._io import Method, Work
from credbroker._settings import Settings
from credbroker._status import translate

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)


class AsyncGate:
    """A lock in the shape that the core expects."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    def busy(self) -> bool:
        """Whether somebody is inside."""
        return self._lock.locked()

    async def __aenter__(self) -> None:
        await self._lock.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.release()


class AsyncWorker:
    """Work in a task of the loop."""

    def __init__(self, work: Work, name: str) -> None:
        self.running = asyncio.create_task(work(_pause), name=name)

    async def stop(self) -> None:
        """Cancel it and wait until it is over."""
        self.running.cancel()
        await asyncio.wait([self.running])


class AsyncIo:
    """Calls on the running loop."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._evidence = settings.evidence
        self._clock = clock
        self._channels: Channels[aio.Channel] = Channels(settings, aio.secure_channel)
        self._background: set[asyncio.Task[None]] = set()
        self._workers: set[AsyncWorker] = set()
        self._closed = False

    @property
    def clock(self) -> Clock:
        """Where time comes from."""
        return self._clock

    def closed(self) -> bool:
        """Whether the client was closed."""
        return self._closed

    async def bearer(self) -> Bearer | None:
        """Return the token for the next attempt; None with mutual TLS.

        A plain callable is called on a thread, since it may block.
        """
        if isinstance(self._evidence, TokenCall):
            fetch = self._evidence.fetch
            token = fetch() if inspect.iscoroutinefunction(fetch) else await asyncio.to_thread(fetch)
            return Bearer(await token if inspect.isawaitable(token) else token)
        if isinstance(self._evidence, TokenFile):
            return read_token(self._evidence)
        return self._evidence if isinstance(self._evidence, Bearer) else None

    async def call(self, method: Method[Q, R], request: Q, bearer: Bearer | None, seconds: float) -> R:
        """Make one attempt at one call, which may take that many seconds.

        Raises:
            Error: when it failed.
            RuntimeError: when the client is closed.
        """
        self._require_open()
        held, unused = self._channels.acquire()
        await _close(unused)
        try:
            answer = await self._attempt(held, method, request, bearer, seconds)
        finally:
            await _close(self._channels.release(held))
        if isinstance(answer, Error):
            raise answer
        return answer

    async def _attempt(
        self, held: Held[aio.Channel], method: Method[Q, R], request: Q, bearer: Bearer | None, seconds: float
    ) -> R | Error:
        """Return the failure instead of raising it, so that gRPC's exception is not its context."""
        invoke = held.channel.unary_unary(method.path, method.serialize, method.parse)
        try:
            return await invoke(request, timeout=seconds, metadata=bearer.metadata() if bearer else None)
        except grpc.RpcError as error:
            return translate(error)
        except asyncio.CancelledError:
            # gRPC raises this, too, when the channel is closed under a call.
            caller = asyncio.current_task()
            if caller is None or not caller.cancelling():
                self._require_open()
            raise

    async def sleep(self, seconds: float) -> None:
        """Wait for that many seconds."""
        await asyncio.sleep(seconds)

    def gate(self) -> AsyncGate:
        """Return a new gate."""
        return AsyncGate()

    def spawn(self, work: Work, name: str) -> AsyncWorker:
        """Begin work in a task of its own."""
        worker = AsyncWorker(work, name)
        self._workers.add(worker)
        worker.running.add_done_callback(lambda _: self._workers.discard(worker))
        return worker

    async def finish(self, work: Coroutine[Any, Any, None]) -> None:
        """Run work to its end even when the caller is cancelled meanwhile.

        `close` waits for what a cancelled caller has left behind.
        """
        running = asyncio.create_task(work)
        self._background.add(running)
        running.add_done_callback(self._background.discard)
        await asyncio.shield(running)

    async def close(self) -> None:
        """End background work, wait for what must be finished, and refuse further calls."""
        if self._background:
            await asyncio.wait(self._background)
        self._closed = True
        for worker in list(self._workers):
            await worker.stop()
        await _close(self._channels.close())

    def _require_open(self) -> None:
        if self._closed:
            raise RuntimeError("the client is closed")


async def _pause(seconds: float) -> bool:
    await asyncio.sleep(seconds)
    return False


async def _close(channel: aio.Channel | None) -> None:
    if channel is not None:
        await channel.close()
