"""The database loses connections, fills up, refuses rows or is replaced: books match, nothing is half written."""

import asyncio
import contextlib
import os
import random
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final
from uuid import uuid4

import grpc
import psycopg
import pytest
from credbroker.v1 import issuance_pb2
from psycopg import sql
from sqlalchemy import Engine, event, make_url

from broker.config import Settings
from broker.dev.postgres import Postgres
from broker.model import IssuanceState
from broker.secret import Secret
from broker.store import migrate
from broker.store.schema import metadata
from tests.fakes.relay import Relay
from tests.faults.holding import ABANDONED, SCOPES_OF_KINDS, Holder, holder, settled, until_ready
from tests.faults.test_promises import database_url, failing_inserts
from tests.fixtures.books import Books
from tests.fixtures.waiting import until
from tests.fixtures.world import SCOPES, World
from tests.integration.refusing import Refused, refused

KINDS: Final = tuple(SCOPES_OF_KINDS)
Code = grpc.StatusCode


@asynccontextmanager
async def relayed(world: World) -> AsyncIterator[Relay]:
    """Start the world's broker with a relay before its database."""
    url = make_url(database_url(world.settings))
    relay = Relay(url.port or 0)
    await relay.start()
    try:
        through = url.set(host=relay.host, port=relay.port).render_as_string(hide_password=False)
        world.settings = world.configure(Secret(through))
        await world.start()
        await world.apply(*SCOPES)
        yield relay
    finally:
        relay.join()
        await world.app.stop()
        await relay.stop()


class OnPostgres:
    @pytest.fixture
    def database(self, postgres_url: Secret[str]) -> Secret[str]:
        return postgres_url


def own(books: Books, agent: Holder) -> None:
    books.handed_out |= {issued.credential.issuance_id for issued in agent.held.values()}


