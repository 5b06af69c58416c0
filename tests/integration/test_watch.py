"""Automatic locks: an agent that goes wrong is stopped, and nobody else."""

from datetime import timedelta
from typing import Any

import grpc
from credbroker.v1 import lock_pb2, lock_service_pb2

from broker.config import AutomaticLocks, Threshold
from tests.faults.test_promises import dead, works
from tests.fixtures.replicas import several
from tests.fixtures.waiting import until
from tests.fixtures.world import SCOPES, World
from tests.integration.refusing import refused

MINUTE = timedelta(minutes=1)


async def start(world: World, **thresholds: Any) -> None:
    world.settings = world.settings.model_copy(update={"automatic_locks": AutomaticLocks(**thresholds)})
    await world.start()
    await world.apply(*SCOPES)


async def locked(world: World) -> list[lock_pb2.Lock]:
    reply = await world.caller("admins/root").locks.ListLocks(lock_service_pb2.ListLocksRequest())
    return list(reply.locks)


async def test_an_agent_that_keeps_being_refused_is_stopped(bare_world: World) -> None:
    world = bare_world
    await start(world, refusals=Threshold(count=5, within=MINUTE), ttl=timedelta(minutes=15))
    agent, other = world.caller(), world.caller("agents/other")
    token = (await agent.issue("reports-secret")).credential.vault_token.token
    kept = (await other.issue("reports-secret")).credential.vault_token.token
    for _ in range(4):
        assert (await refused(agent.issue("payments-admin"))).reason == "SCOPE_DENIED"
    assert works(world, token)

    await refused(agent.issue("payments-admin"))

    await until(dead(world, token))
    assert (await refused(agent.issue("reports-secret"))).reason == "LOCKED"
    assert works(world, kept)
    assert (await other.issue("reports-secret")).credential.vault_token.token
    [lock] = await locked(world)
    assert (lock.reason, lock.creator) == ("automatic: 5 refusals within 60 seconds", "broker")

    world.clock.offset = timedelta(minutes=15, seconds=1)
    fresh = await world.caller().issue("reports-secret")
    assert works(world, fresh.credential.vault_token.token)
    assert not works(world, token)
    assert await locked(world) == []


async def test_what_carries_no_evidence_counts_against_nobody(bare_world: World) -> None:
    world = bare_world
    await start(world, refusals=Threshold(count=2, within=MINUTE))
    expired = world.caller(exp=int(world.clock.now().timestamp()) - 3600)
    for _ in range(5):
        assert (await refused(expired.issue("payments-admin"))).code is grpc.StatusCode.UNAUTHENTICATED
        await refused(world.caller(token="no token").issue("payments-admin"))
    agent, canary = world.caller(), world.caller("agents/canary")
    for caller in (agent, canary, canary):
        assert (await refused(caller.issue("payments-admin"))).reason == "SCOPE_DENIED"

    async def canary_is_locked() -> bool:
        return (await refused(canary.issue("payments-admin"))).reason == "LOCKED"

    await until(canary_is_locked)
    assert (await agent.issue("reports-secret")).credential.vault_token.token
    assert [lock.target.agent for lock in await locked(world)] == [f"{world.issuer.url}#agents/canary"]


async def test_replicas_share_the_count(bare_world: World) -> None:
    world = bare_world
    await start(world, refusals=Threshold(count=6, within=MINUTE), issuances=Threshold(count=4, within=MINUTE))
    async with several(world) as replicas:
        addresses = [world.app.addresses["bearer"], (await replicas.start(world.clock)).addresses["bearer"]]
        wrong = [replicas.caller(address, "agents/wrong") for address in addresses]
        for caller in (*wrong, *wrong, *wrong):
            assert (await refused(caller.issue("payments-admin"))).reason == "SCOPE_DENIED"
        busy = [replicas.caller(address, "agents/busy") for address in addresses]
        tokens = [(await caller.issue("reports-secret")).credential.vault_token.token for caller in (*busy, *busy)]

        for token in tokens:
            await until(dead(world, token))
        for caller in (*wrong, *busy):
            assert (await refused(caller.issue("reports-secret"))).reason == "LOCKED"
        assert sorted(lock.reason for lock in await locked(world)) == [
            "automatic: 4 issuances within 60 seconds",
            "automatic: 6 refusals within 60 seconds",
        ]
