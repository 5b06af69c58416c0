"""The database as the workflows see it: works in, results out."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Final, TypeVar

from sqlalchemy import Connection

from broker import deadline
from broker.errors import DeadlineExceeded, Overloaded, StoreUnavailable
from broker.secret import Secret
from broker.store import migrate
from broker.store.engine import READERS, open_engines, parse_url
from broker.store.failures import is_disconnect, translate
from broker.store.writer import RETRY_AFTER, Work, Writer, each

A = TypeVar("A")
T = TypeVar("T")

MAX_READING: Final = 2048
# Longer than every timeout of the database's own.
PATIENCE: Final = timedelta(seconds=20)


class Store:
    """Reads and writes of one process. Works run on threads of the store's own.

    A work is given a connection inside a transaction. It may run more than
    once, so it touches nothing but that connection and returns what it found.

    A work of a request that still waits when the request's deadline passes is
    not run any more. One that has begun goes on, and its caller waits no longer.

    Args:
        url: ``sqlite:///file`` or ``postgresql+psycopg://…``.
        patience: The longest a caller waits, also for a database that hangs.

    Raises:
        ConfigError: when the URL is neither.
    """

    def __init__(self, url: Secret[str], patience: timedelta = PATIENCE) -> None:
        self._patience = patience.total_seconds()
        self._engines = open_engines(parse_url(url))
        self._threads: ThreadPoolExecutor | None = None
        self._writer: Writer | None = None
        self._reading: set[asyncio.Future[object]] = set()
        self._unreachable_at = 0.0

    async def start(self) -> None:
        """Start the threads. The database need not be there yet."""
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")
        self._writer = Writer(self._engines.writer, asyncio.get_running_loop())

    @property
    def writes_waiting(self) -> int:
        """How many writes wait for a transaction."""
        return self._writer.waiting if self._writer is not None else 0

    @property
    def reads_in_progress(self) -> int:
        """How many reads run or wait for a thread."""
        return len(self._reading)

    async def close(self) -> None:
        """Take nothing new, finish what was begun, end the threads. Once is enough."""
        threads, self._threads = self._threads, None
        writer, self._writer = self._writer, None
        if threads is None or writer is None:
            return
        await asyncio.to_thread(writer.close)
        if self._reading:
            await asyncio.wait(self._reading)
        # Off the loop: a thread may still wait for a database that its caller gave up on.
        await asyncio.to_thread(threads.shutdown)
        self._engines.dispose()

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run a work in a transaction that reads one state of the database.

        Raises:
            StoreUnavailable: when the database cannot answer.
            Overloaded: when too much waits for it already.
            DeadlineExceeded: when the request's time is over.
        """
        if self._threads is None:
            raise StoreUnavailable("the store is closed")
        if len(self._reading) >= MAX_READING:
            raise Overloaded(f"{MAX_READING} reads wait for the database already", retry_after=RETRY_AFTER)
        running = asyncio.get_running_loop().run_in_executor(self._threads, self._read, work, time.monotonic())
        self._reading.add(running)  # type: ignore[arg-type]  # what it results in concerns its caller alone
        running.add_done_callback(self._reading.discard)
        return await self._answer(running)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run a work in a transaction, perhaps together with others, and return once it is durable.

        What the work raises fails that work alone. A caller that is cancelled
        does not stop its work, which may already be on its way.

        Raises:
            StoreUnavailable: when the database cannot answer; it may have
                committed all the same.
            Overloaded: when too much waits to be written already; nothing was.
            DeadlineExceeded: when the request's time is over; the work may have
                begun before, and be committed all the same.
        """
        return await self.write_each(each, work)

    async def write_each(self, work: Work[A, T], item: A) -> T:
        """Do as `write` with one item of a work that is called once for all of its items that share a transaction.

        The work returns a result for each item, in their order. When it raises,
        it is called again for each item alone.

        Raises:
            StoreUnavailable, Overloaded, DeadlineExceeded: as `write`.
        """
        if self._writer is None:
            raise StoreUnavailable("the store is closed")
        return await self._answer(self._writer.submit(work, item, deadline.ends_at()))

    async def check(self) -> None:
        """Check that the database can be reached and is at the newest migration.

        Raises:
            StoreUnavailable: when it is not; says what to do.
        """
        await self.read(migrate.check)

    async def _answer(self, future: asyncio.Future[T]) -> T:
        left = deadline.remaining()
        try:
            with deadline.limited(self._patience if left is None else min(self._patience, left)):
                return await future
        except TimeoutError:
            if left is not None and left < self._patience:
                raise DeadlineExceeded("the deadline passed while the database worked") from None
            raise StoreUnavailable(f"the database did not answer within {self._patience:g} seconds") from None

    def _read(self, work: Callable[[Connection], T], asked_at: float) -> T:
        if asked_at <= self._unreachable_at:
            # Waited while another found out, slowly.
            raise StoreUnavailable("the database could not be reached")
        try:
            try:
                return self._read_once(work)
            except Exception as error:
                if not is_disconnect(error):
                    raise
            return self._read_once(work)
        except Exception as error:
            known = translate(error)
            if known is error:
                raise
            raise known from None

    def _read_once(self, work: Callable[[Connection], T]) -> T:
        try:
            conn = self._engines.reader.connect()
        except Exception:
            self._unreachable_at = time.monotonic()
            raise
        with conn, conn.begin():
            return work(conn)