class TestLostAcknowledgement(OnPostgres):
    """The server commits, and the broker does not hear of it."""

    ISSUING: Final = {
        "anchor intended": ("batch", "creating"),
        "anchor adopted": ("batch", "UPDATE anchors"),
        "batch token": ("batch", "credential.issued"),
        "service token": ("service", "credential.issued"),
        "lease intended": ("leased", "credential.requested"),
        "lease": ("leased", "credential.issued"),
    }

    @pytest.mark.parametrize("moment", ISSUING)
    async def test_of_issuing(self, bare_world: World, books: Books, moment: str) -> None:
        kind, marker = self.ISSUING[moment]
        async with relayed(bare_world) as relay:
            agent = await holder(bare_world, *(() if "anchor" in moment else (kind,)))
            own(books, agent)
            lost = relay.lose_commit(marker)

            answer = await refused(agent.issue(kind))

            assert lost.happened.is_set()
            assert (answer.code, answer.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
            bare_world.clock.offset += ABANDONED
            await books.match()
            agent.held[kind] = await agent.issue(kind)
            own(books, agent)
            await settled(bare_world, books, agent)

    async def test_of_a_request_with_an_id(self, bare_world: World, books: Books) -> None:
        async with relayed(bare_world) as relay:
            agent = await holder(bare_world, *KINDS)
            own(books, agent)
            for kind in KINDS:
                request_id = str(uuid4())
                relay.lose_commit("credential.issued")
                await refused(agent.issue(kind, request_id))

                agent.held[kind] = await agent.issue(kind, request_id)
                own(books, agent)
            await settled(bare_world, books, agent)

    async def test_of_a_tasks_end(self, bare_world: World, books: Books) -> None:
        async with relayed(bare_world) as relay:
            agent = await holder(bare_world, *KINDS)
            lost = relay.lose_commit("task.completed")

            answer = await refused(agent.complete())

            assert lost.happened.is_set()
            assert answer.reason == "STORE_UNAVAILABLE"
            await until(agent.confirmed)
            await books.match()
            await books.none_alive()

    async def test_of_a_renewal_and_of_giving_back(self, bare_world: World, books: Books) -> None:
        async with relayed(bare_world) as relay:
            agent = await holder(bare_world, "service", "leased")
            for kind in ("service", "leased"):
                before = (await agent.record(kind)).expire_time.ToDatetime()
                relay.lose_commit("credential.renewed")
                assert (await refused(agent.renew(kind, timedelta(minutes=8)))).reason == "STORE_UNAVAILABLE"
                assert (await agent.record(kind)).expire_time.ToDatetime() > before
                relay.lose_commit("credential.revocation_requested")
                assert (await refused(agent.revoke(kind))).reason == "STORE_UNAVAILABLE"
            await settled(bare_world, books, agent)

    async def test_of_a_confirmation_confirms_once(self, bare_world: World, books: Books) -> None:
        async with relayed(bare_world) as relay:
            agent = await holder(bare_world, *KINDS)
            lost = relay.lose_commit("credential.revoked")
            await agent.complete()
            await asyncio.wait_for(lost.happened.wait(), 10)

            bare_world.clock.offset += ABANDONED
            await until(agent.confirmed)
            for kind in KINDS:
                assert (await agent.record(kind)).state == issuance_pb2.ISSUANCE_STATE_REVOKED
                ended = [event for event in await agent.events(kind) if event.type == "credential.revoked"]
                assert len(ended) == 1
            await books.match()


class TestRefusedRow:
    """The database refuses a row of one table, whatever it is for."""

    @pytest.mark.parametrize("table", ["anchors", "issuances", "events"])
    async def test_of_issuing(self, books: Books, world: World, table: str) -> None:
        agent = await holder(world)
        with failing_inserts(world.settings, table, "NEW.id IS NOT NULL"):
            for kind in KINDS:
                assert (await refused(agent.issue(kind))).code in (Code.UNAVAILABLE, Code.INTERNAL)
        await settled(world, books, agent)

    @pytest.mark.parametrize("table", ["revocations", "events"])
    async def test_of_ending_and_giving_back(self, books: Books, world: World, table: str) -> None:
        agent = await holder(world, *KINDS)
        own(books, agent)
        with failing_inserts(world.settings, table, "NEW.id IS NOT NULL"):
            for answer in (await refused(agent.complete()), await refused(agent.revoke("leased"))):
                assert answer.code in (Code.UNAVAILABLE, Code.INTERNAL)
            # Nothing has ended by half: whoever is told so holds what they held.
            for issuance in books.records().issuances.values():
                assert (issuance.state, issuance.revoke_requested_at) == (IssuanceState.ACTIVE, None)
            await books.match()
        await settled(world, books, agent)


class Disk:
    """The disk of a database, which can be full."""

    def __init__(self, settings: Settings) -> None:
        self._url = database_url(settings)
        self._connections: list[sqlite3.Connection] = []
        event.listen(Engine, "connect", self._connected)

    def _connected(self, connection: object, _record: object) -> None:
        raw = getattr(connection, "driver_connection", connection)
        if isinstance(raw, sqlite3.Connection):
            self._connections.append(raw)

    def fill(self) -> None:
        if self._url.startswith("sqlite"):
            for connection in self._connections:
                connection.execute("PRAGMA max_page_count = 1")  # as many as there are, SQLite makes of it
            return
        with psycopg.connect(self._url.replace("+psycopg", ""), autocommit=True) as admin:
            admin.execute(
                "CREATE OR REPLACE FUNCTION no_space() RETURNS trigger LANGUAGE plpgsql "
                "AS $$ BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' "
                "USING ERRCODE = 'disk_full'; END $$"
            )
            for table in metadata.tables:
                admin.execute(
                    sql.SQL("CREATE TRIGGER no_space BEFORE INSERT ON {} EXECUTE FUNCTION no_space()").format(
                        sql.Identifier(table)
                    )
                )

    def empty(self) -> None:
        if self._url.startswith("sqlite"):
            for connection in self._connections:
                connection.execute("PRAGMA max_page_count = 1000000")
            return
        with psycopg.connect(self._url.replace("+psycopg", ""), autocommit=True) as admin:
            for table in metadata.tables:
                admin.execute(sql.SQL("DROP TRIGGER IF EXISTS no_space ON {}").format(sql.Identifier(table)))

    def close(self) -> None:
        event.remove(Engine, "connect", self._connected)


@pytest.fixture
def disk(bare_world: World) -> Iterator[Disk]:
    disk = Disk(bare_world.settings)
    yield disk
    disk.empty()
    disk.close()


@pytest.mark.long
async def test_a_full_disk_gives_nothing_away_and_loses_nothing(books: Books, disk: Disk, world: World) -> None:
    agent = await holder(world, *KINDS)
    own(books, agent)
    disk.fill()

    for kind in KINDS:
        answer = await until_refused(agent, kind, books)
        assert (answer.code, answer.reason) == (Code.UNAVAILABLE, "STORE_UNAVAILABLE")
    assert (await refused(agent.complete())).reason == "STORE_UNAVAILABLE"

    disk.empty()
    assert (await agent.issue("leased")).credential.issuance_id
    await settled(world, books, agent)


async def until_refused(agent: Holder, kind: str, books: Books) -> Refused:
    """Issue until the last page is full."""
    for _ in range(200):
        try:
            books.handed_out.add((await agent.issue(kind)).credential.issuance_id)
        except grpc.aio.AioRpcError as error:
            return Refused(error)
    raise AssertionError("the disk is never full")


async def test_requests_cancelled_at_any_moment_leave_nothing_half_written(books: Books, world: World) -> None:
    chance = random.Random(1)
    agents = [await holder(world, *KINDS) for _ in range(3)]
    for agent in agents:
        own(books, agent)

    async def cancelled(work: Awaitable[object]) -> None:
        asked = asyncio.ensure_future(work)
        await asyncio.wait([asked], timeout=chance.expovariate(25))
        asked.cancel()
        with contextlib.suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
            await asked

    for _ in range(3):
        await asyncio.gather(*(cancelled(agent.issue(kind)) for agent in agents for kind in KINDS))
        await asyncio.gather(*(cancelled(agent.renew(kind)) for agent in agents for kind in ("service", "leased")))
    await asyncio.gather(*(cancelled(agent.revoke("leased")) for agent in agents))
    await asyncio.gather(*(cancelled(agent.complete()) for agent in agents))

    await settled(world, books, *agents)


class Cluster:
    """A PostgreSQL with a hot standby that follows it."""

    def __init__(self, folder: Path) -> None:
        first = Postgres.start(folder / "first")
        first.create_database("broker")
        migrate.upgrade(first.sqlalchemy_url("broker"))
        first.stop()
        # A copy of a server at rest is a base backup.
        shutil.copytree(folder / "first", folder / "second", symlinks=True)
        if os.geteuid() == 0:
            owner = (folder / "first" / "data").stat()
            for path in (folder / "second" / "data", *(folder / "second" / "data").rglob("*")):
                os.chown(path, owner.st_uid, owner.st_gid)
        self.primary = Postgres.start(folder / "first", port=first.port)
        follow = f"primary_conninfo = '{self.primary.dsn()}?application_name=second'\n"
        with (folder / "second" / "data" / "postgresql.auto.conf").open("a") as settings:
            settings.write(follow)
        (folder / "second" / "data" / "standby.signal").touch()
        self.standby = Postgres.start(folder / "second")

    def url(self) -> Secret[str]:
        """Whoever of both takes writes."""
        password = self.primary.password.reveal()
        hosts = "&".join(f"host={one.host}:{one.port}" for one in (self.primary, self.standby))
        return Secret(f"postgresql+psycopg://postgres:{password}@/broker?{hosts}&target_session_attrs=read-write")

    def wait_for_standby(self) -> None:
        """Acknowledge nothing that the standby does not have."""
        with psycopg.connect(self.primary.dsn(), autocommit=True) as admin:
            admin.execute("ALTER SYSTEM SET synchronous_standby_names = 'second'")
            admin.execute("SELECT pg_reload_conf()")

    def part(self) -> None:
        """Let the standby follow no more."""
        with psycopg.connect(self.standby.dsn(), autocommit=True) as admin:
            admin.execute("ALTER SYSTEM SET primary_conninfo = ''")
            admin.execute("SELECT pg_reload_conf()")
        with psycopg.connect(self.primary.dsn(), autocommit=True) as admin:
            while admin.execute("SELECT 1 FROM pg_stat_replication").fetchone() is not None:
                time.sleep(0.02)

    def fail_over(self) -> None:
        """Kill the primary, and let the standby take its place."""
        self.primary.kill()
        with psycopg.connect(self.standby.dsn(), autocommit=True) as admin:
            admin.execute("SELECT pg_promote()")

    def stop(self) -> None:
        self.primary.stop()
        self.standby.stop()


@pytest.mark.long
class TestPromotedStandby:
    @pytest.fixture
    def cluster(self, tmp_path: Path) -> Iterator[Cluster]:
        cluster = Cluster(tmp_path / "cluster")
        yield cluster
        cluster.stop()

    @pytest.fixture
    def database(self, cluster: Cluster) -> Secret[str]:
        return cluster.url()

    async def test_goes_on_by_itself_and_has_all_that_was_acknowledged(
        self, cluster: Cluster, books: Books, world: World
    ) -> None:
        await asyncio.to_thread(cluster.wait_for_standby)
        agents = [await holder(world, *KINDS) for _ in range(3)]
        for agent in agents:
            own(books, agent)
        await until_ready(world)
        over, failures = asyncio.Event(), set[grpc.StatusCode]()

        async def keep_asking(agent: Holder) -> None:
            while not over.is_set():
                try:
                    books.handed_out.add((await agent.issue("service")).credential.issuance_id)
                except grpc.aio.AioRpcError as error:
                    failures.add(error.code())
                    await asyncio.sleep(0.05)

        asking = [asyncio.ensure_future(keep_asking(agent)) for agent in agents]
        before = len(books.handed_out)
        await until(lambda: len(books.handed_out) > before + 5)
        await asyncio.to_thread(cluster.fail_over)
        taken_over = len(books.handed_out)
        await until(lambda: len(books.handed_out) > taken_over + 5)
        over.set()
        await asyncio.gather(*asking)
        assert failures <= {Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED}

        await until_ready(world)
        await settled(world, books, *agents)

    async def test_without_synchronous_replication_what_is_lost_is_taken_back(
        self, cluster: Cluster, books: Books, world: World
    ) -> None:
        kept = await holder(world, *KINDS)
        own(books, kept)
        await asyncio.to_thread(cluster.part)
        lost = await holder(world, *KINDS)

        await asyncio.to_thread(cluster.fail_over)

        await until_ready(world)
        assert (await refused(lost.complete())).reason == "TASK_NOT_FOUND"
        await settled(world, books, kept)
