"""Recording refusals: one event each while they are few, and never at the price of the refusal itself."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import structlog

from broker.audit import broker_event
from broker.audit.catalogue import REQUEST_REFUSED
from broker.clock import Clock
from broker.errand import see_through
from broker.model import AuditEvent, JsonValue, Outcome

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
    carries it. Of those, so many a second are recorded one by one for each
    reason, and one event counts the others: a flood neither fills the audit
    trail nor keeps the database from others, and hides nothing.

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

    async def write(self, event: AuditEvent) -> bool:
        """Record a refusal; False when it is one of a flood, and only counted.

        A caller that goes away does not stop it, and keeps its place among the
        requests until it is done: refusals cannot pile up.
        """
        if not event.actor and self._is_flood(event.reason):
            return False
        task = self._begin(event)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            await see_through(task)
            raise
        return True

    async def drain(self) -> None:
        """Write what was only counted so far, and wait for the events that are still being written."""
        self._tell_counts()
        if self._running:
            await asyncio.wait(self._running)

    def _is_flood(self, reason: str) -> bool:
        now = self._clock.monotonic()
        if now - self._since >= _SECOND:
            self._tell_counts()
            self._since = now
        self._strangers[reason] += 1
        return self._strangers[reason] > MAX_STRANGERS

    def _tell_counts(self) -> None:
        """Record how many refusals were not recorded one by one."""
        for reason, count in self._strangers.items():
            if count > MAX_STRANGERS:
                attributes: dict[str, JsonValue] = {"further_refusals": count - MAX_STRANGERS}
                now = self._clock.now()
                self._begin(
                    broker_event(REQUEST_REFUSED, now, outcome=Outcome.DENIED, reason=reason, attributes=attributes)
                )
        self._strangers.clear()

    def _begin(self, event: AuditEvent) -> asyncio.Task[None]:
        task = asyncio.create_task(self._write(event), name="record refusal")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

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
