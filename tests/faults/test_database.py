"""The database loses connections, fills up, refuses rows or is replaced: books match, nothing is half written."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final
from uuid import uuid4

import grpc
import pytest
from credbroker.v1 import issuance_pb2
from sqlalchemy import make_url

from broker.secret import Secret
from tests.fakes.relay import Relay
from tests.faults.holding import ABANDONED, SCOPES_OF_KINDS, Holder, holder, settled
from tests.faults.test_promises import database_url
from tests.fixtures.books import Books
from tests.fixtures.waiting import until
from tests.fixtures.world import SCOPES, World
from tests.integration.refusing import refused

KINDS: Final = tuple(SCOPES_OF_KINDS)


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
