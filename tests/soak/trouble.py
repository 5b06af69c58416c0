"""What breaks on a simulated day, and how it is mended."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Final

import psycopg
from psycopg import sql
from sqlalchemy import make_url

from broker.dev.postgres import Postgres
from tests.fakes.relay import Relay
from tests.fakes.vault_proxy import Fault as VaultFault
from tests.fixtures.world import World
from tests.soak.replica import Replica
from tests.soak.schedule import Fault, Trouble

Mend = Callable[[], Awaitable[None]]

ON_SQLITE: Final[tuple[Trouble, ...]] = (
    "vault errors",
    "vault drops",
    "vault hangs",
    "vault sealed",
    "database away",
    "replica killed",
    "clock wrong",
)
ON_POSTGRES: Final[tuple[Trouble, ...]] = (*ON_SQLITE, "database silent", "connections cut", "replica paused")

_BY_PROXY: Final[dict[Trouble, VaultFault]] = {
    "vault errors": "error_after",
    "vault drops": "drop_after",
    "vault hangs": "hang_after",
}


class Troubles:
    """Breaks things, and mends them.

    Args:
        database: Whether the records are in this server, or in a SQLite file.
        relay: The replicas' way to that server.
    """

    def __init__(
        self, world: World, replicas: Sequence[Replica], database: Postgres | None, relay: Relay | None
    ) -> None:
        self._world = world
        self._replicas = replicas
        self._postgres = database
        self._relay = relay
        self._url = make_url(world.settings.database.url.get_secret_value())
        self._holder: sqlite3.Connection | None = None
        self._sealed = False

    async def begin(self, fault: Fault) -> Mend:
        """Let something go wrong; return what ends it."""
        replica = self._replicas[fault.replica]
        if fault.trouble in _BY_PROXY:
            self._world.proxy.fail(fault.path, _BY_PROXY[fault.trouble], fault.times)
            return self._mend_proxy
        if fault.trouble == "vault sealed":
            await self._seal()
            return self._unseal
        if fault.trouble == "database away":
            await asyncio.to_thread(self._lose_database)
            return self._bring_database_back
        if fault.trouble == "database silent" and self._relay is not None:
            self._relay.cut()
            return self._join
        if fault.trouble == "connections cut":
            await asyncio.to_thread(self._cut_connections)
            return _nothing
        if fault.trouble == "replica killed":
            replica.kill()
            return lambda: _started(replica)
        if fault.trouble == "replica paused":
            replica.pause()

            async def go_on() -> None:
                replica.go_on()

            return go_on
        replica.wrong_by = timedelta(minutes=fault.times)
        self.set_clocks()

        async def right_again() -> None:
            replica.wrong_by = timedelta()
            self.set_clocks()

        return right_again

    async def heal(self) -> None:
        """Mend everything that may still be broken."""
        await self._mend_proxy()
        await self._unseal()
        for replica in self._replicas:
            await _started(replica)

    def set_clocks(self) -> None:
        """Give every replica the time of the day."""
        for replica in self._replicas:
            replica.times.set(self._world.clock.offset, replica.wrong_by)

    async def _join(self) -> None:
        if self._relay is not None:
            self._relay.join()

    async def _mend_proxy(self) -> None:
        self._world.proxy.heal()

    async def _seal(self) -> None:
        if not self._sealed:
            self._sealed = True
            await asyncio.to_thread(self._world.openbao.seal)

    async def _unseal(self) -> None:
        if self._sealed:
            await asyncio.to_thread(self._world.openbao.unseal)
            self._sealed = False

    def _lose_database(self) -> None:
        if self._postgres is not None:
            self._allow_connections("false")
            self._cut_connections()
        elif self._holder is None:
            self._holder = sqlite3.connect(
                str(self._url.database), timeout=30, isolation_level=None, check_same_thread=False
            )
            self._holder.execute("BEGIN IMMEDIATE")

    async def _bring_database_back(self) -> None:
        if self._postgres is not None:
            await asyncio.to_thread(self._allow_connections, "true")
        elif self._holder is not None:
            self._holder.close()
            self._holder = None

    def _allow_connections(self, allowed: str) -> None:
        self._run(
            sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS {}").format(
                sql.Identifier(str(self._url.database)), sql.SQL(allowed)
            )
        )

    def _cut_connections(self) -> None:
        self._run(
            sql.SQL("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {}").format(
                sql.Literal(str(self._url.database))
            )
        )

    def _run(self, statement: sql.Composed) -> None:
        if self._postgres is not None:
            with psycopg.connect(self._postgres.dsn(), autocommit=True) as connection:
                connection.execute(statement)


async def _nothing() -> None:
    pass


async def _started(replica: Replica) -> None:
    if replica.stopped_by_itself():
        raise AssertionError(f"a replica ended by itself; its log ends with:\n{replica.log_tail()}")
    if not replica.runs:
        await replica.start()
    replica.go_on()
