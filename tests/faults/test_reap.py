"""Vault's books and the records, made to differ by hand: the next broker settles it unaided."""

import asyncio
from datetime import timedelta
from types import SimpleNamespace
from typing import cast
from uuid import uuid4

import pytest
from credbroker.v1 import issuance_pb2
from sqlalchemy import create_engine, delete, select

from broker.audit import broker_event
from broker.audit.catalogue import LOCK_CREATED
from broker.lease import Lease
from broker.locks import store_lock
from broker.mint.anchor import ANCHOR_META
from broker.mint.vault import INSTALLATION_META, KnownToken, VaultClient
from broker.model import Lock, LockKind
from broker.outbox import Revoker
from broker.reap import SETTLING_SECONDS, Reaper
from broker.secret import Secret
from broker.store import Store, schema
from tests.faults.test_promises import database_url, dead, works
from tests.fixtures.clock import FakeClock
from tests.fixtures.records import NOW
from tests.fixtures.store import running
from tests.fixtures.waiting import until
from tests.fixtures.world import World

LATER = timedelta(minutes=2)


def orphan(world: World, installation: str) -> tuple[str, str]:
    """Make a token as a broker would, without any record; return token and accessor."""
    made = world.admin.auth.token.create_orphan(
        policies=["default"], ttl="1h", meta={INSTALLATION_META: installation, ANCHOR_META: str(uuid4())}
    )["auth"]
    return str(made["client_token"]), str(made["accessor"])


def installation_of(world: World) -> str:
    engine = create_engine(database_url(world.settings))
    with engine.connect() as conn:
        found = conn.execute(select(schema.installation.c.id)).scalar_one()
    engine.dispose()
    return str(found)


async def restart(world: World) -> None:
    await world.app.stop()
    world.clock.offset += LATER
    await world.start()


async def test_a_token_without_a_record_is_revoked_and_others_are_left_alone(bare_world: World) -> None:
    world = bare_world
    lost, _ = orphan(world, installation_of(world))
    foreign, accessor = orphan(world, str(uuid4()))
    world.clock.offset = LATER
    await world.start()

    await until(dead(world, lost))

    [event] = await until(lambda: world.events('type = "vault.token_unrecorded"'))
    assert event.actor == "broker"
    assert works(world, foreign)
    world.admin.auth.token.revoke_accessor(accessor)


async def test_a_token_whose_record_may_be_on_its_way_is_left_alone(bare_world: World) -> None:
    world = bare_world
    young, _ = orphan(world, installation_of(world))
    old, _ = orphan(world, installation_of(world))
    await world.start()
    await until(lambda: world.proxy.count("auth/token/lookup-accessor") >= 2)
    assert works(world, young)
    await restart(world)
    await until(dead(world, young))
    await until(dead(world, old))


async def test_what_a_restored_database_has_forgotten_is_revoked(world: World) -> None:
    agent = world.caller()
    forgotten = await agent.issue("reports-service")
    kept = await agent.issue("reports-service", task_id=forgotten.task.id)
    await world.app.stop()
    engine = create_engine(database_url(world.settings))
    with engine.begin() as conn:
        conn.execute(delete(schema.issuances).where(schema.issuances.c.id == forgotten.credential.issuance_id))
    engine.dispose()
    world.clock.offset = LATER

    await world.start()

    await until(dead(world, forgotten.credential.vault_token.token))
    assert works(world, kept.credential.vault_token.token)


@pytest.mark.parametrize("what", ["anchor", "holder"])
async def test_what_was_revoked_behind_the_brokers_back_is_recorded_as_ended(world: World, what: str) -> None:
    agent = world.caller()
    issued = await agent.issue("reports-db", parameters={"role": "readonly"})
    other = await agent.issue("reports-secret", task_id=issued.task.id)
    engine = create_engine(database_url(world.settings))
    with engine.connect() as conn:
        table = schema.anchors if what == "anchor" else schema.issuances
        of_this = {
            "anchor": table.c.id
            == select(schema.issuances.c.anchor_id)
            .where(schema.issuances.c.id == issued.credential.issuance_id)
            .scalar_subquery(),
            "holder": table.c.id == issued.credential.issuance_id,
        }[what]
        accessor = conn.execute(select(table.c.accessor).where(of_this)).scalar_one()
    engine.dispose()
    world.admin.auth.token.revoke_accessor(accessor)

    await restart(world)

    async def ended() -> bool:
        return (await world.record_of(issued.credential.issuance_id))[0].HasField("end_time")

    await until(ended)
    record, events = await world.record_of(issued.credential.issuance_id)
    assert record.state == issuance_pb2.ISSUANCE_STATE_REVOKED
    told = {event.type: event.reason for event in events}
    assert told["credential.revocation_requested"] == told["credential.revoked"] == "vault.lost"
    untouched, _ = await world.record_of(other.credential.issuance_id)
    assert untouched.state == issuance_pb2.ISSUANCE_STATE_ACTIVE


