"""Vault refuses, fails, hangs, sends elsewhere or is sealed: nothing undelivered lives, and all else is taken back."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final
from uuid import uuid4

import grpc
import psycopg
import pytest
from _pytest.mark import ParameterSet
from credbroker.v1 import issuance_pb2, task_pb2
from psycopg import sql

from broker.dev.issuer import DevIssuer
from broker.dev.openbao import OpenBao
from broker.dev.pki import DevAuthority
from broker.dev.postgres import Postgres
from broker.outbox import HOLD
from broker.secret import Secret
from tests.fakes.vault_proxy import Fault
from tests.faults.holding import READONLY, SCOPES_OF_KINDS, holder, start_before, until_ready
from tests.faults.test_promises import Minted, dead
from tests.fixtures.books import Books
from tests.fixtures.waiting import until
from tests.fixtures.world import ENGINE, SCOPES, World, furnish
from tests.integration.refusing import refused

KINDS: Final = tuple(SCOPES_OF_KINDS)
BEFORE: Final[tuple[Fault, ...]] = ("too_many", "too_many_later", "standby", "standby_code", "redirect")
ALWAYS: Final = 1_000_000
# Less than Vault has for an answer: what it refuses is not waited for.
SOON: Final = 10.0

TAKING_BACK = ("auth/token/revoke-accessor", "auth/token/lookup-accessor", "sys/leases/lookup", "sys/leases/revoke")
PENDING, CONFIRMED = task_pb2.REVOCATION_STATE_PENDING, task_pb2.REVOCATION_STATE_CONFIRMED


def rarely(*faults: Fault) -> list[ParameterSet]:
    """Faults that are tried with the tests that take long: another is like them."""
    return [pytest.param(fault, marks=pytest.mark.long) for fault in faults]


@pytest.fixture
def database(sqlite_url: Secret[str]) -> Secret[str]:
    """One kind of database: what Vault does is the same on both."""
    return sqlite_url


@pytest.mark.parametrize("fault", BEFORE)
async def test_a_vault_that_does_not_act_is_unavailable_for_now(books: Books, world: World, fault: Fault) -> None:
    agent = await holder(world, *KINDS)
    minted = Minted(world)
    world.proxy.fail("", fault, times=ALWAYS)

    for kind in KINDS:
        before = time.monotonic()
        answer = await refused(agent.issue(kind))
        assert (answer.code, answer.reason) == (grpc.StatusCode.UNAVAILABLE, "VAULT_UNAVAILABLE")
        assert time.monotonic() - before < SOON
    for kind in ("service", "leased"):
        assert (await refused(agent.renew(kind))).reason == "VAULT_UNAVAILABLE"
    await until_ready(world, False)
    assert not minted.tokens

    world.proxy.heal()
    await until_ready(world)
    for kind in KINDS:
        assert (await agent.issue(kind)).credential.issuance_id
        if kind != "batch":
            await agent.renew(kind)
    await agent.complete()
    await until(agent.confirmed)
    await all_dead(world, minted)
    await books.match()
    assert not world.proxy.strangers


@pytest.mark.parametrize(
    "fault", ["standby", *rarely("drop_after", "hang_after", "error_after", "html", "too_many", "redirect")]
)
async def test_what_vault_does_not_take_back_is_pending_until_it_does(
    books: Books, bare_world: World, fault: Fault
) -> None:
    world = await start_before(fault, bare_world)
    minted = Minted(world)
    agent = await holder(world, *KINDS)
    for path in TAKING_BACK:
        world.proxy.fail(path, fault, times=ALWAYS)

    before = time.monotonic()
    given_back = await agent.revoke("leased")
    task = await agent.complete()
    assert time.monotonic() - before < 2 * (world.settings.limits.revocation_wait.total_seconds() + 1)

    assert given_back.revocation == PENDING
    assert task.state == task_pb2.TASK_STATE_COMPLETED
    assert task.revocation == PENDING
    for kind in KINDS:
        record = await agent.record(kind)
        assert record.revocation == PENDING
        assert record.state == issuance_pb2.ISSUANCE_STATE_REVOKING

    world.proxy.heal()
    # What is next to do is due by then.
    world.clock.offset = timedelta(seconds=30)
    await until(agent.confirmed)
    for kind in KINDS:
        record = await agent.record(kind)
        assert (record.state, record.revocation) == (issuance_pb2.ISSUANCE_STATE_REVOKED, CONFIRMED)
    await all_dead(world, minted)
    await books.match()
    assert not world.proxy.strangers


async def all_dead(world: World, minted: Minted) -> None:
    assert minted.tokens
    for token in minted.tokens:
        await until(dead(world, token))


@pytest.mark.parametrize("fault", ["drop_after", *rarely("error_after", "hang_after", "html")])
@pytest.mark.parametrize("path", ["auth/token/renew-accessor", "sys/leases/renew"])
async def test_a_renewal_in_doubt_changes_no_record(bare_world: World, path: str, fault: Fault) -> None:
    world = await start_before(fault, bare_world)
    agent = await holder(world, "leased")
    minted = Minted(world)
    recorded = (await agent.record("leased")).expire_time
    world.proxy.fail(path, fault)

    answer = await refused(agent.renew("leased", timedelta(minutes=8)))

    assert (answer.code, answer.reason) == (grpc.StatusCode.UNAVAILABLE, "VAULT_UNAVAILABLE")
    assert (await agent.record("leased")).expire_time == recorded
    # Vault may have prolonged it; it is taken back when the record says.
    world.clock.offset = recorded.ToDatetime(tzinfo=world.clock.now().tzinfo) - world.clock.now() + timedelta(minutes=1)

    async def expired() -> bool:
        return (await agent.record("leased")).state == issuance_pb2.ISSUANCE_STATE_EXPIRED

    await until(expired)
    for token in minted.children:
        await until(dead(world, token))


async def test_a_renewal_after_one_in_doubt_is_recorded_as_vault_has_it(world: World) -> None:
    agent = await holder(world, "service", "leased")
    for kind in ("service", "leased"):
        before = (await agent.record(kind)).expire_time.ToDatetime()
        world.proxy.fail("renew", "drop_after")
        await refused(agent.renew(kind, timedelta(minutes=8)))

        renewed = await agent.renew(kind, timedelta(minutes=8))

        assert renewed.expire_time.ToDatetime() - before > timedelta(minutes=2)


@pytest.mark.long
async def test_twenty_minutes_without_revocation_end_by_themselves_and_without_a_storm(
    books: Books, world: World
) -> None:
    minted = Minted(world)
    agent = await holder(world, *KINDS)
    entries = 5  # three anchors, the service token and the holder of the lease
    world.proxy.fail("auth/token/revoke-accessor", "refuse_before", times=ALWAYS)
    await agent.complete()

    step = timedelta(seconds=100)  # longer than the longest pause between two attempts
    for _ in range(timedelta(minutes=20) // step):
        tried = world.proxy.count("auth/token/revoke-accessor")
        world.clock.offset += step
        await until(partial(tried_again, world, tried + entries))
        assert await agent.revocation() == PENDING
    attempts = world.proxy.count("auth/token/revoke-accessor")
    # Eight attempts until the pauses are longest, then one a step, and the first of each at once.
    assert attempts <= entries * (8 + timedelta(minutes=20) // step + 2)
    for kind in KINDS:
        assert (await agent.record(kind)).revocation == PENDING

    world.proxy.heal()
    world.clock.offset += step
    await until(agent.confirmed)
    assert world.proxy.count("auth/token/revoke-accessor") <= attempts + 2 * entries
    await all_dead(world, minted)
    await books.match()


async def test_a_clock_that_jumps_while_vault_is_asked_delays_nothing(books: Books, world: World) -> None:
    agent = await holder(world, "service")
    hanging = world.proxy.fail("auth/token/revoke-accessor", "hang_after", times=2)
    asking = asyncio.create_task(agent.complete())
    await asyncio.wait_for(hanging.seen.wait(), 10)

    world.clock.offset += 2 * HOLD
    await until(lambda: {entry.epoch for entry in books.records().revocations} == {2}, seconds=2)
    world.proxy.heal()

    await asking
    # Sooner than a claim that nobody works on would run out.
    await until(agent.confirmed, seconds=HOLD.total_seconds() / 4)


def tried_again(world: World, times: int) -> bool:
    return world.proxy.count("auth/token/revoke-accessor") >= times


async def test_a_lease_that_vault_has_given_up_on_is_still_revoked(
    books: Books, world: World, postgres: Postgres
) -> None:
    agent = await holder(world, "leased")
    user = str(agent.held["leased"].credential.leased.data["username"])
    with psycopg.connect(postgres.dsn(), autocommit=True) as admin:
        # PostgreSQL does not drop a role that something depends on.
        admin.execute("CREATE TABLE IF NOT EXISTS held (a int)")
        admin.execute(sql.SQL("GRANT SELECT ON held TO {}").format(sql.Identifier(user)))
        assert (await agent.complete()).revocation == PENDING
        lease = await until(lambda: given_up(world))

        world.clock.offset += timedelta(minutes=1)
        assert (await agent.record("leased")).revocation == PENDING
        admin.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(user)))
        world.clock.offset += timedelta(minutes=1)
        await until(agent.confirmed)

        assert admin.execute("SELECT count(*) FROM pg_roles WHERE rolname = %s", [user]).fetchone() == (0,)
    assert not await asyncio.to_thread(irrevocable, world), lease
    await books.match()


def irrevocable(world: World) -> list[str]:
    found = world.admin.adapter.get("/v1/sys/leases?type=irrevocable")["data"]["leases"]
    return [str(one["lease_id"]) for one in found]


def given_up(world: World) -> list[str]:
    """Use up the attempts that Vault makes by itself within minutes."""
    path = f"{ENGINE}/creds/{READONLY['role']}"
    for key in world.admin.adapter.list(f"/v1/sys/leases/lookup/{path}")["data"]["keys"]:
        world.admin.adapter.post("/v1/sys/leases/revoke", json={"lease_id": f"{path}/{key}", "sync": False})
    return irrevocable(world)


@pytest.fixture(scope="module")
def own_openbao(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[OpenBao]:
    """A server of this module's own, which it may seal."""
    with OpenBao.start(tmp_path_factory.mktemp("sealed")) as server:
        furnish(server, server.client(), postgres)
        yield server


