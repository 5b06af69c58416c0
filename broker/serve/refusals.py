"""Recording refusals: one event each while they are few, and never at the price of the refusal itself."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import structlog

from broker.clock import Clock
from broker.errand import see_through
from broker.model import AuditEvent

Recorder: TypeAlias = Callable[[AuditEvent], Awaitable[None]]

RECORD_TIMEOUT: Final = 5.0
"""Seconds that a refusal waits for its event to be durable."""

MAX_STRANGERS: Final = 50
"""Events a second, for each reason, of callers whose identity is not known."""

_SECOND = 1.0

log = structlog.get_logger(__name__)


class Refusals:
    """Writes the events of refused requests.

    A refusal grants nothing, so that it goes out even when its event cannot be
    written; the log says so then.

    Anybody can be refused for want of an identity, as fast as the network
    carries it. Of those, so many a second are recorded for each reason, and the
    log says how many more there were: a flood neither fills the audit trail nor
    keeps the database from others, and does not hide refusals of another kind.

    Args:
        record: Makes an event durable.
        clock: Says when a second is over.
    """

    def __init__(self, record: Recorder, clock: Clock) -> None:
        self._record = record
        self._clock = clock
        self._strangers: Counter[str] = Counter()
        self._since = float("-inf")
        self._running: set[asyncio.Task[None]] = set()

    async def write(self, event: AuditEvent) -> None:
        """Record a refusal.

        A caller that goes away does not stop it, and keeps its place among the
        requests until it is done: refusals cannot pile up.
        """
        if not event.actor and self._is_flood(event.reason):
            return
        task = asyncio.create_task(self._write(event), name="record refusal")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            await see_through(task)
            raise

    def _is_flood(self, reason: str) -> bool:
        now = self._clock.monotonic()
        if now - self._since >= _SECOND:
            unrecorded = {each: count - MAX_STRANGERS for each, count in self._strangers.items()}
            for each, count in unrecorded.items():
                if count > 0:
                    log.warning("refusals of unknown callers were not recorded one by one", reason=each, count=count)
            self._strangers.clear()
            self._since = now
        self._strangers[reason] += 1
        return self._strangers[reason] > MAX_STRANGERS

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
