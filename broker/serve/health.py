"""``grpc.health.v1.Health``, driven by what the broker itself needs to be ready."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

import grpc
import structlog
from grpc_health.v1 import health, health_pb2

from broker.clock import Clock
from broker.errors import BrokerError

Readiness: TypeAlias = Callable[[], Awaitable[None]]

POLL_SECONDS: Final = 1.0
CHECK_TIMEOUT: Final = 5.0
"""Seconds after which a check that has not answered counts as failed."""

log = structlog.get_logger(__name__)


class HealthServicer(health.aio.HealthServicer):
    """The library's servicer, which leaves ``List`` without an asynchronous answer."""

    async def List(self, _request: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        """Say that this call is not implemented; ``Check`` and ``Watch`` are."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "use Check or Watch")


class Health:
    """Says SERVING only while everything that the broker needs answers.

    Args:
        services: Full names of the services, beside the overall one.
        ready: Raises a `BrokerError` while the broker cannot do its work.
        clock: Paces the checks.
    """

    def __init__(self, services: Sequence[str], ready: Readiness, clock: Clock) -> None:
        self.servicer = HealthServicer()
        self._services = ("", *services)
        self._ready = ready
        self._clock = clock
        self._noted: type | None = None
        self._told: int | None = None
        self._poller: asyncio.Task[None] | None = None

    @property
    def is_serving(self) -> bool:
        """Whether it says SERVING."""
        return self._told == health_pb2.HealthCheckResponse.SERVING

    async def start(self) -> None:
        """Say NOT_SERVING, and begin to check."""
        await self._tell(False)
        self._poller = asyncio.create_task(self._poll(), name="readiness")

    async def stop(self) -> None:
        """Say NOT_SERVING for good."""
        if self._poller is not None:
            self._poller.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._poller
        await self.servicer.enter_graceful_shutdown()

    async def _poll(self) -> None:
        while True:
            await self._tell(await self._check())
            await self._clock.sleep(POLL_SECONDS)

    async def _check(self) -> bool:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT):
                await self._ready()
        except Exception as error:
            self._note(error)
            return False
        self._note(None)
        return True

    def _note(self, error: Exception | None) -> None:
        """Log what keeps the broker from being ready when that changes, and when nothing does any more."""
        kind = type(error)
        if kind is self._noted:
            return
        self._noted = kind
        match error:
            case None:
                log.info("ready")
            case BrokerError() | TimeoutError():
                log.warning("not ready", reason=error)
            case _:
                log.error("not ready", exc_info=error)

    async def _tell(self, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        if status == self._told:
            return
        self._told = status
        for service in self._services:
            await self.servicer.set(service, status)
