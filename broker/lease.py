"""Work that one replica does for all: a lease in the database, fenced by its epoch."""

from abc import abstractmethod
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Final, TypeVar

import structlog
from sqlalchemy import Connection

from broker.clock import Clock
from broker.duty import Duty
from broker.errors import BrokerError
from broker.store import Store, leases

T = TypeVar("T")

LIFE: Final = timedelta(seconds=6)

log = structlog.get_logger(__name__)


class LeaseLost(Exception):
    """Another replica took the work over; nothing of what was tried was written."""


class Lease:
    """One piece of work, held by at most one replica.

    A replica that was paused learns from `write` that its time is over: what
    it still wants to write is checked against the epoch in the same
    transaction.

    Args:
        name: Of the work.
        holder: Name of this replica.

    Attributes:
        name: Of the work.
    """

    def __init__(self, store: Store, clock: Clock, name: str, holder: str) -> None:
        self._store = store
        self._clock = clock
        self.name = name
        self._holder = holder
        self._epoch: int | None = None
        self._extend_at = 0.0

    @property
    def is_held(self) -> bool:
        """Whether this replica held the lease when it last looked."""
        return self._epoch is not None

    async def hold(self) -> bool:
        """Take the lease, or keep it; False while another replica has it.

        Raises:
            StoreUnavailable: when the database cannot answer.
        """
        epoch = self._epoch
        if epoch is not None and self._clock.monotonic() < self._extend_at:
            return True
        now, asked_at = self._clock.now(), self._clock.monotonic()
        if epoch is not None and not await self._store.write(
            lambda conn: leases.extend(conn, self.name, epoch, now + LIFE)
        ):
            self._lose()
        if self._epoch is None:
            self._epoch = await self._store.write(lambda conn: leases.take(conn, self.name, self._holder, now, LIFE))
            if self._epoch is None:
                return False
            log.info("took over work", work=self.name, epoch=self._epoch)
        self._extend_at = asked_at + LIFE.total_seconds() / 3
        return True

    async def keep(self) -> None:
        """Keep the lease during long work.

        Raises:
            LeaseLost: when another replica took it.
            StoreUnavailable: when the database cannot answer.
        """
        if not await self.hold():
            raise LeaseLost

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run a work in a transaction that commits only while the lease is held.

        Raises:
            LeaseLost: when another replica took it.
            StoreUnavailable: when the database cannot answer.
        """
        epoch = self._epoch

        def fenced(conn: Connection) -> T:
            if epoch is None or not leases.held(conn, self.name, epoch):
                raise LeaseLost
            return work(conn)

        try:
            return await self._store.write(fenced)
        except LeaseLost:
            self._lose()
            raise

    async def release(self) -> None:
        """Let another replica take the work at once."""
        epoch, self._epoch = self._epoch, None
        if epoch is None:
            return
        now = self._clock.now()
        try:
            await self._store.write(lambda conn: leases.release(conn, self.name, epoch, now))
        except BrokerError as error:
            log.warning("a lease could not be given back, it runs out", work=self.name, reason=error.detail)

    def _lose(self) -> None:
        log.warning("another replica took over work", work=self.name, epoch=self._epoch)
        self._epoch = None


class SingleDuty(Duty):
    """A duty that one replica does for all: the one that holds its lease."""

    def __init__(self, clock: Clock, lease: Lease, interval: float) -> None:
        super().__init__(clock, lease.name, interval)
        self._lease = lease

    async def turn(self) -> None:
        """Do once what is due now, where this replica is the one that does it."""
        taken_over = not self._lease.is_held
        if await self._lease.hold():
            with suppress(LeaseLost):
                await self.work(taken_over=taken_over)

    @abstractmethod
    async def work(self, *, taken_over: bool) -> None:
        """Do once what is due now.

        Args:
            taken_over: Whether another replica may have done it until now.

        Raises:
            LeaseLost: when another replica took over meanwhile.
        """

    async def stop(self) -> None:
        """End the background work, and let another replica take it over."""
        await super().stop()
        await self._lease.release()
