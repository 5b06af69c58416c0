"""The network is taken apart between broker, Vault and database: nothing is lost, and all settles when it is whole."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Final
from urllib.parse import urlsplit

import grpc
import pytest
from credbroker.v1 import task_pb2
from sqlalchemy import make_url

from broker.secret import Secret
from tests.faults.holding import SCOPES_OF_KINDS, Holder, holder, settled, until_ready
from tests.faults.test_promises import database_url
from tests.fixtures.books import Books
from tests.fixtures.network import Link, links
from tests.fixtures.world import SCOPES, World
from tests.integration.refusing import refused

KINDS: Final = tuple(SCOPES_OF_KINDS)
PATIENCE: Final = 2.5
"""Seconds that callers wait in a partition."""

LATE: Final = 1.5
"""Seconds after its deadline at which a call must be over, on a busy machine."""

VAULT_TIMEOUT: Final = timedelta(seconds=1)
SIDES: Final = {"vault": ("vault",), "database": ("database",), "both": ("vault", "database")}


@pytest.fixture
def database(postgres_url: Secret[str]) -> Secret[str]:
    """The database that a network lies before."""
    return postgres_url


class Network:
    """The broker's links to Vault and to its database."""

    def __init__(self, vault: Link, database: Link) -> None:
        self._links = {"vault": vault, "database": database}

    def cut(self, side: str) -> None:
        for name in SIDES[side]:
            self._links[name].cut()

    def join(self) -> None:
        for link in self._links.values():
            link.join()


@asynccontextmanager
async def networked(world: World, kind: str) -> AsyncIterator[Network]:
    """Start the world's broker with links to what it needs."""
    url, address = make_url(database_url(world.settings)), urlsplit(world.proxy.address)
    database, vault = links()[kind](url.port or 0), links()[kind](address.port or 0)
    network = Network(vault, database)
    async with AsyncExitStack() as held:
        for link in (database, vault):
            await link.start()
            held.push_async_callback(link.stop)
        through = url.set(host=database.relay.host, port=database.relay.port)
        settings = world.configure(Secret(through.render_as_string(hide_password=False)))
        world.proxy.also_at(vault.relay.host)
        changes = {"address": f"https://{vault.relay.host}:{vault.relay.port}", "timeout": VAULT_TIMEOUT}
        world.settings = settings.model_copy(update={"vault": settings.vault.model_copy(update=changes)})
        await world.start()
        held.push_async_callback(world.app.stop)
        held.callback(network.join)
        await world.apply(*SCOPES)
        yield network


def in_haste(agent: Holder) -> Holder:
    agent.agent.timeout = PATIENCE
    return agent


ALL_CUTS = [(side, kind) for kind in links() for side in SIDES]


@pytest.mark.parametrize(("side", "kind"), [pytest.param(*cut, marks=pytest.mark.long) for cut in ALL_CUTS])
async def test_nothing_is_issued_across_a_cut_and_all_settles_after_it(
    bare_world: World, books: Books, side: str, kind: str
) -> None:
    async with networked(bare_world, kind) as network:
        keeping, ending = await holder(bare_world, *KINDS), await holder(bare_world, *KINDS)
        books.handed_out |= {keeping.id_of(one) for one in KINDS} | {ending.id_of(one) for one in KINDS}
        await until_ready(bare_world)
        network.cut(side)

        began = time.monotonic()
        answers = await asyncio.gather(
            *(refused(in_haste(keeping).issue(one)) for one in KINDS),
            *(refused(keeping.renew(one)) for one in ("service", "leased")),
        )
        assert time.monotonic() - began < PATIENCE + LATE
        if side == "vault":
            assert {answer.reason for answer in answers} == {"VAULT_UNAVAILABLE"}
            assert (await ending.complete()).revocation == task_pb2.REVOCATION_STATE_PENDING
        else:
            codes = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
            assert {answer.code for answer in answers} <= codes
            assert (await refused(in_haste(ending).complete())).code in codes
        await until_ready(bare_world, False)

        network.join()
        await until_ready(bare_world)
        await settled(bare_world, books, keeping, ending)


@pytest.mark.long
@pytest.mark.parametrize("kind", links())
@pytest.mark.parametrize("side", SIDES)
async def test_a_cut_in_the_middle_of_much_work_leaves_nothing_behind(
    bare_world: World, books: Books, side: str, kind: str
) -> None:
    chance = random.Random(f"{side} {kind}")
    async with networked(bare_world, kind) as network:
        agents = [in_haste(await holder(bare_world, *KINDS)) for _ in range(4)]
        asking: list[Awaitable[object]] = [agent.issue(one) for agent in agents for one in KINDS]
        asked = [asyncio.ensure_future(one) for one in (*asking, agents[0].complete())]
        await asyncio.sleep(chance.uniform(0, 0.05))
        network.cut(side)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        network.join()

        for answer in answers:
            if isinstance(answer, BaseException):
                assert isinstance(answer, grpc.aio.AioRpcError)
            elif hasattr(answer, "credential"):
                books.handed_out.add(answer.credential.issuance_id)
        await until_ready(bare_world)
        await settled(bare_world, books, *agents)
