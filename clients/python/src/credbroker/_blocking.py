"""The blocking side: threads."""

import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import TypeVar
from weakref import WeakSet

import grpc
from google.protobuf.message import Message

from credbroker._channel import Channels, Held
from credbroker._clock import Clock
from credbroker._errors import Error
from credbroker._evidence import Bearer, TokenCall, TokenFile, read_token
from credbroker._io import Method, Work
from credbroker._settings import Settings
from credbroker._status import translate

T = TypeVar("T")
Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)


def run(work: Coroutine[object, None, T]) -> T:
    """Run one of the core's coroutines to its end on this thread.

    Raises:
        RuntimeError: when it suspends, which nothing on the blocking side does.
    """
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    work.close()
    raise RuntimeError("the blocking client came upon something asynchronous")


class BlockingGate:
    """A lock in the shape that the core expects."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def busy(self) -> bool:
        """Whether somebody is inside."""
        return self._lock.locked()

    async def __aenter__(self) -> None:
        self._lock.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.release()


class BlockingWorker:
    """Work on a daemon thread, which does not keep the process alive."""

    def __init__(self, work: Work, name: str) -> None:
        self.stopping = threading.Event()
        threading.Thread(target=lambda: run(work(self._pause)), name=name, daemon=True).start()

    async def stop(self) -> None:
        """Have it end after the call it may be in."""
        self.stopping.set()

    async def _pause(self, seconds: float) -> bool:
        return self.stopping.wait(seconds)


class BlockingIo:
    """Calls on the caller's thread. Safe to share between threads."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._evidence = settings.evidence
        self._clock = clock
        self._channels: Channels[grpc.Channel] = Channels(settings, grpc.secure_channel)
        self._closing = threading.Event()
        self._workers: WeakSet[BlockingWorker] = WeakSet()

    @property
    def clock(self) -> Clock:
        """Where time comes from."""
        return self._clock

    def closed(self) -> bool:
        """Whether the client was closed."""
        return self._closing.is_set()

    async def bearer(self) -> Bearer | None:
        """Return the token for the next attempt; None with mutual TLS."""
        if isinstance(self._evidence, TokenCall):
            return Bearer(self._evidence.fetch())
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
        _close(unused)
        try:
            answer = self._attempt(held, method, request, bearer, seconds)
        finally:
            _close(self._channels.release(held))
        if isinstance(answer, Error):
            self._require_open()
            raise answer
        return answer

    def _attempt(
        self, held: Held[grpc.Channel], method: Method[Q, R], request: Q, bearer: Bearer | None, seconds: float
    ) -> R | Error:
        """Return the failure instead of raising it, so that gRPC's exception is not its context."""
        invoke = held.channel.unary_unary(method.path, method.serialize, method.parse)
        try:
            return invoke(request, timeout=seconds, metadata=bearer.metadata() if bearer else None)
        except grpc.RpcError as error:
            return translate(error)
        except ValueError:
            # What gRPC raises when another thread has closed the channel.
            self._require_open()
            raise

    async def sleep(self, seconds: float) -> None:
        """Wait for that many seconds, or until the client is closed."""
        self._closing.wait(seconds)

    def gate(self) -> BlockingGate:
        """Return a new gate."""
        return BlockingGate()

    def spawn(self, work: Work, name: str) -> BlockingWorker:
        """Begin work on a thread of its own."""
        worker = BlockingWorker(work, name)
        self._workers.add(worker)
        return worker

    def close(self) -> None:
        """End running calls, waiting and background work, and refuse further calls."""
        self._closing.set()
        for worker in list(self._workers):
            worker.stopping.set()
        _close(self._channels.close())

    def _require_open(self) -> None:
        if self.closed():
            raise RuntimeError("the client is closed")


def _close(channel: grpc.Channel | None) -> None:
    if channel is not None:
        channel.close()
