"""How much longer the request that is being served may take, and any one wait of it.

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
from types import TracebackType
from typing import TypeVar

from broker.errors import DeadlineExceeded

T = TypeVar("T")

_current: ContextVar[tuple[float, asyncio.Task[object]] | None] = ContextVar("credbroker_deadline", default=None)


class _Bound:
    """A block of a task's work with its own bound; a class, since every request enters some."""

    __slots__ = ("_moment", "_token")

    _token: Token[tuple[float, asyncio.Task[object]] | None]

    def __init__(self, moment: float | None) -> None:
        self._moment = moment

    def __enter__(self) -> None:
        moment = self._moment
        self._token = _current.set(None if moment is None else (moment, _running_task()))

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)


class _Limit:
    """See `limited`."""

    __slots__ = ("_expired", "_expiry", "_seconds", "_task", "_was_cancelled")

    _expiry: asyncio.TimerHandle
    _task: asyncio.Task[object]
    _was_cancelled: int

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._expired = False

    def __enter__(self) -> None:
        self._task = _running_task()
        self._was_cancelled = self._task.cancelling()
        self._expiry = self._task.get_loop().call_later(self._seconds, self._expire)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._expiry.cancel()
        if self._expired and self._task.uncancel() <= self._was_cancelled and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel()


def limited(seconds: float) -> AbstractContextManager[None]:
    """Bound what this task waits for within the block, whatever the request's deadline is.

    Does what `asyncio.timeout` does, for half of what that costs; for waits
    that every request makes.

    Raises:
        TimeoutError: when the time is over, unless the task was cancelled as well.
    """
    return _Limit(seconds)


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
    if current is None:
        return None
    moment, task = current
    # Of the task's own loop: finding out which loop runs is a system call in Python 3.11.
    return moment if task is asyncio.current_task(task.get_loop()) else None


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


def _running_task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("only what a task does can be bounded")
    return task
