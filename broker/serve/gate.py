"""How many requests run at once."""

import asyncio
from datetime import timedelta
from typing import Final

from broker.errors import Overloaded

RETRY_AFTER: Final = timedelta(seconds=1)


class Gate:
    """Lets a bounded number of requests in and turns the others away at once.

    Used as a context manager around a request.

    Args:
        limit: Most requests inside at the same time.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._inside = 0
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def inside(self) -> int:
        """How many requests are inside."""
        return self._inside

    def __enter__(self) -> None:
        """Enter.

        Raises:
            Overloaded: when it is full.
        """
        if self._inside >= self._limit:
            raise Overloaded(f"{self._limit} requests are running", retry_after=RETRY_AFTER)
        self._inside += 1
        self._empty.clear()

    def __exit__(self, *_: object) -> None:
        """Leave."""
        self._inside -= 1
        if self._inside == 0:
            self._empty.set()

    async def empty(self) -> None:
        """Wait until nobody is inside."""
        await self._empty.wait()