@pytest.fixture
async def sealable(
    own_openbao: OpenBao, database: Secret[str], tmp_path: Path, issuer: DevIssuer, authority: DevAuthority
) -> AsyncIterator[World]:
    folder = tmp_path / uuid4().hex
    folder.mkdir()
    world = World(folder, own_openbao, own_openbao.client(), issuer, authority)
    try:
        await world.prepare(database)
        await world.start()
        await world.apply(*SCOPES)
        yield world
    finally:
        await world.stop()


@pytest.mark.long
async def test_what_a_sealed_vault_keeps_is_taken_back_when_it_is_unsealed(sealable: World) -> None:
    minted = Minted(sealable)
    ending, living = await holder(sealable, *KINDS), await holder(sealable, *KINDS)
    await until_ready(sealable)
    await asyncio.to_thread(sealable.openbao.seal)
    try:
        await until_ready(sealable, False)
        for kind in KINDS:
            answer = await refused(living.issue(kind))
            assert (answer.code, answer.reason) == (grpc.StatusCode.UNAVAILABLE, "VAULT_UNAVAILABLE")
        for kind in ("service", "leased"):
            assert (await refused(living.renew(kind))).reason == "VAULT_UNAVAILABLE"
        assert (await living.revoke("service")).revocation == PENDING
        assert (await ending.complete()).revocation == PENDING
    finally:
        await asyncio.to_thread(sealable.openbao.unseal)

    await until_ready(sealable)
    await until(ending.confirmed)
    assert (await living.issue("leased")).credential.leased.data["username"]
    assert (await living.complete()).revocation in (PENDING, CONFIRMED)
    await until(living.confirmed)
    await all_dead(sealable, minted)