async def test_a_lock_whose_creator_died_is_carried_out_by_the_next(world: World) -> None:
    agent = world.caller()
    held = await agent.issue("reports-secret")
    scoped = await world.caller("agents/other").issue("reports-service")
    await world.app.stop()
    locks = [
        Lock(str(uuid4()), kind, target, "a test", "admin", world.clock.now(), None)
        for kind, target in (
            (LockKind.AGENT, f"{world.issuer.url}#agents/reports"),
            (LockKind.SCOPE, "reports-service"),
        )
    ]
    async with running(Secret(world.settings.database.url.get_secret_value())) as store:
        for lock in locks:
            event = broker_event(LOCK_CREATED, lock.created_at)
            await store.write(lambda conn, lock=lock, event=event: store_lock(conn, lock, event))  # type: ignore[misc]

    await world.start()

    await until(dead(world, held.credential.vault_token.token))
    await until(dead(world, scoped.credential.vault_token.token))
    enforced = await until(lambda: world.events('type = "lock.enforced"'))
    assert {event.attributes["lock_id"] for event in enforced} <= {lock.id for lock in locks}


class Books:
    """A Vault that lists others' tokens, and notes which were looked up."""

    def __init__(self, listed: list[str]) -> None:
        self.listed = listed
        self.lists = 0
        self.looked_up: list[str] = []

    async def list_accessors(self) -> list[str]:
        self.lists += 1
        return self.listed

    async def look_up_token(self, accessor: str) -> KnownToken:
        self.looked_up.append(accessor)
        return KnownToken({}, NOW)


def reaper_of(store: Store, clock: FakeClock, books: Books) -> Reaper:
    vault, looker = cast("VaultClient", None), cast("VaultClient", books)
    revoker = cast("Revoker", SimpleNamespace(wake=lambda: None))
    lease = Lease(store, clock, "reap", "one")
    return Reaper(store, vault, looker, revoker, clock, lease, LATER, str(uuid4()), lambda: False)


async def paused(clock: FakeClock, turn: asyncio.Task[None]) -> None:
    async def asleep() -> bool:
        return clock.sleepers == 1 or turn.done()

    await until(asleep)


async def test_a_token_is_looked_up_only_once_it_is_wholly_made(store: Store, clock: FakeClock) -> None:
    """Looking up a service token between its accessor and its lease makes Vault revoke it, whosever it is."""
    books = Books(["being made"])
    turn = asyncio.create_task(reaper_of(store, clock, books).turn())

    await paused(clock, turn)
    assert (books.lists, books.looked_up) == (1, [])
    clock.advance(SETTLING_SECONDS)
    await turn

    assert books.looked_up == ["being made"]


async def test_tokens_of_others_are_looked_up_at_a_pace_and_once(store: Store, clock: FakeClock) -> None:
    books = Books([f"accessor-{number:03}" for number in range(250)])
    reaper = reaper_of(store, clock, books)
    turn = asyncio.create_task(reaper.turn())

    seen = []
    await paused(clock, turn)
    while not turn.done():
        seen.append(len(books.looked_up))
        clock.advance(SETTLING_SECONDS)
        await paused(clock, turn)
    assert seen == [0, 100, 200]
    assert sorted(books.looked_up) == books.listed

    clock.advance(LATER)
    turn = asyncio.create_task(reaper.turn())
    await paused(clock, turn)
    clock.advance(SETTLING_SECONDS)
    await turn
    assert (books.lists, len(books.looked_up)) == (2, 250)
