"""Recording refusals: one event each, and never at the price of the refusal itself."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import structlog

from broker.errand import see_through
from broker.model import AuditEvent

Recorder: TypeAlias = Callable[[AuditEvent], Awaitable[None]]

RECORD_TIMEOUT: Final = 5.0
"""Seconds that a refusal waits for its event to be durable."""

log = structlog.get_logger(__name__)


class Refusals:
    """Writes the events of refused requests.

    A refusal grants nothing, so that it goes out even when its event cannot be
    written; the log says so then.

    Args:
        record: Makes an event durable.
    """

    def __init__(self, record: Recorder) -> None:
        self._record = record
        self._running: set[asyncio.Task[None]] = set()

    async def write(self, event: AuditEvent) -> None:
        """Record a refusal.

        A caller that goes away does not stop it, and keeps its place among the
        requests until it is done: refusals cannot pile up.
        """
        task = asyncio.create_task(self._write(event), name="record refusal")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            await see_through(task)
            raise

    async def drain(self) -> None:
        """Wait for the events that are still being written."""
        if self._running:
            await asyncio.wait(self._running)

    async def _write(self, event: AuditEvent) -> None:
        try:
            async with asyncio.timeout(RECORD_TIMEOUT):
                await self._record(event)
        except Exception as error:
            log.error(
                "a refusal could not be recorded",
                event_id=event.id,
                method=event.method,
                reason=event.reason,
                actor=event.actor,
                exc_info=error,
            )
