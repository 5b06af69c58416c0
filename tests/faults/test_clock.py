"""The clock goes wrong while the broker serves: it refuses and ends nothing by time, until the clock is right."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, cast

import grpc
import pytest
from credbroker.v1 import (
    audit_service_pb2,
    credential_service_pb2,
    issuance_pb2,
    lock_pb2,
    lock_service_pb2,
    task_pb2,
    task_service_pb2,
)
from grpc_health.v1 import health_pb2

from broker.clock_guard import SETTLING
from broker.ids import new_id
from broker.lease import Lease
from broker.mint.vault import VaultClient
from broker.model import AnchorState
from broker.outbox import Revoker
from broker.reap import Reaper
from broker.store import Store, anchors, tasks
from tests.faults.test_promises import dead, works
from tests.fixtures.clock import FakeClock
from tests.fixtures.records import a_task, an_anchor
from tests.fixtures.waiting import until
from tests.fixtures.world import Caller, World
from tests.integration.refusing import refused
from tests.integration.test_app import health

HOUR = timedelta(hours=1)
SERVING, AWAY = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING

both_ways = pytest.mark.parametrize("wrong_by", [HOUR, -HOUR], ids=["ahead", "behind"])


def of_all_times(world: World, subject: str) -> Caller:
    """Return somebody whose token is valid by clocks that are hours apart."""
    now = int(world.clock.true_time().timestamp())
    times = {"iat": now - 3 * 3600, "nbf": now - 3 * 3600, "exp": now + 3 * 3600}
    return world.caller(token=world.issuer.token(subject, claims=times).reveal())


async def becomes(world: World, status: int) -> None:
    async def is_now() -> bool:
        return await health(world) == status

    await until(is_now)


async def start(agent: Caller, heartbeat: timedelta | None = None) -> str:
    spec = task_pb2.TaskSpec(purpose="a test", labels={"env": "prod"})
    if heartbeat is not None:
        spec.heartbeat_interval.FromTimedelta(heartbeat)
    reply = await agent.tasks.StartTask(task_service_pb2.StartTaskRequest(spec=spec))
    return str(reply.task.id)


async def state(agent: Caller, task: str) -> int:
    return int((await agent.tasks.GetTask(task_service_pb2.GetTaskRequest(id=task))).task.state)


@both_ways
async def test_a_wrong_clock_gives_nothing_and_takes_back_all_the_same(world: World, wrong_by: timedelta) -> None:
    agent, admin, auditor = (of_all_times(world, who) for who in ("agents/reports", "admins/root", "auditors/one"))
    kept = await agent.issue("reports-service")
    returned = await agent.issue("reports-service", task_id=kept.task.id)
    other = await agent.issue("reports-secret")
    id_ = kept.credential.issuance_id

    world.clock.wrong_by = wrong_by

    gives: list[Callable[[], Awaitable[Any]]] = [
        lambda: agent.issue("reports-secret"),
        lambda: agent.issue("reports-service", task_id=kept.task.id),
        lambda: agent.credentials.RenewCredential(credential_service_pb2.RenewCredentialRequest(issuance_id=id_)),
        lambda: start(agent),
        lambda: agent.tasks.HeartbeatTask(task_service_pb2.HeartbeatTaskRequest(id=kept.task.id)),
        lambda: admin.locks.ListLocks(lock_service_pb2.ListLocksRequest()),
        lambda: auditor.audit.ListAuditEvents(audit_service_pb2.ListAuditEventsRequest()),
    ]
    for call in gives:
        told = await refused(call())
        assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "CLOCK_UNCERTAIN")
    await becomes(world, AWAY)

    give_back = credential_service_pb2.RevokeCredentialRequest(issuance_id=returned.credential.issuance_id)
    await agent.credentials.RevokeCredential(give_back)
    assert dead(world, returned.credential.vault_token.token)()
    await agent.tasks.CompleteTask(task_service_pb2.CompleteTaskRequest(id=kept.task.id))
    assert dead(world, kept.credential.vault_token.token)()
    target = lock_pb2.LockTarget(task_id=other.task.id)
    await admin.locks.CreateLock(lock_service_pb2.CreateLockRequest(target=target, reason="a test"))
    await until(dead(world, other.credential.vault_token.token))

    world.clock.wrong_by = timedelta()
    await becomes(world, SERVING)
    assert works(world, (await agent.issue("reports-secret")).credential.vault_token.token)
    failures = await world.events('type = "request.failed"')
    assert {event.reason for event in failures} == {"CLOCK_UNCERTAIN"}
    assert len(failures) == len(gives)


async def test_an_expired_token_does_not_come_back_when_the_clock_is_behind(world: World) -> None:
    now = int(world.clock.true_time().timestamp())
    times = {"iat": now - 2400, "nbf": now - 2400, "exp": now - 1200}
    late = world.caller(token=world.issuer.token("agents/reports", claims=times).reveal())
    assert (await refused(late.issue("reports-secret"))).reason == "EVIDENCE_EXPIRED"

    world.clock.wrong_by = -timedelta(minutes=30)

    assert (await refused(late.issue("reports-secret"))).reason == "CLOCK_UNCERTAIN"
    assert (await refused(start(late))).reason == "CLOCK_UNCERTAIN"
    assert (await refused(late.tasks.ListTasks(task_service_pb2.ListTasksRequest()))).reason == "CLOCK_UNCERTAIN"


async def test_what_vault_may_have_made_is_not_written_off_for_its_age(store: Store, clock: FakeClock) -> None:
    doubts = [True]
    lease = Lease(store, clock, "reap", "one")
    vault, revoker = cast("VaultClient", None), cast("Revoker", None)
    reaper = Reaper(store, vault, None, revoker, clock, lease, HOUR, new_id(), lambda: doubts[0])
    task = a_task()
    intent = an_anchor(task, state=AnchorState.CREATING, accessor=None, expires_at=clock.now() + HOUR)
    await store.write(lambda conn: tasks.insert(conn, task))
    await store.write(lambda conn: anchors.insert(conn, intent))
    clock.advance(2 * HOUR)

    async def given_up() -> bool:
        await reaper.turn()
        [found] = await store.read(lambda conn: anchors.of_task(conn, task.id))
        return found.state is AnchorState.GONE

    assert not await given_up()
    doubts[0] = False
    assert await given_up()


async def test_vaults_clock_may_be_the_wrong_one(world: World) -> None:
    """Vault's own jump is the same doubt: its tokens may be gone, or may live on."""
    agent = of_all_times(world, "agents/reports")
    world.clock.offset, world.clock.wrong_by = HOUR, -HOUR
    await becomes(world, AWAY)
    assert (await refused(agent.issue("reports-secret"))).reason == "CLOCK_UNCERTAIN"


