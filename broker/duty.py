"""Duties: work that a broker does in the background, again and again, whatever goes wrong in between."""

import asyncio
from abc import ABC, abstractmethod

import structlog

from broker.clock import Clock
from broker.errors import BrokerError

log = structlog.get_logger(__name__)


class Duty(ABC):
    """One piece of such work.

    Args:
        clock: Paces it.
        name: Of the work, for logs.
        interval: Seconds between two turns.
    """

    def __init__(self, clock: Clock, name: str, interval: float) -> None:
        self._clock = clock
        self._name = name
        self._pause = interval
        self._loop: asyncio.Task[None] | None = None

    @abstractmethod
    async def turn(self) -> None:
        """Do once what is due now. What this raises is logged, and the next turn tries again."""

    def start(self) -> asyncio.Task[None]:
        """Work in the background until `stop`; return that work."""
        self._loop = asyncio.create_task(self._run(), name=self._name)
        return self._loop

    async def stop(self) -> None:
        """End the background work."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                await self.turn()
            except BrokerError as error:
                log.warning("background work failed, will retry", work=self._name, reason=error.detail)
            except TimeoutError:
                log.warning("background work failed, will retry", work=self._name, reason="no answer in time")
            except Exception:
                log.exception("background work failed, will retry", work=self._name)
            await self._clock.sleep(self._pause)
