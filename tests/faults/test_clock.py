"""The clock goes wrong while the broker serves: it refuses and ends nothing by time, until the clock is right."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import grpc
import pytest
from credbroker.v1 import (
    audit_service_pb2,
    credential_service_pb2,
    lock_pb2,
    lock_service_pb2,
    task_pb2,
    task_service_pb2,
)
from grpc_health.v1 import health_pb2

from tests.faults.test_promises import dead, works
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


async def test_vaults_clock_may_be_the_wrong_one(world: World) -> None:
    """Vault's own jump is the same doubt: its tokens may be gone, or may live on."""
    agent = of_all_times(world, "agents/reports")
    world.clock.offset, world.clock.wrong_by = HOUR, -HOUR
    await becomes(world, AWAY)
    assert (await refused(agent.issue("reports-secret"))).reason == "CLOCK_UNCERTAIN"
