"""The background loop that refreshes what is counted rather than measured: never upon a scrape."""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from broker import metrics
from broker.clock import Clock
from broker.errors import BrokerError
from broker.store import Store
from broker.store.standing import standing

INTERVAL: Final = 1.0
COUNT_INTERVAL: Final = 5.0
PATIENCE: Final = 4.0
"""Seconds that the database may take to count."""

log = structlog.get_logger(__name__)


class Gauges:
    """Counts again and again, in the database and in this process.

    Args:
        reading: Returns how this process stands.
    """

    def __init__(self, store: Store, clock: Clock, reading: Callable[[], metrics.Reading]) -> None:
        self._store = store
        self._clock = clock
        self._reading = reading
        self._count_at = clock.monotonic()
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> asyncio.Task[None]:
        """Count in the background until `stop`; return that work."""
        self._loop = asyncio.create_task(self._run(), name="gauges")
        return self._loop

    async def stop(self) -> None:
        """End the background work."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)

    async def turn(self) -> None:
        """Look at this process, and count in the database when that is due.

        Raises:
            StoreUnavailable: when the database cannot answer.
            TimeoutError: when it takes too long.
        """
        metrics.set_reading(self._reading())
        if self._clock.monotonic() < self._count_at:
            return
        self._count_at = self._clock.monotonic() + COUNT_INTERVAL
        now = self._clock.now()
        async with asyncio.timeout(PATIENCE):
            counted = await self._store.read(lambda conn: standing(conn, now))
        metrics.set_standing(counted, now)

    async def _run(self) -> None:
        while True:
            try:
                await self.turn()
            except (BrokerError, TimeoutError) as error:
                log.warning("what is under way could not be counted, will retry", reason=error)
            except Exception:
                log.exception("what is under way could not be counted, will retry")
            await self._clock.sleep(INTERVAL)
