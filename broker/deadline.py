"""How much longer the request that is being served may take.

A deadline bounds the asyncio task that it was set in and no task that is
started from there: what outlives a request, taking back above all, is never
cut off by it unless it is handed over with `kept`. Moments are of the machine's
monotonic clock, which gRPC's deadlines count on too.
"""

import asyncio
import time
from collections.abc import Awaitable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar, Token
from datetime import timedelta
from typing import TypeVar

from broker.errors import DeadlineExceeded

T = TypeVar("T")

_current: ContextVar[tuple[float, asyncio.Task[object] | None] | None] = ContextVar("credbroker_deadline", default=None)


class _Bound:
    """A block of a task's work with its own bound; a class, since every request enters some."""

    __slots__ = ("_moment", "_token")

    _token: Token[tuple[float, asyncio.Task[object] | None] | None]

    def __init__(self, moment: float | None) -> None:
        self._moment = moment

    def __enter__(self) -> None:
        moment = self._moment
        self._token = _current.set(None if moment is None else (moment, asyncio.current_task()))

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)


def until(moment: float | None) -> AbstractContextManager[None]:
    """Bound this task's work within the block, to no later than any bound around it; None sets none."""
    outer = ends_at()
    return _Bound(outer if moment is None or (outer is not None and outer <= moment) else moment)


def within(time_left: timedelta) -> AbstractContextManager[None]:
    """Bound this task's work within the block to a time from now on, as `until` does."""
    return until(time.monotonic() + time_left.total_seconds())


def lifted(*, when: bool = True) -> AbstractContextManager[None]:
    """Let this task's work within the block take as long as it takes: what was begun is finished or taken back."""
    return _Bound(None) if when else nullcontext()


def kept(work: Awaitable[T]) -> Coroutine[object, object, T]:
    """Return work for another task to do, bounded there by the deadline that this task has now."""
    moment = ends_at()

    async def bounded() -> T:
        with until(moment):
            return await work

    return bounded()


def ends_at() -> float | None:
    """Return the moment at which this task's deadline passes; None without one."""
    current = _current.get()
    if current is None or current[1] is not asyncio.current_task():
        return None
    return current[0]


def remaining() -> float | None:
    """Return the seconds that are left, 0 when there are none; None without a deadline."""
    moment = ends_at()
    return None if moment is None else max(0.0, moment - time.monotonic())


def has_passed(moment: float | None) -> bool:
    """Say whether a moment that `ends_at` returned is over; on any thread."""
    return moment is not None and moment <= time.monotonic()


def require(least: timedelta) -> None:
    """Check that there is time enough to begin something.

    Raises:
        DeadlineExceeded: when no more than that is left.
    """
    left = remaining()
    if left is not None and left <= least.total_seconds():
        raise DeadlineExceeded(f"{left * 1000:.0f} ms are left, too few to begin")
