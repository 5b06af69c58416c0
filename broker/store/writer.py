"""Group commit: what waits to be written shares one transaction.

Making a commit durable takes far longer than the statements before it, so one
thread takes everything that waits, runs it in one transaction and answers all
after its COMMIT. What is alike among it is written with one call, so that it
shares statements, too. When a work fails, nothing of that transaction stays;
all of it runs again with each item behind a savepoint, so that only the one
that fails is left out. A work must therefore be repeatable: it touches nothing
but the connection it is given.
"""

import asyncio
import contextlib
import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final, Generic, TypeAlias, TypeVar

from sqlalchemy import Connection, Engine, NestedTransaction
from sqlalchemy.exc import SQLAlchemyError

from broker import deadline
from broker.errors import DeadlineExceeded, Overloaded, StoreUnavailable
from broker.store.engine import transaction_holds
from broker.store.failures import CommitFailedError, TransactionLostError, may_pass, translate

A = TypeVar("A")
T = TypeVar("T")

Work: TypeAlias = Callable[[Connection, Sequence[A]], Sequence[T]]
"""Writes for each of some items, and returns what came of each."""

MAX_WAITING: Final = 2048
MAX_TOGETHER: Final = 256
SIBLINGS: Final = 4
"""So many written together say that there are more to come: the next transactions wait for as many."""

LINGER: Final = timedelta(milliseconds=5)
"""The longest that they wait."""

RETRY_AFTER: Final = timedelta(seconds=1)

_ATTEMPTS_ALONE = 3
_FADING = 0.8