@both_ways
async def test_nothing_is_called_ended_that_vault_accepts(world: World, wrong_by: timedelta) -> None:
    agent = of_all_times(world, "agents/reports")
    issued = await agent.issue("reports-secret")
    token = issued.credential.vault_token.token

    world.clock.wrong_by = wrong_by
    await becomes(world, AWAY)  # more than a second on: the sweeper came by
    world.clock.wrong_by = timedelta()
    await becomes(world, SERVING)

    record, _ = await world.record_of(issued.credential.issuance_id)
    assert record.state == issuance_pb2.ISSUANCE_STATE_ACTIVE
    assert works(world, token)
    assert await state(agent, issued.task.id) == task_pb2.TASK_STATE_ACTIVE


async def test_heartbeats_that_were_refused_end_no_task(world: World) -> None:
    agent = of_all_times(world, "agents/reports")
    alive, silent = await start(agent, timedelta(seconds=30)), await start(agent, timedelta(seconds=30))
    beat = task_service_pb2.HeartbeatTaskRequest(id=alive)
    world.clock.wrong_by = HOUR
    assert (await refused(agent.tasks.HeartbeatTask(beat))).reason == "CLOCK_UNCERTAIN"
    world.clock.offset = timedelta(seconds=50)
    await becomes(world, AWAY)

    world.clock.wrong_by = timedelta()
    await becomes(world, SERVING)
    assert await state(agent, silent) == task_pb2.TASK_STATE_ACTIVE
    world.clock.offset += timedelta(seconds=SETTLING - 20)
    await agent.tasks.HeartbeatTask(beat)
    world.clock.offset += timedelta(seconds=20)

    async def ended() -> bool:
        return await state(agent, silent) == task_pb2.TASK_STATE_HEARTBEAT_MISSED

    await until(ended)
    assert await state(agent, alive) == task_pb2.TASK_STATE_ACTIVE
