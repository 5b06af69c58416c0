"""Presence: each replica says again and again that it is there, so that people can see who serves."""

from dataclasses import replace
from datetime import timedelta
from typing import Final

import structlog
from sqlalchemy import Connection

from broker.clock import Clock
from broker.duty import Duty
from broker.errors import BrokerError
from broker.model import ReplicaRecord
from broker.store import Store, replicas

INTERVAL: Final = timedelta(seconds=10)
FORGOTTEN: Final = timedelta(hours=1)
"""How long a replica that went without a word is still shown."""

log = structlog.get_logger(__name__)


class Presence(Duty):
    """Keeps this replica's row.

    Args:
        name: Of this replica.
        version: Of its software.
    """

    def __init__(self, store: Store, clock: Clock, name: str, version: str) -> None:
        super().__init__(clock, "presence", INTERVAL.total_seconds())
        self._store = store
        now = clock.now()
        self._record = ReplicaRecord(name=name, version=version, started_at=now, seen_at=now)

    async def stop(self) -> None:
        """End the background work and take the row away."""
        await super().stop()
        try:
            await self._store.write(lambda conn: replicas.remove(conn, self._record.name))
        except BrokerError as error:
            log.warning("this replica is shown for a while after its end", reason=error.detail)

    async def turn(self) -> None:
        """Say once that this replica is there.

        Raises:
            StoreUnavailable: when the database cannot answer.
        """
        record = replace(self._record, seen_at=self._clock.now())

        def say(conn: Connection) -> None:
            replicas.touch(conn, record)
            replicas.purge(conn, record.seen_at - FORGOTTEN)

        await self._store.write(say)