class Job(Generic[A, T]):
    """One item of a work with the future that its caller waits for, and the moment from which nobody wants it begun."""

    def __init__(self, work: Work[A, T], item: A, future: asyncio.Future[T], begin_before: float | None = None) -> None:
        self.work = work
        self.item = item
        self.future = future
        self.begin_before = begin_before
        self.error: BaseException | None = None
        self._result: tuple[T] | None = None

    def done(self, result: T) -> None:
        """Note what came of it."""
        self._result = (result,)
        self.error = None

    def resolve(self) -> None:
        """Answer the caller, unless it has gone; on the event loop's thread."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(translate(self.error))
        elif self._result is not None:
            self.future.set_result(self._result[0])


class _NotBegunError(Exception):
    """There is no connection to write with."""


class _NotCommittedError(Exception):
    """The transaction failed before COMMIT was sent: nothing of it stays."""

    def __init__(self, cause: BaseException) -> None:
        self.cause = cause


_Run = Callable[[Connection, Sequence[Job[Any, Any]]], None]


class Writer:
    """The one thread that writes.

    Args:
        engine: Holds its one connection.
        loop: Where callers wait.
    """

    def __init__(self, engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
        self._engine = engine
        self._loop = loop
        self._waiting: deque[Job[Any, Any]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._expected = 0.0
        self._wanted = 1
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many works wait for a transaction."""
        return len(self._waiting)

    def submit(self, work: Work[A, T], item: A, begin_before: float | None = None) -> asyncio.Future[T]:
        """Queue an item of a work and return the future of what comes of it.

        Args:
            work: What to write; called once for all of its items that share a
                transaction.
            item: What to write it for.
            begin_before: The moment from which on it is not begun any more, as
                `deadline.ends_at` gives it.

        Raises:
            Overloaded: when too much waits already.
            StoreUnavailable: after `close`.
        """
        with self._changed:
            if self._closing:
                raise StoreUnavailable("the store is closed")
            if len(self._waiting) >= MAX_WAITING:
                raise Overloaded(f"{MAX_WAITING} writes wait for the database already", retry_after=RETRY_AFTER)
            job = Job(work, item, self._loop.create_future(), begin_before)
            self._waiting.append(job)
            if len(self._waiting) >= self._wanted:
                self._changed.notify()
        return job.future

    def close(self) -> None:
        """Take nothing new, write what waits, and end the thread. Blocks."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while taken := self._take(MAX_TOGETHER):
            jobs = self._without_late(taken)
            if not jobs:
                continue
            alone = self._settle(jobs)
            self._answer([job for job in jobs if job not in alone])
            for job in alone:
                self._settle_alone(job)
                self._answer([job])

    def _take(self, most: int) -> list[Job[Any, Any]]:
        """Wait for something to write, and a moment longer for as much as was lately written together.

        A transaction costs about as much for one as for several, and whoever
        writes for many callers takes processor time from them with each.
        """
        with self._changed:
            self._wait_for(1, None)
            if self._expected >= SIBLINGS:
                self._wait_for(math.ceil(self._expected), LINGER.total_seconds())
            taken = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
        self._expected = max(len(taken), self._expected * _FADING)
        return taken

    def _wait_for(self, wanted: int, seconds: float | None) -> None:
        self._wanted = wanted
        self._changed.wait_for(lambda: len(self._waiting) >= wanted or self._closing, seconds)

    def _without_late(self, jobs: list[Job[Any, Any]]) -> list[Job[Any, Any]]:
        """Answer those whose time is over, and return the others."""
        late = {job for job in jobs if deadline.has_passed(job.begin_before)}
        if not late:
            return jobs
        for job in late:
            job.error = DeadlineExceeded("the deadline passed before the write began")
        self._answer(tuple(late))
        return [job for job in jobs if job not in late]

    def _answer(self, jobs: Sequence[Job[Any, Any]]) -> None:
        # The loop is gone when a process ends without closing the store.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_resolve, jobs)

    def _settle(self, jobs: list[Job[Any, Any]]) -> list[Job[Any, Any]]:
        """Commit jobs together; return those that failed and may do better alone."""
        try:
            self._commit_or_repeat(jobs)
        except _NotBegunError as failure:
            # Whatever waited meanwhile would only find out the same, as slowly.
            with self._changed:
                jobs.extend(self._waiting)
                self._waiting.clear()
            return _failed(jobs, failure.__cause__)
        except _NotCommittedError as failure:
            return _failed(jobs, failure.cause)
        except Exception as error:
            return _failed(jobs, error)
        return [job for job in jobs if may_pass(job.error)]

    def _commit_or_repeat(self, jobs: Sequence[Job[Any, Any]]) -> None:
        try:
            self._commit(jobs, _run_together)
        except _NotCommittedError as failure:
            if len(jobs) == 1 and not isinstance(failure.cause, SQLAlchemyError):
                raise
            self._commit(jobs, _run_guarded)

    def _settle_alone(self, job: Job[Any, Any]) -> None:
        for _ in range(_ATTEMPTS_ALONE):
            try:
                self._commit([job], _run_together)
            except _NotCommittedError as failure:
                job.error = failure.cause
                if not may_pass(failure.cause):
                    return
            except Exception as error:
                job.error = error.__cause__ if isinstance(error, _NotBegunError) else error
                return
            else:
                return

    def _commit(self, jobs: Sequence[Job[Any, Any]], run: _Run) -> None:
        """Run jobs in one transaction and commit it."""
        with contextlib.ExitStack() as stack:
            try:
                conn = stack.enter_context(self._engine.connect())
                transaction = stack.enter_context(contextlib.closing(conn.begin()))
            except SQLAlchemyError as error:
                raise _NotBegunError from error
            try:
                run(conn, jobs)
                if not transaction_holds(conn):
                    raise TransactionLostError
            except BaseException as error:
                raise _NotCommittedError(error) from None
            try:
                transaction.commit()
            except Exception as error:
                raise CommitFailedError from error


def each(conn: Connection, works: Sequence[Callable[[Connection], T]]) -> list[T]:
    """Run works that have nothing in common, one after the other."""
    return [work(conn) for work in works]


def _run_together(conn: Connection, jobs: Sequence[Job[Any, Any]]) -> None:
    alike: dict[Work[Any, Any], list[Job[Any, Any]]] = {}
    for job in jobs:
        alike.setdefault(job.work, []).append(job)
    for work, of_work in alike.items():
        _run(conn, work, of_work)


def _run(conn: Connection, work: Work[Any, Any], jobs: Sequence[Job[Any, Any]]) -> None:
    try:
        results = work(conn, [job.item for job in jobs])
    except StopIteration as error:
        raise RuntimeError("a work raised StopIteration, which no future can carry") from error
    for job, result in zip(jobs, results, strict=True):
        job.done(result)


def _run_guarded(conn: Connection, jobs: Sequence[Job[Any, Any]]) -> None:
    for job in jobs:
        savepoint = conn.begin_nested()
        try:
            _run(conn, job.work, [job])
            savepoint.commit()
        except BaseException as error:
            if not _rolled_back(savepoint):
                raise
            job.error = error


def _rolled_back(savepoint: NestedTransaction) -> bool:
    # A full disk, for one, makes SQLite give up the whole transaction; a lost
    # connection takes it along.
    try:
        savepoint.rollback()
    except SQLAlchemyError:
        return False
    return not savepoint.connection.invalidated


def _failed(jobs: Sequence[Job[Any, Any]], error: BaseException | None) -> list[Job[Any, Any]]:
    for job in jobs:
        job.error = error
    return []


def _resolve(jobs: Sequence[Job[Any, Any]]) -> None:
    for job in jobs:
        job.resolve()
