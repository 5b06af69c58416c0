"""The background loop that refreshes what is counted rather than measured: never upon a scrape."""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from broker import metrics
from broker.clock import Clock
from broker.duty import Duty
from broker.store import Store
from broker.store.standing import standing

INTERVAL: Final = 1.0
COUNT_INTERVAL: Final = 5.0
PATIENCE: Final = 4.0
"""Seconds that the database may take to count."""

log = structlog.get_logger(__name__)


class Gauges(Duty):
    """Counts again and again, in the database and in this process.

    Args:
        reading: Returns how this process stands.
    """

    def __init__(self, store: Store, clock: Clock, reading: Callable[[], metrics.Reading]) -> None:
        super().__init__(clock, "gauges", INTERVAL)
        self._store = store
        self._reading = reading
        self._count_at = clock.monotonic()

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
