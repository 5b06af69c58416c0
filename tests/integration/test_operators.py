"""What operators see of a broker: how it is, and what Vault does not take back."""

from datetime import timedelta

from credbroker.v1 import (
    revocation_pb2,
    revocation_service_pb2,
    status_service_pb2,
    task_service_pb2,
)

from broker.store.migrate import head_revision
from tests.fixtures.waiting import until
from tests.fixtures.world import World
from tests.integration.refusing import refused


async def _status(world: World, subject: str = "admins/root") -> status_service_pb2.GetStatusResponse:
    reply: status_service_pb2.GetStatusResponse = await world.caller(subject).status.GetStatus(
        status_service_pb2.GetStatusRequest()
    )
    return reply


async def _pending(world: World, subject: str = "auditors/one") -> list[revocation_pb2.Revocation]:
    request = revocation_service_pb2.ListRevocationsRequest()
    return list((await world.caller(subject).revocations.ListRevocations(request)).revocations)


async def test_a_broker_that_is_well_says_so(world: World) -> None:
    agent = world.caller()
    held = await agent.issue("reports-secret")
    await agent.issue("reports-secret", task_id=held.task.id)
    await until(lambda: _seen(world))

    found = await _status(world)

    assert list(found.problems) == []
    assert (found.standing.active_tasks, found.standing.live_issuances) == (1, 2)
    assert found.database.kind in ("sqlite", "postgresql")
    assert found.database.migration == found.database.newest_migration == head_revision()
    assert found.vault.ready
    assert found.vault.version
    assert found.vault.HasField("token_ttl")
    assert abs(found.vault.clock_difference.ToTimedelta()) <= timedelta(seconds=1)
    assert [replica.name for replica in found.replicas] == [found.replica]


async def _seen(world: World) -> bool:
    return bool((await _status(world, "auditors/one")).replicas)


async def test_agents_are_told_nothing_of_it(world: World) -> None:
    agent = world.caller()
    status = agent.status.GetStatus(status_service_pb2.GetStatusRequest())
    assert (await refused(status)).reason == "ROLE_REQUIRED"
    listed = agent.revocations.ListRevocations(revocation_service_pb2.ListRevocationsRequest())
    assert (await refused(listed)).reason == "ROLE_REQUIRED"


async def test_what_vault_does_not_take_back_is_a_problem_until_it_is_gone(world: World) -> None:
    agent = world.caller()
    issued = await agent.issue("reports-secret")
    world.proxy.fail("revoke-accessor", "refuse_before", times=1000)
    await agent.tasks.CompleteTask(task_service_pb2.CompleteTaskRequest(id=issued.task.id))

    assert list((await _status(world)).problems) == []
    world.clock.offset = timedelta(seconds=62)

    found = await _status(world)
    problems = {problem.reason: problem for problem in found.problems}
    assert "REVOCATIONS_OVERDUE" in problems
    assert "Vault is sealed" in problems["REVOCATIONS_OVERDUE"].message
    assert [entry.task_id for entry in found.overdue_revocations] == [issued.task.id]
    (entry,) = await _pending(world)
    assert (entry.task_id, entry.reason, entry.issuance_id) == (issued.task.id, "task.completed", "")
    assert entry.attempts >= 1
    assert "Vault is sealed" in entry.last_error
    world.proxy.heal()
    world.clock.offset = timedelta(seconds=124)

    async def gone() -> bool:
        return not await _pending(world)

    await until(gone)
    assert "REVOCATIONS_OVERDUE" not in {problem.reason for problem in (await _status(world)).problems}


async def test_a_vault_that_is_away_is_a_problem(world: World) -> None:
    world.proxy.fail("sys/", "refuse_before", times=1000)

    found = await _status(world)

    assert [problem.reason for problem in found.problems] == ["VAULT_NOT_READY"]
    assert (found.vault.ready, "status 503" in found.vault.problem) == (False, True)
